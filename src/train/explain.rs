//! What a classifier looked at, as pictures.

use std::path::{Path, PathBuf};

use super::interrupt;
use super::loaded::{Loaded, load};
use super::place::Place;
use super::predict::{images_of, predicted, squares};
use super::report::{ExplainedLabel, Explanation, Probability};
use super::ui::Ui;
use crate::autograd::Backend;
use crate::config::{ExplainConfig, Method, Task};
use crate::cpu::Cpu;
use crate::cuda::Cuda;
use crate::explain::{Explainer, FileNames, overlay};
use crate::io::atomic;
use crate::task::labels::Labels;
use crate::{Error, Result};

/// Images that are decoded at once.
const BATCH: usize = 16;
/// Labels that an error line names before it gives the nearest alone.
const MOST_NAMED: usize = 12;

/// Explains images, each handed to `each` when its pictures are written: images as given, folders' images sorted by path.
///
/// # Errors
/// A path that is not there, an image that cannot be read, a label that the classifier does not have, a folder that cannot be written; what
/// [`load`] says.
pub fn explain(config: &ExplainConfig, ui: &Ui, each: &mut dyn FnMut(Explanation) -> Result<()>) -> Result<()> {
    let paths = images_of(&config.paths)?;
    match Place::choose(config.device, config.precision)? {
        Place::Cpu => explain_on(Cpu::new(None)?, config, &paths, ui, each),
        Place::Cuda(device, precision) => explain_on(Cuda::new(&device, precision), config, &paths, ui, each),
    }
}

fn explain_on<B: Backend>(
    backend: B,
    config: &ExplainConfig,
    paths: &[PathBuf],
    ui: &Ui,
    each: &mut dyn FnMut(Explanation) -> Result<()>,
) -> Result<()> {
    let loaded = load(backend, &config.model, config.input_size, config.resize, ui)?;
    let asked = find_labels(&config.labels, &loaded.model.labels)?;
    std::fs::create_dir_all(&config.out).map_err(|e| Error::io("create", &config.out, e))?;
    let size = loaded.model.vit.input_size;
    let mut run = Run {
        config,
        asked,
        explainer: Explainer::new(&loaded.model.vit, &loaded.model.params)?,
        names: FileNames::new(paths),
        loaded: &loaded,
    };
    let bar = ui.bar(paths.len() as u64, "explain");
    // Notes would break a moving bar.
    let mut notes = Vec::new();
    for (batch, paths) in paths.chunks(BATCH).enumerate() {
        let images = squares(paths, size, loaded.resize)?;
        for (index, (path, square)) in paths.iter().zip(images.chunks_exact(size * size * 3)).enumerate() {
            interrupt::check()?;
            each(run.explain(batch * BATCH + index, path, square, &mut notes)?)?;
            bar.inc(1);
        }
    }
    bar.finish();
    notes.iter().for_each(|note| ui.note(note));
    Ok(())
}

/// What all images have in common, and the names that are given out.
struct Run<'a, B: Backend> {
    config: &'a ExplainConfig,
    /// The labels of `--label`.
    asked: Vec<usize>,
    explainer: Explainer<'a, B>,
    names: FileNames,
    loaded: &'a Loaded<B>,
}

impl<B: Backend> Run<'_, B> {
    fn explain(&mut self, image: usize, path: &Path, square: &[u8], notes: &mut Vec<String>) -> Result<Explanation> {
        let (labels, methods) = (&self.loaded.model.labels, &self.config.methods);
        let (logits, rollout) = self.explainer.look(square, methods.contains(&Method::Rollout))?;
        let probs = labels.probabilities(&logits);
        let mut explained = if self.asked.is_empty() { labels.answer(&logits) } else { self.asked.clone() };
        if explained.is_empty() {
            let likeliest =
                (0..labels.len()).reduce(|best, label| if probs[label] > probs[best] { label } else { best });
            explained.extend(likeliest);
            let name = likeliest.map_or("", |label| &labels.names[label]);
            notes.push(format!("{}: given no label; the most probable one, {name}, is explained", path.display()));
        }
        let mut files = Vec::new();
        if let Some(map) = rollout {
            let name = self.names.name(image, Method::Rollout.name(), None);
            files.push(self.write(name, square, &map, notes)?);
        }
        let one = labels.task == Task::Multiclass && self.asked.is_empty();
        if methods.contains(&Method::Gradient) {
            for (&label, map) in explained.iter().zip(self.explainer.gradients(square, &explained)?) {
                let label = (!one).then_some(&*labels.names[label]);
                let name = self.names.name(image, Method::Gradient.name(), label);
                files.push(self.write(name, square, &map, notes)?);
            }
        }
        let names: Vec<String> = explained.iter().map(|&label| labels.names[label].clone()).collect();
        let probs: Vec<f32> = explained.iter().map(|&label| probs[label]).collect();
        let (label, prob) = match (&names[..], &probs[..]) {
            ([name], [prob]) if one => (ExplainedLabel::One(name.clone()), Probability::One(*prob)),
            _ => (ExplainedLabel::Many(names), Probability::Many(probs)),
        };
        let predicted = predicted(&logits, labels);
        Ok(Explanation { path: path.to_owned(), label, prob, method: methods.clone(), files, predicted })
    }

    fn write(&self, name: String, square: &[u8], map: &[f64], notes: &mut Vec<String>) -> Result<PathBuf> {
        let file = self.config.out.join(name);
        let (png, flat) = overlay(square, self.loaded.model.vit.input_size, map, self.explainer.grid())?;
        if flat {
            notes.push(format!("{}: no patch counts for more than another; the image alone is drawn", file.display()));
        }
        atomic::write_file(&file, &png)?;
        Ok(file)
    }
}

