//! A training run's validated settings: what `config.toml` in a run folder holds and all that is needed to run it again.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

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
    /// Whether the strategy trains adapters.
    pub fn has_adapter(self) -> bool {
        matches!(self, Self::Lora | Self::Dora)
    }

    /// The learning rate used where none is given.
    pub fn default_lr(self) -> f64 {
        match self {
            Self::Full => 3e-5,
            Self::Freeze => 1e-2,
            Self::Lora | Self::Dora => 2e-3,
        }
    }
}

/// What a label is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// One class an image: softmax and cross-entropy.
    Multiclass,
    /// Any number of labels an image: one sigmoid a label, binary cross-entropy.
    Multilabel,
}

/// The learning rate over the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleKind {
    /// Halved when validation accuracy has not risen for some epochs.
    Plateau,
    /// A half cosine from the base rate to zero.
    Cosine,
    /// The base rate throughout.
    Constant,
}

/// How an image becomes a square for evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Resize {
    /// Short side to 256/224 of the input size, then the centre square.
    Crop,
    /// Straight to the square, whatever the aspect.
    Squash,
}

/// What training does to an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Augment {
    /// RandomResizedCrop (area 0.08..1, aspect 3/4..4/3) and a horizontal flip.
    Standard,
    /// The evaluation transform.
    None,
}

/// The head's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pool {
    /// CLS beside the mean of the patch tokens, 2 D wide: what transformers' classifier takes.
    #[serde(rename = "cls+mean")]
    ClsMean,
    /// CLS alone, D wide.
    #[serde(rename = "cls")]
    Cls,
}

/// How an adapter's matrices start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AdapterInit {
    /// peft's default: A uniform (Kaiming, a = sqrt 5), B zero.
    Default,
    /// A normal with standard deviation 1 / rank, B zero.
    Gaussian,
    /// Principal singular vectors of W (PiSSA); the rest stays in the frozen weight.
    Pissa,
    /// A and B from one orthogonal basis, the base weight corrected so that step 0 changes nothing.
    Orthogonal,
}

/// Which linears get an adapter, of what rank.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdapterSettings {
    /// Module names at the end of a path (`q_proj`, `fc1`, ...), transformers 5 names.
    pub targets: Vec<String>,
    /// Rank r.
    pub rank: usize,
    /// alpha; the scale is alpha / r (rslora: alpha / sqrt r).
    pub alpha: f64,
    /// Rank-stabilised scale.
    pub rslora: bool,
    /// Probability that an input of the adapter is dropped.
    pub dropout: f64,
    /// DoRA: differentiate through the row norm instead of holding it constant.
    pub dora_norm_grad: bool,
    /// Starting values.
    pub init: AdapterInit,
    /// Ranks of their own by module, as peft's `rank_pattern`: (pattern, rank), first match wins.
    pub rank_pattern: Vec<(String, usize)>,
    /// Alphas of their own by module, as peft's `alpha_pattern`.
    pub alpha_pattern: Vec<(String, f64)>,
    /// Blocks that get adapters (peft's `layers_to_transform`); empty: all.
    pub layers: Vec<usize>,
}

/// Everything that fixes a training run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainConfig {
    /// Data folder; absent: the embedded set.
    pub data: Option<PathBuf>,
    /// Validation data of its own.
    pub val_data: Option<PathBuf>,
    /// Share of the training data held back where there is no validation split.
    pub val_fraction: f64,
    /// What labels are; absent: found from the data.
    pub task: Option<Task>,
    /// Leave unreadable files out instead of stopping.
    pub skip_bad: bool,
    /// At most this many training images a class.
    pub shots: Option<usize>,
    /// Backbone as given: a name, folder, file, `random:SIZE`; absent: the embedded micro model.
    pub backbone: Option<String>,
    /// What is trained.
    pub strategy: Strategy,
    /// Adapter settings, for lora and dora.
    pub adapter: Option<AdapterSettings>,
    /// Adapter folder to start from.
    pub init_adapter: Option<PathBuf>,
    /// Epochs at most.
    pub epochs: usize,
    /// Images a step.
    pub batch_size: usize,
    /// Base learning rate.
    pub lr: f64,
    /// AdamW's decoupled weight decay.
    pub weight_decay: f64,
    /// Leave biases, norms and magnitudes undecayed.
    pub decay_matrices_only: bool,
    /// Learning rate over time.
    pub schedule: ScheduleKind,
    /// Steps of linear warm-up.
    pub warmup_steps: usize,
    /// Epochs without a better validation accuracy before stopping; absent: never.
    pub patience: Option<usize>,
    /// Largest global gradient norm; absent: no clipping.
    pub grad_clip: Option<f64>,
    /// Label smoothing of the cross-entropy.
    pub label_smoothing: f64,
    /// Seed of everything random.
    pub seed: u64,
    /// Side of the square the model sees, a multiple of the patch.
    pub input_size: usize,
    /// Evaluation resize.
    pub resize: Resize,
    /// Training augmentation.
    pub augment: Augment,
    /// Files in order instead of shuffled.
    pub no_shuffle: bool,
    /// Every class equally often.
    pub balanced: bool,
    /// Head input.
    pub pool: Pool,
    /// Images that go through the model at once; absent: the whole batch. Gradients are the whole batch's either way.
    pub micro_batch: Option<usize>,
    /// Recompute each block's activations in the backward pass instead of keeping them.
    pub checkpointing: bool,
    /// Run folder.
    pub out: PathBuf,
}
