//! From patches to a sequence, and from a sequence to the head's input.

use super::{expect, rows_cols};
use crate::autograd::{Array, Backend, InputGrads, Needs, Tape, Tensor, TokenDims};
use crate::{Error, Result};

impl<B: Backend> Tape<'_, B> {
    /// Position embeddings for another grid: matrix \[to, from\] times the patch positions, CLS's kept. pos \[1 + from, width\]; keeps the matrix.
    pub fn resample_positions(&self, pos: &Tensor<B>, matrix: &Array<B>) -> Result<Tensor<B>> {
        let (rows, width) = rows_cols("position embeddings", pos.array())?;
        let &[to, from] = matrix.shape() else {
            return Err(Error::shape("a resampling matrix", "[to, from]", matrix.shape()));
        };
        if rows != from + 1 {
            return Err(Error::shape("position embeddings", [from + 1, width], pos.shape()));
        }
        let out = self.backend().resample_positions(from, to, width, pos.array().buffer(), matrix.buffer())?;
        let out = Array::new(self.backend(), out, &[1 + to, width])?;
        Ok(self.record("resample_positions", &[pos], out, vec![matrix.clone()], (from, to, width), resample_backward))
    }

    /// CLS, registers and patches as sequences \[batch * tokens, width\], positions added. Keeps nothing.
    pub fn assemble_tokens(
        &self,
        dims: TokenDims,
        patches: &Tensor<B>,
        cls: &Tensor<B>,
        pos: &Tensor<B>,
        registers: Option<&Tensor<B>>,
    ) -> Result<Tensor<B>> {
        expect("patch embeddings", patches.array(), &[dims.batch * dims.patches, dims.width])?;
        expect("the class token", cls.array(), &[dims.width])?;
        expect("position embeddings", pos.array(), &[1 + dims.patches, dims.width])?;
        match registers {
            Some(registers) => expect("register tokens", registers.array(), &[dims.registers, dims.width])?,
            None if dims.registers > 0 => return Err(Error::shape("register tokens", dims.registers, 0)),
            None => {}
        }
        let out = self.backend().assemble_tokens(
            dims,
            patches.array().buffer(),
            cls.array().buffer(),
            pos.array().buffer(),
            registers.map(|r| r.array().buffer()),
        )?;
        let out = Array::new(self.backend(), out, &[dims.batch * dims.tokens(), dims.width])?;
        let mut inputs = vec![patches, cls, pos];
        inputs.extend(registers);
        Ok(self.record("assemble_tokens", &inputs, out, vec![], dims, assemble_backward))
    }

    /// CLS, or CLS beside the mean of the patch tokens: \[batch, width or 2 width\]. Keeps nothing.
    pub fn pool(&self, dims: TokenDims, with_mean: bool, x: &Tensor<B>) -> Result<Tensor<B>> {
        expect("pooling", x.array(), &[dims.batch * dims.tokens(), dims.width])?;
        let width = if with_mean { 2 * dims.width } else { dims.width };
        let out = self.backend().pool(dims, with_mean, x.array().buffer())?;
        let out = Array::new(self.backend(), out, &[dims.batch, width])?;
        Ok(self.record("pool", &[x], out, vec![], (dims, with_mean), pool_backward))
    }
}

fn resample_backward<B: Backend>(
    backend: &B,
    (from, to, width): (usize, usize, usize),
    saved: &[Array<B>],
    dy: Array<B>,
    _needs: &mut Needs<B>,
) -> Result<InputGrads<B>> {
    let dpos = backend.resample_positions_backward(from, to, width, saved[0].buffer(), dy.buffer())?;
    Ok(vec![Some(Array::new(backend, dpos, &[1 + from, width])?)])
}

fn assemble_backward<B: Backend>(
    backend: &B,
    dims: TokenDims,
    _saved: &[Array<B>],
    dy: Array<B>,
    needs: &mut Needs<B>,
) -> Result<InputGrads<B>> {
    let sums = needs.sums([Some(1), Some(2), (needs.count() == 4).then_some(3)])?;
    let (dpatches, dcls, dpos, dregisters) = backend.assemble_tokens_backward(dims, dy.buffer(), sums)?;
    let width = dims.width;
    let mut grads = vec![
        Some(Array::new(backend, dpatches, &[dims.batch * dims.patches, width])?),
        Some(Array::new(backend, dcls, &[width])?),
        Some(Array::new(backend, dpos, &[1 + dims.patches, width])?),
    ];
    if needs.count() == 4 {
        grads.push(dregisters.map(|d| Array::new(backend, d, &[dims.registers, width])).transpose()?);
    }
    Ok(grads)
}

fn pool_backward<B: Backend>(
    backend: &B,
    (dims, with_mean): (TokenDims, bool),
    _saved: &[Array<B>],
    dy: Array<B>,
    _needs: &mut Needs<B>,
) -> Result<InputGrads<B>> {
    let dx = backend.pool_backward(dims, with_mean, dy.buffer())?;
    Ok(vec![Some(Array::new(backend, dx, &[dims.batch * dims.tokens(), dims.width])?)])
}
