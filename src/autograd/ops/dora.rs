//! DoRA's row norm and magnitude rescale, and dropout on an adapter's input.

use super::{expect, rows_cols};
use crate::Result;
use crate::autograd::{AdapterDims, Array, Backend, InputGrads, Needs, Tape, Tensor};

impl<B: Backend> Tape<'_, B> {
    /// n_j = || W_j + s (B A)_j || over an adapter's rows (Liu et al. 2024, equation 5). The gradient goes to A and B; a trained W is an error, since
    /// no strategy trains W under an adapter. Detach A and B to hold the norm constant, as the paper's section 4.3 and peft do.
    pub fn dora_norm(&self, dims: AdapterDims, w: &Tensor<B>, a: &Tensor<B>, b: &Tensor<B>) -> Result<Tensor<B>> {
        let (_, k) = rows_cols("dora_norm's weight", w.array())?;
        expect("dora_norm's A", a.array(), &[dims.rank, k])?;
        expect("dora_norm's B", b.array(), &[dims.rows, dims.rank])?;
        let norm = self.backend().dora_norm(dims, k, w.array().buffer(), a.array().buffer(), b.array().buffer())?;
        let norm = Array::new(self.backend(), norm, &[dims.rows])?;
        if self.records(&[w]) {
            return self.record_without_gradient("dora_norm of a trained weight", &[w], norm);
        }
        let saved = vec![w.array().clone(), a.array().clone(), b.array().clone(), norm.clone()];
        Ok(self.record("dora_norm", &[a, b], norm, saved, (dims, k), norm_backward))
    }

    /// g = magnitude / norm, elementwise, \[rows\].
    pub fn magnitude_rescale(&self, magnitude: &Tensor<B>, norm: &Tensor<B>) -> Result<Tensor<B>> {
        expect("magnitude_rescale's norm", norm.array(), magnitude.shape())?;
        let gain = self.backend().magnitude_rescale(magnitude.array().buffer(), norm.array().buffer())?;
        let gain = Array::new(self.backend(), gain, magnitude.shape())?;
        let saved = vec![magnitude.array().clone(), norm.array().clone()];
        Ok(self.record("magnitude_rescale", &[magnitude, norm], gain, saved, (), rescale_backward))
    }

    /// Inverted dropout with a mask that follows from `seed` and each element's place in the batch, where x begins at `first`: the backward
    /// pass recomputes it, nothing is kept.
    pub fn dropout(&self, x: &Tensor<B>, p: f64, seed: u64, first: u64) -> Result<Tensor<B>> {
        let y = Array::new(self.backend(), self.backend().dropout(x.array().buffer(), p, seed, first)?, x.shape())?;
        Ok(self.record("dropout", &[x], y, vec![], (p, seed, first), dropout_backward))
    }
}

fn norm_backward<B: Backend>(
    backend: &B,
    (dims, k): (AdapterDims, usize),
    saved: &[Array<B>],
    dnorm: Array<B>,
    _needs: &mut Needs<B>,
) -> Result<InputGrads<B>> {
    let [w, a, b, norm] = [0, 1, 2, 3].map(|i| saved[i].buffer());
    let (da, db) = backend.dora_norm_backward(dims, k, w, a, b, norm, dnorm.buffer())?;
    Ok(vec![Some(Array::new(backend, da, &[dims.rank, k])?), Some(Array::new(backend, db, &[dims.rows, dims.rank])?)])
}

fn rescale_backward<B: Backend>(
    backend: &B,
    (): (),
    saved: &[Array<B>],
    dgain: Array<B>,
    _needs: &mut Needs<B>,
) -> Result<InputGrads<B>> {
    let (dm, dn) = backend.magnitude_rescale_backward(saved[0].buffer(), saved[1].buffer(), dgain.buffer())?;
    Ok(vec![Some(Array::new(backend, dm, dgain.shape())?), Some(Array::new(backend, dn, dgain.shape())?)])
}

fn dropout_backward<B: Backend>(
    backend: &B,
    (p, seed, first): (f64, u64, u64),
    _saved: &[Array<B>],
    dy: Array<B>,
    _needs: &mut Needs<B>,
) -> Result<InputGrads<B>> {
    Ok(vec![Some(Array::new(backend, backend.dropout(dy.buffer(), p, seed, first)?, dy.shape())?)])
}
