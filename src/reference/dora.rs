//! DoRA's pieces: row norms of W + s B A, the gain, merging.

use super::real::{Real, dot};
use crate::autograd::AdapterDims;

/// Row j of V = W + s B A, counted within the adapter.
fn adapted_row<T: Real>(dims: AdapterDims, k: usize, w: &[T], a: &[T], b: &[T], j: usize) -> Vec<T> {
    let s = T::from_f64(dims.scale);
    let w = &w[(dims.first_row + j) * k..][..k];
    (0..k).map(|c| w[c] + s * (0..dims.rank).map(|r| b[j * dims.rank + r] * a[r * k + c]).sum::<T>()).collect()
}

/// (dA, dB): with dV = (dn / n) V, dB = s dV A^T and dA = s B^T dV.
#[allow(clippy::too_many_arguments)]
pub fn dora_norm_backward<T: Real>(
    dims: AdapterDims,
    k: usize,
    w: &[T],
    a: &[T],
    b: &[T],
    norm: &[T],
    dnorm: &[T],
) -> (Vec<T>, Vec<T>) {
    let s = T::from_f64(dims.scale);
    let (mut da, mut db) = (vec![T::ZERO; a.len()], vec![T::ZERO; b.len()]);
    for j in 0..dims.rows {
        let mut dv = adapted_row(dims, k, w, a, b, j);
        dv.iter_mut().for_each(|v| *v *= dnorm[j] / norm[j]);
        for r in 0..dims.rank {
            db[j * dims.rank + r] = s * dot(&dv, &a[r * k..][..k]);
            for c in 0..k {
                da[r * k + c] += s * b[j * dims.rank + r] * dv[c];
            }
        }
    }
    (da, db)
}

/// g = magnitude / norm.
pub fn magnitude_rescale<T: Real>(magnitude: &[T], norm: &[T]) -> Vec<T> {
    magnitude.iter().zip(norm).map(|(&m, &n)| m / n).collect()
}

/// (dmagnitude, dnorm) = (dg / n, -dg m / n^2).
pub fn magnitude_rescale_backward<T: Real>(magnitude: &[T], norm: &[T], dgain: &[T]) -> (Vec<T>, Vec<T>) {
    let dmagnitude = dgain.iter().zip(norm).map(|(&dg, &n)| dg / n).collect();
    let dnorm = dgain.iter().zip(magnitude).zip(norm).map(|((&dg, &m), &n)| -dg * m / (n * n)).collect();
    (dmagnitude, dnorm)
}

/// g V over the adapter's rows of W.
pub fn merge<T: Real>(dims: AdapterDims, k: usize, w: &mut [T], a: &[T], b: &[T], gain: Option<&Vec<T>>) {
    for j in 0..dims.rows {
        let row = adapted_row(dims, k, w, a, b, j);
        let gain = gain.map_or(T::ONE, |gain| gain[j]);
        for (w, &v) in w[(dims.first_row + j) * k..][..k].iter_mut().zip(&row) {
            *w = gain * v;
        }
    }
}
