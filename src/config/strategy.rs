//! The four strategies and what each begins with.

use serde::{Deserialize, Serialize};

use super::ScheduleKind;

/// What is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// Every weight.
    Full,
    /// The head alone.
    Freeze,
    /// Low-rank adapters and the head.
    Lora,
    /// Weight-decomposed low-rank adapters and the head.
    Dora,
}

impl Strategy {
    /// The word that stands for it on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Freeze => "freeze",
            Self::Lora => "lora",
            Self::Dora => "dora",
        }
    }

    /// Whether the strategy trains adapters.
    pub fn has_adapter(self) -> bool {
        matches!(self, Self::Lora | Self::Dora)
    }

    /// The learning rate used where none is given: the best or next to the best of the searches in docs/results, of the micro model or of ViT-S/14.
    pub fn default_lr(self, is_micro: bool) -> f64 {
        match self {
            Self::Full if is_micro => 3e-4,
            Self::Full => 3e-5,
            Self::Freeze => 1e-2,
            Self::Lora | Self::Dora => 2e-3,
        }
    }

    /// Steps of warm-up where none are given, of a run of `steps`. Full fine-tuning begins with a head that knows nothing and would move all the
    /// backbone after it: a tenth of the run of warm-up was worth 4.7 points on openclipart-20 (docs/guide.md). Adapters begin as the identity.
    pub fn default_warmup(self, schedule: ScheduleKind, steps: usize) -> usize {
        if self == Self::Full && schedule == ScheduleKind::Cosine { steps / 10 } else { 0 }
    }
}
