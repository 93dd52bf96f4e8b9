//! Relevance of each patch of an image, from a model on any device.

use super::attention::{BlockAttention, rollout};
use crate::autograd::{Array, Backend, Derived, Params, Tape, Tensor, TokenDims};
use crate::config::Pool;
use crate::vit::Vit;
use crate::{Error, Result};

/// Labels whose gradients are taken in one pass over the model.
const LABELS_AT_ONCE: usize = 8;

/// Explains a model's outputs, image by image.
///
/// A map is \[grid, grid\] in row-major order, one number a patch, larger where the patch has more to do with the output. Register tokens take
/// part in attention as the model has it, so relevance flows through them; what ends on them, and on CLS, is cut off.
///
/// The head reads CLS, or CLS beside the mean of the patches. Relevance then begins with both: with a share `s` on CLS and the rest spread
/// evenly over the patches, as the mean reads them, where s = |w_cls| / (|w_cls| + |w_mean|) for the norms of the head's weights on each half (of
/// the label's row for its gradient, of all rows for rollout, which knows no label). So a head that was trained on CLS alone and is stored
/// with zeros for the mean is explained as what it is.
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
        let logits = self.vit.observed_logits(&tape, square, 1, &mut |attention| {
            if with_rollout {
                // Averaged over heads they are smaller than queries and keys, up to a grid of about 45.
                let qkv = attention.qkv.array().download(backend)?;
                blocks.push(BlockAttention::new(dims, &qkv)?.mean_probabilities());
            }
            Ok(())
        })?;
        let logits = logits.array().download(backend)?;
        if logits.iter().any(|x| !x.is_finite()) {
            return Err(Error::NonFinite("the classifier's outputs are no numbers".into()));
        }
        let start = || rollout(self.start(0..self.classes()), &blocks).map(|relevance| self.patches(&relevance));
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
        let logits = self.vit.observed_logits(&tape, &square.repeat(count), count, &mut |attention| {
            blocks.push((attention.qkv.array().clone(), attention.attended.clone()));
            Ok(())
        })?;
        let attended: Vec<&Tensor<B>> = blocks.iter().map(|(_, attended)| attended).collect();
        let grads = tape.gradients_of(&logits, Array::upload(backend, &seed, logits.shape())?, &attended)?;
        let mut relevances: Vec<Vec<f64>> = labels.iter().map(|&label| self.start(label..label + 1)).collect();
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

    /// What the head reads of each token, for some of its rows \[tokens\].
    fn start(&self, rows: std::ops::Range<usize>) -> Vec<f64> {
        let (dims, width) = (self.dims(), self.width());
        // Squares, of the weights on CLS and of those on the mean.
        let mut squares = [0.0; 2];
        for row in self.head[rows.start * width..rows.end * width].chunks_exact(width) {
            for (place, weight) in row.iter().enumerate() {
                squares[place / dims.width] += f64::from(*weight).powi(2);
            }
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

    /// The patches' part of a row over tokens.
    fn patches(&self, relevance: &[f64]) -> Vec<f64> {
        relevance[1 + self.dims().registers..].to_vec()
    }
}
