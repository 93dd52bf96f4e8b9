//! Writing a backbone, with or without its head, as transformers does.

use std::path::Path;

use super::hf_config;
use super::state::{Classifier, HostTensor, StateDict, check_tensors};
use super::{atomic, one_line, tensor_file};
use crate::config::Task;
use crate::vit::VitConfig;
use crate::vit::names::{MASK_TOKEN, expected_tensors};
use crate::{Error, Result};

/// Writes `model.safetensors` and `config.json` into `dir` (made if need be), to be loaded by transformers: as
/// `Dinov2ForImageClassification` (or its sibling with registers) where there is a classifier, else as `Dinov2Model`.
///
/// A classifier on CLS alone is widened by zero columns ([`Classifier::with_mean`]). A model whose positions are
/// not resized by transformers' rule keeps that in a key of its own in config.json; transformers ignores it and
/// resizes by its own.
///
/// # Errors
/// [`Error::Io`] where a file cannot be written; a state that does not fit `config`.
pub fn save_transformers(
    dir: &Path,
    config: &VitConfig,
    state: &StateDict,
    classifier: Option<&Classifier>,
    labels: Option<&[String]>,
) -> Result<()> {
    let source = dir.display().to_string();
    let mask_shape = vec![1, config.hidden];
    check_tensors(&source, state, &expected_tensors(config), &[(MASK_TOKEN.to_owned(), mask_shape.clone())])?;
    let classifier = classifier.map(|classifier| classifier.with_mean(config.hidden));
    let prefix = match (&classifier, config.registers) {
        (None, _) => "",
        (Some(_), 0) => "dinov2.",
        (Some(_), _) => "dinov2_with_registers.",
    };
    let mut tensors: Vec<(String, &HostTensor)> =
        state.iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor)).collect();
    // transformers' model always has the token, so without it every load would warn; zero is its initial value.
    let mask = HostTensor::filled(&mask_shape, 0.0);
    if !state.contains_key(MASK_TOKEN) {
        tensors.push((format!("{prefix}{MASK_TOKEN}"), &mask));
    }
    if let Some(classifier) = &classifier {
        classifier.check(config.hidden, &source)?;
        tensors.push(("classifier.weight".to_owned(), &classifier.weight));
        tensors.push(("classifier.bias".to_owned(), &classifier.bias));
    }
    std::fs::create_dir_all(dir).map_err(|e| Error::io("create", dir, e))?;
    let json = hf_config::write(config, classifier.as_ref().map(Classifier::classes), labels);
    let mut text = serde_json::to_vec_pretty(&json).map_err(|e| Error::Internal(one_line(e)))?;
    text.push(b'\n');
    atomic::write_file(&dir.join("config.json"), &text)?;
    tensor_file::write(&dir.join("model.safetensors"), tensors)
}

/// Notes in a saved folder's config.json what its classifier's outputs mean, as transformers' `problem_type`.
///
/// # Errors
/// [`Error::Io`] where the file cannot be read or written.
pub fn save_task(dir: &Path, task: Task) -> Result<()> {
    let path = dir.join("config.json");
    let text = std::fs::read(&path).map_err(|e| Error::io("read", &path, e))?;
    let mut json: serde_json::Value = serde_json::from_slice(&text).map_err(|e| Error::Internal(one_line(e)))?;
    json[hf_config::PROBLEM_TYPE] = hf_config::problem_type(task).into();
    let mut text = serde_json::to_vec_pretty(&json).map_err(|e| Error::Internal(one_line(e)))?;
    text.push(b'\n');
    atomic::write_file(&path, &text)
}
