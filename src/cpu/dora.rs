//! DoRA's row norms, gain and merging, a piece of rows at a time.

use super::elementwise::map2;
use super::math::{axpy, dot, scale, simd};
use super::threads::{add_up, piece_rows};
use super::{Buffer, Cpu};
use crate::autograd::{AdapterDims, DoraAdapter, GainBackward};

/// Row j of W + s B A into `out`.
#[inline(always)]
fn adapted_row(out: &mut [f32], dims: AdapterDims, w: &[f32], a: &[f32], b: &[f32], j: usize) {
    let k = out.len();
    out.copy_from_slice(&w[(dims.first_row + j) * k..][..k]);
    for (&b, a) in b[j * dims.rank..].iter().zip(a.chunks_exact(k)) {
        axpy(out, dims.scale as f32 * b, a);
    }
}

/// || W_j + s (B A)_j || of each row.
fn norm(cpu: &Cpu, dims: AdapterDims, k: usize, w: &[f32], a: &[f32], b: &[f32]) -> Buffer {
    let rows = piece_rows(k);
    let mut norm = cpu.pool.dirty(dims.rows);
    cpu.threads.each(norm.chunks_mut(rows).enumerate().collect(), |(piece, norm): (usize, &mut [f32])| {
        simd(
            #[inline(always)]
            || {
                let mut row = vec![0.0; k];
                for (i, norm) in norm.iter_mut().enumerate() {
                    adapted_row(&mut row, dims, w, a, b, piece * rows + i);
                    *norm = dot(&row, &row).sqrt();
                }
            },
        );
    });
    norm
}

/// What [`dora_norm_backward`] reads beside the adapter's sizes.
pub(super) struct NormInputs<'a> {
    pub(super) w: &'a [f32],
    pub(super) a: &'a [f32],
    pub(super) b: &'a [f32],
    pub(super) norm: &'a [f32],
    pub(super) dnorm: &'a [f32],
}

/// See [`crate::autograd::Backend::dora_norm_backward`].
pub(super) fn dora_norm_backward(cpu: &Cpu, dims: AdapterDims, k: usize, args: &NormInputs<'_>) -> (Buffer, Buffer) {
    let (rows, rank, s) = (piece_rows(k), dims.rank, dims.scale as f32);
    let (mut da, mut db) = (cpu.pool.zeros(rank * k), cpu.pool.dirty(dims.rows * rank));
    let partials =
        cpu.threads.map(db.chunks_mut(rows * rank).enumerate().collect(), |(piece, db): (usize, &mut [f32])| {
            simd(
                #[inline(always)]
                || {
                    let mut da = vec![0.0; rank * k];
                    let mut row = vec![0.0; k];
                    for (i, db) in db.chunks_exact_mut(rank).enumerate() {
                        let j = piece * rows + i;
                        adapted_row(&mut row, dims, args.w, args.a, args.b, j);
                        scale(&mut row, s * (args.dnorm[j] / args.norm[j]));
                        for (r, db) in db.iter_mut().enumerate() {
                            *db = dot(&row, &args.a[r * k..(r + 1) * k]);
                            axpy(&mut da[r * k..(r + 1) * k], args.b[j * rank + r], &row);
                        }
                    }
                    da
                },
            )
        });
    add_up(&mut da, partials);
    (da, db)
}

/// An adapter's norms and its gain m / n.
pub(super) fn gain(cpu: &Cpu, adapter: &DoraAdapter<'_, Buffer>) -> (Buffer, Buffer) {
    let norm = norm(cpu, adapter.dims, adapter.k, adapter.w, adapter.a, adapter.b);
    let gain = map2(
        cpu,
        adapter.magnitude,
        &norm,
        #[inline(always)]
        |m, n| m / n,
    );
    (norm, gain)
}

/// (dm, dn), the latter where it is asked for.
pub(super) fn gain_backward(cpu: &Cpu, gain: &GainBackward<'_, Buffer>) -> (Buffer, Option<Buffer>) {
    let dmagnitude = map2(
        cpu,
        gain.dgain,
        gain.norm,
        #[inline(always)]
        |dg, n| dg / n,
    );
    let dnorm = gain.need_norm.then(|| {
        let gain_over_norm = map2(
            cpu,
            gain.magnitude,
            gain.norm,
            #[inline(always)]
            |m, n| m / (n * n),
        );
        map2(
            cpu,
            gain.dgain,
            &gain_over_norm,
            #[inline(always)]
            |dg, g| -dg * g,
        )
    });
    (dmagnitude, dnorm)
}

/// See [`crate::autograd::Backend::merge`].
pub(super) fn merge(
    cpu: &Cpu,
    dims: AdapterDims,
    k: usize,
    w: &mut [f32],
    (a, b): (&[f32], &[f32]),
    gain: Option<&[f32]>,
) {
    let rows = piece_rows(k);
    let adapted = &mut w[dims.first_row * k..(dims.first_row + dims.rows) * k];
    cpu.threads.each(adapted.chunks_mut(rows * k).enumerate().collect(), |(piece, w): (usize, &mut [f32])| {
        simd(
            #[inline(always)]
            || {
                for (i, w) in w.chunks_exact_mut(k).enumerate() {
                    let j = piece * rows + i;
                    for (&b, a) in b[j * dims.rank..].iter().zip(a.chunks_exact(k)) {
                        axpy(w, dims.scale as f32 * b, a);
                    }
                    if let Some(gain) = gain {
                        scale(w, gain[j]);
                    }
                }
            },
        );
    });
}
