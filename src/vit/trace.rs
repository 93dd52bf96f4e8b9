//! A forward pass that is looked at: what attention read and made in each block.

use super::Vit;
use super::linear::Mode;
use crate::Result;
use crate::autograd::{Backend, Images, Tape, Tensor};

/// Attention in one block.
pub struct Attention<'a, B: Backend> {
    /// The block, counted from 0.
    pub block: usize,
    /// Query, key and value side by side, adapters included \[batch * tokens, 3 D\].
    pub qkv: &'a Tensor<B>,
    /// softmax(q k^T / sqrt head_dim) v, before the output projection \[batch * tokens, D\].
    pub attended: &'a Tensor<B>,
}

impl Vit {
    /// Tokens after the final norm \[batch * tokens, D\] as [`Vit::features`] makes them for evaluation; `observe` is shown each block's
    /// attention, the first block's first. On a tape that records, a gradient flows from what is made of the tokens to all of these, whatever
    /// is trained: the embedded tokens ask for one ([`Tape::gradients_of`]). Nothing is made again in the backward pass.
    ///
    /// # Errors
    /// Images of another size; what `observe` says.
    pub fn observed_features<'m, 'i, B: Backend>(
        &'m self,
        tape: &Tape<'m, B>,
        images: impl Into<Images<'i, B>>,
        batch: usize,
        observe: &mut dyn FnMut(Attention<'_, B>) -> Result<()>,
    ) -> Result<Tensor<B>> {
        let mode = Mode { images: batch, ..Mode::default() };
        let mut x = tape.input(self.embed(tape, images, batch, mode)?.into_array());
        for (index, block) in self.blocks.iter().enumerate() {
            x = block.forward_observed(tape, &x, self.attention_dims(batch), mode, &mut |qkv, attended| {
                observe(Attention { block: index, qkv, attended })
            })?;
        }
        self.norm.forward(tape, &x)
    }
}
