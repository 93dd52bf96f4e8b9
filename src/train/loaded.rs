//! A trained classifier from a run folder, or from a backbone and an adapter.

use std::path::Path;

use super::inputs;
use super::model::Model;
use super::run_dir::{LABELS, RunDir, read_labels};
use super::ui::Ui;
use crate::adapter;
use crate::autograd::Backend;
use crate::config::{DEFAULT_INPUT_SIZE, ModelSource, Resize, Task};
use crate::io::{BackboneSpec, atomic};
use crate::task::labels::Labels;
use crate::{Error, Result};

/// A classifier and how its images are prepared.
pub struct Loaded<B: Backend> {
    /// The model.
    pub model: Model<B>,
    /// How an image becomes a square.
    pub resize: Resize,
}

impl<B: Backend> Loaded<B> {
    /// Gives all labels one threshold instead of their own.
    ///
    /// # Errors
    /// A classifier that is not multi-label.
    pub fn with_threshold(mut self, threshold: Option<f64>) -> Result<Self> {
        let Some(threshold) = threshold else { return Ok(self) };
        let labels = &mut self.model.labels;
        if labels.task != Task::Multilabel {
            let task = labels.task.name();
            return Err(Error::input(format!(
                "--threshold: it is for multi-label classifiers, this one is {task}; leave it out"
            )));
        }
        labels.thresholds = Some(vec![threshold; labels.len()]);
        Ok(self)
    }
}

/// Loads it. `input_size` and `resize` go before the run's own.
///
/// # Errors
/// A folder that is no run, or one that has no finished epoch; whatever is wrong with backbone or adapter.
pub fn load<B: Backend>(
    backend: B,
    source: &ModelSource,
    input_size: Option<usize>,
    resize: Option<Resize>,
    ui: &Ui,
) -> Result<Loaded<B>> {
    match source {
        ModelSource::Run(path) => from_run(backend, path, input_size, resize, ui),
        ModelSource::Backbone { backbone, adapter } => {
            let labels = labels_beside(backbone, adapter.as_deref())?;
            let backbone = inputs::load_backbone(Some(backbone), ui)?;
            let adapter = adapter.as_deref().map(adapter::read).transpose()?;
            // A model whose positions are for a small image was made for small images.
            let small = backbone.config.image_size < DEFAULT_INPUT_SIZE;
            let input_size = input_size.unwrap_or(if small { backbone.config.image_size } else { DEFAULT_INPUT_SIZE });
            let model = Model::for_inference(backend, backbone, adapter, labels, input_size)?;
            Ok(Loaded { model, resize: resize.unwrap_or(Resize::Squash) })
        }
    }
}

/// The `labels.json` of the run that an adapter lies in, or of a merged folder.
fn labels_beside(backbone: &str, adapter: Option<&Path>) -> Result<Option<Labels>> {
    let path = match (adapter, BackboneSpec::parse(backbone)?) {
        // Of what is no run a file of that name is something else.
        (Some(adapter), _) if adapter.join("../config.toml").is_file() => adapter.join("..").join(LABELS),
        (None, BackboneSpec::Folder(folder)) => folder.join(LABELS),
        _ => return Ok(None),
    };
    if path.is_file() { read_labels(&path).map(Some) } else { Ok(None) }
}

fn from_run<B: Backend>(
    backend: B,
    path: &Path,
    input_size: Option<usize>,
    resize: Option<Resize>,
    ui: &Ui,
) -> Result<Loaded<B>> {
    let run = RunDir::open(path, "--model")?;
    let (config, labels) = (run.read_config()?, run.read_labels()?);
    let unfinished = || {
        Error::input(format!(
            "--model {}: no epoch of this run is finished yet: go on with peftk train --out {} --resume",
            path.display(),
            path.display()
        ))
    };
    let (backbone, adapter) = if config.strategy.has_adapter() {
        let folder = atomic::readable_dir(&run.adapter());
        if !folder.is_dir() {
            return Err(unfinished());
        }
        (inputs::load_backbone(config.backbone.as_deref(), ui)?, Some(adapter::read(&folder)?))
    } else {
        if !path.join("model.safetensors").is_file() {
            return Err(unfinished());
        }
        (crate::io::load(&BackboneSpec::Folder(path.to_owned()), &mut |note| ui.note(note))?, None)
    };
    let input_size = input_size.unwrap_or(config.input_size);
    let model = Model::for_inference(backend, backbone, adapter, Some(labels), input_size)?;
    Ok(Loaded { model, resize: resize.unwrap_or(config.resize) })
}
