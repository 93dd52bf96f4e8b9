//! Every operation as plain loops, written from its formula and for nothing but obviousness: the truth that the fast backends are
//! tested against. In f64 it also carries the finite-difference checks.

mod attention;
pub mod augment;
mod dora;
pub mod dora_norm;
mod linear;
mod loss;
mod loss_asymmetric;
mod loss_tree;
mod mlp;
mod norm;
mod optimizer;
mod real;
mod tokens;

use std::marker::PhantomData;

pub use loss_asymmetric::asymmetric_loss;
pub use loss_tree::tree_loss;
pub use real::Real;

use crate::Result;
use crate::autograd::{
    AdamW, Adapter, AdapterDims, AttentionDims, Backend, DoraAdapter, GainBackward, GainGrads, LinearBackward,
    LinearDims, LinearGrads, LinearOutput, NormBackward, Sums, TokenDims, TreeLoss, dropout_keeps,
};

/// The plain-loop backend, in f32 or f64.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reference<T>(PhantomData<T>);

impl<T: Real> Reference<T> {
    /// A backend.
    pub fn new() -> Self {
        Self(PhantomData)
    }

    /// As [`Backend::upload`], without a rounding to f32.
    pub fn upload_f64(&self, values: &[f64]) -> Vec<T> {
        values.iter().map(|&value| T::from_f64(value)).collect()
    }

    /// As [`Backend::download`], without a rounding to f32.
    pub fn download_f64(&self, buffer: &[T]) -> Vec<f64> {
        buffer.iter().map(|&value| value.to_f64()).collect()
    }
}

impl<T: Real> Backend for Reference<T> {
    type Buffer = Vec<T>;
    type Recording = ();
    type Prepared = ();

