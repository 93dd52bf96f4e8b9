//! GELU, SwiGLU and LayerScale.

use super::elementwise::{map, map2};
use super::math::{normal, sigmoid, simd};
use super::threads::{add_up, piece_rows, runs};
use super::{Buffer, Cpu};
use crate::autograd::Sums;

/// 1 / sqrt(2 pi).
const DENSITY: f32 = 0.398_942_3;

/// See [`crate::autograd::Backend::gelu`].
pub(super) fn gelu(cpu: &Cpu, x: &[f32]) -> Buffer {
    map(
        cpu,
        x,
        #[inline(always)]
        |x| x * normal(x).0,
    )
}

/// See [`crate::autograd::Backend::gelu_backward`].
pub(super) fn gelu_backward(cpu: &Cpu, x: &[f32], dy: &[f32]) -> Buffer {
    map2(
        cpu,
        x,
        dy,
        #[inline(always)]
        |x, dy| {
            let (cdf, bell) = normal(x);
            dy * (cdf + x * (DENSITY * bell))
        },
    )
}

/// See [`crate::autograd::Backend::swiglu`].
pub(super) fn swiglu(cpu: &Cpu, width: usize, h: &[f32]) -> Buffer {
    let rows = piece_rows(2 * width);
    let mut y = cpu.pool.dirty(h.len() / 2);
    let pieces = h.chunks(rows * 2 * width).zip(y.chunks_mut(rows * width)).collect();
    cpu.threads.each(pieces, |(h, y): (&[f32], &mut [f32])| {
        simd(
            #[inline(always)]
            || {
                for (h, y) in h.chunks_exact(2 * width).zip(y.chunks_exact_mut(width)) {
                    let (gate, up) = h.split_at(width);
                    for ((y, &gate), &up) in y.iter_mut().zip(gate).zip(up) {
                        *y = gate * sigmoid(gate) * up;
                    }
                }
            },
        );
    });
    y
}

/// See [`crate::autograd::Backend::swiglu_backward`].
pub(super) fn swiglu_backward(cpu: &Cpu, width: usize, h: &[f32], dy: &[f32]) -> Buffer {
    let rows = piece_rows(2 * width);
    let mut dh = cpu.pool.dirty(h.len());
    let pieces = h.chunks(rows * 2 * width).zip(dy.chunks(rows * width)).zip(dh.chunks_mut(rows * 2 * width));
    cpu.threads.each(pieces.collect(), |((h, dy), dh): ((&[f32], &[f32]), &mut [f32])| {
        simd(
            #[inline(always)]
            || {
                let rows = h.chunks_exact(2 * width).zip(dy.chunks_exact(width)).zip(dh.chunks_exact_mut(2 * width));
                for ((h, dy), dh) in rows {
                    let (gate, up) = h.split_at(width);
                    let (dgate, dup) = dh.split_at_mut(width);
                    for c in 0..width.min(dy.len()).min(dup.len()).min(dgate.len()).min(up.len()) {
                        let sigma = sigmoid(gate[c]);
                        dgate[c] = dy[c] * up[c] * sigma * (1.0 + gate[c] * (1.0 - sigma));
                        dup[c] = dy[c] * gate[c] * sigma;
                    }
                }
            },
        );
    });
    dh
}

/// See [`crate::autograd::Backend::layer_scale`].
pub(super) fn layer_scale(cpu: &Cpu, cols: usize, x: &[f32], h: &[f32], gamma: &[f32]) -> Buffer {
    let len = piece_rows(cols) * cols;
    let mut out = cpu.pool.dirty(x.len());
    let pieces = x.chunks(len).zip(h.chunks(len)).zip(out.chunks_mut(len)).collect();
    cpu.threads.each(pieces, |((x, h), out): ((&[f32], &[f32]), &mut [f32])| {
        simd(
            #[inline(always)]
            || {
                for ((x, h), out) in x.chunks_exact(cols).zip(h.chunks_exact(cols)).zip(out.chunks_exact_mut(cols)) {
                    for (((out, &x), &h), &gamma) in out.iter_mut().zip(x).zip(h).zip(gamma) {
                        *out = x + gamma * h;
                    }
                }
            },
        );
    });
    out
}

/// See [`crate::autograd::Backend::layer_scale_backward`].
pub(super) fn layer_scale_backward(
    cpu: &Cpu,
    cols: usize,
    h: Option<&[f32]>,
    gamma: &[f32],
    dy: &[f32],
    need: (bool, bool),
    mut sums: Sums<Buffer>,
) -> (Option<Buffer>, Option<Buffer>) {
    let len = piece_rows(cols) * cols;
    let mut dh = need.0.then(|| cpu.pool.dirty(dy.len()));
    if let Some(dh) = &mut dh {
        cpu.threads.each(dy.chunks(len).zip(dh.chunks_mut(len)).collect(), |(dy, dh): (&[f32], &mut [f32])| {
            simd(
                #[inline(always)]
                || {
                    for (dy, dh) in dy.chunks_exact(cols).zip(dh.chunks_exact_mut(cols)) {
                        for ((dh, &dy), &gamma) in dh.iter_mut().zip(dy).zip(gamma) {
                            *dh = gamma * dy;
                        }
                    }
                },
            );
        });
    }
    let dgamma = h.filter(|_| need.1).map(|h| {
        let rows = dy.len() / cols;
        let runs = runs(rows, sums.granule(rows), piece_rows(cols));
        let partials = cpu.threads.map(runs.clone(), |run| {
            let part = run.first * cols..(run.first + run.count) * cols;
            let (dy, h) = (&dy[part.clone()], &h[part]);
            simd(
                #[inline(always)]
                || {
                    let mut sums = vec![0.0; cols];
                    for (dy, h) in dy.chunks_exact(cols).zip(h.chunks_exact(cols)) {
                        for ((sum, &dy), &h) in sums.iter_mut().zip(dy).zip(h) {
                            *sum += dy * h;
                        }
                    }
                    sums
                },
            )
        });
        let mut dgamma = cpu.sum_block(&mut sums, 0, cols);
        let mut partials = runs.iter().zip(partials).peekable();
        while let Some((run, mut sum)) = partials.next() {
            while let Some((_, more)) = partials.next_if(|(next, _)| next.granule == run.granule) {
                add_up(&mut sum, [more]);
            }
            add_up(&mut dgamma, [sum]);
        }
        dgamma
    });
    (dh, dgamma)
}
