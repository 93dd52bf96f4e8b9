//! Losses: small, so in f64 on one thread.

/// (losses of granules of `rows` rows, dlogits) of softmax cross-entropy; see [`crate::autograd::Backend::cross_entropy`].
pub(super) fn cross_entropy(
    classes: usize,
    logits: &[f32],
    labels: &[f32],
    smoothing: f64,
    denominator: f64,
    rows: usize,
) -> (Vec<f32>, Vec<f32>) {
    let mut losses = vec![0.0; labels.len().div_ceil(rows)];
    let mut dlogits = Vec::with_capacity(logits.len());
    for (row, (logits, &label)) in logits.chunks_exact(classes).zip(labels).enumerate() {
        let label = label as usize;
        let loss: &mut f64 = &mut losses[row / rows];
        let max = f64::from(super::math::largest(logits));
        let log_sum = max + logits.iter().map(|&logit| (f64::from(logit) - max).exp()).sum::<f64>().ln();
        for (class, &logit) in logits.iter().enumerate() {
            let target = smoothing / classes as f64 + if class == label { 1.0 - smoothing } else { 0.0 };
            let log_p = f64::from(logit) - log_sum;
            *loss -= target * log_p;
            dlogits.push(((log_p.exp() - target) / denominator) as f32);
        }
    }
    (divided(losses, denominator), dlogits)
}

/// (losses of granules of `count` values, dlogits) of sigmoids; see [`crate::autograd::Backend::binary_cross_entropy`].
pub(super) fn binary_cross_entropy(
    logits: &[f32],
    targets: &[f32],
    denominator: f64,
    count: usize,
) -> (Vec<f32>, Vec<f32>) {
    let mut losses = vec![0.0; targets.len().div_ceil(count)];
    let dlogits = logits.iter().zip(targets).enumerate().map(|(i, (&x, &target))| {
        let (x, target) = (f64::from(x), f64::from(target));
        // ln(1 + e^x) - x target, without overflow; the comparison lets NaN through.
        losses[i / count] += if x < 0.0 { 0.0 } else { x } - x * target + (-x.abs()).exp().ln_1p();
        ((1.0 / (1.0 + (-x).exp()) - target) / denominator) as f32
    });
    let dlogits = dlogits.collect();
    (divided(losses, denominator), dlogits)
}

fn divided(losses: Vec<f64>, denominator: f64) -> Vec<f32> {
    losses.into_iter().map(|loss| (loss / denominator) as f32).collect()
}
