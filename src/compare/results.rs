//! What a comparison measured: the one thing that every page of its report is drawn from, and `results.json` itself.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::config::{Strategy, Task};

/// A whole comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// This program's version.
    pub version: String,
    /// The commit it was built from; more than one where a comparison went on with another build.
    pub commit: String,
    /// Devices and numbers in words, as `train` says them; more than one where a comparison went on elsewhere.
    pub device: String,
    /// The backbone as it was given; `embedded` for the micro model.
    pub backbone: String,
    /// What the reader must know of backbone or data, in the words of `--note`.
    pub note: Option<String>,
    /// What holds for every cell.
    pub protocol: Protocol,
    /// The data sets, in the order given.
    pub datasets: Vec<DatasetInfo>,
    /// What is compared, in the order given.
    pub variants: Vec<Variant>,
    /// One a (data set, variant, seed), in that order, the seeds innermost; none is left out.
    pub cells: Vec<Cell>,
    /// How learning rates were found; empty where they are the defaults or given.
    pub tuning: Vec<Tuning>,
}

/// What holds for every cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Protocol {
    /// Seeds of the cells: of the head, the adapters, the order and the crops of images. The split of the data is the same for all.
    pub seeds: Vec<u64>,
    /// Where learning rates come from, in a sentence.
    pub rates: String,
    /// How images are split, in a sentence.
    pub split: String,
    /// The budget of `--memory-budget`, in bytes.
    pub memory_budget: Option<u64>,
}

/// A data set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DatasetInfo {
    /// Its name in tables: the folder's, or that and a number where two have the same.
    pub name: String,
    /// What `train` says of it.
    pub description: String,
    /// What its labels are.
    pub task: Task,
    /// Classes or labels.
    pub classes: usize,
    /// Images trained on.
    pub train: usize,
    /// Images that pick the best epoch (and learning rates).
    pub val: usize,
    /// Images that nothing was chosen by.
    pub test: usize,
    /// Epochs of a run on it at most.
    pub epochs: usize,
    /// Images a step.
    pub batch_size: usize,
    /// Side of the model's input in pixels.
    pub input_size: usize,
    /// What accuracy means here: `top-1`, `mean average precision`, `whole paths`.
    pub measure: String,
}

/// A strategy, with a rank where several are compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variant {
    /// What is trained.
    pub strategy: Strategy,
    /// The adapters' rank; none for full and freeze.
    pub rank: Option<usize>,
    /// What tables call it: `dora`, or `dora r16` where more than one rank is compared.
    pub name: String,
}

/// One run of the comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// Index into [`Results::datasets`].
    pub dataset: usize,
    /// Index into [`Results::variants`].
    pub variant: usize,
    /// Seed.
    pub seed: u64,
    /// Its folder, from the report's: `runs/<data set>/<variant>/seed-<seed>`.
    pub run: String,
    /// Its settings: as in that folder's `config.toml` where it is done, else as asked for.
    pub config: Value,
    /// What it came to.
    pub outcome: Outcome,
}

/// What a cell came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum Outcome {
    /// Not done yet.
    Pending,
    /// Trained and tested.
    Done(Box<Measured>),
    /// Stopped by an error, which is said.
    Failed {
        /// The error's line.
        reason: String,
    },
}

/// The numbers of a finished cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// The commit that the program was built from.
    pub commit: String,
    /// Device and numbers in words, as `train` says them.
    pub device: String,
    /// The run's settings once all was settled, as in its `config.toml`.
    pub settled: Value,
    /// Where the head came from, in the log's words.
    pub head: String,
    /// Accuracy on the test images of the best epoch, 0 to 1; what it means is the data set's [`DatasetInfo::measure`].
    pub test_accuracy: f64,
    /// Mean loss on the test images.
    pub test_loss: f64,
    /// The task's other measures on the test images.
    pub test_more: Map<String, Value>,
    /// Accuracy on the validation images of the best epoch, which was chosen by it.
    pub val_accuracy: f64,
    /// The best epoch, counted from 1.
    pub best_epoch: usize,
    /// Epochs done.
    pub epochs: usize,
    /// Optimiser steps done.
    pub steps: u64,
    /// Most bytes of the device in use at once.
    pub peak_bytes: u64,
    /// Bytes that were planned.
    pub planned_bytes: u64,
    /// Training images a second, decoding included.
    pub images_per_s: f64,
    /// Seconds of training steps an epoch (validation and saving apart).
    pub seconds_per_epoch: f64,
    /// Seconds of training steps altogether.
    pub train_s: f64,
    /// Seconds from start to end, reading and saving included.
    pub wall_s: f64,
    /// Joules that the GPU took from the upload of the model to the last save, as NVML counts them; none without NVML. What a killed process took after
    /// its last save is not counted.
    pub energy_j: Option<f64>,
    /// Values that were trained.
    pub trained_parameters: u64,
    /// Values of the whole model.
    pub parameters: u64,
    /// Bytes on disk of what the run leaves: the adapter, or the whole model for full and freeze.
    pub saved_bytes: u64,
    /// Epoch by epoch.
    pub curve: Vec<EpochPoint>,
}

/// One epoch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochPoint {
    /// Counted from 1.
    pub epoch: usize,
    /// Mean training loss.
    pub train_loss: f64,
    /// Mean validation loss.
    pub val_loss: f64,
    /// Validation accuracy.
    pub val_accuracy: f64,
}

/// The search for one variant's learning rate by successive halving.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tuning {
    /// Index into [`Results::datasets`]: where it was searched.
    pub dataset: usize,
    /// Index into [`Results::variants`].
    pub variant: usize,
    /// Every trial, in order.
    pub trials: Vec<Trial>,
    /// The rate that was taken.
    pub lr: f64,
    /// Epochs over all trials.
    pub epochs: usize,
}

/// One short run of a search.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// Round, counted from 1.
    pub round: usize,
    /// Learning rate.
    pub lr: f64,
    /// Epochs it was given.
    pub epochs: usize,
    /// Best validation accuracy; none where it failed.
    pub val_accuracy: Option<f64>,
    /// Validation loss of that epoch, which decides between equals.
    pub val_loss: Option<f64>,
    /// Why it failed.
    pub reason: Option<String>,
}

impl Variant {
    /// What folders call it: always with the rank, so that others may come beside it.
    pub fn folder(&self) -> String {
        match self.rank {
            Some(rank) => format!("{}-r{rank}", self.strategy.name()),
            None => self.strategy.name().to_owned(),
        }
    }
}

impl Cell {
    /// Takes up what it came to.
    pub(super) fn take(&mut self, outcome: Outcome) {
        if let Outcome::Done(measured) = &outcome {
            self.config = measured.settled.clone();
        }
        self.outcome = outcome;
    }
}

impl Outcome {
    /// The numbers, where there are any.
    pub fn measured(&self) -> Option<&Measured> {
        match self {
            Self::Done(measured) => Some(measured),
            Self::Pending | Self::Failed { .. } => None,
        }
    }
}

impl Results {
    /// The finished cells of a data set and variant, in the order of the seeds.
    pub fn done(&self, dataset: usize, variant: usize) -> impl Iterator<Item = (u64, &Measured)> {
        let of = move |cell: &&Cell| cell.dataset == dataset && cell.variant == variant;
        self.cells.iter().filter(of).filter_map(|cell| Some((cell.seed, cell.outcome.measured()?)))
    }

    /// Whether no cell is left to run.
    pub fn is_complete(&self) -> bool {
        !self.cells.iter().any(|cell| matches!(cell.outcome, Outcome::Pending))
    }
}
