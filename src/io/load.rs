//! From what `--backbone` names to weights in memory.

use std::path::Path;

use super::hf_config::{self, HfConfig};
use super::naming::Naming;
use super::naming_packed;
use super::spec::BackboneSpec;
use super::state::{Backbone, StateDict};
use super::{hub, pth, random, tensor_file};
use crate::vit::VitConfig;
use crate::{Error, Result};

/// Seed of `random:SIZE`: always the same, so that an adapter trained on such a backbone finds it again.
pub const RANDOM_SEED: u64 = 0;
/// The embedded micro backbone in transformers' names, bf16: `tools/pretrain` made it.
static EMBEDDED: &[u8] = include_bytes!("../../assets/micro-dinov2.safetensors");

/// Loads a backbone, every tensor of it. `progress` is told, in one line each, what a reader of the log should know:
/// where the weights come from, and what was inferred for want of a config.json.
///
/// # Errors
/// One line that names the file and the tensor or key: missing, left over, misshapen, not finite, of an unknown type; a
/// file that is damaged; a published model that is neither in the hub's cache nor to be had.
pub fn load(spec: &BackboneSpec, progress: &mut dyn FnMut(&str)) -> Result<Backbone> {
    match spec {
        BackboneSpec::Folder(folder) => from_folder(folder, progress),
        BackboneSpec::File(file) => from_file(file, progress),
        BackboneSpec::Hub { name } => {
            let folder = hub::find(name, &hub::Settings::from_env()?, progress)?;
            let backbone = from_folder(&folder, progress)?;
            Ok(Backbone { source: format!("{name} ({})", folder.display()), ..backbone })
        }
        BackboneSpec::Random { size } => {
            let config = VitConfig::named(size)?;
            let source = format!("random:{size} (random weights)");
            Ok(from_seed(config, RANDOM_SEED, source))
        }
        BackboneSpec::Embedded => {
            let config = VitConfig::named("micro")?;
            // The bytes are the build's own: damage there is a bug, not the user's.
            let damaged = |e: Error| Error::Internal(format!("the embedded backbone is damaged: {e}"));
            let tensors = tensor_file::read_bytes(Path::new("embedded"), EMBEDDED).map_err(damaged)?;
            let naming = Naming::detect(&tensors, "embedded").map_err(damaged)?;
            let (state, _) = naming.canonical(tensors, &config, "embedded").map_err(damaged)?;
            let source = "the embedded micro DINOv2 (trained on drawings)".into();
            Ok(Backbone { state, config, classifier: None, labels: None, task: None, source })
        }
    }
}

fn from_seed(config: VitConfig, seed: u64, source: String) -> Backbone {
    Backbone { state: random(&config, seed), config, classifier: None, labels: None, task: None, source }
}

fn from_folder(folder: &Path, progress: &mut dyn FnMut(&str)) -> Result<Backbone> {
    let (single, index) = (folder.join("model.safetensors"), folder.join("model.safetensors.index.json"));
    if single.is_file() {
        return from_tensors(tensor_file::read(&single)?, &single, folder, progress);
    }
    if index.is_file() {
        return from_tensors(tensor_file::read_sharded(&index)?, &index, folder, progress);
    }
    let hint =
        if folder.join("adapter_config.json").is_file() { "; this folder is an adapter, not a backbone" } else { "" };
    Err(Error::input(format!(
        "backbone {}: expected model.safetensors or model.safetensors.index.json in it{hint}",
        folder.display()
    )))
}

fn from_file(file: &Path, progress: &mut dyn FnMut(&str)) -> Result<Backbone> {
    let extension = file.extension().and_then(|e| e.to_str()).unwrap_or("").to_ascii_lowercase();
    let folder = file.parent().unwrap_or(Path::new("."));
    match extension.as_str() {
        "safetensors" => from_tensors(tensor_file::read(file)?, file, folder, progress),
        "pth" => from_tensors(pth::read(file)?, file, folder, progress),
        _ => Err(Error::input(format!(
            "backbone {}: expected a .safetensors or .pth file, or a folder as transformers writes it",
            file.display()
        ))),
    }
}

fn from_tensors(tensors: StateDict, file: &Path, folder: &Path, progress: &mut dyn FnMut(&str)) -> Result<Backbone> {
    let source = file.display().to_string();
    let tensors = naming_packed::without_chunks(tensors);
    let naming = Naming::detect(&tensors, &source)?;
    let json = folder.join("config.json");
    // Meta and timm have no config.json of this kind: what lies beside their files is someone else's.
    let given = match naming {
        Naming::Transformers(_) if json.is_file() => Some(hf_config::read(&json)?),
        _ => None,
    };
    let HfConfig { config, labels, task, ignored_dropout } = match given {
        Some(given) => given,
        None => {
            let config = naming.infer(&tensors, &source)?;
            progress(&format!(
                "{source}: no config.json of transformers, so the shape is inferred: {}",
                describe(&config)
            ));
            HfConfig { config, labels: None, task: None, ignored_dropout: Vec::new() }
        }
    };
    for key in ignored_dropout {
        progress(&format!("{}: {key} is not zero; it is not applied in training here", json.display()));
    }
    let (state, classifier) = naming.canonical(tensors, &config, &source)?;
    let labels = check_labels(labels, classifier.as_ref().map(|c| c.classes()), &json)?;
    Ok(Backbone { config, state, classifier, labels, task, source })
}

/// Labels must be as many as the classifier's rows; placeholders are no labels.
fn check_labels(labels: Option<Vec<String>>, classes: Option<usize>, json: &Path) -> Result<Option<Vec<String>>> {
    let (Some(labels), Some(classes)) = (labels, classes) else { return Ok(None) };
    if labels.len() != classes {
        return Err(Error::input(format!(
            "{}: id2label has {} labels, the classifier's weight {classes} rows",
            json.display(),
            labels.len()
        )));
    }
    let placeholder = labels.iter().enumerate().all(|(i, label)| *label == format!("LABEL_{i}"));
    Ok((!placeholder).then_some(labels))
}

fn describe(config: &VitConfig) -> String {
    format!(
        "width {}, {} blocks, {} heads of {}, {} MLP of {}, {} registers, positions for {grid} x {grid} patches of {}",
        config.hidden,
        config.layers,
        config.heads,
        config.hidden / config.heads,
        if config.swiglu { "SwiGLU" } else { "GELU" },
        config.mlp_hidden,
        config.registers,
        config.patch,
        grid = config.stored_grid(),
    )
}
