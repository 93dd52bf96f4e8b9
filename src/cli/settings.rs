//! A run's settings as given: by flags, or by a file with the same names. Nothing is checked or filled in here.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Deserialize;

use super::words;
use crate::config::{
    AdapterInit, AsymmetricSettings, Augment, Cache, ClassWeights, Device, Format, LabelLoss, Memory, Pool, Precision,
    Recompute, Resize, ScheduleKind, Strategy, Task, toml_error,
};
use crate::{Error, Result};

/// `--task`: a task, or found from the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskWord {
    Auto,
    Multiclass,
    Multilabel,
    Hierarchical,
}

impl TaskWord {
    pub fn task(self) -> Option<Task> {
        match self {
            Self::Auto => None,
            Self::Multiclass => Some(Task::Multiclass),
            Self::Multilabel => Some(Task::Multilabel),
            Self::Hierarchical => Some(Task::Hierarchical),
        }
    }
}

/// `--batch-size`: a number, or the largest batch that fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchSize {
    Auto,
    Number(usize),
}

impl std::str::FromStr for BatchSize {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            number => number
                .parse()
                .map(Self::Number)
                .map_err(|_| format!("'{number}' is neither auto nor a number of images")),
        }
    }
}

impl<'de> Deserialize<'de> for BatchSize {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Number(usize),
            Word(String),
        }
        match Either::deserialize(from)? {
            Either::Number(number) => Ok(Self::Number(number)),
            Either::Word(word) => word.parse().map_err(serde::de::Error::custom),
        }
    }
}

/// Every setting of a run that a flag or a file may give; `None`: not given. Where TOML's name differs from the flag's, it
/// is the field's.
#[derive(Args, Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[command(next_help_heading = "Data")]
pub struct Settings {
    /// Data folder: a folder a class, perhaps under train, val and test, or images with labels.csv, or a data set as its authors laid it
    /// out [default: the embedded images]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Validation data of its own
    #[arg(long, value_name = "DIR", conflicts_with = "val_fraction")]
    pub val_data: Option<PathBuf>,
    /// Share of the training images held back for validation where the data has no split; 0: none [default: 0.2]
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    pub val_fraction: Option<f64>,
    /// Share of the images held back for testing where the data has no test split, never trained or validated on; eval measures on
    /// them [default: 0; compare: 0.2]
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    pub test_fraction: Option<f64>,
    /// Seed of what is held back and of --shots [default: --seed; compare: 0]
    #[arg(long, value_name = "N")]
    pub split_seed: Option<u64>,
    /// What labels are: auto, multiclass, multilabel or hierarchical [default: auto]
    #[arg(long, value_name = "TASK", value_parser = words::word::<TaskWord>)]
    pub task: Option<TaskWord>,
    /// How the data is laid out: auto, folder, csv, coco, datumaro, aircraft, aircraft-family, aircraft-manufacturer, food101,
    /// stanford-cars, cub200, ham10000, resisc45, kitti, idx or parquet [default: auto]
    #[arg(long, value_name = "FORMAT", value_parser = words::word::<Format>)]
    pub format: Option<Format>,
    /// Leave unreadable images out instead of stopping
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", hide_possible_values = true)]
    pub skip_bad: Option<bool>,
    /// At most this many training images a class
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub shots: Option<usize>,
    /// Side of the model's input in pixels, a multiple of 14 [default: 224; embedded and micro backbone: 56]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub input_size: Option<usize>,
    /// How an image becomes a square for evaluation: crop or squash [default: squash]
    #[arg(long, value_name = "HOW", value_parser = words::word::<Resize>)]
    pub resize: Option<Resize>,
    /// Training augmentation: standard (random crop and flip) or none [default: standard]
    #[arg(long, value_name = "HOW", value_parser = words::word::<Augment>)]
    pub augment: Option<Augment>,
    /// Every image once an epoch, in the order of the files
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", hide_possible_values = true)]
    pub no_shuffle: Option<bool>,
    /// Draw every class equally often
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", hide_possible_values = true)]
    pub balanced: Option<bool>,

