//! Relevance of each patch of an image, from a model on any device.

use super::attention::{BlockAttention, rollout};
use crate::autograd::{Array, Backend, Derived, Params, Tape, Tensor, TokenDims};
use crate::config::Pool;
use crate::vit::{Mode, Vit};
use crate::{Error, Result};

/// Labels whose gradients are taken in one pass over the model.
const LABELS_AT_ONCE: usize = 8;

/// Explains a model's outputs, image by image.
///
/// A map is \[grid, grid\] in row-major order, one number a patch, larger where the patch has more to do with the output. Register tokens take
/// part in attention as the model has it, so relevance flows through them; what ends on them, and on CLS, is cut off.
///
/// The head reads CLS, or CLS beside the mean of the patches, and relevance begins with what it reads:
///
/// - Of a label's gradient, pooling is one more attention whose probabilities are fixed: 1 on CLS for the first half, 1 / patches on each patch
///   for the second. Equation 5 then gives token t the positive part of A_t dY/dA_t = A_t w x_t, with x the tokens after the final norm and
///   w the label's weights on that half: what the token adds to the logit. Where no token adds to it, as for rollout.
/// - Rollout knows no label: a share s on CLS and the rest spread evenly over the patches, s = |w_cls| / (|w_cls| + |w_mean|) by the norms of the
///   head's weights on each half.
///
/// So a head that was trained on CLS alone and is stored with zeros for the mean is explained as what it is.
pub struct Explainer<'a, B: Backend> {
    vit: &'a Vit,
    params: &'a Params<B>,
    derived: Derived<B>,
    /// The head's weight \[classes, D or 2 D\].
    head: Vec<f32>,
}

impl<'a, B: Backend> Explainer<'a, B> {
    /// For a model whose values do not change meanwhile.
    ///
    /// # Errors
    /// No memory on the device.
    pub fn new(vit: &'a Vit, params: &'a Params<B>) -> Result<Self> {
        let derived = vit.derive(&Tape::inference(params))?;
        Ok(Self { vit, params, derived, head: params.download(vit.head.weight)? })
    }

    /// Patches along a side of the image.
    pub fn grid(&self) -> usize {
        self.vit.input_size / self.vit.config.patch
    }

    /// Logits \[classes\] of a square u8 \[S, S, 3\] and, where asked for, its rollout map.
    ///
    /// # Errors
    /// An image of another size, logits that are no numbers.
    pub fn look(&self, square: &[u8], with_rollout: bool) -> Result<(Vec<f32>, Option<Vec<f64>>)> {
        let (backend, dims) = (self.params.backend(), self.vit.attention_dims(1));
        let tape = Tape::inference(self.params).with_derived(&self.derived);
        let mut blocks = Vec::new();
        let x = self.vit.observed_features(&tape, square, 1, &mut |attention| {
            if with_rollout {
                // Kept averaged over heads: less than qkv itself of fewer than 3 D tokens.
                let qkv = attention.qkv.array().download(backend)?;
                blocks.push(BlockAttention::new(dims, &qkv)?.mean_probabilities());
            }
            Ok(())
        })?;
        let logits = self.logits(&tape, &x, 1)?.array().download(backend)?;
        if logits.iter().any(|x| !x.is_finite()) {
            return Err(Error::NonFinite("the classifier's outputs are no numbers".into()));
        }
        let start = || rollout(self.start(), &blocks).map(|relevance| self.patches(&relevance));
        let map = with_rollout.then(start).transpose()?;
        Ok((logits, map))
    }

    /// The gradient-weighted map of each of some labels' logits.
    ///
    /// # Errors
    /// An image of another size, a label that is none.
    pub fn gradients(&self, square: &[u8], labels: &[usize]) -> Result<Vec<Vec<f64>>> {
        let maps: Vec<_> = labels.chunks(LABELS_AT_ONCE).map(|labels| self.some_gradients(square, labels)).collect();
        Ok(maps.into_iter().collect::<Result<Vec<_>>>()?.concat())
    }

