//! Settings of the commands that use a model instead of training one.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Cache, Device, Format, Precision, Resize};

/// Where a trained classifier comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum ModelSource {
    /// A run folder that `peftk train` wrote: backbone, adapter, labels and transform are its own.
    Run(PathBuf),
    /// A backbone by name, folder or file, and perhaps an adapter folder of peft's form.
    Backbone {
        /// As given to `--backbone`.
        backbone: String,
        /// Adapter folder.
        adapter: Option<PathBuf>,
    },
}

/// `peftk eval`.
#[derive(Clone, Debug, PartialEq)]
pub struct EvalConfig {
    /// Run folder.
    pub model: PathBuf,
    /// Data folder.
    pub data: PathBuf,
    /// How it is laid out; absent: as the run's own data where that is a set of its own layout, else found by looking.
    pub format: Option<Format>,
    /// Where tables by class go, and which classes were taken for which.
    pub out: Option<PathBuf>,
    /// Multi-label: the probability from which on an image is given a label, for all of them; absent: the run's own, or one half.
    pub threshold: Option<f64>,
    /// One JSON object instead of a table.
    pub json: bool,
    /// Where decoded images are kept.
    pub cache: Cache,
    /// Where it runs.
    pub device: Device,
    /// In which numbers; absent: bf16 on a GPU, f32 on the CPU.
    pub precision: Option<Precision>,
}

/// `peftk predict`.
#[derive(Clone, Debug, PartialEq)]
pub struct PredictConfig {
    /// The classifier.
    pub model: ModelSource,
    /// Side of the input square in pixels; absent: the run's own, or the backbone's default.
    pub input_size: Option<usize>,
    /// Resize to the square; absent: the run's own, or squash.
    pub resize: Option<Resize>,
    /// Multi-label: the probability from which on an image is given a label, for all of them; absent: the run's own, or one half.
    pub threshold: Option<f64>,
    /// One JSON object an image instead of a line of words.
    pub json: bool,
    /// Where it runs.
    pub device: Device,
    /// In which numbers; absent: bf16 on a GPU, f32 on the CPU.
    pub precision: Option<Precision>,
    /// Images and folders, as given.
    pub paths: Vec<PathBuf>,
}

/// How a picture of what a classifier looked at is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Attention followed back through the blocks (Abnar and Zuidema 2020); the same for every label.
    Rollout,
    /// Attention weighted by a label's gradient (Chefer et al. 2021).
    Gradient,
}

impl Method {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Rollout, Self::Gradient];

    /// As on the command line and in file names.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rollout => "rollout",
            Self::Gradient => "gradient",
        }
    }
}

/// `peftk explain`.
#[derive(Clone, Debug, PartialEq)]
pub struct ExplainConfig {
    /// The classifier.
    pub model: ModelSource,
    /// Side of the input square in pixels; absent: the run's own, or the backbone's default.
    pub input_size: Option<usize>,
    /// Resize to the square; absent: the run's own, or squash.
    pub resize: Option<Resize>,
    /// Where the pictures go.
    pub out: PathBuf,
    /// Which pictures.
    pub methods: Vec<Method>,
    /// The labels to explain, as given to `--label`; none: those that are predicted.
    pub labels: Vec<String>,
    /// One JSON object an image instead of a line of words.
    pub json: bool,
    /// Where it runs.
    pub device: Device,
    /// In which numbers; absent: bf16 on a GPU, f32 on the CPU.
    pub precision: Option<Precision>,
    /// Images and folders, as given.
    pub paths: Vec<PathBuf>,
}

/// `peftk merge`.
#[derive(Clone, Debug, PartialEq)]
pub struct MergeConfig {
    /// The classifier; a backbone always comes with an adapter here.
    pub model: ModelSource,
    /// Folder to write, missing or empty.
    pub out: PathBuf,
}
