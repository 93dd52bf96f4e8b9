//! Losses: small, so in f64 on one thread.

use std::ops::Range;

use crate::autograd::{Asymmetric, TreeLoss};

/// (losses of granules of `rows` rows, dlogits) of softmax cross-entropy; see [`crate::autograd::Backend::cross_entropy`].
pub(super) fn cross_entropy(
    classes: usize,
    logits: &[f32],
    labels: &[f32],
    weights: Option<&[f32]>,
    smoothing: f64,
    denominator: f64,
    rows: usize,
) -> (Vec<f32>, Vec<f32>) {
    let mut losses = vec![0.0; labels.len().div_ceil(rows)];
    let mut dlogits = Vec::with_capacity(logits.len());
    for (row, (logits, &label)) in logits.chunks_exact(classes).zip(labels).enumerate() {
        let label = label as usize;
        let weight = weights.map_or(1.0, |weights| f64::from(weights[label]));
        losses[row / rows] += weight * softmax(logits, label, smoothing, weight / denominator, &mut dlogits);
    }
    (divided(losses, denominator), dlogits)
}

/// The cross-entropy of one softmax; its gradient times `factor` goes behind `dlogits`.
fn softmax(logits: &[f32], label: usize, smoothing: f64, factor: f64, dlogits: &mut Vec<f32>) -> f64 {
    let max = f64::from(super::math::largest(logits));
    let log_sum = max + logits.iter().map(|&logit| (f64::from(logit) - max).exp()).sum::<f64>().ln();
    let mut loss = 0.0;
    for (class, &logit) in logits.iter().enumerate() {
        let target = smoothing / logits.len() as f64 + if class == label { 1.0 - smoothing } else { 0.0 };
        let log_p = f64::from(logit) - log_sum;
        loss -= target * log_p;
        dlogits.push(((log_p.exp() - target) * factor) as f32);
    }
    loss
}

/// (losses of granules of `rows` rows, dlogits) of a tree of labels; see [`crate::autograd::Backend::tree_loss`].
pub(super) fn tree_loss(
    loss: TreeLoss,
    begins: &[f32],
    logits: &[f32],
    targets: &[f32],
    denominator: f64,
    rows: usize,
) -> (Vec<f32>, Vec<f32>) {
    let cols = loss.cols.max(1);
    let mut losses = vec![0.0; (logits.len() / cols).div_ceil(rows)];
    let mut dlogits = Vec::with_capacity(logits.len());
    let heads: Vec<_> = begins.windows(2).map(|ends| ends[0] as usize..ends[1] as usize).collect();
    let single = begins.last().map_or(0, |&begin| begin as usize);
    for (row, (logits, targets)) in logits.chunks_exact(cols).zip(targets.chunks_exact(cols)).enumerate() {
        let label = |head: &Range<usize>| targets[head.clone()].iter().position(|&target| target > 0.5);
        let present = heads.iter().filter(|head| label(head).is_some()).count() as f64;
        let own = &mut losses[row / rows];
        for head in &heads {
            match label(head) {
                Some(label) => {
                    let factor = 1.0 / (denominator * present);
                    *own += softmax(&logits[head.clone()], label, loss.smoothing, factor, &mut dlogits) / present;
                }
                None => dlogits.extend(head.clone().map(|_| 0.0)),
            }
        }
        for (&x, &target) in logits[single..].iter().zip(&targets[single..]) {
            let (value, slope) = asymmetric(loss.single, f64::from(x), target);
            *own += value;
            dlogits.push((slope / denominator) as f32);
        }
    }
    (divided(losses, denominator), dlogits)
}

/// The asymmetric loss of one logit, and its derivative; see [`crate::reference::asymmetric_loss`].
fn asymmetric(constants: Asymmetric, x: f64, target: f32) -> (f64, f64) {
    let Asymmetric { gamma_positive, gamma_negative, clip, positive_weight } = constants;
    let (p, not_p) = (1.0 / (1.0 + (-x).exp()), 1.0 / (1.0 + x.exp()));
    let small = (-x.abs()).exp().ln_1p();
    if x.is_nan() {
        return (x, x);
    }
    if target > 0.0 {
        let (log_p, weight) = (x.min(0.0) - small, positive_weight * not_p.powf(gamma_positive));
        return (-weight * log_p, weight * (gamma_positive * p * log_p - not_p));
    }
    if target < 0.0 || p <= clip {
        return (0.0, 0.0);
    }
    let (q, rest) = (p - clip, not_p + clip);
    let log_rest = if clip == 0.0 { -x.max(0.0) - small } else { rest.ln() };
    let weight = q.powf(gamma_negative);
    let share = if clip == 0.0 { p } else { p * not_p / rest };
    (-weight * log_rest, weight * (share - gamma_negative * (log_rest / q) * p * not_p))
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
        if target < 0.0 {
            // A NaN shows wherever it is.
            losses[i / count] += if x.is_nan() { f64::NAN } else { 0.0 };
            return if x.is_nan() { f32::NAN } else { 0.0 };
        }
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
