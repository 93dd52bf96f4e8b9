//! The loss of a tree of labels: softmax heads side by side, sigmoids behind them.

use super::loss::cross_entropy;
use super::loss_asymmetric::asymmetric_loss;
use super::real::Real;
use crate::autograd::TreeLoss;

/// (loss, dlogits): see [`crate::autograd::Backend::tree_loss`].
pub fn tree_loss<T: Real>(
    loss: TreeLoss,
    begins: &[usize],
    logits: &[T],
    targets: &[T],
    denominator: f64,
) -> (T, Vec<T>) {
    let (mut sum, mut dlogits) = (T::ZERO, vec![T::ZERO; logits.len()]);
    let rows = logits.chunks_exact(loss.cols).zip(targets.chunks_exact(loss.cols));
    for ((logits, targets), dlogits) in rows.zip(dlogits.chunks_exact_mut(loss.cols)) {
        let heads = begins.windows(2).map(|ends| ends[0]..ends[1]);
        let labelled: Vec<_> = heads
            .filter_map(|head| {
                let label = targets[head.clone()].iter().position(|target| target.to_f64() > 0.5)?;
                Some((head, label))
            })
            .collect();
        let share = denominator * labelled.len() as f64;
        for (head, label) in labelled {
            let label = T::from_f64(label as f64);
            let (value, slopes) =
                cross_entropy(head.len(), &logits[head.clone()], &[label], None, loss.smoothing, share);
            sum += value;
            dlogits[head].copy_from_slice(&slopes);
        }
        let single = begins[begins.len() - 1]..loss.cols;
        let wide: Vec<f32> = targets[single.clone()].iter().map(|target| target.to_f64() as f32).collect();
        let (value, slopes) = asymmetric_loss(loss.single, &logits[single.clone()], &wide, denominator);
        sum += value;
        dlogits[single].copy_from_slice(&slopes);
    }
    (sum, dlogits)
}
