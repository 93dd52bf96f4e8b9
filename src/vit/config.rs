//! The shape of a DINOv2 vision transformer and the four published sizes.

use crate::{Error, Result};

/// How position embeddings are resized to another grid of patches; each family of files has its own rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// transformers: bicubic to the target size; antialiased when the model has registers.
    Transformers,
    /// Meta's own: plain by scale factor (h + 0.1) / 37 without antialias; with registers by size, antialiased.
    Meta,
    /// timm: bicubic by size, antialiased.
    Timm,
}

/// Everything that fixes the shape of the backbone's tensors.
#[derive(Clone, Debug, PartialEq)]
pub struct VitConfig {
    /// Width of a token, D.
    pub hidden: usize,
    /// Number of transformer blocks.
    pub layers: usize,
    /// Attention heads; D / heads is the head's width (64 in every published size).
    pub heads: usize,
    /// Width of the MLP's hidden layer: 4 D, or for SwiGLU the width of one half (4096 for giant).
    pub mlp_hidden: usize,
    /// SwiGLU MLP (giant) instead of GELU.
    pub swiglu: bool,
    /// Register tokens between CLS and the patches: 0 or 4.
    pub registers: usize,
    /// Side of a square patch in pixels.
    pub patch: usize,
    /// Side in pixels of the square image that the stored position embeddings are for (518 published: 37 x 37 patches).
    pub image_size: usize,
    /// LayerNorm's epsilon.
    pub layer_norm_eps: f64,
    /// LayerScale's initial value, for weights made from a seed.
    pub layerscale_value: f64,
    /// Where the weights came from, which decides how positions are resized.
    pub family: Family,
}

impl VitConfig {
    /// One of the named sizes: `micro`, `small`, `base`, `large`, `giant`, each also with `-reg`.
    pub fn named(name: &str) -> Result<Self> {
        let (size, registers) = match name.strip_suffix("-reg") {
            Some(size) => (size, 4),
            None => (name, 0),
        };
        let (hidden, layers, heads, image_size) = match size {
            "micro" => (128, 5, 2, 56),
            "small" => (384, 12, 6, 518),
            "base" => (768, 12, 12, 518),
            "large" => (1024, 24, 16, 518),
            "giant" => (1536, 40, 24, 518),
            _ => {
                return Err(Error::input(format!(
                    "unknown size '{name}': expected micro, small, base, large or giant, each also with -reg"
                )));
            }
        };
        let swiglu = size == "giant";
        Ok(Self {
            hidden,
            layers,
            heads,
            mlp_hidden: Self::mlp_hidden_for(hidden, 4.0, swiglu),
            swiglu,
            registers,
            patch: 14,
            image_size,
            layer_norm_eps: 1e-6,
            layerscale_value: 1.0,
            family: Family::Transformers,
        })
    }

    /// The MLP's hidden width as transformers computes it from `mlp_ratio`: for SwiGLU two thirds, rounded up to a
    /// multiple of 8.
    pub fn mlp_hidden_for(hidden: usize, mlp_ratio: f64, swiglu: bool) -> usize {
        let width = (hidden as f64 * mlp_ratio) as usize;
        if swiglu { (width * 2 / 3).next_multiple_of(8) } else { width }
    }

    /// Patches along one side of the stored position embeddings.
    pub fn stored_grid(&self) -> usize {
        self.image_size / self.patch
    }

    /// Tokens of an image of `size` x `size` pixels: CLS, registers, patches.
    pub fn tokens(&self, size: usize) -> usize {
        1 + self.registers + (size / self.patch) * (size / self.patch)
    }
}