    /// The image stands in the batch once a label: images do not see each other, so each row's gradient is its own label's.
    fn some_gradients(&self, square: &[u8], labels: &[usize]) -> Result<Vec<Vec<f64>>> {
        let (backend, dims) = (self.params.backend(), self.vit.attention_dims(1));
        let (count, classes) = (labels.len(), self.classes());
        let mut seed = vec![0.0; count * classes];
        for (index, &label) in labels.iter().enumerate() {
            if label >= classes {
                return Err(Error::shape("a label", format!("under {classes}"), label));
            }
            seed[index * classes + label] = 1.0;
        }
        let tape = Tape::new(self.params).with_derived(&self.derived);
        let mut blocks: Vec<(Array<B>, Tensor<B>)> = Vec::new();
        let x = self.vit.observed_features(&tape, &square.repeat(count), count, &mut |attention| {
            blocks.push((attention.qkv.array().clone(), attention.attended.clone()));
            Ok(())
        })?;
        let logits = self.logits(&tape, &x, count)?;
        let x = x.into_array().download(backend)?;
        let attended: Vec<&Tensor<B>> = blocks.iter().map(|(_, attended)| attended).collect();
        let grads = tape.gradients_of(&logits, Array::upload(backend, &seed, logits.shape())?, &attended)?;
        let tokens = x.chunks_exact(x.len() / count);
        let mut relevances: Vec<Vec<f64>> =
            labels.iter().zip(tokens).map(|(&label, tokens)| self.start_of_label(label, tokens)).collect();
        for ((qkv, _), grad) in blocks.iter().zip(grads).rev() {
            let grad = grad.ok_or_else(|| Error::Internal("no gradient reached attention".into()))?;
            let (qkv, grad) = (qkv.download(backend)?, grad.download(backend)?);
            let of_image = (qkv.len() / count, grad.len() / count);
            let images = qkv.chunks_exact(of_image.0).zip(grad.chunks_exact(of_image.1));
            for ((qkv, grad), relevance) in images.zip(&mut relevances) {
                BlockAttention::new(dims, qkv)?.pass_gradient(grad, relevance)?;
            }
        }
        Ok(relevances.iter().map(|relevance| self.patches(relevance)).collect())
    }

    fn dims(&self) -> TokenDims {
        self.vit.token_dims(1)
    }

    fn width(&self) -> usize {
        self.vit.config.hidden * if self.vit.pool == Pool::ClsMean { 2 } else { 1 }
    }

    fn classes(&self) -> usize {
        self.head.len() / self.width().max(1)
    }

    fn logits<'m>(&'m self, tape: &Tape<'m, B>, x: &Tensor<B>, count: usize) -> Result<Tensor<B>> {
        self.vit.classify(tape, &self.vit.pool(tape, x, count)?, Mode::default())
    }

    /// Where rollout begins \[tokens\].
    fn start(&self) -> Vec<f64> {
        let (dims, width) = (self.dims(), self.width());
        // Squares, of the weights on CLS and of those on the mean.
        let mut squares = [0.0; 2];
        for (place, weight) in self.head.iter().enumerate() {
            squares[place % width / dims.width] += f64::from(*weight).powi(2);
        }
        let [cls, mean] = squares.map(f64::sqrt);
        // A head of zeros reads neither more than the other.
        let on_cls = match self.vit.pool {
            Pool::Cls => 1.0,
            Pool::ClsMean if cls + mean > 0.0 => cls / (cls + mean),
            Pool::ClsMean => 0.5,
        };
        let mut start = vec![0.0; dims.tokens()];
        start[0] = on_cls;
        start[1 + dims.registers..].fill((1.0 - on_cls) / dims.patches as f64);
        start
    }

    /// Where a label's gradient begins \[tokens\], from the tokens \[tokens, D\] that are pooled.
    fn start_of_label(&self, label: usize, tokens: &[f32]) -> Vec<f64> {
        let (dims, width) = (self.dims(), self.width());
        let weights = &self.head[label * width..(label + 1) * width];
        let (on_cls, on_mean) = weights.split_at(dims.width);
        let product = |token: usize, weights: &[f32]| -> f64 {
            let values = &tokens[token * dims.width..(token + 1) * dims.width];
            values.iter().zip(weights).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum()
        };
        let first_patch = 1 + dims.registers;
        let mut start = vec![0.0; dims.tokens()];
        start[0] = product(0, on_cls).max(0.0);
        if !on_mean.is_empty() {
            for (patch, start) in start[first_patch..].iter_mut().enumerate() {
                *start = (product(first_patch + patch, on_mean) / dims.patches as f64).max(0.0);
            }
        }
        if start.iter().any(|&start| start > 0.0) { start } else { self.start() }
    }

    /// The patches' part of a row over tokens.
    fn patches(&self, relevance: &[f64]) -> Vec<f64> {
        relevance[1 + self.dims().registers..].to_vec()
    }
}