/// The labels that `--label` names: each value is a name, a path through the tree, or several of them between commas.
fn find_labels(wanted: &[String], labels: &Labels) -> Result<Vec<usize>> {
    let find = |name: &str| {
        let by_name = labels.names.iter().position(|own| own == name);
        by_name.or_else(|| (0..labels.len()).find(|&label| labels.full_name(label) == name))
    };
    let mut found = Vec::new();
    for value in wanted {
        match find(value) {
            Some(label) => found.push(label),
            // A comma may be part of a name: the whole is looked up first.
            None => {
                for part in value.split(',').map(str::trim) {
                    found.push(find(part).ok_or_else(|| unknown(part, labels))?);
                }
            }
        }
    }
    let mut seen = vec![false; labels.len()];
    found.retain(|&label| !std::mem::replace(&mut seen[label], true));
    Ok(found)
}

fn unknown(name: &str, labels: &Labels) -> Error {
    let mut near: Vec<&String> = labels.names.iter().collect();
    let all = near.len() <= MOST_NAMED;
    if !all {
        near.sort_by_cached_key(|own| edits(&own.to_lowercase(), &name.to_lowercase()));
        near.truncate(3);
    }
    let names: Vec<String> = near.iter().map(|own| format!("'{own}'")).collect();
    let which = if all { "it has" } else { "nearest:" };
    Error::input(format!("--label '{name}': the classifier has no such label; {which} {}", names.join(", ")))
}

/// Letters to be put in, taken out or changed to get from one word to the other (Levenshtein 1966).
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (line, letter) in from.chars().enumerate() {
        let mut above_left = std::mem::replace(&mut row[0], line + 1);
        for (column, other) in to.iter().enumerate() {
            let changed = above_left + usize::from(letter != *other);
            above_left = row[column + 1];
            row[column + 1] = changed.min(above_left + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_by_name_list_and_path() {
        let names = ["a, b", "a", "b", "cat"].map(str::to_owned);
        let labels = Labels::new(Task::Multilabel, &names);
        let find =
            |wanted: &[&str]| find_labels(&wanted.iter().map(|&name| name.to_owned()).collect::<Vec<_>>(), &labels);
        assert_eq!(find(&["a, b"]).unwrap(), [0]);
        assert_eq!(find(&["b,a", "a", "cat"]).unwrap(), [2, 1, 3]);
        let error = find(&["a,cart"]).unwrap_err().to_string();
        assert_eq!(error, "--label 'cart': the classifier has no such label; it has 'a, b', 'a', 'b', 'cat'");
        let many: Vec<String> = (0..40).map(|number| format!("label {number}")).chain(["cat".into()]).collect();
        let error = find_labels(&["Catt".into()], &Labels::new(Task::Multiclass, &many)).unwrap_err().to_string();
        assert!(error.starts_with("--label 'Catt'") && error.contains("nearest: 'cat', 'label "), "{error}");
    }

    #[test]
    fn edits_are_counted() {
        for (from, to, count) in
            [("", "", 0), ("a", "", 1), ("kitten", "sitting", 3), ("ab", "ba", 2), ("dog", "dog", 0)]
        {
            assert_eq!(edits(from, to), count, "{from} {to}");
        }
    }
}
