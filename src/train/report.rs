//! What commands hand back to be shown.

use std::path::PathBuf;

use serde::Serialize;
use serde_json::{Map, Value};

use super::checkpoint::EpochRecord;
use crate::config::{Method, Strategy, TrainConfig};
use crate::gpu::Arch;

/// A finished training run.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// The run's folder.
    pub out: PathBuf,
    /// Device and numbers in words.
    pub device: String,
    /// Where the head came from, in the log's words.
    pub head: String,
    /// What was trained.
    pub strategy: Strategy,
    /// Epochs done.
    pub epochs: usize,
    /// Optimiser steps done.
    pub steps: u64,
    /// Values that were trained.
    pub trained_parameters: u64,
    /// Values of the whole model.
    pub parameters: u64,
    /// Mean training loss of the last epoch.
    pub train_loss: f64,
    /// Best epoch, counted from 1, and its validation accuracy; `None` without validation.
    pub best: Option<(usize, f64)>,
    /// Training images a second, the decoding included.
    pub images_per_s: f64,
    /// Seconds spent in optimiser steps, waiting for data included.
    pub train_s: f64,
    /// Joules that the GPU took from the upload of the model to the last save; none where nothing counts them.
    pub energy_j: Option<f64>,
    /// Epoch by epoch.
    pub history: Vec<EpochRecord>,
    /// Most bytes held at once.
    pub peak_bytes: u64,
    /// Bytes that were planned.
    pub planned_bytes: u64,
    /// Seconds from start to end.
    pub wall_s: f64,
    /// The run used the embedded data.
    pub embedded_data: bool,
}

/// A classifier measured on a set of images.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EvalReport {
    /// Images measured.
    pub images: u64,
    /// Mean loss.
    pub loss: f64,
    /// What training watches: top-1, for multi-label the mean over labels of average precision, hierarchical the share of right paths. 0 to 1.
    pub accuracy: f64,
    /// The task's other measures, by name.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// One image classified. Serialised it is a line of `predict --json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Prediction {
    /// The image, as given or found.
    pub path: PathBuf,
    /// The head's outputs.
    pub logits: Vec<f32>,
    /// Softmax over the classes (hierarchical: of each head), or a sigmoid a label.
    pub probs: Vec<f32>,
    /// The answer.
    pub label: PredictedLabel,
}

/// One image explained. Serialised it is a line of `explain --json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// The image, as given or found.
    pub path: PathBuf,
    /// What is explained: a class, or several labels.
    pub label: ExplainedLabel,
    /// Its probability, or theirs in the same order.
    pub prob: Probability,
    /// How.
    pub method: Vec<Method>,
    /// The pictures: rollout's, then a label's each, in the order of the labels.
    pub files: Vec<PathBuf>,
    /// What the image is said to show, as `predict` says it.
    pub predicted: PredictedLabel,
}

/// A label, or several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum ExplainedLabel {
    /// Multi-class, where no labels are asked for.
    One(String),
    /// Else.
    Many(Vec<String>),
}

/// A probability, or one a label.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Probability {
    /// Of the one class.
    One(f32),
    /// Of each label.
    Many(Vec<f32>),
}

/// The name of a class, or those of labels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum PredictedLabel {
    /// Multi-class.
    One(String),
    /// Multi-label; perhaps none.
    Many(Vec<String>),
    /// Hierarchical: from the root on, each label before those under it.
    Path(Vec<String>),
}

/// Memory of a run by purpose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryPlan {
    /// (purpose, bytes), in the order to be shown.
    pub parts: Vec<(String, u64)>,
}

impl MemoryPlan {
    /// What a plan calls what is there throughout: weights, gradients and moments.
    pub const HELD: [&str; 4] = ["frozen weights", "trained values", "optimiser moments", "gradients"];

    /// Bytes of what is there throughout.
    pub fn held(&self) -> u64 {
        self.parts.iter().filter(|part| Self::HELD.contains(&part.0.as_str())).map(|part| part.1).sum()
    }

    /// All of it.
    pub fn total(&self) -> u64 {
        self.parts.iter().map(|part| part.1).sum()
    }
}

/// What `peftk plan` found.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// The memory.
    pub memory: MemoryPlan,
    /// The settings that it is for, device and precision settled.
    pub config: TrainConfig,
    /// The kernels that it is for; none on the CPU.
    pub arch: Option<Arch>,
}
