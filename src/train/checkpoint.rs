//! What a run needs to go on exactly where it stopped: trained values, the optimiser's moments, and where the run is.

use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};
use serde::{Deserialize, Serialize};

use super::early_stopping::EarlyStopping;
use super::optimizer::Optimizer;
use super::schedule::Schedule;
use crate::autograd::{Backend, Params};
use crate::io::atomic;
use crate::{Error, Result};

/// Where a run is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Progress {
    /// What the run trains and validates on, in short: another order or other images would not continue this run.
    pub data: String,
    /// The epoch under way, counted from 1.
    pub epoch: usize,
    /// Its batches that are done.
    pub batches_done: usize,
    /// Optimiser steps taken.
    pub step: u64,
    /// Sum of this epoch's batch losses, each times its images.
    pub loss_sum: f64,
    /// This epoch's images so far.
    pub images: usize,
    /// Images trained on over the run.
    pub images_trained: usize,
    /// Seconds spent in optimiser steps, waiting for data included.
    pub train_s: f64,
    /// Seconds of training before, over all parts of the run.
    pub wall_s: f64,
    /// Most bytes of the device in use at once, over all parts of the run: a part that does a last short batch alone sees little of it.
    #[serde(default)]
    pub peak_bytes: u64,
    /// Joules that the GPU took, over all parts of the run; none where nothing counts them.
    #[serde(default)]
    pub energy_j: Option<f64>,
    /// The learning rate's state.
    pub schedule: Schedule,
    /// Early stopping's state, and the best epoch.
    pub stopping: EarlyStopping,
    /// Lines of `metrics.jsonl` that belong to what is done.
    pub log_lines: u64,
    /// Epochs that are over, for the closing table.
    pub history: Vec<EpochRecord>,
    /// The run is over: all epochs done, or stopped early.
    pub finished: bool,
}

/// What an epoch came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// Counted from 1.
    pub epoch: usize,
    /// Mean training loss, before each update.
    pub train_loss: f64,
    /// Mean validation loss.
    pub val_loss: Option<f64>,
    /// Validation accuracy (multi-label: mean average precision), 0 to 1.
    pub val_accuracy: Option<f64>,
    /// Learning rate of the epoch's last step.
    pub lr: f64,
}

const STATE: &str = "state.json";
const TENSORS: &str = "state.safetensors";

/// Writes `dir` anew; the one before stays whole until the new one is.
pub fn save<B: Backend>(dir: &Path, params: &Params<B>, optimizer: &Optimizer<B>, progress: &Progress) -> Result<()> {
    let mut tensors = optimizer.state(params)?;
    for (id, param) in params.trainable() {
        tensors.push((format!("value.{}", param.name), params.download(id)?));
    }
    let mut views = Vec::with_capacity(tensors.len());
    for (name, values) in &tensors {
        let view = TensorView::new(Dtype::F32, vec![values.len()], bytemuck::cast_slice(values))
            .map_err(|e| Error::Internal(format!("checkpoint tensor {name}: {e}")))?;
        views.push((name, view));
    }
    let bytes = serialize(views, None).map_err(|e| Error::Internal(format!("checkpoint: {e}")))?;
    let state = serde_json::to_vec_pretty(progress).map_err(|e| Error::Internal(format!("checkpoint: {e}")))?;
    atomic::replace_dir(dir, |tmp| {
        atomic::write_file(&tmp.join(TENSORS), &bytes)?;
        atomic::write_file(&tmp.join(STATE), &state)
    })
}

/// Reads where a run is.
pub fn progress(dir: &Path) -> Result<Progress> {
    let path = dir.join(STATE);
    let bytes = std::fs::read(&path).map_err(|e| Error::io("read", &path, e))?;
    serde_json::from_slice(&bytes)
        .map_err(|e| Error::input(format!("{}: not a checkpoint of peftk: {e}", path.display())))
}

/// Puts a checkpoint's values into a model that was built from the same configuration.
pub fn load<B: Backend>(
    dir: &Path,
    params: &mut Params<B>,
    optimizer: &mut Optimizer<B>,
    progress: &Progress,
) -> Result<()> {
    let path = dir.join(TENSORS);
    let bytes = std::fs::read(&path).map_err(|e| Error::io("read", &path, e))?;
    let file = SafeTensors::deserialize(&bytes)
        .map_err(|e| Error::input(format!("{}: a damaged checkpoint ({e})", path.display())))?;
    let find = |name: &str, elements: usize| -> Result<Vec<f32>> {
        let view = file.tensor(name).map_err(|_| {
            Error::input(format!("{}: no '{name}': the run was made from another configuration", path.display()))
        })?;
        let values: Vec<f32> = bytemuck::pod_collect_to_vec(view.data());
        if values.len() != elements {
            return Err(Error::input(format!(
                "{}: '{name}' has {} numbers, expected {elements}: the run was made from another configuration",
                path.display(),
                values.len()
            )));
        }
        Ok(values)
    };
    let trained: Vec<_> =
        params.trainable().map(|(id, p)| (id, format!("value.{}", p.name), p.value.elements())).collect();
    for (id, name, elements) in trained {
        params.set(id, &find(&name, elements)?)?;
    }
    optimizer.restore(params, progress.step, find)
}
