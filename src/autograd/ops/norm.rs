//! LayerNorm.

use super::{expect, rows_cols};
use crate::Result;
use crate::autograd::{Array, Backend, InputGrads, Needs, NormBackward, Onto, Tape, Tensor};
use crate::config::Level;

impl<B: Backend> Tape<'_, B> {
    /// LayerNorm over the last dimension (Ba et al. 2016), weight and bias \[cols\]. Keeps x and two statistics a row.
    pub fn layer_norm(&self, x: &Tensor<B>, weight: &Tensor<B>, bias: &Tensor<B>, eps: f64) -> Result<Tensor<B>> {
        self.layer_norm_again(x, weight, bias, eps, Level::Pointwise)
    }

    /// [`Tape::layer_norm`] whose output is computed again in the backward pass where the tape recomputes at least `from`.
    pub fn layer_norm_again(
        &self,
        x: &Tensor<B>,
        weight: &Tensor<B>,
        bias: &Tensor<B>,
        eps: f64,
        from: Level,
    ) -> Result<Tensor<B>> {
        let (rows, cols) = rows_cols("layer_norm's input", x.array())?;
        expect("layer_norm's weight", weight.array(), &[cols])?;
        expect("layer_norm's bias", bias.array(), &[cols])?;
        let (w, b) = (weight.array(), bias.array());
        let (y, mean, rstd) = self.backend().layer_norm(rows, cols, x.array().buffer(), w.buffer(), b.buffer(), eps)?;
        let y = Array::new(self.backend(), y, x.shape())?;
        let stats = [Array::new(self.backend(), mean, &[rows])?, Array::new(self.backend(), rstd, &[rows])?];
        if self.recompute() >= from && self.records(&[x, weight, bias]) {
            let sources = vec![x.array().clone(), w.clone(), b.clone()];
            let shape: Vec<usize> = x.shape().to_vec();
            let remake = move |backend: &B, from: &[Array<B>]| {
                let [x, w, b] = [0, 1, 2].map(|i| from[i].buffer());
                Array::new(backend, backend.layer_norm(rows, cols, x, w, b, eps)?.0, &shape)
            };
            self.make_again(&y, sources, Box::new(remake));
        }
        let mut saved = vec![x.array().clone(), w.clone()];
        saved.extend(stats);
        Ok(self.record("layer_norm", &[x, weight, bias], y, saved, (rows, cols), backward))
    }
}

fn backward<B: Backend>(
    backend: &B,
    (rows, cols): (usize, usize),
    saved: &[Array<B>],
    dy: Array<B>,
    needs: &mut Needs<B>,
) -> Result<InputGrads<B>> {
    let [x, weight, mean, rstd] = [0, 1, 2, 3].map(|i| saved[i].buffer());
    let args = NormBackward { rows, cols, x, weight, mean, rstd, dy: dy.buffer() };
    let need = (needs[0], needs[1] || needs[2]);
    let sums = needs.sums([Some(1), Some(2)])?;
    let onto = if need.0 { needs.so_far(0) } else { None };
    let (dx, dparams) = match onto {
        Some(grad) => {
            let gamma = needs.scale.clone();
            let onto = Onto { grad: grad.into_buffer()?, gamma: gamma.as_ref().map(Array::buffer) };
            let made = backend.layer_norm_backward_onto(args, need.1, sums, onto)?;
            if let Some(scaled) = made.scaled {
                needs.scaled_input = Some(Array::new(backend, scaled, dy.shape())?);
            }
            (Some(made.x), made.params)
        }
        None => backend.layer_norm_backward(args, need, sums)?,
    };
    let dx = dx.map(|dx| Array::new(backend, dx, dy.shape())).transpose()?;
    let (dweight, dbias) = match dparams {
        Some((dw, db)) => (Some(Array::new(backend, dw, &[cols])?), Some(Array::new(backend, db, &[cols])?)),
        None => (None, None),
    };
    Ok(vec![dx, dweight, dbias])
}
