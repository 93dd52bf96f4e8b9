//! From which probability on an image is given a label: one half, or what serves a label best on validation images.

/// Probabilities are kept this far from 0 and 1, so that their logits are numbers.
const MARGIN: f64 = 1e-12;

/// The logit of a probability.
pub fn logit(probability: f64) -> f64 {
    let p = probability.clamp(MARGIN, 1.0 - MARGIN);
    (p / (1.0 - p)).ln()
}

/// The probability from which on a label has the highest F1 on these images, `(logit, whether it has the label)` each: halfway, as a logit,
/// between the last that is given the label and the first that is not, of several the highest. One half where no image has the label.
pub fn best_f1(mut pairs: Vec<(f32, bool)>) -> f64 {
    let support = pairs.iter().filter(|pair| pair.1).count();
    if support == 0 {
        return 0.5;
    }
    pairs.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (mut taken, mut correct) = (0, 0);
    let (mut best, mut between) = (0.0, 0.0);
    let groups: Vec<&[(f32, bool)]> = pairs.chunk_by(|a, b| a.0 == b.0).collect();
    for (at, equals) in groups.iter().enumerate() {
        taken += equals.len();
        correct += equals.iter().filter(|pair| pair.1).count();
        let f1 = (2 * correct) as f64 / (support + taken) as f64;
        if f1 > best {
            let last = f64::from(equals[0].0);
            // Below the lowest there is nothing to keep apart from.
            let next = groups.get(at + 1).map_or(last - 2.0, |next| f64::from(next[0].0));
            (best, between) = (f1, (last + next) / 2.0);
        }
    }
    (1.0 / (1.0 + (-between).exp())).clamp(MARGIN, 1.0 - MARGIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_of_all_thresholds() {
        // Falling: true, true, false, true, false: taking 4 gives 6 / 7, taking 2 only 4 / 5.
        let pairs = vec![(0.1, false), (2.0, true), (1.0, false), (0.5, true), (3.0, true)];
        let found = logit(best_f1(pairs));
        assert!((found - 0.3).abs() < 1e-6, "{found}");
        // All of them have it: below the lowest.
        assert!(logit(best_f1(vec![(-1.0, true), (-4.0, true)])) < -4.0);
        assert_eq!(best_f1(vec![(1.0, false)]), 0.5);
        assert_eq!(best_f1(vec![]), 0.5);
    }

    #[test]
    fn one_half_is_a_logit_of_zero() {
        assert_eq!(logit(0.5), 0.0);
        assert!(logit(1.0).is_finite() && logit(0.0).is_finite());
    }
}
