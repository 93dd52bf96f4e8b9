//! The asymmetric loss for many labels (Ridnik et al. 2021), with a weight on the positives.

use super::real::Real;
use crate::autograd::Asymmetric;

/// x^exponent for x > 0, and its limit at 0.
fn power<T: Real>(x: T, exponent: f64) -> T {
    if exponent == 0.0 {
        T::ONE
    } else if x > T::ZERO {
        (T::from_f64(exponent) * x.ln()).exp()
    } else {
        T::ZERO
    }
}

/// (loss, dlogits), summed over all entries and divided by `denominator`. With p = sigmoid(x) and q = max(p - clip, 0) an entry's loss is
/// -k (1 - p)^gamma+ ln p where its target is positive, -q^gamma- ln(1 - q) where it is 0, and nothing where it is negative.
pub fn asymmetric_loss<T: Real>(constants: Asymmetric, logits: &[T], targets: &[f32], denominator: f64) -> (T, Vec<T>) {
    let Asymmetric { gamma_positive, gamma_negative, clip, positive_weight } = constants;
    let denominator = T::from_f64(denominator);
    let mut loss = T::ZERO;
    let mut dlogits = Vec::with_capacity(logits.len());
    for (&x, &target) in logits.iter().zip(targets) {
        let (p, not_p) = (T::ONE / (T::ONE + (-x).exp()), T::ONE / (T::ONE + x.exp()));
        let log_p = -((-x.abs()).exp().ln_1p() + (-x).max(T::ZERO));
        let log_not_p = -((-x.abs()).exp().ln_1p() + x.max(T::ZERO));
        let (value, slope) = if target > 0.0 {
            let weight = T::from_f64(positive_weight) * power(not_p, gamma_positive);
            // d (1 - p)^gamma = -gamma p (1 - p)^gamma, d ln p = 1 - p.
            (-weight * log_p, weight * (T::from_f64(gamma_positive) * p * log_p - not_p))
        } else if target == 0.0 && p > T::from_f64(clip) {
            let q = p - T::from_f64(clip);
            let rest = not_p + T::from_f64(clip);
            let log_rest = if clip == 0.0 { log_not_p } else { rest.ln() };
            let weight = power(q, gamma_negative);
            // dq = p (1 - p); d q^gamma = gamma q^gamma / q dq, d ln(1 - q) = -dq / (1 - q).
            let share = if clip == 0.0 { p } else { p * not_p / rest };
            (-weight * log_rest, weight * (share - T::from_f64(gamma_negative) * (log_rest / q) * p * not_p))
        } else {
            (T::ZERO, T::ZERO)
        };
        loss += value;
        dlogits.push(slope / denominator);
    }
    (loss / denominator, dlogits)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETS: [Asymmetric; 4] = [
        Asymmetric { gamma_positive: 0.0, gamma_negative: 1.0, clip: 0.05, positive_weight: 0.8 },
        Asymmetric { gamma_positive: 1.0, gamma_negative: 4.0, clip: 0.05, positive_weight: 1.0 },
        Asymmetric { gamma_positive: 0.0, gamma_negative: 0.0, clip: 0.0, positive_weight: 1.0 },
        Asymmetric { gamma_positive: 1.5, gamma_negative: 2.5, clip: 0.0, positive_weight: 2.0 },
    ];

    #[test]
    fn the_gradient_is_the_losss() {
        for constants in SETS {
            for x in [-6.0, -2.5, -1.0, -0.3, 0.0, 0.4, 1.7, 5.0_f64] {
                for target in [1.0, 0.0, -1.0] {
                    let loss = |x: f64| asymmetric_loss(constants, &[x], &[target], 3.0).0;
                    let step = 1e-5;
                    let slope = (loss(x + step) - loss(x - step)) / (2.0 * step);
                    let ours = asymmetric_loss(constants, &[x], &[target], 3.0).1[0];
                    assert!((ours - slope).abs() < 1e-8, "{constants:?} x {x} target {target}: {ours}, slope {slope}");
                }
            }
        }
    }

    #[test]
    fn without_focus_and_clip_it_is_binary_cross_entropy() {
        let (logits, targets) = ([-3.0, 0.5, 2.0, 40.0_f64], [1.0, 0.0, 1.0, 0.0]);
        let (ours, slopes) = asymmetric_loss(SETS[2], &logits, &targets, 2.0);
        let wide = targets.map(f64::from);
        let (theirs, theirs_slopes) = crate::reference::loss::binary_cross_entropy(&logits, &wide, 2.0);
        assert!((ours - theirs).abs() < 1e-12, "{ours}, {theirs}");
        for (ours, theirs) in slopes.iter().zip(theirs_slopes) {
            assert!((ours - theirs).abs() < 1e-12, "{ours}, {theirs}");
        }
    }

    #[test]
    fn large_logits_stay_finite_and_ignored_entries_count_for_nothing() {
        for constants in SETS {
            for x in [-1e4_f32, -100.0, 100.0, 1e4] {
                for target in [1.0, 0.0] {
                    let (loss, slopes) = asymmetric_loss(constants, &[x], &[target], 1.0);
                    assert!(loss.is_finite() && slopes[0].is_finite(), "{constants:?} x {x} target {target}");
                }
                assert_eq!(asymmetric_loss(constants, &[x], &[-1.0], 1.0), (0.0, vec![0.0]));
            }
        }
    }

    #[test]
    fn a_positive_by_hand() {
        // p = 1/2: -k (1/2)^gamma ln(1/2).
        let constants = Asymmetric { gamma_positive: 2.0, ..SETS[0] };
        let (loss, _) = asymmetric_loss(constants, &[0.0_f64], &[1.0], 1.0);
        assert!((loss - 0.8 * 0.25 * 2.0_f64.ln()).abs() < 1e-15);
    }
}
