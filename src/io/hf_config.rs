//! transformers' config.json of DINOv2: the shape, the labels, and the settings that would change the model's numbers.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::{one_line, quoted};
use crate::config::Task;
use crate::vit::{Family, VitConfig};
use crate::{Error, Result};

/// Key of our own beside transformers': which rule resizes positions, where it is not transformers'. transformers
/// ignores it.
const POSITIONS: &str = "peftk_positions";

/// transformers' key for what a classifier's outputs mean.
pub(super) const PROBLEM_TYPE: &str = "problem_type";
const SINGLE_LABEL: &str = "single_label_classification";
const MULTI_LABEL: &str = "multi_label_classification";

/// transformers' word for a task; it has none for a tree.
pub(super) fn problem_type(task: Task) -> Option<&'static str> {
    match task {
        Task::Multiclass => Some(SINGLE_LABEL),
        Task::Multilabel => Some(MULTI_LABEL),
        Task::Hierarchical => None,
    }
}

/// What config.json says.
#[derive(Debug)]
pub(super) struct HfConfig {
    pub config: VitConfig,
    /// Class names in index order, `LABEL_i` included; `None` where none are given.
    pub labels: Option<Vec<String>>,
    /// What the classifier's outputs mean, by transformers' `problem_type`; `None` where it is not said.
    pub task: Option<Task>,
    /// Rates of dropout or stochastic depth that are not zero; nothing here applies them.
    pub ignored_dropout: Vec<&'static str>,
}

/// Reads config.json; absent keys have transformers' defaults.
///
/// # Errors
/// One line naming the file and the key for another model, a key of the wrong type, or a value this crate has no model
/// for.
pub(super) fn read(path: &Path) -> Result<HfConfig> {
    let text = std::fs::read(path).map_err(|e| Error::io("read", path, e))?;
    let bad = |what: String| Error::input(format!("{}: {what}", path.display()));
    let map: Map<String, Value> =
        serde_json::from_slice(&text).map_err(|e| bad(format!("expected a JSON object ({})", one_line(e))))?;
    parse(&map).map_err(bad)
}

fn parse(map: &Map<String, Value>) -> std::result::Result<HfConfig, String> {
    let model = map.get("model_type").and_then(Value::as_str);
    let registers = match model {
        Some("dinov2") => 0,
        Some("dinov2_with_registers") => size(map, "num_register_tokens", 4, 1024)?,
        Some(other) => {
            return Err(format!("model_type is {}, expected dinov2 or dinov2_with_registers", quoted(other)));
        }
        None => return Err("no model_type, expected dinov2 or dinov2_with_registers".into()),
    };
    let hidden = size(map, "hidden_size", 768, 1 << 16)?;
    let heads = size(map, "num_attention_heads", 12, 1 << 16)?;
    let layers = size(map, "num_hidden_layers", 12, 1 << 10)?;
    if hidden == 0 || layers == 0 {
        return Err(format!("hidden_size {hidden} and num_hidden_layers {layers} must both be positive"));
    }
    if heads == 0 || hidden % heads != 0 {
        return Err(format!("hidden_size {hidden} is not a multiple of num_attention_heads {heads}"));
    }
    let swiglu = flag(map, "use_swiglu_ffn", false)?;
    let mlp_ratio = number(map, "mlp_ratio", 4.0)?;
    let mlp_hidden = VitConfig::mlp_hidden_for(hidden, mlp_ratio.clamp(0.0, 64.0), swiglu);
    if mlp_hidden == 0 || mlp_ratio > 64.0 {
        return Err(format!("mlp_ratio is {mlp_ratio}, expected a positive number up to 64"));
    }
    let layer_norm_eps = number(map, "layer_norm_eps", 1e-6)?;
    if !(layer_norm_eps > 0.0 && layer_norm_eps < 1.0) {
        return Err(format!("layer_norm_eps is {layer_norm_eps}, expected a small positive number"));
    }
    // The one default in which transformers' two configurations differ.
    let default_patch = if model == Some("dinov2") { 14 } else { 16 };
    let (image_size, patch) =
        (size(map, "image_size", 224, 1 << 14)?, size(map, "patch_size", default_patch, 1 << 10)?);
    if patch == 0 || image_size < patch {
        return Err(format!("image_size {image_size} is smaller than a patch of patch_size {patch}"));
    }
    if !flag(map, "qkv_bias", true)? {
        return Err("qkv_bias is false; only models with biases are read".into());
    }
    if size(map, "num_channels", 3, 1 << 10)? != 3 {
        return Err("num_channels is not 3; only RGB models are read".into());
    }
    match map.get("hidden_act") {
        None => {}
        Some(Value::String(act)) if act == "gelu" || swiglu => {}
        Some(other) => return Err(format!("hidden_act is {other}, expected \"gelu\"")),
    }
    let rates = ["attention_probs_dropout_prob", "hidden_dropout_prob", "drop_path_rate"];
    Ok(HfConfig {
        config: VitConfig {
            hidden,
            layers,
            heads,
            mlp_hidden,
            swiglu,
            registers,
            patch,
            image_size,
            layer_norm_eps,
            layerscale_value: number(map, "layerscale_value", 1.0)?,
            family: family(map)?,
        },
        labels: labels(map)?,
        task: match map.get(PROBLEM_TYPE).and_then(Value::as_str) {
            Some(MULTI_LABEL) => Some(Task::Multilabel),
            Some(SINGLE_LABEL) => Some(Task::Multiclass),
            _ => None,
        },
        ignored_dropout: rates.into_iter().filter(|&key| number(map, key, 0.0).is_ok_and(|rate| rate != 0.0)).collect(),
    })
}

