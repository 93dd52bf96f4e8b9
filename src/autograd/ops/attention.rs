//! Multi-head self-attention over packed queries, keys and values.

use super::expect;
use crate::Result;
use crate::autograd::{Array, AttentionDims, Backend, InputGrads, Needs, Tape, Tensor};

impl<B: Backend> Tape<'_, B> {
    /// softmax(q k^T / sqrt head_dim) v for every image and head. qkv \[batch * tokens, 3 D\]; the result \[batch * tokens, D\].
    ///
    /// Keeps qkv, the result and one log-sum-exp a row; probabilities are computed again in the backward pass (Dao et al. 2022).
    pub fn attention(&self, dims: AttentionDims, qkv: &Tensor<B>) -> Result<Tensor<B>> {
        let (rows, width) = (dims.batch * dims.tokens, dims.heads * dims.head_dim);
        expect("attention's qkv", qkv.array(), &[rows, 3 * width])?;
        let (out, lse) = self.backend().attention(dims, qkv.array().buffer())?;
        let out = Array::new(self.backend(), out, &[rows, width])?;
        let lse = Array::new(self.backend(), lse, &[dims.batch, dims.heads, dims.tokens])?;
        let saved = vec![qkv.array().clone(), out.clone(), lse];
        Ok(self.record("attention", &[qkv], out, saved, dims, backward))
    }
}

fn backward<B: Backend>(
    backend: &B,
    dims: AttentionDims,
    saved: &[Array<B>],
    dy: Array<B>,
    _needs: &mut Needs<B>,
) -> Result<InputGrads<B>> {
    let [qkv, out, lse] = [0, 1, 2].map(|i| &saved[i]);
    let dqkv = backend.attention_backward(dims, qkv.buffer(), out.buffer(), lse.buffer(), dy.buffer())?;
    Ok(vec![Some(Array::new(backend, dqkv, qkv.shape())?)])
}
