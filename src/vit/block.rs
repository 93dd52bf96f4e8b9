//! One transformer block: attention and MLP, each behind a LayerNorm and a LayerScale on the residual.

use super::linear::{Linear, Mode};
use crate::Result;
use crate::autograd::{AttentionDims, Backend, LinearInput, ParamId, Tape, Tensor};
use crate::config::Level;

/// LayerNorm's weight and bias.
#[derive(Clone, Copy, Debug)]
pub struct Norm {
    /// Weight \[D\].
    pub weight: ParamId,
    /// Bias \[D\].
    pub bias: ParamId,
    /// Added to the variance.
    pub eps: f64,
}

impl Norm {
    /// Applies it over the last dimension.
    pub fn forward<B: Backend>(&self, tape: &Tape<'_, B>, x: &Tensor<B>) -> Result<Tensor<B>> {
        self.forward_again(tape, x, Level::Pointwise)
    }

    /// Applies it; the output is computed again where the tape recomputes at least `from`.
    pub fn forward_again<B: Backend>(&self, tape: &Tape<'_, B>, x: &Tensor<B>, from: Level) -> Result<Tensor<B>> {
        tape.layer_norm_again(x, &tape.param(self.weight), &tape.param(self.bias), self.eps, from)
    }
}

/// A block's values.
#[derive(Debug)]
pub struct Block {
    /// Before attention.
    pub norm1: Norm,
    /// Query, key and value as one linear \[3 D, D\].
    pub qkv: Linear,
    /// Attention's output projection \[D, D\].
    pub output: Linear,
    /// LayerScale of the attention branch \[D\].
    pub scale1: ParamId,
    /// Before the MLP.
    pub norm2: Norm,
    /// fc1 \[F, D\], or SwiGLU's gate and up as one \[2 F, D\].
    pub mlp_in: Linear,
    /// fc2, or SwiGLU's weights_out, \[D, F\].
    pub mlp_out: Linear,
    /// LayerScale of the MLP branch \[D\].
    pub scale2: ParamId,
    /// Gated MLP.
    pub swiglu: bool,
}

impl Block {
    /// x \[batch * tokens, D\] to the same shape.
    pub fn forward<B: Backend>(
        &self,
        tape: &Tape<'_, B>,
        x: &Tensor<B>,
        dims: AttentionDims,
        mode: Mode,
    ) -> Result<Tensor<B>> {
        self.forward_observed(tape, x, dims, mode, &mut |_, _| Ok(()))
    }

    /// [`Block::forward`]; `observe` is shown query, key and value \[batch * tokens, 3 D\] and what attention made of them
    /// \[batch * tokens, D\].
    #[allow(clippy::type_complexity)]
    pub fn forward_observed<B: Backend>(
        &self,
        tape: &Tape<'_, B>,
        x: &Tensor<B>,
        dims: AttentionDims,
        mode: Mode,
        observe: &mut dyn FnMut(&Tensor<B>, &Tensor<B>) -> Result<()>,
    ) -> Result<Tensor<B>> {
        let from = if self.qkv.keeps_input(tape) { Level::Pointwise } else { Level::Qkv };
        let qkv = self.qkv.forward_again(tape, &self.norm1.forward_again(tape, x, from)?, mode, Level::Qkv)?;
        let attended = tape.attention(dims, &qkv)?;
        observe(&qkv, &attended)?;
        drop(qkv);
        let x = self.output.forward_residual(tape, LinearInput::Plain(&attended), mode, x, self.scale1)?;
        drop(attended);
        // Where nothing but the first linear's own recomputation would ask for its input, that is computed again with it.
        let from = if self.mlp_in.keeps_input(tape) { Level::Pointwise } else { Level::Hidden };
        let normed = self.norm2.forward_again(tape, &x, from)?;
        if self.swiglu || self.mlp_out.drops(mode) {
            let hidden = self.mlp_in.forward_again(tape, &normed, mode, Level::Hidden)?;
            drop(normed);
            let hidden = if self.swiglu { tape.swiglu(&hidden)? } else { tape.gelu(&hidden)? };
            return self.mlp_out.forward_residual(tape, LinearInput::Plain(&hidden), mode, &x, self.scale2);
        }
        let hidden = self.mlp_in.forward_gelu(tape, &normed, mode)?;
        drop(normed);
        self.mlp_out.forward_residual(tape, LinearInput::Activated(&hidden), mode, &x, self.scale2)
    }
}