    /// Backbone: a name such as dinov2-small, a folder, a file, or random:SIZE [default: the embedded micro model]
    #[arg(long, value_name = "NAME|DIR|FILE|random:SIZE", help_heading = "Model")]
    pub backbone: Option<String>,
    /// What is trained: full, freeze, lora or dora [default: dora]
    #[arg(long, value_name = "STRATEGY", value_parser = words::word::<Strategy>, help_heading = "Model")]
    pub strategy: Option<Strategy>,
    /// What the head sees: cls+mean or cls [default: cls+mean]
    #[arg(long, value_name = "POOL", value_parser = words::word::<Pool>, help_heading = "Model")]
    pub pool: Option<Pool>,
    /// Adapter folder to start from; it fixes rank, alpha, targets and the like
    #[arg(long, value_name = "DIR", help_heading = "Model")]
    pub init_adapter: Option<PathBuf>,
    #[command(flatten)]
    pub adapter: AdapterFlags,

    /// Epochs at most [default: 30]
    #[arg(long, value_name = "N", allow_negative_numbers = true, help_heading = "Optimisation")]
    pub epochs: Option<usize>,
    /// Images a step, or auto: as many as fit at once [default: 64; embedded images: 32]
    #[arg(long, value_name = "N|auto", allow_negative_numbers = true, help_heading = "Optimisation")]
    pub batch_size: Option<BatchSize>,
    /// Learning rate [default: full 3e-5 (micro backbone 3e-4), freeze 1e-2, lora and dora 2e-3]
    #[arg(long, value_name = "F", allow_negative_numbers = true, help_heading = "Optimisation")]
    pub lr: Option<f64>,
    /// AdamW's decoupled weight decay [default: 0.05]
    #[arg(long, value_name = "F", allow_negative_numbers = true, help_heading = "Optimisation")]
    pub weight_decay: Option<f64>,
    /// What decays: all, or matrices (no biases, norms, magnitudes) [default: all]
    #[arg(long = "decay", value_name = "WHAT", value_parser = words::decay, help_heading = "Optimisation")]
    pub decay_matrices_only: Option<bool>,
    /// Learning rate over the run: plateau, cosine or constant [default: cosine]
    #[arg(long, value_name = "KIND", value_parser = words::word::<ScheduleKind>, help_heading = "Optimisation")]
    pub schedule: Option<ScheduleKind>,
    /// Steps of linear warm-up [default: 0; full with --schedule cosine: a tenth of the run's]
    #[arg(long, value_name = "N", allow_negative_numbers = true, help_heading = "Optimisation")]
    pub warmup_steps: Option<usize>,
    /// Stop after this many epochs without a better validation accuracy [default: never]
    #[arg(long, value_name = "N", allow_negative_numbers = true, help_heading = "Optimisation")]
    pub patience: Option<usize>,
    /// Largest norm of the whole gradient [default: no clipping]
    #[arg(long, value_name = "F", allow_negative_numbers = true, help_heading = "Optimisation")]
    pub grad_clip: Option<f64>,
    /// Label smoothing of the cross-entropy [default: 0]
    #[arg(long, value_name = "F", allow_negative_numbers = true, help_heading = "Optimisation")]
    pub label_smoothing: Option<f64>,
    /// Loss of labels that are yes or no: bce or asymmetric [default: multi-label bce, hierarchical asymmetric]
    #[arg(long, value_name = "LOSS", value_parser = words::word::<LabelLoss>, help_heading = "Optimisation")]
    pub loss: Option<LabelLoss>,
    /// Constants of the asymmetric loss [default: gamma_pos=0,gamma_neg=1,k=0.8,clip=0.05]
    #[arg(long, value_name = "NAME=F,..", help_heading = "Optimisation")]
    pub asymmetric: Option<AsymmetricSettings>,
    /// Weights of the classes in the cross-entropy: balanced (rare classes weigh more), or a number a class
    #[arg(long, value_name = "balanced|F,..", help_heading = "Optimisation")]
    pub class_weights: Option<ClassWeights>,
    /// Multi-label: give a label above the probability with the best F1 on the validation images, not above 0.5
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", hide_possible_values = true, help_heading = "Optimisation")]
    pub tune_thresholds: Option<bool>,
    /// Seed of everything random [default: 0]
    #[arg(long, value_name = "N", allow_negative_numbers = true, help_heading = "Optimisation")]
    pub seed: Option<u64>,

