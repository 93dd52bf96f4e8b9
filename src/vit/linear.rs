//! A linear layer of the model: its weights' places, and the adapters on them.

use super::names;
use crate::autograd::{Activated, AdapterDims, AdapterInput, Backend, DoraInput, LinearInput, ParamId, Tape, Tensor};
use crate::config::{Level, Recompute};
use crate::{Error, Result};

/// A linear with its adapters. Several linears that read the same input are packed into one: q, k and v; gate and up.
#[derive(Debug)]
pub struct Linear {
    /// Weight \[n, k\].
    pub weight: ParamId,
    /// Bias \[n\].
    pub bias: ParamId,
    /// Adapters, by first row.
    pub adapters: Vec<SiteAdapter>,
}

/// An adapter's values in the model.
#[derive(Debug)]
pub struct SiteAdapter {
    /// Block.
    pub layer: usize,
    /// Which of the block's linears.
    pub site: names::Linear,
    /// Rows of the packed weight, rank, scale.
    pub dims: AdapterDims,
    /// A \[rank, k\].
    pub a: ParamId,
    /// B \[rows, rank\].
    pub b: ParamId,
    /// DoRA's magnitude \[rows\].
    pub magnitude: Option<ParamId>,
    /// Probability that an input is dropped in training.
    pub dropout: f64,
    /// DoRA: differentiate through the norm.
    pub norm_grad: bool,
    /// Where the gain stands among the values that are derived once a step.
    pub gain_slot: usize,
}

/// How a forward pass is run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mode {
    /// Seed of this pass's dropout masks; none: evaluation.
    pub dropout_seed: Option<u64>,
    /// The pass's first image in its batch: dropout masks follow the image.
    pub first_image: usize,
    /// Images of the pass.
    pub images: usize,
    /// What of each block is computed again in the backward pass.
    pub recompute: Recompute,
}

impl Linear {
    /// Applies it: x \[.., k\] to \[.., n\].
    pub fn forward<B: Backend>(&self, tape: &Tape<'_, B>, x: &Tensor<B>, mode: Mode) -> Result<Tensor<B>> {
        let weight = tape.param(self.weight);
        tape.linear(x, &weight, Some(&tape.param(self.bias)), &self.inputs(tape, &weight, x, mode)?)
    }

    /// Applies it; the output is computed again where the tape recomputes at least `from`.
    pub fn forward_again<B: Backend>(
        &self,
        tape: &Tape<'_, B>,
        x: &Tensor<B>,
        mode: Mode,
        from: Level,
    ) -> Result<Tensor<B>> {
        let weight = tape.param(self.weight);
        let inputs = self.inputs(tape, &weight, x, mode)?;
        tape.linear_again(x, &weight, Some(&tape.param(self.bias)), &inputs, from)
    }

    /// Applies it and GELU.
    pub fn forward_gelu<B: Backend>(&self, tape: &Tape<'_, B>, x: &Tensor<B>, mode: Mode) -> Result<Activated<B>> {
        let weight = tape.param(self.weight);
        tape.linear_gelu(x, &weight, Some(&tape.param(self.bias)), &self.inputs(tape, &weight, x, mode)?)
    }

    /// Applies it, LayerScale and the residual.
    pub fn forward_residual<B: Backend>(
        &self,
        tape: &Tape<'_, B>,
        x: LinearInput<'_, B>,
        mode: Mode,
        residual: &Tensor<B>,
        gamma: ParamId,
    ) -> Result<Tensor<B>> {
        let weight = tape.param(self.weight);
        let inputs = match x {
            LinearInput::Plain(x) => self.inputs(tape, &weight, x, mode)?,
            // Dropout would have to pass a gradient on through values that have none.
            LinearInput::Activated(_) if self.drops(mode) => {
                return Err(Error::Internal("dropout on an activated input".into()));
            }
            LinearInput::Activated(x) => self.inputs(tape, &weight, &Tensor::constant(x.values.clone()), mode)?,
        };
        tape.linear_residual(x, &weight, Some(&tape.param(self.bias)), &inputs, residual, &tape.param(gamma))
    }

    /// Whether a gradient of its own values asks for its input.
    pub fn keeps_input<B: Backend>(&self, tape: &Tape<'_, B>) -> bool {
        !self.adapters.is_empty() || tape.param(self.weight).needs_grad()
    }

    /// Whether an adapter drops inputs in this pass.
    pub fn drops(&self, mode: Mode) -> bool {
        mode.dropout_seed.is_some() && self.adapters.iter().any(|adapter| adapter.dropout > 0.0)
    }

    fn inputs<B: Backend>(
        &self,
        tape: &Tape<'_, B>,
        weight: &Tensor<B>,
        x: &Tensor<B>,
        mode: Mode,
    ) -> Result<Vec<AdapterInput<B>>> {
        self.adapters.iter().map(|adapter| adapter.input(tape, weight, x, mode)).collect()
    }
}

impl SiteAdapter {
    fn input<B: Backend>(
        &self,
        tape: &Tape<'_, B>,
        weight: &Tensor<B>,
        x: &Tensor<B>,
        mode: Mode,
    ) -> Result<AdapterInput<B>> {
        let (a, b) = (tape.param(self.a), tape.param(self.b));
        let gain = self.gain(tape, weight)?;
        let dropped = match mode.dropout_seed {
            Some(seed) if self.dropout > 0.0 => {
                let of_image = x.array().elements() / mode.images.max(1);
                let first = (mode.first_image * of_image) as u64;
                Some(tape.dropout(x, self.dropout, self.mask_seed(seed), first)?)
            }
            _ => None,
        };
        Ok(AdapterInput { dims: self.dims, a, b, gain, dropped })
    }

    /// What DoRA's g = m / n is made from, where there is one.
    pub(super) fn gain_input<B: Backend>(&self, tape: &Tape<'_, B>, weight: &Tensor<B>) -> Option<DoraInput<B>> {
        let magnitude = tape.param(self.magnitude?);
        let (mut a, mut b) = (tape.param(self.a), tape.param(self.b));
        if !self.norm_grad {
            (a, b) = (a.detach(), b.detach());
        }
        Some(DoraInput { dims: self.dims, weight: weight.clone(), a, b, magnitude })
    }

    /// DoRA's gain, where there is one: made before, or here.
    fn gain<B: Backend>(&self, tape: &Tape<'_, B>, weight: &Tensor<B>) -> Result<Option<Tensor<B>>> {
        if let Some(gain) = self.magnitude.and_then(|_| tape.derived(self.gain_slot)) {
            return Ok(Some(gain));
        }
        match self.gain_input(tape, weight) {
            Some(input) => Ok(tape.dora_gains(&[input])?.pop()),
            None => Ok(None),
        }
    }

    /// Every site draws a mask of its own, as peft's one dropout module a site does.
    fn mask_seed(&self, seed: u64) -> u64 {
        let site = (self.layer as u64) << 8 | self.site as u64;
        seed ^ (site + 1).wrapping_mul(0xd6e8_feb8_6659_fd93)
    }
}
