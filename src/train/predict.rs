//! What is on images that nobody has labelled.

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::interrupt;
use super::loaded::{Loaded, load};
use super::place::Place;
use super::report::{PredictedLabel, Prediction};
use super::ui::Ui;
use crate::autograd::{Backend, Tape};
use crate::config::{PredictConfig, Resize, Task};
use crate::cpu::Cpu;
use crate::cuda::Cuda;
use crate::data::{Source, decode, has_image_extension, transform};
use crate::task::labels::Labels;
use crate::vit::Mode;
use crate::{Error, Result};

/// Images that go through the model at once.
const BATCH: usize = 16;

/// Classifies images, each handed to `each`: images as given, folders' images sorted by path.
///
/// # Errors
/// A path that is not there, a folder without images, an image that cannot be read; what [`load`] says.
pub fn predict(config: &PredictConfig, ui: &Ui, each: &mut dyn FnMut(Prediction) -> Result<()>) -> Result<()> {
    let paths = images_of(&config.paths)?;
    match Place::choose(config.device, config.precision)? {
        Place::Cpu => predict_on(Cpu::new(None)?, config, &paths, ui, each),
        Place::Cuda(device, precision) => predict_on(Cuda::new(&device, precision), config, &paths, ui, each),
    }
}

fn predict_on<B: Backend>(
    backend: B,
    config: &PredictConfig,
    paths: &[PathBuf],
    ui: &Ui,
    each: &mut dyn FnMut(Prediction) -> Result<()>,
) -> Result<()> {
    let loaded =
        load(backend, &config.model, config.input_size, config.resize, ui)?.with_threshold(config.threshold)?;
    let bar = ui.bar(paths.len() as u64, "predict");
    for batch in paths.chunks(BATCH) {
        interrupt::check()?;
        let (logits, classes) = (run(&loaded, batch)?, loaded.model.labels.len());
        for (path, logits) in batch.iter().zip(logits.chunks_exact(classes)) {
            each(answer(path, logits, &loaded.model.labels))?;
        }
        bar.inc(batch.len() as u64);
    }
    Ok(())
}

fn answer(path: &Path, logits: &[f32], labels: &Labels) -> Prediction {
    let (label, probs) = (predicted(logits, labels), labels.probabilities(logits));
    Prediction { path: path.to_owned(), logits: logits.to_vec(), probs, label }
}

/// What an image is said to show.
pub(super) fn predicted(logits: &[f32], labels: &Labels) -> PredictedLabel {
    let mut names = labels.answer(logits).into_iter().map(|label| labels.names[label].clone());
    match labels.task {
        Task::Multiclass => PredictedLabel::One(names.next().unwrap_or_default()),
        Task::Hierarchical => PredictedLabel::Path(names.collect()),
        Task::Multilabel => PredictedLabel::Many(names.collect()),
    }
}

/// Logits \[images, classes\].
fn run<B: Backend>(loaded: &Loaded<B>, paths: &[PathBuf]) -> Result<Vec<f32>> {
    let images = squares(paths, loaded.model.vit.input_size, loaded.resize)?;
    let tape = Tape::inference(&loaded.model.params);
    let logits = loaded.model.vit.logits(&tape, &images, paths.len(), Mode::default())?;
    logits.array().download(loaded.model.params.backend())
}

/// The images as the model sees them, u8 \[images, size, size, 3\].
pub(super) fn squares(paths: &[PathBuf], size: usize, resize: Resize) -> Result<Vec<u8>> {
    let mut images = vec![0; paths.len() * size * size * 3];
    images.par_chunks_exact_mut(size * size * 3).zip(paths).try_for_each(|(out, path)| {
        let image = decode(&Source::File(path.clone()))?;
        transform::eval(&image, size, resize, out)
    })?;
    Ok(images)
}

/// The images that paths name: those as given, folders' sorted by path.
pub(super) fn images_of(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    paths.iter().try_for_each(|path| expand(path, &mut found))?;
    Ok(found)
}

/// An image is itself, a folder all images in it and below, by path in byte order.
fn expand(path: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    let meta = std::fs::metadata(path).map_err(|e| Error::io("read", path, e))?;
    if !meta.is_dir() {
        found.push(path.to_owned());
        return Ok(());
    }
    let before = found.len();
    walk(path, found, 0)?;
    if found.len() == before {
        return Err(Error::input(format!("{}: no images in this folder or below", path.display())));
    }
    found[before..].sort();
    Ok(())
}

/// How deep folders may lie in each other: more is a loop of links.
const DEEPEST: usize = 32;

fn walk(dir: &Path, found: &mut Vec<PathBuf>, depth: usize) -> Result<()> {
    if depth > DEEPEST {
        return Err(Error::input(format!("{}: folders more than {DEEPEST} deep: a loop of links?", dir.display())));
    }
    for entry in std::fs::read_dir(dir).map_err(|e| Error::io("read", dir, e))? {
        let path = entry.map_err(|e| Error::io("read", dir, e))?.path();
        if path.is_dir() {
            walk(&path, found, depth + 1)?;
        } else if has_image_extension(&path) {
            found.push(path);
        }
    }
    Ok(())
}