    fn upload(&self, values: &[f32]) -> Result<Vec<T>> {
        Ok(values.iter().map(|&value| T::from_f64(f64::from(value))).collect())
    }
    fn download(&self, buffer: &Vec<T>) -> Result<Vec<f32>> {
        Ok(buffer.iter().map(|&value| value.to_f64() as f32).collect())
    }
    fn len(&self, buffer: &Vec<T>) -> usize {
        buffer.len()
    }
    fn bytes(&self, buffer: &Vec<T>) -> usize {
        size_of_val(&buffer[..])
    }
    fn copy(&self, buffer: &Vec<T>) -> Result<Vec<T>> {
        Ok(buffer.clone())
    }
    fn add_assign(&self, acc: &mut Vec<T>, x: &Vec<T>) -> Result<()> {
        acc.iter_mut().zip(x).for_each(|(acc, &x)| *acc += x);
        Ok(())
    }
    fn scale_assign(&self, x: &mut Vec<T>, factor: f64) -> Result<()> {
        x.iter_mut().for_each(|x| *x *= T::from_f64(factor));
        Ok(())
    }
    fn sum_squares(&self, x: &Vec<T>) -> Result<f64> {
        Ok(x.iter().map(|&x| x.to_f64() * x.to_f64()).sum())
    }
    fn patches(&self, images: &[u8], batch: usize, size: usize, patch: usize) -> Result<Vec<T>> {
        Ok(tokens::patches(images, batch, size, patch))
    }
    fn linear(
        &self,
        dims: LinearDims,
        x: &Vec<T>,
        w: &Vec<T>,
        bias: Option<&Vec<T>>,
        adapters: &[Adapter<'_, Vec<T>>],
    ) -> Result<LinearOutput<Vec<T>>> {
        Ok(linear::linear(dims, x, w, bias, adapters))
    }
    fn linear_backward(&self, args: LinearBackward<'_, Vec<T>>, mut sums: Sums<Vec<T>>) -> Result<LinearGrads<Vec<T>>> {
        let mut grads = linear::linear_backward(args);
        grads.w = grads.w.map(|w| sums.finish(0, w, add));
        grads.bias = grads.bias.map(|bias| sums.finish(1, bias, add));
        for (index, grads) in grads.adapters.iter_mut().enumerate() {
            grads.a = grads.a.take().map(|a| sums.finish(2 + 3 * index, a, add));
            grads.b = grads.b.take().map(|b| sums.finish(3 + 3 * index, b, add));
            grads.gain = grads.gain.take().map(|gain| sums.finish(4 + 3 * index, gain, add));
        }
        Ok(grads)
    }
    fn dora_gains(&self, list: &[DoraAdapter<'_, Vec<T>>]) -> Result<Vec<(Vec<T>, Vec<T>)>> {
        let gains = list.iter().map(|DoraAdapter { dims, k, w, a, b, magnitude }| {
            let rows = &w[dims.first_row * k..][..dims.rows * k];
            let norm = dora_norm::dora_norm(rows, a, b, T::from_f64(dims.scale), dims.rows, *k, dims.rank);
            let gain = dora::magnitude_rescale(magnitude, &norm);
            (norm, gain)
        });
        Ok(gains.collect())
    }
    fn dora_gains_backward(
        &self,
        list: &[GainBackward<'_, Vec<T>>],
        mut sums: Sums<Vec<T>>,
    ) -> Result<Vec<GainGrads<Vec<T>>>> {
        let gradients = list.iter().enumerate().map(|(place, gain)| {
            let (dm, dn) = dora::magnitude_rescale_backward(gain.magnitude, gain.norm, gain.dgain);
            (sums.finish(place, dm, add), gain.need_norm.then_some(dn))
        });
        Ok(gradients.collect())
    }
    #[allow(clippy::too_many_arguments)]
    fn dora_norm_backward(
        &self,
        dims: AdapterDims,
        k: usize,
        w: &Vec<T>,
        a: &Vec<T>,
        b: &Vec<T>,
        norm: &Vec<T>,
        dnorm: &Vec<T>,
    ) -> Result<(Vec<T>, Vec<T>)> {
        Ok(dora::dora_norm_backward(dims, k, w, a, b, norm, dnorm))
    }
    fn merge(
        &self,
        dims: AdapterDims,
        k: usize,
        w: &mut Vec<T>,
        a: &Vec<T>,
        b: &Vec<T>,
        gain: Option<&Vec<T>>,
    ) -> Result<()> {
        dora::merge(dims, k, w, a, b, gain);
        Ok(())
    }
    fn dropout(&self, x: &Vec<T>, p: f64, seed: u64, first: u64) -> Result<Vec<T>> {
        let scale = T::from_f64(1.0 / (1.0 - p));
        Ok(x.iter()
            .enumerate()
            .map(|(i, &x)| if dropout_keeps(seed, first + i as u64, p) { scale * x } else { T::ZERO })
            .collect())
    }
    fn attention(&self, dims: AttentionDims, qkv: &Vec<T>) -> Result<(Vec<T>, Vec<T>)> {
        Ok(attention::attention(dims, qkv))
    }
    fn attention_backward(
        &self,
        dims: AttentionDims,
        qkv: &Vec<T>,
        out: &Vec<T>,
        log_sum_exp: &Vec<T>,
        dout: &Vec<T>,
    ) -> Result<Vec<T>> {
        Ok(attention::attention_backward(dims, qkv, out, log_sum_exp, dout))
    }
    fn layer_norm(
        &self,
        _rows: usize,
        cols: usize,
        x: &Vec<T>,
        weight: &Vec<T>,
        bias: &Vec<T>,
        eps: f64,
    ) -> Result<(Vec<T>, Vec<T>, Vec<T>)> {
        Ok(norm::layer_norm(cols, x, weight, bias, eps))
    }
    #[allow(clippy::type_complexity)]
    fn layer_norm_backward(
        &self,
        args: NormBackward<'_, Vec<T>>,
        need: (bool, bool),
        mut sums: Sums<Vec<T>>,
    ) -> Result<(Option<Vec<T>>, Option<(Vec<T>, Vec<T>)>)> {
        let NormBackward { cols, x, weight, mean, rstd, dy, .. } = args;
        let (dx, made) = norm::layer_norm_backward(cols, x, weight, mean, rstd, dy, need);
        Ok((dx, made.map(|(dweight, dbias)| (sums.finish(0, dweight, add), sums.finish(1, dbias, add)))))
    }
    fn gelu(&self, x: &Vec<T>) -> Result<Vec<T>> {
        Ok(mlp::gelu(x))
    }
    fn gelu_backward(&self, x: &Vec<T>, dy: &Vec<T>) -> Result<Vec<T>> {
        Ok(mlp::gelu_backward(x, dy))
    }
    fn swiglu(&self, _rows: usize, width: usize, h: &Vec<T>) -> Result<Vec<T>> {
        Ok(mlp::swiglu(width, h))
    }
    fn swiglu_backward(&self, _rows: usize, width: usize, h: &Vec<T>, dy: &Vec<T>) -> Result<Vec<T>> {
        Ok(mlp::swiglu_backward(width, h, dy))
    }
    fn layer_scale(&self, _rows: usize, cols: usize, x: &Vec<T>, h: &Vec<T>, gamma: &Vec<T>) -> Result<Vec<T>> {
        Ok(mlp::layer_scale(cols, x, h, gamma))
    }
    #[allow(clippy::type_complexity)]
    fn layer_scale_backward(
        &self,
        _rows: usize,
        cols: usize,
        h: Option<&Vec<T>>,
        gamma: &Vec<T>,
        dy: &Vec<T>,
        need: (bool, bool),
        mut sums: Sums<Vec<T>>,
    ) -> Result<(Option<Vec<T>>, Option<Vec<T>>)> {
        let (dh, dgamma) = mlp::layer_scale_backward(cols, h, gamma, dy, need);
        Ok((dh, dgamma.map(|dgamma| sums.finish(0, dgamma, add))))
    }
    fn resample_positions(
        &self,
        from: usize,
        to: usize,
        width: usize,
        pos: &Vec<T>,
        matrix: &Vec<T>,
    ) -> Result<Vec<T>> {
        Ok(tokens::resample_positions(from, to, width, pos, matrix))
    }
    fn resample_positions_backward(
        &self,
        from: usize,
        to: usize,
        width: usize,
        matrix: &Vec<T>,
        dy: &Vec<T>,
    ) -> Result<Vec<T>> {
        Ok(tokens::resample_positions_backward(from, to, width, matrix, dy))
    }
    fn assemble_tokens(
        &self,
        dims: TokenDims,
        patches: &Vec<T>,
        cls: &Vec<T>,
        pos: &Vec<T>,
        registers: Option<&Vec<T>>,
    ) -> Result<Vec<T>> {
        Ok(tokens::assemble_tokens(dims, patches, cls, pos, registers))
    }
    #[allow(clippy::type_complexity)]
    fn assemble_tokens_backward(
        &self,
        dims: TokenDims,
        dy: &Vec<T>,
        mut sums: Sums<Vec<T>>,
    ) -> Result<(Vec<T>, Vec<T>, Vec<T>, Option<Vec<T>>)> {
        let (patches, cls, pos, registers) = tokens::assemble_tokens_backward(dims, dy);
        let (cls, pos) = (sums.finish(0, cls, add), sums.finish(1, pos, add));
        Ok((patches, cls, pos, registers.map(|registers| sums.finish(2, registers, add))))
    }
    fn pool(&self, dims: TokenDims, with_mean: bool, x: &Vec<T>) -> Result<Vec<T>> {
        Ok(tokens::pool(dims, with_mean, x))
    }
    fn pool_backward(&self, dims: TokenDims, with_mean: bool, dy: &Vec<T>) -> Result<Vec<T>> {
        Ok(tokens::pool_backward(dims, with_mean, dy))
    }
    fn cross_entropy(
        &self,
        classes: usize,
        logits: &Vec<T>,
        labels: &Vec<T>,
        weights: Option<&Vec<T>>,
        smoothing: f64,
        denominator: f64,
        mut sums: Sums<Vec<T>>,
    ) -> Result<(Vec<T>, Vec<T>)> {
        let (loss, dlogits) =
            loss::cross_entropy(classes, logits, labels, weights.map(Vec::as_slice), smoothing, denominator);
        Ok((sums.finish(0, vec![loss], add), dlogits))
    }
    fn binary_cross_entropy(
        &self,
        logits: &Vec<T>,
        targets: &Vec<T>,
        denominator: f64,
        mut sums: Sums<Vec<T>>,
    ) -> Result<(Vec<T>, Vec<T>)> {
        let (loss, dlogits) = loss::binary_cross_entropy(logits, targets, denominator);
        Ok((sums.finish(0, vec![loss], add), dlogits))
    }
    fn tree_loss(
        &self,
        loss: TreeLoss,
        logits: &Vec<T>,
        targets: &Vec<T>,
        begins: &Vec<T>,
        denominator: f64,
        mut sums: Sums<Vec<T>>,
    ) -> Result<(Vec<T>, Vec<T>)> {
        let begins: Vec<usize> = begins.iter().map(|begin| begin.to_f64() as usize).collect();
        let (loss, dlogits) = loss_tree::tree_loss(loss, &begins, logits, targets, denominator);
        Ok((sums.finish(0, vec![loss], add), dlogits))
    }
    fn adamw(&self, step: AdamW, value: &mut Vec<T>, grad: &Vec<T>, m: &mut Vec<T>, v: &mut Vec<T>) -> Result<()> {
        optimizer::adamw(step, value, grad, m, v);
        Ok(())
    }
}

// The type is the buffer's.
#[allow(clippy::ptr_arg)]
fn add<T: Real>(sum: &mut Vec<T>, more: &Vec<T>) {
    sum.iter_mut().zip(more).for_each(|(sum, &more)| *sum += more);
}
