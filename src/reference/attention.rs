//! Multi-head attention with softmax.

use super::real::{Real, dot};
use crate::autograd::AttentionDims;

/// Where q (`part` 0), k (1) or v (2) of one token and head lies in qkv.
fn place(dims: AttentionDims, part: usize, image: usize, head: usize, token: usize) -> std::ops::Range<usize> {
    let width = dims.heads * dims.head_dim;
    let start = (image * dims.tokens + token) * 3 * width + part * width + head * dims.head_dim;
    start..start + dims.head_dim
}

/// Where one token and head lies in the result.
fn out_place(dims: AttentionDims, image: usize, head: usize, token: usize) -> std::ops::Range<usize> {
    let start = ((image * dims.tokens + token) * dims.heads + head) * dims.head_dim;
    start..start + dims.head_dim
}

/// (softmax(q k^T / sqrt head_dim) v, log-sum-exp of each row of the scaled scores).
pub fn attention<T: Real>(dims: AttentionDims, qkv: &[T]) -> (Vec<T>, Vec<T>) {
    let scale = T::ONE / T::from_f64(dims.head_dim as f64).sqrt();
    let mut out = vec![T::ZERO; dims.batch * dims.tokens * dims.heads * dims.head_dim];
    let mut log_sum_exp = Vec::with_capacity(dims.batch * dims.heads * dims.tokens);
    for image in 0..dims.batch {
        for head in 0..dims.heads {
            for i in 0..dims.tokens {
                let q = &qkv[place(dims, 0, image, head, i)];
                let scores: Vec<T> =
                    (0..dims.tokens).map(|j| scale * dot(q, &qkv[place(dims, 1, image, head, j)])).collect();
                let max = scores.iter().fold(scores[0], |max, &score| max.max(score));
                let sum: T = scores.iter().map(|&score| (score - max).exp()).sum();
                let lse = max + sum.ln();
                for (j, &score) in scores.iter().enumerate() {
                    let p = (score - max).exp() / sum;
                    let v = &qkv[place(dims, 2, image, head, j)];
                    for (out, &v) in out[out_place(dims, image, head, i)].iter_mut().zip(v) {
                        *out += p * v;
                    }
                }
                log_sum_exp.push(lse);
            }
        }
    }
    (out, log_sum_exp)
}

/// dqkv, from the probabilities P = exp(score - log-sum-exp): dV = P^T dO, dS = P (dO V^T - rowsum(dO O)), dQ = dS K / sqrt d,
/// dK = dS^T Q / sqrt d.
pub fn attention_backward<T: Real>(dims: AttentionDims, qkv: &[T], out: &[T], log_sum_exp: &[T], dout: &[T]) -> Vec<T> {
    let scale = T::ONE / T::from_f64(dims.head_dim as f64).sqrt();
    let mut dqkv = vec![T::ZERO; qkv.len()];
    for image in 0..dims.batch {
        for head in 0..dims.heads {
            for i in 0..dims.tokens {
                let o = out_place(dims, image, head, i);
                let dout = &dout[o.clone()];
                let delta = dot(dout, &out[o]);
                let lse = log_sum_exp[(image * dims.heads + head) * dims.tokens + i];
                let q = place(dims, 0, image, head, i);
                for j in 0..dims.tokens {
                    let k = place(dims, 1, image, head, j);
                    let v = place(dims, 2, image, head, j);
                    let p = (scale * dot(&qkv[q.clone()], &qkv[k.clone()]) - lse).exp();
                    let ds = p * (dot(dout, &qkv[v.clone()]) - delta);
                    for c in 0..dims.head_dim {
                        dqkv[v.start + c] += p * dout[c];
                        dqkv[q.start + c] += scale * ds * qkv[k.start + c];
                        dqkv[k.start + c] += scale * ds * qkv[q.start + c];
                    }
                }
            }
        }
    }
    dqkv
}
