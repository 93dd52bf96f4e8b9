//! Losses with their gradients.

use super::real::Real;

/// Softmax cross-entropy against (1 - smoothing) one-hot + smoothing / classes, each row's times the weight of its label.
pub fn cross_entropy<T: Real>(
    classes: usize,
    logits: &[T],
    labels: &[T],
    weights: Option<&[T]>,
    smoothing: f64,
    denominator: f64,
) -> (T, Vec<T>) {
    let denominator = T::from_f64(denominator);
    let mut loss = T::ZERO;
    let mut dlogits = Vec::with_capacity(logits.len());
    for (logits, label) in logits.chunks_exact(classes).zip(labels) {
        let label = label.to_f64() as usize;
        let weight = weights.map_or(T::ONE, |weights| weights[label]);
        let max = logits.iter().fold(logits[0], |max, &logit| max.max(logit));
        let log_sum = max + logits.iter().map(|&logit| (logit - max).exp()).sum::<T>().ln();
        for (class, &logit) in logits.iter().enumerate() {
            let one_hot = if class == label { 1.0 - smoothing } else { 0.0 };
            let target = T::from_f64(one_hot + smoothing / classes as f64);
            loss -= weight * (target * (logit - log_sum));
            dlogits.push(weight * ((logit - log_sum).exp() - target) / denominator);
        }
    }
    (loss / denominator, dlogits)
}

/// Binary cross-entropy of sigmoids: max(x, 0) - x target + ln(1 + exp(-|x|)) for each entry; nothing where the target is negative.
pub fn binary_cross_entropy<T: Real>(logits: &[T], targets: &[T], denominator: f64) -> (T, Vec<T>) {
    let denominator = T::from_f64(denominator);
    let mut loss = T::ZERO;
    let mut dlogits = Vec::with_capacity(logits.len());
    for (&x, &target) in logits.iter().zip(targets) {
        if target < T::ZERO {
            // Nothing, but for a NaN, which shows wherever it is.
            let nothing = if x.to_f64().is_nan() { x } else { T::ZERO };
            loss += nothing;
            dlogits.push(nothing);
            continue;
        }
        loss += x.max(T::ZERO) - x * target + (-x.abs()).exp().ln_1p();
        dlogits.push((T::ONE / (T::ONE + (-x).exp()) - target) / denominator);
    }
    (loss / denominator, dlogits)
}
