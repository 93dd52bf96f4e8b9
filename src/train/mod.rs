//! Training and the use of what was trained.

pub mod early_stopping;
pub mod interrupt;
pub mod log;
pub mod report;
pub mod run_dir;
pub mod schedule;
pub mod ui;

pub use report::{EvalReport, MemoryPlan, PredictedLabel, Prediction, Summary};
pub use ui::{Bar, Ui};

use crate::config::{EvalConfig, MergeConfig, PredictConfig, TrainConfig};
use crate::{Error, Result};

/// Trains, or with `resume` continues the run in `config.out`.
///
/// # Errors
/// Whatever stops the run.
pub fn run(_config: &TrainConfig, _resume: bool, _ui: &Ui) -> Result<Summary> {
    Err(Error::Internal("not built yet".into()))
}

/// Measures a run's classifier on data.
///
/// # Errors
/// Wrong input, or what stopped the measuring.
pub fn eval(_config: &EvalConfig, _ui: &Ui) -> Result<EvalReport> {
    Err(Error::Internal("not built yet".into()))
}

/// Classifies images, each handed to `each` in the order given.
///
/// # Errors
/// Wrong input, or what `each` returned.
pub fn predict(_config: &PredictConfig, _ui: &Ui, _each: &mut dyn FnMut(Prediction) -> Result<()>) -> Result<()> {
    Err(Error::Internal("not built yet".into()))
}

/// Writes a plain transformers folder with the adapter merged in.
///
/// # Errors
/// Wrong input, or a folder that cannot be written.
pub fn merge(_config: &MergeConfig, _ui: &Ui) -> Result<()> {
    Err(Error::Internal("not built yet".into()))
}

/// Memory of a training run by purpose.
///
/// # Errors
/// Wrong input.
pub fn plan(_config: &TrainConfig, _ui: &Ui) -> Result<MemoryPlan> {
    Err(Error::Internal("not built yet".into()))
}