    /// What decoded images are kept in: so much memory, what has no room there in so much of a file (in DIR, else $TMPDIR or /var/tmp;
    /// gone when the run ends), such as 4GiB or 4GiB,100GiB or none,100GiB,/scratch, or none [default: 1GiB]
    #[arg(long, value_name = "MEMORY[,DISK[,DIR]]", help_heading = "Machine")]
    pub cache: Option<Cache>,
    /// Where it runs: auto, cpu or cuda[:N] [default: auto]
    #[arg(long, value_name = "DEVICE", help_heading = "Machine")]
    pub device: Option<Device>,
    /// bf16 (a GPU alone) or f32 [default: bf16 on a GPU, f32 on the CPU]
    #[arg(long, value_name = "TYPE", value_parser = words::word::<Precision>, help_heading = "Machine")]
    pub precision: Option<Precision>,
    /// On a GPU room for activations, for ViT-S 1.5 GiB (fast), 0.9 (balanced) or 0.4 (lean); on the CPU all images at once, 16, or 16 and activations computed again [default: fast]
    #[arg(long, value_name = "HOW", value_parser = words::word::<Memory>, help_heading = "Machine")]
    pub memory: Option<Memory>,
    /// The fastest plan within this much device memory, such as 2GiB or 900MiB
    #[arg(long, value_name = "SIZE", help_heading = "Machine")]
    pub memory_budget: Option<String>,
    /// Images that go through the model at once; the step is that of the whole batch [default: the whole batch]
    #[arg(long, value_name = "N", allow_negative_numbers = true, help_heading = "Machine")]
    pub micro_batch: Option<usize>,
    /// Found by the plan; a file may give it.
    #[arg(skip)]
    pub recompute: Option<Recompute>,
    /// An older name of recomputing blocks; in files alone.
    #[arg(skip)]
    pub checkpointing: Option<bool>,
}

/// Settings of the adapters: TOML's table `adapter`.
#[derive(Args, Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[command(next_help_heading = "Adapter (lora, dora)")]
pub struct AdapterFlags {
    /// Linears that get an adapter: all-linear, or a list of q, k, v, o, fc1, fc2, gate, up, down [default: q,v]
    #[arg(long, value_name = "LIST", value_parser = words::list)]
    pub targets: Option<::std::vec::Vec<String>>,
    /// Rank r [default: 8]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub rank: Option<usize>,
    /// alpha; the scale is alpha / rank [default: the rank]
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    pub alpha: Option<f64>,
    /// Scale by alpha / sqrt(rank)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", hide_possible_values = true)]
    pub rslora: Option<bool>,
    /// Probability that an input of the adapter is dropped [default: 0]
    #[arg(long = "lora-dropout", value_name = "F", allow_negative_numbers = true)]
    pub dropout: Option<f64>,
    /// DoRA: differentiate through the row norm instead of holding it constant
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", hide_possible_values = true)]
    pub dora_norm_grad: Option<bool>,
    /// Starting values: default, gaussian, pissa or orthogonal [default: default]
    #[arg(long, value_name = "HOW", value_parser = words::word::<AdapterInit>)]
    pub init: Option<AdapterInit>,
    /// Ranks of their own: regular expressions at the end of the module's name, first match wins
    #[arg(long, value_name = "PATTERN=N,..", value_parser = words::patterns::<usize>)]
    pub rank_pattern: Option<::std::vec::Vec<(String, usize)>>,
    /// Alphas of their own, in the same way
    #[arg(long, value_name = "PATTERN=F,..", value_parser = words::patterns::<f64>)]
    pub alpha_pattern: Option<::std::vec::Vec<(String, f64)>>,
    /// Blocks that get adapters, counted from 0 [default: all]
    #[arg(long, value_name = "0,1,..", value_parser = words::numbers)]
    pub layers: Option<::std::vec::Vec<usize>>,
}

impl Settings {
    /// Reads a TOML file of settings: a run's `config.toml`, or a few lines of one.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be read, [`Error::Input`] with file and line where it is wrong.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io("read", path, e))?;
        toml::from_str(&text).map_err(|e| toml_error(path, &text, &e))
    }

    /// These, and `base` where these say nothing.
    pub fn over(self, base: Self) -> Self {
        macro_rules! over {
            ($($field:ident)*) => { Self { adapter: self.adapter.over(base.adapter), $($field: self.$field.or(base.$field)),* } };
        }
        over! {
            data val_data val_fraction test_fraction split_seed task format skip_bad shots input_size resize augment no_shuffle balanced backbone
            strategy pool init_adapter epochs batch_size lr weight_decay decay_matrices_only schedule warmup_steps patience
            grad_clip label_smoothing loss asymmetric class_weights tune_thresholds seed cache device precision memory
            memory_budget micro_batch recompute checkpointing
        }
    }
}

impl AdapterFlags {
    fn over(self, base: Self) -> Self {
        macro_rules! over {
            ($($field:ident)*) => { Self { $($field: self.$field.or(base.$field)),* } };
        }
        over! { targets rank alpha rslora dropout dora_norm_grad init rank_pattern alpha_pattern layers }
    }
}
