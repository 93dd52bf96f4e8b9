//! peft's adapter_config.json.

use serde_json::{Map, Value, json};

use super::config::{AdapterConfig, NameFamily, Targets};
use crate::config::AdapterInit;
use crate::io::quoted;

type Outcome<T> = Result<T, String>;

/// Keys that say nothing about what the adapter computes: the record of where it came from, settings of methods that are
/// off (the switches themselves are checked), and how A once started.
const HARMLESS: [&str; 14] = [
    "auto_mapping",
    "base_model_name_or_path",
    "ensure_weight_tying",
    "eva_config",
    "inference_mode",
    "lora_ga_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "task_type",
    "corda_config",
    "peft_type",
];

/// Keys that [`read`] understands.
const UNDERSTOOD: [&str; 15] = [
    "alpha_pattern",
    "bias",
    "exclude_modules",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "lora_alpha",
    "lora_dropout",
    "modules_to_save",
    "r",
    "rank_pattern",
    "target_modules",
    "use_dora",
    "use_rslora",
    "loftq_config",
];

/// Reads the configuration; family and prefix are the weights' to say. The error is a clause that names the field.
pub(super) fn read(map: &Map<String, Value>) -> Outcome<AdapterConfig> {
    match map.get("peft_type").and_then(Value::as_str) {
        Some("LORA") => {}
        Some(other) => return Err(format!("peft_type is {}, expected LORA", quoted(other))),
        None => return Err("no peft_type, expected LORA".into()),
    }
    // Whatever else is switched on could change what the adapter computes, also what a later peft adds.
    for (key, value) in map {
        let off = match value {
            Value::Null | Value::Bool(false) => true,
            Value::Array(list) => list.is_empty(),
            Value::Object(object) => object.is_empty(),
            _ => false,
        };
        if !off && !HARMLESS.contains(&key.as_str()) && !UNDERSTOOD.contains(&key.as_str()) {
            return Err(format!("{} is {}, which is not supported; expected it off", quoted(key), shown(value)));
        }
    }
    match map.get("bias").map(|bias| bias.as_str()) {
        None | Some(Some("none")) => {}
        Some(_) => return Err(format!("bias is {}, which is not supported; expected \"none\"", shown(&map["bias"]))),
    }
    if let Some(config) =
        map.get("loftq_config").filter(|v| !v.is_null() && v.as_object().is_none_or(|m| !m.is_empty()))
    {
        return Err(format!("loftq_config is {}: quantised backbones are not supported", shown(config)));
    }
    check_layers_pattern(map.get("layers_pattern"))?;
    let rank = |value: &Value| value.as_u64().and_then(|rank| usize::try_from(rank).ok());
    Ok(AdapterConfig {
        rank: field(map, "r", "an integer", rank)?.unwrap_or(8),
        alpha: field(map, "lora_alpha", "a number", Value::as_f64)?.unwrap_or(8.0),
        rslora: field(map, "use_rslora", "true or false", Value::as_bool)?.unwrap_or(false),
        use_dora: field(map, "use_dora", "true or false", Value::as_bool)?.unwrap_or(false),
        dropout: field(map, "lora_dropout", "a number", Value::as_f64)?.unwrap_or(0.0),
        target_modules: targets(map, "target_modules")?.ok_or("no target_modules")?,
        exclude_modules: targets(map, "exclude_modules")?,
        rank_pattern: pattern(map, "rank_pattern", "integers", rank)?,
        alpha_pattern: pattern(map, "alpha_pattern", "numbers", Value::as_f64)?,
        layers_to_transform: layers(map)?,
        modules_to_save: field(map, "modules_to_save", "a list of names", names)?.unwrap_or_default(),
        init: init(map.get("init_lora_weights"))?,
        family: NameFamily::V5,
        prefix: String::new(),
        base_model: map.get("base_model_name_or_path").and_then(Value::as_str).map(str::to_owned),
    })
}

/// A value for an error line, cut where it is long.
fn shown(value: &Value) -> String {
    quoted(&value.to_string())
}

/// A field that may be absent or null.
fn field<T>(
    map: &Map<String, Value>,
    key: &str,
    expected: &str,
    convert: impl Fn(&Value) -> Option<T>,
) -> Outcome<Option<T>> {
    match map.get(key).filter(|value| !value.is_null()) {
        None => Ok(None),
        Some(value) => {
            convert(value).map(Some).ok_or_else(|| format!("{key} must be {expected}, found {}", shown(value)))
        }
    }
}

fn names(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|name| name.as_str().map(str::to_owned)).collect()
}

fn targets(map: &Map<String, Value>, key: &str) -> Outcome<Option<Targets>> {
    field(map, key, "a list of names or a regular expression", |value| match value.as_str() {
        Some("all-linear") => Some(Targets::AllLinear),
        Some(text) => Some(Targets::Pattern(text.to_owned())),
        None => names(value).map(Targets::Names),
    })
}

