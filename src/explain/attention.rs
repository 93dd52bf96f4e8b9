//! One image's attention on the host, and how relevance goes back through it.
//!
//! Relevance is a row over tokens: how much each of them has to do with what the head reads. Both methods are products of one matrix a block,
//! of which only a row is wanted (that of the head), so the row goes through the blocks from the last to the first and no product of
//! matrices is ever made.

use rayon::prelude::*;

use crate::autograd::AttentionDims;
use crate::{Error, Result};

/// Rows of attention that one thread takes at a time; partial sums are added in their order, so that the bits do not depend on threads.
const ROWS: usize = 16;

/// The queries, keys and values of one image in one block.
#[derive(Clone, Copy)]
pub struct BlockAttention<'a> {
    dims: AttentionDims,
    qkv: &'a [f32],
}

impl<'a> BlockAttention<'a> {
    /// `qkv` \[tokens, 3 D\] of one image; `dims.batch` says nothing here.
    ///
    /// # Errors
    /// Another length.
    pub fn new(dims: AttentionDims, qkv: &'a [f32]) -> Result<Self> {
        let expected = dims.tokens * 3 * dims.heads * dims.head_dim;
        if qkv.len() != expected {
            return Err(Error::shape("attention's qkv of one image", expected, qkv.len()));
        }
        Ok(Self { dims, qkv })
    }

    /// A head's query (0), key (1) or value (2) of a token \[head_dim\].
    fn part(&self, which: usize, head: usize, token: usize) -> &'a [f32] {
        let AttentionDims { heads, head_dim, .. } = self.dims;
        let first = ((token * 3 + which) * heads + head) * head_dim;
        &self.qkv[first..first + head_dim]
    }

    /// A row of softmax(q k^T / sqrt head_dim) \[tokens\].
    fn probabilities(&self, head: usize, token: usize, row: &mut [f32]) {
        let (query, scale) = (self.part(0, head, token), 1.0 / (self.dims.head_dim as f32).sqrt());
        for (key, out) in row.iter_mut().enumerate() {
            *out = dot(query, self.part(1, head, key)) * scale;
        }
        let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        row.iter_mut().for_each(|x| *x = (*x - most).exp());
        let sum: f32 = row.iter().sum();
        row.iter_mut().for_each(|x| *x /= sum);
    }

    /// The probabilities, averaged over heads \[tokens, tokens\]; each row sums to one.
    pub fn mean_probabilities(&self) -> Vec<f32> {
        let AttentionDims { tokens, heads, .. } = self.dims;
        let mut mean = vec![0.0; tokens * tokens];
        mean.par_chunks_mut(tokens).enumerate().for_each(|(token, out)| {
            let mut row = vec![0.0; tokens];
            for head in 0..heads {
                self.probabilities(head, token, &mut row);
                out.iter_mut().zip(&row).for_each(|(out, p)| *out += p / heads as f32);
            }
        });
        mean
    }

    /// Takes relevance \[tokens\] back through the block, gradient-weighted: r becomes r + r M with M the mean over heads of the positive part
    /// of dY/dA * A (Chefer et al. 2021, equations 5 and 6), where dY/dA = dO V^T. `attended_grad` is dO \[tokens, D\], the gradient of the
    /// explained logit Y with respect to what attention made.
    ///
    /// # Errors
    /// Lengths that do not fit.
    pub fn pass_gradient(&self, attended_grad: &[f32], relevance: &mut [f64]) -> Result<()> {
        let AttentionDims { tokens, heads, head_dim, .. } = self.dims;
        if attended_grad.len() != tokens * heads * head_dim || relevance.len() != tokens {
            let found = (attended_grad.len(), relevance.len());
            return Err(Error::shape("a gradient and a relevance", (tokens * heads * head_dim, tokens), found));
        }
        let of_rows = |rows: std::ops::Range<usize>| {
            let (mut sum, mut row) = (vec![0.0; tokens], vec![0.0; tokens]);
            // What is of no relevance passes none on: with a head on CLS alone that is all but one row of the last block.
            for token in rows.filter(|&token| relevance[token] != 0.0) {
                for head in 0..heads {
                    self.probabilities(head, token, &mut row);
                    let grad = &attended_grad[(token * heads + head) * head_dim..][..head_dim];
                    for (other, (sum, p)) in sum.iter_mut().zip(&row).enumerate() {
                        let weighted = f64::from(dot(grad, self.part(2, head, other)) * p);
                        *sum += relevance[token] * weighted.max(0.0);
                    }
                }
            }
            sum
        };
        let starts: Vec<usize> = (0..tokens).step_by(ROWS).collect();
        let sums: Vec<Vec<f64>> =
            starts.into_par_iter().map(|first| of_rows(first..(first + ROWS).min(tokens))).collect();
        for sum in sums {
            relevance.iter_mut().zip(sum).for_each(|(r, sum)| *r += sum / heads as f64);
        }
        Ok(())
    }
}

/// Attention rollout: relevance \[tokens\] taken back through the blocks, whose probabilities averaged over heads are given, the first block's
/// first. Each takes r to r A' with A' = A / 2 + I / 2 (Abnar and Zuidema 2020, equation 1); rows of A sum to one, so those of A' do.
///
/// # Errors
/// Probabilities that are not \[tokens, tokens\].
pub fn rollout(start: Vec<f64>, blocks: &[Vec<f32>]) -> Result<Vec<f64>> {
    let tokens = start.len();
    let mut relevance = start;
    for probabilities in blocks.iter().rev() {
        if probabilities.len() != tokens * tokens {
            return Err(Error::shape("attention's probabilities", tokens * tokens, probabilities.len()));
        }
        let mut next: Vec<f64> = relevance.iter().map(|r| r / 2.0).collect();
        for (r, row) in relevance.iter().zip(probabilities.chunks_exact(tokens)) {
            next.iter_mut().zip(row).for_each(|(next, p)| *next += r / 2.0 * f64::from(*p));
        }
        relevance = next;
    }
    Ok(relevance)
}

/// Sums that run side by side in [`dot`].
const LANES: usize = 8;

/// The inner product, with sums that compile to a vector.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let (a, b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let tail: f32 = a.remainder().iter().zip(b.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a.zip(b) {
        for (lane, (a, b)) in lanes.iter_mut().zip(a.iter().zip(b)) {
            *lane += a * b;
        }
    }
    lanes.iter().sum::<f32>() + tail
}
