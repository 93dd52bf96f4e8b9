//! Attention: a block of queries of one image at a time, its scores against all keys of a head in the second-level cache.

use super::gemm::{add_product, columns, columns_mut, mat, mat_mut, product};
use super::math::{dot, exp, largest, scale, simd, sum};
use super::threads::even;
use super::{Buffer, Cpu};
use crate::autograd::AttentionDims;

/// Scores in a block, about: 160 KiB.
const SCORES: usize = 40 * 1024;

/// Queries a block: the same for a batch of one and of a hundred.
fn block(tokens: usize) -> usize {
    even(tokens, (SCORES / tokens).clamp(16, tokens.max(16)))
}

/// See [`crate::autograd::Backend::attention`].
pub(super) fn attention(cpu: &Cpu, dims: AttentionDims, qkv: &[f32]) -> (Buffer, Buffer) {
    let AttentionDims { batch, tokens, heads, head_dim } = dims;
    let (width, rows) = (heads * head_dim, block(tokens));
    let factor = 1.0 / (head_dim as f32).sqrt();
    let mut out = cpu.pool.dirty(batch * tokens * width);
    let pieces = out.chunks_mut(tokens * width).enumerate().flat_map(|(image, out)| {
        out.chunks_mut(rows * width).enumerate().map(move |(block, out)| (image, block * rows, out))
    });
    let blocks = cpu.threads.map(pieces.collect(), |(image, first, out)| {
        let count = out.len() / width;
        let qkv = &qkv[image * tokens * 3 * width..];
        let mut scores = cpu.pool.dirty(count * tokens);
        let mut log_sum_exp = vec![0.0; heads * count];
        for head in 0..heads {
            let part = |part: usize| part * width + head * head_dim;
            let q = columns(&qkv[first * 3 * width..], count, 3 * width, part(0), head_dim);
            let k = columns(qkv, tokens, 3 * width, part(1), head_dim);
            let v = columns(qkv, tokens, 3 * width, part(2), head_dim);
            product(mat_mut(&mut scores, count, tokens), q, k.transpose(), factor);
            let mut sums = vec![0.0; count];
            simd(
                #[inline(always)]
                || {
                    let lse = &mut log_sum_exp[head * count..(head + 1) * count];
                    for ((row, sum_of_row), lse) in scores.chunks_exact_mut(tokens).zip(&mut sums).zip(lse) {
                        let max = largest(row);
                        for score in row.iter_mut() {
                            *score = exp(*score - max);
                        }
                        *sum_of_row = sum(row);
                        *lse = max + sum_of_row.ln();
                    }
                },
            );
            product(columns_mut(out, count, width, part(0), head_dim), mat(&scores, count, tokens), v, 1.0);
            // Dividing the result is less than dividing the probabilities.
            for (out, sum) in out.chunks_exact_mut(width).zip(&sums) {
                scale(&mut out[part(0)..part(0) + head_dim], 1.0 / sum);
            }
        }
        (image, first, log_sum_exp)
    });
    let mut log_sum_exp = cpu.pool.dirty(batch * heads * tokens);
    for (image, first, block) in blocks {
        let count = block.len() / heads;
        for (head, block) in block.chunks_exact(count).enumerate() {
            let start = (image * heads + head) * tokens + first;
            log_sum_exp[start..start + count].copy_from_slice(block);
        }
    }
    (out, log_sum_exp)
}

/// See [`crate::autograd::Backend::attention_backward`]: the probabilities again from the log-sum-exp, an image at a time, since dK and
/// dV sum over its queries.
pub(super) fn attention_backward(
    cpu: &Cpu,
    dims: AttentionDims,
    qkv: &[f32],
    out: &[f32],
    log_sum_exp: &[f32],
    dout: &[f32],
) -> Buffer {
    let AttentionDims { batch, tokens, heads, head_dim } = dims;
    let width = heads * head_dim;
    let mut dqkv = cpu.pool.dirty(batch * tokens * 3 * width);
    cpu.threads.each(
        dqkv.chunks_mut(tokens * 3 * width).enumerate().collect(),
        |(image, dqkv): (usize, &mut [f32])| {
            let at = image * tokens * width;
            let qkv = &qkv[3 * at..3 * (at + tokens * width)];
            let (out, dout) = (&out[at..at + tokens * width], &dout[at..at + tokens * width]);
            let log_sum_exp = &log_sum_exp[image * heads * tokens..(image + 1) * heads * tokens];
            let rows = block(tokens);
            let mut scratch = (cpu.pool.dirty(rows * tokens), cpu.pool.dirty(rows * tokens));
            for head in 0..heads {
                let head =
                    Head { tokens, width, head_dim, offset: head * head_dim, lse: &log_sum_exp[head * tokens..] };
                for first in (0..tokens).step_by(rows) {
                    head.backward(first, rows.min(tokens - first), qkv, out, dout, &mut scratch, dqkv);
                }
            }
        },
    );
    dqkv
}

/// One head of one image.
struct Head<'a> {
    tokens: usize,
    /// Of all heads.
    width: usize,
    head_dim: usize,
    /// Where the head starts among `width`.
    offset: usize,
    lse: &'a [f32],
}

impl Head<'_> {
    /// What the queries `first .. first + count` give dq, dk and dv; the first block writes dk and dv, the others add.
    #[allow(clippy::too_many_arguments)]
    fn backward(
        &self,
        first: usize,
        count: usize,
        qkv: &[f32],
        out: &[f32],
        dout: &[f32],
        scratch: &mut (Buffer, Buffer),
        dqkv: &mut [f32],
    ) {
        let Self { tokens, width, head_dim, offset, lse } = *self;
        let factor = 1.0 / (head_dim as f32).sqrt();
        let part = |part: usize| part * width + offset;
        let q = columns(&qkv[first * 3 * width..], count, 3 * width, part(0), head_dim);
        let k = columns(qkv, tokens, 3 * width, part(1), head_dim);
        let v = columns(qkv, tokens, 3 * width, part(2), head_dim);
        let dout_block = columns(&dout[first * width..], count, width, offset, head_dim);
        let (p, ds) = scratch;
        let (p, ds) = (&mut p[..count * tokens], &mut ds[..count * tokens]);
        product(mat_mut(p, count, tokens), q, k.transpose(), factor);
        product(mat_mut(ds, count, tokens), dout_block, v.transpose(), 1.0);
        simd(
            #[inline(always)]
            || {
                for (i, (p, ds)) in p.chunks_exact_mut(tokens).zip(ds.chunks_exact_mut(tokens)).enumerate() {
                    let place = (first + i) * width + offset;
                    let delta = dot(&out[place..place + head_dim], &dout[place..place + head_dim]);
                    let lse = lse[first + i];
                    for (p, ds) in p.iter_mut().zip(ds) {
                        *p = exp(*p - lse);
                        *ds = *p * (*ds - delta) * factor;
                    }
                }
            },
        );
        let (p, ds) = (mat(p, count, tokens), mat(ds, count, tokens));
        let mut dkv = |which: usize, a, b| {
            let into = columns_mut(dqkv, tokens, 3 * width, part(which), head_dim);
            if first == 0 { product(into, a, b, 1.0) } else { add_product(into, a, b) }
        };
        dkv(1, ds.transpose(), q);
        dkv(2, p.transpose(), dout_block);
        product(columns_mut(&mut dqkv[first * 3 * width..], count, 3 * width, part(0), head_dim), ds, k, 1.0);
    }
}