fn pattern<T>(
    map: &Map<String, Value>,
    key: &str,
    expected: &str,
    convert: impl Fn(&Value) -> Option<T>,
) -> Outcome<Vec<(String, T)>> {
    let entries = field(map, key, &format!("an object of {expected}"), |value| {
        value.as_object()?.iter().map(|(name, value)| Some((name.clone(), convert(value)?))).collect()
    })?;
    Ok(entries.unwrap_or_default())
}

fn layers(map: &Map<String, Value>) -> Outcome<Vec<usize>> {
    let index = |value: &Value| value.as_u64().and_then(|layer| usize::try_from(layer).ok());
    let list = field(map, "layers_to_transform", "an integer or a list of integers", |value| match value.as_array() {
        Some(list) => list.iter().map(index).collect(),
        None => Some(vec![index(value)?]),
    })?;
    Ok(list.unwrap_or_default())
}

/// Blocks are counted in `encoder.layer` and nowhere else.
fn check_layers_pattern(value: Option<&Value>) -> Outcome<()> {
    let usual = |value: &Value| value.as_str().is_some_and(|name| name == "layer" || name.is_empty());
    match value {
        None | Some(Value::Null) => Ok(()),
        Some(Value::Array(list)) if list.iter().all(usual) => Ok(()),
        Some(value) if usual(value) => Ok(()),
        Some(value) => Err(format!("layers_pattern is {}, expected null or \"layer\"", shown(value))),
    }
}

/// The initialisations that leave the backbone's weights alone. The others take a part out of them, so that peft, on
/// loading, changes the backbone first.
fn init(value: Option<&Value>) -> Outcome<AdapterInit> {
    match value {
        None | Some(Value::Null | Value::Bool(_)) => Ok(AdapterInit::Default),
        Some(Value::String(name)) if name == "gaussian" => Ok(AdapterInit::Gaussian),
        Some(Value::String(name)) if name == "orthogonal" => Ok(AdapterInit::Orthogonal),
        Some(Value::String(name)) if name == "eva" => Ok(AdapterInit::Default),
        Some(other) => Err(format!(
            "init_lora_weights is {}, which rewrites the backbone; save the adapter in peft with \
             path_initial_model_for_weight_conversion, which makes it a plain one",
            shown(other)
        )),
    }
}

/// The adapter_config.json that peft writes for this configuration.
pub(super) fn write(config: &AdapterConfig, registers: bool, base_model: Option<&str>) -> Value {
    let (class, module) = match registers {
        false => ("Dinov2ForImageClassification", "transformers.models.dinov2.modeling_dinov2"),
        true => (
            "Dinov2WithRegistersForImageClassification",
            "transformers.models.dinov2_with_registers.modeling_dinov2_with_registers",
        ),
    };
    let ranks: Map<String, Value> =
        config.rank_pattern.iter().map(|(key, rank)| (key.clone(), (*rank).into())).collect();
    let alphas: Map<String, Value> =
        config.alpha_pattern.iter().map(|(key, alpha)| (key.clone(), number(*alpha))).collect();
    let or_null = |empty: bool, value: Value| if empty { Value::Null } else { value };
    json!({
        "alpha_pattern": alphas,
        "auto_mapping": {"base_model_class": class, "parent_library": module},
        "base_model_name_or_path": base_model.or(config.base_model.as_deref()),
        "bias": "none",
        "corda_config": null,
        "eva_config": null,
        "exclude_modules": config.exclude_modules.as_ref().map(targets_json),
        "fan_in_fan_out": false,
        "inference_mode": true,
        // How A started does not matter to who loads it, and some starts would make peft prepare for them.
        "init_lora_weights": if config.init == AdapterInit::Gaussian { json!("gaussian") } else { json!(true) },
        "layer_replication": null,
        "layers_pattern": null,
        "layers_to_transform": or_null(config.layers_to_transform.is_empty(), json!(config.layers_to_transform)),
        "loftq_config": {},
        "lora_alpha": number(config.alpha),
        "lora_bias": false,
        "lora_dropout": config.dropout,
        "megatron_config": null,
        "megatron_core": "megatron.core",
        "modules_to_save": or_null(config.modules_to_save.is_empty(), json!(config.modules_to_save)),
        "peft_type": "LORA",
        "r": config.rank,
        "rank_pattern": ranks,
        "revision": null,
        "target_modules": targets_json(&config.target_modules),
        "target_parameters": null,
        "task_type": null,
        "trainable_token_indices": null,
        "use_dora": config.use_dora,
        "use_qalora": false,
        "use_rslora": config.rslora,
    })
}

fn targets_json(targets: &Targets) -> Value {
    match targets {
        Targets::Names(list) => json!(list),
        Targets::Pattern(text) => json!(text),
        Targets::AllLinear => json!("all-linear"),
    }
}

/// Whole numbers as integers, which peft types alpha as.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e15 { json!(value as i64) } else { json!(value) }
}
