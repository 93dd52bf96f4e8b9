//! GELU, SwiGLU, LayerScale with the residual.

use super::{expect, rows_cols};
use crate::autograd::{Array, Backend, InputGrads, Needs, Tape, Tensor};
use crate::{Error, Result};

impl<B: Backend> Tape<'_, B> {
    /// GELU, erf form (Hendrycks and Gimpel 2016). Keeps x.
    pub fn gelu(&self, x: &Tensor<B>) -> Result<Tensor<B>> {
        let y = Array::new(self.backend(), self.backend().gelu(x.array().buffer())?, x.shape())?;
        Ok(self.record("gelu", &[x], y, vec![x.array().clone()], (), |backend, (), saved, dy, _| {
            let dx = backend.gelu_backward(saved[0].buffer(), dy.buffer())?;
            Ok(vec![Some(Array::new(backend, dx, dy.shape())?)])
        }))
    }

    /// silu(gate) * up of h = gate | up (Shazeer 2020), halving the last dimension. Keeps h.
    pub fn swiglu(&self, h: &Tensor<B>) -> Result<Tensor<B>> {
        let (rows, cols) = rows_cols("swiglu's input", h.array())?;
        if cols % 2 != 0 {
            return Err(Error::shape("swiglu", "an even width", h.shape()));
        }
        let y = self.backend().swiglu(rows, cols / 2, h.array().buffer())?;
        let mut shape = h.shape().to_vec();
        shape.pop();
        shape.push(cols / 2);
        let y = Array::new(self.backend(), y, &shape)?;
        Ok(self.record("swiglu", &[h], y, vec![h.array().clone()], (rows, cols / 2), swiglu_backward))
    }

    /// x + gamma * h: LayerScale (Touvron et al. 2021) and the residual. Keeps gamma, and h where dgamma asks for it.
    pub fn layer_scale(&self, x: &Tensor<B>, h: &Tensor<B>, gamma: &Tensor<B>) -> Result<Tensor<B>> {
        let (rows, cols) = rows_cols("layer_scale's input", x.array())?;
        expect("layer_scale's branch", h.array(), x.shape())?;
        expect("layer_scale's gamma", gamma.array(), &[cols])?;
        let y =
            self.backend().layer_scale(rows, cols, x.array().buffer(), h.array().buffer(), gamma.array().buffer())?;
        let y = Array::new(self.backend(), y, x.shape())?;
        let mut saved = vec![gamma.array().clone()];
        saved.extend(gamma.needs_grad().then(|| h.array().clone()));
        let y = self.record("layer_scale", &[x, h, gamma], y, saved, (rows, cols), layer_scale_backward);
        // A trained gamma's own gradient reads dy and h anyway.
        Ok(if gamma.needs_grad() { y } else { self.with_scale(y, gamma.array()) })
    }
}

fn swiglu_backward<B: Backend>(
    backend: &B,
    (rows, width): (usize, usize),
    saved: &[Array<B>],
    dy: Array<B>,
    _needs: &mut Needs<B>,
) -> Result<InputGrads<B>> {
    let h = &saved[0];
    let dh = backend.swiglu_backward(rows, width, h.buffer(), dy.buffer())?;
    Ok(vec![Some(Array::new(backend, dh, h.shape())?)])
}

fn layer_scale_backward<B: Backend>(
    backend: &B,
    (rows, cols): (usize, usize),
    saved: &[Array<B>],
    dy: Array<B>,
    needs: &mut Needs<B>,
) -> Result<InputGrads<B>> {
    if let Some(scaled) = needs.scaled_output.take() {
        return Ok(vec![Some(dy), needs[1].then_some(scaled), None]);
    }
    let h = saved.get(1).map(Array::buffer);
    let need = (needs[1], needs[2]);
    let sums = needs.sums([Some(2)])?;
    let (dh, dgamma) = backend.layer_scale_backward(rows, cols, h, saved[0].buffer(), dy.buffer(), need, sums)?;
    let dh = dh.map(|dh| Array::new(backend, dh, dy.shape())).transpose()?;
    let dgamma = dgamma.map(|dgamma| Array::new(backend, dgamma, &[cols])).transpose()?;
    Ok(vec![Some(dy), dh, dgamma])
}
