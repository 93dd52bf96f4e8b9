//! A training run's validated settings: what `config.toml` in a run folder holds and all that is needed to run it again.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

mod cache;
mod commands;
mod device;
mod format;
mod loss;
mod memory;
mod precision;
mod strategy;
mod task;

pub use cache::Cache;
pub(crate) use cache::bytes;
pub use commands::{EvalConfig, ExplainConfig, MergeConfig, Method, ModelSource, PredictConfig};
pub use device::Device;
pub use format::Format;
pub use loss::{AsymmetricSettings, ClassWeights, LabelLoss};
pub use memory::{Level, Memory, Recompute};
pub use precision::Precision;
pub use strategy::Strategy;
pub use task::Task;

/// Epochs of a run that gives none.
pub const DEFAULT_EPOCHS: usize = 30;
/// Epochs of a run on the embedded data that gives none.
pub const EMBEDDED_EPOCHS: usize = 30;
/// Images a step of a run that gives none.
pub const DEFAULT_BATCH: usize = 64;
/// Images a step of a run on the embedded data that gives none.
pub const EMBEDDED_BATCH: usize = 32;
/// Side of the input square of the published sizes.
pub const DEFAULT_INPUT_SIZE: usize = 224;
/// Side of the input square of the micro model, embedded or random.
pub const MICRO_INPUT_SIZE: usize = 56;

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
    /// A and B from complementary halves of one orthogonal basis: B A = 0, so that step 0 changes nothing.
    Orthogonal,
}

/// Which linears get an adapter, of what rank.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdapterSettings {
    /// Module names at the end of a path (`q_proj`, `fc1`, ...), transformers 5 names; or the one word `all-linear`.
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

impl Default for AdapterSettings {
    /// Rank 8 with alpha = rank on q and v, as peft starts them.
    fn default() -> Self {
        Self {
            targets: vec!["q_proj".to_owned(), "v_proj".to_owned()],
            rank: 8,
            alpha: 8.0,
            rslora: false,
            dropout: 0.0,
            dora_norm_grad: false,
            init: AdapterInit::Default,
            rank_pattern: Vec::new(),
            alpha_pattern: Vec::new(),
            layers: Vec::new(),
        }
    }
}

/// What was asked for in so many words, by flag or by `--config`, among the settings that an adapter folder also fixes:
/// `--init-adapter` compares these with the folder and refuses a contradiction. `None`: left to the default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Given {
    /// `--strategy`.
    pub strategy: Option<Strategy>,
    /// `--targets`, in transformers 5 names or `all-linear`.
    pub targets: Option<Vec<String>>,
    /// `--rank`.
    pub rank: Option<usize>,
    /// `--alpha`.
    pub alpha: Option<f64>,
    /// `--rslora`.
    pub rslora: Option<bool>,
    /// `--lora-dropout`.
    pub dropout: Option<f64>,
    /// `--rank-pattern`.
    pub rank_pattern: Option<Vec<(String, usize)>>,
    /// `--alpha-pattern`.
    pub alpha_pattern: Option<Vec<(String, f64)>>,
    /// `--layers`.
    pub layers: Option<Vec<usize>>,
    /// `--pool`.
    pub pool: Option<Pool>,
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
    /// Share of the images held back for testing where the data has no test split: neither trained nor validated on.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub test_fraction: f64,
    /// Seed of what is held back and of the few shots; absent: the run's seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split_seed: Option<u64>,
    /// What labels are; absent: found from the data.
    pub task: Option<Task>,
    /// How the data folder is laid out.
    #[serde(default)]
    pub format: Format,
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
    /// Steps of linear warm-up; absent: [`Strategy::default_warmup`], filled in when the images are counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warmup_steps: Option<usize>,
    /// Epochs without a better validation accuracy before stopping; absent: never.
    pub patience: Option<usize>,
    /// Largest global gradient norm; absent: no clipping.
    pub grad_clip: Option<f64>,
    /// Label smoothing of the cross-entropy.
    pub label_smoothing: f64,
    /// The loss of labels that are yes or no; absent: binary cross-entropy for multi-label data, the asymmetric loss in a tree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<LabelLoss>,
    /// Constants of the asymmetric loss; absent: its defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asymmetric: Option<AsymmetricSettings>,
    /// What the loss of an image of each class is multiplied by; absent: nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_weights: Option<ClassWeights>,
    /// Multi-label: find each label's threshold on the validation images.
    #[serde(default)]
    pub tune_thresholds: bool,
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
    /// The largest batch that fits at once is to be found; `batch_size` is the most it may be.
    #[serde(default, skip_serializing)]
    pub batch_auto: bool,
    /// What the plan may trade for memory, where neither a micro-batch nor a recomputation is given.
    #[serde(default, skip_serializing)]
    pub memory: Memory,
    /// The most device memory that the run may take, in bytes.
    #[serde(default, skip_serializing)]
    pub memory_budget: Option<u64>,
    /// Images that go through the model at once; absent: the whole batch. Gradients are the whole batch's either way, in multiples of
    /// [`crate::autograd::GRANULE_IMAGES`] to the bit.
    pub micro_batch: Option<usize>,
    /// What is computed again in the backward pass; absent: not planned yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recompute: Option<Recompute>,
    /// Where decoded images are kept.
    #[serde(default, skip_serializing_if = "Cache::is_default")]
    pub cache: Cache,
    /// Where it runs.
    #[serde(default)]
    pub device: Device,
    /// In which numbers; absent: bf16 on a GPU, f32 on the CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<Precision>,
    /// Run folder; not written to `config.toml`, so that a run can be moved and its settings used for another.
    #[serde(default, skip_serializing)]
    pub out: PathBuf,
    /// What was asked for explicitly; not kept.
    #[serde(skip)]
    pub given: Given,
}

