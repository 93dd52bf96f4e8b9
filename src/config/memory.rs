//! What a run may trade for memory.

use serde::{Deserialize, Serialize};

/// Points of the plan between speed and memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Memory {
    /// Whatever is fastest.
    #[default]
    Fast,
    /// Small micro-batches, and what is cheap to compute again is.
    Balanced,
    /// As little as possible.
    Lean,
}

impl Memory {
    /// Its name in flags and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Balanced => "balanced",
            Self::Lean => "lean",
        }
    }
}

/// What the backward pass computes again instead of having it kept; each includes those before it. The numbers are the same bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Recompute {
    /// Nothing.
    #[default]
    Nothing,
    /// LayerNorm's outputs, GELU's.
    Cheap,
    /// The output of the MLP's first linear too.
    Hidden,
    /// Query, key and value too.
    Linears,
    /// All within a block: its input alone is kept.
    Blocks,
}

impl Recompute {
    /// Its name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Cheap => "cheap",
            Self::Hidden => "hidden",
            Self::Linears => "linears",
            Self::Blocks => "blocks",
        }
    }
}
