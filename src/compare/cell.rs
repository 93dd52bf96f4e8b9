//! One run of a comparison: trained from wherever it stands, measured, and what is asked of the machine after a failure.

use std::path::Path;

use super::folder::settled;
use super::results::{EpochPoint, Measured};
use crate::config::{Device, Precision, Strategy, TrainConfig};
use crate::train::evaluate::Evaluation;
use crate::train::{self, Images, Place, Summary, Ui};
use crate::{Error, Result};

/// Trains a run, or goes on with it, in numbers of `precision`.
pub fn train(wanted: &TrainConfig, images: &Images, precision: Option<Precision>, ui: &Ui) -> Result<Summary> {
    let settings = wanted.out.join("config.toml");
    // Where the numbers it began with cannot be had any more (it was begun on a GPU, and there is none) it begins again.
    let begun = settings.is_file() && TrainConfig::read_toml(&settings)?.precision == precision;
    if !begun {
        // Also what a kill before the settings were whole left behind.
        remove(&wanted.out)?;
    }
    train::run_on(wanted, begun, Some(images), ui)
}

/// The numbers of a run, tested.
pub fn measured(wanted: &TrainConfig, summary: &Summary, test: &Evaluation) -> Result<Measured> {
    let (best_epoch, val_accuracy) =
        summary.best.ok_or_else(|| Error::Internal("a run without a best epoch".into()))?;
    // No number that cannot be written down, or ranked.
    if !(test.loss.is_finite() && test.accuracy().is_finite()) {
        return Err(Error::NonFinite(format!(
            "on the test images the loss is {} and the accuracy {}; train with a lower --lr",
            test.loss,
            test.accuracy()
        )));
    }
    Ok(Measured {
        commit: train::bench::COMMIT.to_owned(),
        device: summary.device.clone(),
        settled: settled(&TrainConfig::read_toml(&summary.out.join("config.toml"))?, wanted)?,
        head: summary.head.clone(),
        test_accuracy: test.accuracy(),
        test_loss: test.loss,
        test_more: test.more(),
        val_accuracy,
        best_epoch,
        epochs: summary.epochs,
        steps: summary.steps,
        peak_bytes: summary.peak_bytes,
        planned_bytes: summary.planned_bytes,
        images_per_s: summary.images_per_s,
        seconds_per_epoch: summary.train_s / summary.epochs.max(1) as f64,
        train_s: summary.train_s,
        wall_s: summary.wall_s,
        energy_j: summary.energy_j,
        trained_parameters: summary.trained_parameters,
        parameters: summary.parameters,
        saved_bytes: saved_bytes(summary)?,
        curve: summary
            .history
            .iter()
            .filter_map(|record| {
                let (train_loss, val_loss, val_accuracy) = (record.train_loss, record.val_loss?, record.val_accuracy?);
                Some(EpochPoint { epoch: record.epoch, train_loss, val_loss, val_accuracy })
            })
            .collect(),
    })
}

/// Bytes of what a run leaves to be used: the adapter, or the whole model.
fn saved_bytes(summary: &Summary) -> Result<u64> {
    let names: &[&str] = match summary.strategy {
        Strategy::Lora | Strategy::Dora => &["adapter/adapter_model.safetensors", "adapter/adapter_config.json"],
        Strategy::Full | Strategy::Freeze => &["model.safetensors", "config.json"],
    };
    names.iter().try_fold(0, |sum, name| {
        let path = summary.out.join(name);
        let size = std::fs::metadata(&path).map_err(|e| Error::io("read", &path, e))?.len();
        Ok(sum + size)
    })
}

/// After a failure that may have taken the GPU with it: an error where no further run could work.
pub fn still_there(config: &TrainConfig, error: &Error) -> Result<()> {
    if !matches!(error, Error::Internal(_)) || config.device == Device::Cpu {
        return Ok(());
    }
    let answers = match Place::choose(config.device, config.precision) {
        Ok(Place::Cuda(device, _)) => device.synchronize(),
        Ok(Place::Cpu) => Ok(()),
        Err(error) => Err(error),
    };
    answers.map_err(|gone| {
        Error::Internal(format!(
            "the GPU no longer answers ({gone}) after a run failed: {error}; the same command goes on with the rest"
        ))
    })
}

/// Takes a file away, if it is there.
pub fn remove_file(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", path, e)),
        _ => Ok(()),
    }
}

/// Takes a folder away, if it is there.
pub fn remove(folder: &Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", folder, e)),
        _ => Ok(()),
    }
}
