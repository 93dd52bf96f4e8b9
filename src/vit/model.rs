//! The classifier: patches, tokens, blocks, pooling, head.

use super::VitConfig;
use super::block::{Block, Norm};
use super::linear::{Linear, Mode};
use crate::autograd::{
    Adapter, Array, AttentionDims, Backend, Derived, Images, LinearAdapters, ParamId, Params, Tape, Tensor, TokenDims,
};
use crate::config::{Level, Pool};
use crate::gpu::profile;
use crate::{Error, Result};

/// A DINOv2 classifier's structure; its values live in a [`crate::autograd::Params`].
#[derive(Debug)]
pub struct Vit {
    /// The backbone's shape.
    pub config: VitConfig,
    /// Patch projection \[D, 3 * patch^2\].
    pub patch: Linear,
    /// Class token \[D\].
    pub cls: ParamId,
    /// Positions \[1 + n, D\]: of the stored grid when `resample` is there, else of the model's own.
    pub positions: ParamId,
    /// Matrix \[to, from\] from the stored grid to the model's, when positions are trained and the grids differ.
    pub resample: Option<ParamId>,
    /// Register tokens \[R, D\].
    pub registers: Option<ParamId>,
    /// Transformer blocks.
    pub blocks: Vec<Block>,
    /// Final LayerNorm.
    pub norm: Norm,
    /// Classifier \[classes, D or 2 D\].
    pub head: Linear,
    /// What the head reads.
    pub pool: Pool,
    /// Side of the input in pixels.
    pub input_size: usize,
}

impl Vit {
    /// Sequence sizes for `batch` images.
    pub fn token_dims(&self, batch: usize) -> TokenDims {
        let side = self.input_size / self.config.patch;
        TokenDims { batch, registers: self.config.registers, patches: side * side, width: self.config.hidden }
    }

    /// Attention's sizes for `batch` images.
    pub fn attention_dims(&self, batch: usize) -> AttentionDims {
        let heads = self.config.heads;
        AttentionDims { batch, tokens: self.token_dims(batch).tokens(), heads, head_dim: self.config.hidden / heads }
    }