impl Default for TrainConfig {
    /// `peftk train` with no flags: the embedded data and backbone, DoRA.
    fn default() -> Self {
        Self {
            data: None,
            val_data: None,
            val_fraction: 0.2,
            test_fraction: 0.0,
            split_seed: None,
            task: None,
            format: Format::Auto,
            skip_bad: false,
            shots: None,
            backbone: None,
            strategy: Strategy::Dora,
            adapter: Some(AdapterSettings::default()),
            init_adapter: None,
            epochs: EMBEDDED_EPOCHS,
            batch_size: EMBEDDED_BATCH,
            lr: Strategy::Dora.default_lr(true),
            weight_decay: 0.05,
            decay_matrices_only: false,
            schedule: ScheduleKind::Cosine,
            warmup_steps: None,
            patience: None,
            grad_clip: None,
            label_smoothing: 0.0,
            loss: None,
            asymmetric: None,
            class_weights: None,
            tune_thresholds: false,
            seed: 0,
            input_size: MICRO_INPUT_SIZE,
            resize: Resize::Squash,
            augment: Augment::Standard,
            no_shuffle: false,
            balanced: false,
            pool: Pool::ClsMean,
            batch_auto: false,
            memory: Memory::Fast,
            memory_budget: None,
            micro_batch: None,
            recompute: None,
            cache: Cache::default(),
            device: Device::Auto,
            precision: None,
            out: PathBuf::new(),
            given: Given::default(),
        }
    }
}

impl TrainConfig {
    /// Whether anything is held back or given for validation.
    pub fn validates(&self) -> bool {
        self.val_data.is_some() || self.val_fraction > 0.0
    }

    /// The text of `config.toml`.
    ///
    /// # Errors
    /// [`Error::Input`] where a value has no place in TOML (a path that is not UTF-8).
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|e| Error::input(format!("the settings cannot be written as TOML: {e}")))
    }

    /// Reads back what [`TrainConfig::to_toml`] wrote to `path`. `out` becomes the folder that holds the file.
    ///
    /// # Errors
    /// [`Error::Io`] where the file cannot be read, [`Error::Input`] naming file and line where it is not such a text.
    pub fn read_toml(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io("read", path, e))?;
        let mut config: Self = toml::from_str(&text).map_err(|e| toml_error(path, &text, &e))?;
        config.out = path.parent().unwrap_or(Path::new("")).to_owned();
        Ok(config)
    }
}

fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

/// One line out of TOML's several: file, line, what was wrong.
pub(crate) fn toml_error(path: &Path, text: &str, error: &toml::de::Error) -> Error {
    let message = error.message().replace('\n', " ");
    let start = error.span().map_or(0, |span| span.start.min(text.len()));
    let line = text.as_bytes()[..start].iter().filter(|&&b| b == b'\n').count() + 1;
    Error::input(format!("{} line {line}: {message}", path.display()))
}
