//! Operations on each number alone: copies, sums, dropout, AdamW.

use super::math::simd;
use super::threads::PIECE;
use super::{Buffer, Cpu};
use crate::autograd::{AdamW, dropout_keeps};

/// f, `inline(always)`, of each number.
pub(super) fn map(cpu: &Cpu, x: &[f32], f: impl Fn(f32) -> f32 + Sync + Send) -> Buffer {
    let mut out = cpu.pool.dirty(x.len());
    cpu.threads.each(x.chunks(PIECE).zip(out.chunks_mut(PIECE)).collect(), |(x, out): (&[f32], &mut [f32])| {
        simd(
            #[inline(always)]
            || {
                for (&x, out) in x.iter().zip(out) {
                    *out = f(x);
                }
            },
        );
    });
    out
}

/// f, `inline(always)`, of each pair.
pub(super) fn map2(cpu: &Cpu, a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32 + Sync + Send) -> Buffer {
    let mut out = cpu.pool.dirty(a.len());
    let pieces = a.chunks(PIECE).zip(b.chunks(PIECE)).zip(out.chunks_mut(PIECE)).collect();
    cpu.threads.each(pieces, |((a, b), out): ((&[f32], &[f32]), &mut [f32])| {
        simd(
            #[inline(always)]
            || {
                for ((&a, &b), out) in a.iter().zip(b).zip(out) {
                    *out = f(a, b);
                }
            },
        );
    });
    out
}

/// acc += x.
pub(super) fn add_assign(cpu: &Cpu, acc: &mut [f32], x: &[f32]) {
    cpu.threads.each(acc.chunks_mut(PIECE).zip(x.chunks(PIECE)).collect(), |(acc, x): (&mut [f32], &[f32])| {
        simd(
            #[inline(always)]
            || super::math::add_assign(acc, x),
        );
    });
}

/// x *= factor.
pub(super) fn scale_assign(cpu: &Cpu, x: &mut [f32], factor: f32) {
    cpu.threads.each(x.chunks_mut(PIECE).collect(), |x: &mut [f32]| {
        simd(
            #[inline(always)]
            || super::math::scale(x, factor),
        )
    });
}

/// The sum of squares, in f64.
pub(super) fn sum_squares(cpu: &Cpu, x: &[f32]) -> f64 {
    let partials = cpu.threads.map(x.chunks(PIECE).collect(), |x: &[f32]| {
        simd(
            #[inline(always)]
            || {
                let mut lanes = [0.0_f64; 8];
                for x in x.chunks(8) {
                    for (lane, &x) in lanes.iter_mut().zip(x) {
                        *lane += f64::from(x) * f64::from(x);
                    }
                }
                lanes.iter().sum::<f64>()
            },
        )
    });
    partials.iter().sum()
}

/// See [`crate::autograd::Backend::dropout`].
pub(super) fn dropout(cpu: &Cpu, x: &[f32], p: f64, seed: u64, first: u64) -> Buffer {
    let factor = (1.0 / (1.0 - p)) as f32;
    let mut out = cpu.pool.dirty(x.len());
    let pieces = x.chunks(PIECE).zip(out.chunks_mut(PIECE)).enumerate().collect();
    cpu.threads.each(pieces, |(piece, (x, out)): (usize, (&[f32], &mut [f32]))| {
        simd(
            #[inline(always)]
            || {
                for (i, (&x, out)) in x.iter().zip(out).enumerate() {
                    *out = if dropout_keeps(seed, first + (piece * PIECE + i) as u64, p) { factor * x } else { 0.0 };
                }
            },
        );
    });
    out
}

/// ((value, gradient), (m, v)) of a piece.
type AdamPiece<'a> = ((&'a mut [f32], &'a [f32]), (&'a mut [f32], &'a mut [f32]));

/// See [`crate::autograd::Backend::adamw`].
pub(super) fn adamw(cpu: &Cpu, step: AdamW, value: &mut [f32], grad: &[f32], m: &mut [f32], v: &mut [f32]) {
    let steps = step.step as f64;
    let step_size = (step.lr / (1.0 - step.beta1.powf(steps))) as f32;
    let root_correction = (1.0 - step.beta2.powf(steps)).sqrt() as f32;
    let decay = (1.0 - step.lr * step.weight_decay) as f32;
    let (keep1, keep2, eps) = ((1.0 - step.beta1) as f32, (1.0 - step.beta2) as f32, step.eps as f32);
    let beta2 = step.beta2 as f32;
    let moments = m.chunks_mut(PIECE).zip(v.chunks_mut(PIECE));
    let pieces = value.chunks_mut(PIECE).zip(grad.chunks(PIECE)).zip(moments).collect();
    cpu.threads.each(pieces, |((value, grad), (m, v)): AdamPiece<'_>| {
        simd(
            #[inline(always)]
            || {
                for (((value, &grad), m), v) in value.iter_mut().zip(grad).zip(m).zip(v) {
                    *m += keep1 * (grad - *m);
                    *v = *v * beta2 + keep2 * grad * grad;
                    *value = *value * decay - step_size * (*m / (v.sqrt() / root_correction + eps));
                }
            },
        );
    });
}
