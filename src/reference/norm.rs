//! LayerNorm.

use super::real::Real;

/// (y, mean, 1 / sqrt(variance + eps)) of each row; the variance is the biased one.
pub fn layer_norm<T: Real>(cols: usize, x: &[T], weight: &[T], bias: &[T], eps: f64) -> (Vec<T>, Vec<T>, Vec<T>) {
    let count = T::from_f64(cols as f64);
    let (mut y, mut means, mut rstds) = (Vec::with_capacity(x.len()), Vec::new(), Vec::new());
    for x in x.chunks_exact(cols) {
        let mean = x.iter().copied().sum::<T>() / count;
        let variance = x.iter().map(|&x| (x - mean) * (x - mean)).sum::<T>() / count;
        let rstd = T::ONE / (variance + T::from_f64(eps)).sqrt();
        for c in 0..cols {
            y.push((x[c] - mean) * rstd * weight[c] + bias[c]);
        }
        means.push(mean);
        rstds.push(rstd);
    }
    (y, means, rstds)
}

/// With h = (x - mean) rstd and dh = dy weight: dx = rstd (dh - mean(dh) - h mean(dh h)), dweight = sum dy h, dbias = sum dy.
#[allow(clippy::type_complexity)]
pub fn layer_norm_backward<T: Real>(
    cols: usize,
    x: &[T],
    weight: &[T],
    mean: &[T],
    rstd: &[T],
    dy: &[T],
    need: (bool, bool),
) -> (Option<Vec<T>>, Option<(Vec<T>, Vec<T>)>) {
    let count = T::from_f64(cols as f64);
    let mut dx = Vec::with_capacity(x.len());
    let (mut dweight, mut dbias) = (vec![T::ZERO; cols], vec![T::ZERO; cols]);
    for (i, (x, dy)) in x.chunks_exact(cols).zip(dy.chunks_exact(cols)).enumerate() {
        let h = |c: usize| (x[c] - mean[i]) * rstd[i];
        let dh = |c: usize| dy[c] * weight[c];
        let mean_dh = (0..cols).map(dh).sum::<T>() / count;
        let mean_dh_h = (0..cols).map(|c| dh(c) * h(c)).sum::<T>() / count;
        for c in 0..cols {
            dx.push(rstd[i] * (dh(c) - mean_dh - h(c) * mean_dh_h));
            dweight[c] += dy[c] * h(c);
            dbias[c] += dy[c];
        }
    }
    (need.0.then_some(dx), need.1.then_some((dweight, dbias)))
}