    /// Images (u8 \[batch, S, S, 3\], or crops) to tokens \[batch * tokens, D\] before the first block.
    pub fn embed<'i, B: Backend>(
        &self,
        tape: &Tape<'_, B>,
        images: impl Into<Images<'i, B>>,
        batch: usize,
        mode: Mode,
    ) -> Result<Tensor<B>> {
        let (size, dims) = (self.input_size, self.token_dims(batch));
        let columns = match images.into() {
            Images::Squares(squares) if squares.len() == batch * size * size * 3 => {
                tape.backend().patches(squares, batch, size, self.config.patch)?
            }
            Images::Crops(crops) if crops.len() == batch => {
                tape.backend().crop_patches(&crops, size, self.config.patch)?
            }
            Images::Staged(squares) if tape.backend().len(squares) == batch * size * size * 3 => {
                tape.backend().staged_patches(squares, batch, size, self.config.patch)?
            }
            Images::Staged(squares) => {
                return Err(Error::shape("staged images", [batch, size, size, 3], tape.backend().len(squares)));
            }
            Images::Squares(squares) => return Err(Error::shape("images", [batch, size, size, 3], squares.len())),
            Images::Crops(crops) => return Err(Error::shape("crops", batch, crops.len())),
        };
        let width = 3 * self.config.patch * self.config.patch;
        let columns = Tensor::constant(Array::new(tape.backend(), columns, &[batch * dims.patches, width])?);
        let patches = self.patch.forward(tape, &columns, mode)?;
        let mut positions = tape.param(self.positions);
        if let Some(matrix) = self.resample {
            positions = match tape.derived(0) {
                Some(positions) => positions,
                None => tape.resample_positions(&positions, &tape.params().get(matrix).value)?,
            };
        }
        let registers = self.registers.map(|id| tape.param(id));
        tape.assemble_tokens(dims, &patches, &tape.param(self.cls), &positions, registers.as_ref())
    }

    /// The first `blocks` blocks over embedded tokens.
    pub fn run_blocks<'m, B: Backend>(
        &'m self,
        tape: &Tape<'m, B>,
        mut x: Tensor<B>,
        batch: usize,
        blocks: usize,
        mode: Mode,
    ) -> Result<Tensor<B>> {
        let mode = Mode { images: batch, ..mode };
        let dims = self.attention_dims(batch);
        for (index, block) in self.blocks[..blocks].iter().enumerate() {
            let _range = profile::numbered_range("block", index);
            let level = mode.recompute.of_block(index);
            tape.recompute_from_here(level);
            x = if level == Level::Blocks {
                tape.checkpoint(&x, move |tape, x| block.forward(tape, x, dims, mode))?
            } else {
                block.forward(tape, &x, dims, mode)?
            };
        }
        tape.recompute_from_here(Level::Nothing);
        Ok(x)
    }

    /// Tokens after the final norm \[batch * tokens, D\]: transformers' last_hidden_state.
    pub fn features<'m, 'i, B: Backend>(
        &'m self,
        tape: &Tape<'m, B>,
        images: impl Into<Images<'i, B>>,
        batch: usize,
        mode: Mode,
    ) -> Result<Tensor<B>> {
        let x = self.embed(tape, images, batch, mode)?;
        let x = self.run_blocks(tape, x, batch, self.blocks.len(), mode)?;
        self.norm.forward(tape, &x)
    }

    /// What the head reads \[batch, D or 2 D\]. No operation up to here couples images: an image's row is the same in any batch.
    pub fn pooled<'m, 'i, B: Backend>(
        &'m self,
        tape: &Tape<'m, B>,
        images: impl Into<Images<'i, B>>,
        batch: usize,
        mode: Mode,
    ) -> Result<Tensor<B>> {
        let x = self.features(tape, images, batch, mode)?;
        self.pool(tape, &x, batch)
    }

    /// What the head reads \[batch, D or 2 D\] of tokens after the final norm \[batch * tokens, D\].
    pub fn pool<B: Backend>(&self, tape: &Tape<'_, B>, x: &Tensor<B>, batch: usize) -> Result<Tensor<B>> {
        tape.pool(self.token_dims(batch), self.pool == Pool::ClsMean, x)
    }

    /// Logits \[batch, classes\] from what [`Vit::pooled`] made.
    pub fn classify<B: Backend>(&self, tape: &Tape<'_, B>, pooled: &Tensor<B>, mode: Mode) -> Result<Tensor<B>> {
        self.head.forward(tape, pooled, mode)
    }

    /// Logits \[batch, classes\].
    pub fn logits<'m, 'i, B: Backend>(
        &'m self,
        tape: &Tape<'m, B>,
        images: impl Into<Images<'i, B>>,
        batch: usize,
        mode: Mode,
    ) -> Result<Tensor<B>> {
        let pooled = self.pooled(tape, images, batch, mode)?;
        self.classify(tape, &pooled, mode)
    }

    /// Gives each gain its place among the derived values, as [`Vit::derive`] lists them.
    pub(super) fn number_derived(&mut self) {
        let first = usize::from(self.resample.is_some());
        let linears = self.blocks.iter_mut().flat_map(|b| [&mut b.qkv, &mut b.output, &mut b.mlp_in, &mut b.mlp_out]);
        let adapters = linears.flat_map(|linear| &mut linear.adapters).filter(|adapter| adapter.magnitude.is_some());
        for (slot, adapter) in (first..).zip(adapters) {
            adapter.gain_slot = slot;
        }
    }

    /// What follows from the model's values alone and is the same for all parts of a batch: resampled positions, then the gains by
    /// [`super::linear::SiteAdapter::gain_slot`]. `tape` is one of its own.
    pub fn derive<B: Backend>(&self, tape: &Tape<'_, B>) -> Result<Derived<B>> {
        let mut list = Vec::new();
        if let Some(matrix) = self.resample {
            list.push(tape.resample_positions(&tape.param(self.positions), &tape.params().get(matrix).value)?);
        }
        let gains = self.adapters().filter_map(|(linear, own)| own.gain_input(tape, &tape.param(linear.weight)));
        let gains: Vec<_> = gains.collect();
        if !gains.is_empty() {
            list.extend(tape.dora_gains(&gains)?);
        }
        Ok(Derived::new(list))
    }

    /// Whether a pass with a seed for them draws dropout masks.
    pub fn drops_out(&self) -> bool {
        self.adapters().any(|(_, adapter)| adapter.dropout > 0.0)
    }

    /// The adapters' values, linear by linear, with the gains among `derived`.
    pub fn all_adapters<'a, B: Backend>(
        &self,
        params: &'a Params<B>,
        derived: &'a Derived<B>,
    ) -> Vec<LinearAdapters<'a, B::Buffer>> {
        let of = |id| params.get(id).value.buffer();
        let linears = self.blocks.iter().flat_map(|b| [&b.qkv, &b.output, &b.mlp_in, &b.mlp_out]);
        let with = linears.filter(|linear| !linear.adapters.is_empty()).map(|linear| {
            let values = linear.adapters.iter().map(|adapter| Adapter {
                dims: adapter.dims,
                a: of(adapter.a),
                b: of(adapter.b),
                gain: adapter.magnitude.and_then(|_| derived.get(adapter.gain_slot)).map(|(gain, _)| gain.buffer()),
                dropped: None,
            });
            let k = linear.adapters.first().map_or(0, |adapter| params.get(adapter.a).value.shape()[1]);
            // Under dropout x's own path goes through W alone.
            let rescaled = linear.adapters.iter().any(|adapter| adapter.magnitude.is_some())
                && linear.adapters.iter().all(|adapter| adapter.dropout == 0.0);
            LinearAdapters { k, rescaled: rescaled.then(|| of(linear.weight)), adapters: values.collect() }
        });
        with.collect()
    }

    /// All adapters, by block and place.
    pub fn adapters(&self) -> impl Iterator<Item = (&Linear, &super::linear::SiteAdapter)> {
        let linears = self.blocks.iter().flat_map(|b| [&b.qkv, &b.output, &b.mlp_in, &b.mlp_out]);
        linears.flat_map(|linear| linear.adapters.iter().map(move |adapter| (linear, adapter)))
    }
}