fn family(map: &Map<String, Value>) -> std::result::Result<Family, String> {
    match map.get(POSITIONS).map(|v| v.as_str()) {
        None => Ok(Family::Transformers),
        Some(Some("meta")) => Ok(Family::Meta),
        Some(Some("timm")) => Ok(Family::Timm),
        Some(_) => Err(format!("{POSITIONS} must be \"meta\" or \"timm\"")),
    }
}

/// An extent; a list of two equal ones, as transformers allows for images and patches, counts as one.
fn size(map: &Map<String, Value>, key: &str, default: usize, most: usize) -> std::result::Result<usize, String> {
    let value = match map.get(key) {
        None => return Ok(default),
        Some(Value::Array(pair)) if pair.len() == 2 && pair[0] == pair[1] => &pair[0],
        Some(value) => value,
    };
    match value.as_u64().and_then(|v| usize::try_from(v).ok()) {
        Some(value) if value <= most => Ok(value),
        _ => Err(format!("{key} must be an integer from 0 to {most}, found {}", quoted(&value.to_string()))),
    }
}

fn number(map: &Map<String, Value>, key: &str, default: f64) -> std::result::Result<f64, String> {
    match map.get(key) {
        None => Ok(default),
        Some(value) => {
            value.as_f64().ok_or_else(|| format!("{key} must be a number, found {}", quoted(&value.to_string())))
        }
    }
}

fn flag(map: &Map<String, Value>, key: &str, default: bool) -> std::result::Result<bool, String> {
    match map.get(key) {
        None => Ok(default),
        Some(value) => {
            value.as_bool().ok_or_else(|| format!("{key} must be true or false, found {}", quoted(&value.to_string())))
        }
    }
}

fn labels(map: &Map<String, Value>) -> std::result::Result<Option<Vec<String>>, String> {
    let Some(value) = map.get("id2label").filter(|value| !value.is_null()) else { return Ok(None) };
    let bad = || "id2label must map the indices from 0 up to names".to_owned();
    let mut names = BTreeMap::new();
    for (index, name) in value.as_object().ok_or_else(bad)? {
        let index: usize = index.parse().map_err(|_| bad())?;
        names.insert(index, name.as_str().ok_or_else(bad)?.to_owned());
    }
    if !names.keys().copied().eq(0..names.len()) {
        return Err(bad());
    }
    Ok(Some(names.into_values().collect()))
}

/// The config.json that transformers 5 writes for this model.
pub(super) fn write(config: &VitConfig, classes: Option<usize>, labels: Option<&[String]>) -> Value {
    let base = if config.registers > 0 { "Dinov2WithRegisters" } else { "Dinov2" };
    let class = if classes.is_some() { "ForImageClassification" } else { "Model" };
    let stages = (1..=config.layers).map(|layer| format!("stage{layer}"));
    let mut map = json!({
        "apply_layernorm": true,
        "architectures": [format!("{base}{class}")],
        "attention_probs_dropout_prob": 0.0,
        "drop_path_rate": 0.0,
        "dtype": "float32",
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "hidden_size": config.hidden,
        "image_size": config.image_size,
        "initializer_range": 0.02,
        "layer_norm_eps": config.layer_norm_eps,
        "layerscale_value": config.layerscale_value,
        "mlp_ratio": mlp_ratio(config),
        "model_type": if config.registers > 0 { "dinov2_with_registers" } else { "dinov2" },
        "num_attention_heads": config.heads,
        "num_channels": 3,
        "num_hidden_layers": config.layers,
        "out_features": [format!("stage{}", config.layers)],
        "out_indices": [config.layers],
        "patch_size": config.patch,
        "qkv_bias": true,
        "reshape_hidden_states": true,
        "stage_names": std::iter::once("stem".to_owned()).chain(stages).collect::<Vec<_>>(),
        "use_swiglu_ffn": config.swiglu,
    });
    if config.registers > 0 {
        map["num_register_tokens"] = config.registers.into();
    } else {
        map["use_mask_token"] = true.into();
    }
    if let Some(classes) = classes {
        let name = |i: usize| labels.and_then(|names| names.get(i).cloned()).unwrap_or_else(|| format!("LABEL_{i}"));
        let by_index: Map<String, Value> = (0..classes).map(|i| (i.to_string(), name(i).into())).collect();
        let by_name: Map<String, Value> = (0..classes).map(|i| (name(i), i.into())).collect();
        map["id2label"] = by_index.into();
        map["label2id"] = by_name.into();
    }
    match config.family {
        Family::Transformers => {}
        Family::Meta => map[POSITIONS] = "meta".into(),
        Family::Timm => map[POSITIONS] = "timm".into(),
    }
    map
}

/// transformers' ratio that gives this hidden width: an integer where there is one, which transformers 5 insists on.
fn mlp_ratio(config: &VitConfig) -> Value {
    let fits = |ratio: f64| VitConfig::mlp_hidden_for(config.hidden, ratio, config.swiglu) == config.mlp_hidden;
    if let Some(ratio) = (1..=64u32).find(|&ratio| fits(ratio.into())) {
        return ratio.into();
    }
    let wide = config.mlp_hidden as f64 * if config.swiglu { 1.5 } else { 1.0 };
    // Half a unit up: both widths are rounded down from the ratio.
    json!((wide + 0.5) / config.hidden as f64)
}
