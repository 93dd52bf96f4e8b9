//! In which numbers a GPU computes.

use serde::{Deserialize, Serialize};

/// Type of matrix products' operands and of activations; sums, statistics and trained values are f32 in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floats: what the CPU computes in; on a GPU for comparisons.
    F32,
    /// bfloat16 on tensor cores.
    Bf16,
}

impl Precision {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }
}
