use std::path::Path;

use peftk::adapter::{AdapterConfig, AdapterFile, AdapterModule, NameFamily, Targets, read, write};
use peftk::config::AdapterInit;
use peftk::io::{HostTensor, tensor_file};
use peftk::vit::VitConfig;
use peftk::vit::names::Linear;
use serde_json::Value;

use crate::common::{classifier, tiny};

/// An adapter with a module of counted values at every site its configuration targets.
pub fn adapter(config: AdapterConfig, model: &VitConfig) -> AdapterFile {
    let tensor = |shape: &[usize], offset: usize| {
        let count: usize = shape.iter().product();
        HostTensor { shape: shape.to_vec(), data: (0..count).map(|i| ((i + offset) % 97) as f32 / 32.0).collect() }
    };
    let modules = config.sites(model).into_iter().enumerate().map(|(place, (layer, linear))| {
        let ((out, input), rank) = (linear.shape(model), config.rank_of((layer, linear)));
        let magnitude = config.use_dora.then(|| tensor(&[out], place + 5));
        AdapterModule { layer, linear, a: tensor(&[rank, input], place), b: tensor(&[out, rank], place + 3), magnitude }
    });
    AdapterFile { modules: modules.collect(), classifier: Some(classifier(2 * model.hidden)), config }
}

fn json(dir: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(dir.join("adapter_config.json")).unwrap()).unwrap()
}

#[test]
fn adapters_come_back_as_written() {
    let dir = tempfile::tempdir().unwrap();
    let configs = [
        AdapterConfig::default(),
        AdapterConfig { use_dora: true, rslora: true, alpha: 2.5, dropout: 0.1, ..AdapterConfig::default() },
        AdapterConfig { target_modules: Targets::AllLinear, init: AdapterInit::Gaussian, ..AdapterConfig::default() },
        AdapterConfig {
            target_modules: Targets::Pattern(r".*\.(k_proj|mlp\..*)".into()),
            exclude_modules: Some(Targets::Names(vec!["fc1".into()])),
            rank_pattern: vec![("layer.1.*".into(), 3), ("k_proj".into(), 5)],
            alpha_pattern: vec![("k_proj".into(), 1.5)],
            base_model: Some("facebook/dinov2-small".into()),
            ..AdapterConfig::default()
        },
        AdapterConfig {
            family: NameFamily::V4,
            target_modules: Targets::Names(["query", "weights_in", "fc2", "dense"].map(String::from).to_vec()),
            layers_to_transform: vec![1],
            ..AdapterConfig::default()
        },
    ];
    for config in configs {
        for (swiglu, registers) in [(false, 0), (true, 4)] {
            let model = tiny(swiglu, registers);
            let prefix = if registers > 0 { "dinov2_with_registers" } else { "dinov2" };
            let config = AdapterConfig { prefix: prefix.into(), ..config.clone() };
            let written = adapter(config, &model);
            assert!(!written.modules.is_empty());
            write(dir.path(), &written, registers > 0, None).unwrap();
            let found = read(dir.path()).unwrap();
            assert_eq!(found, written);
            found.check(&model).unwrap();
        }
    }
}

#[test]
fn names_are_pefts() {
    let dir = tempfile::tempdir().unwrap();
    let names = |config: AdapterConfig, swiglu: bool, registers: bool| -> Vec<String> {
        let model = tiny(swiglu, if registers { 4 } else { 0 });
        write(dir.path(), &adapter(config, &model), registers, Some("base")).unwrap();
        tensor_file::read(&dir.path().join("adapter_model.safetensors")).unwrap().into_keys().collect()
    };
    let one = |targets: &[&str]| AdapterConfig {
        target_modules: Targets::Names(targets.iter().map(|&t| t.to_owned()).collect()),
        layers_to_transform: vec![0],
        use_dora: true,
        ..AdapterConfig::default()
    };
    assert_eq!(
        names(one(&["q_proj"]), false, false),
        [
            "base_model.model.classifier.bias",
            "base_model.model.classifier.weight",
            "base_model.model.dinov2.encoder.layer.0.attention.q_proj.lora_A.weight",
            "base_model.model.dinov2.encoder.layer.0.attention.q_proj.lora_B.weight",
            "base_model.model.dinov2.encoder.layer.0.attention.q_proj.lora_magnitude_vector",
        ]
    );
    assert_eq!(json(dir.path())["base_model_name_or_path"], "base");
    assert_eq!(json(dir.path())["lora_alpha"], Value::from(8));
    let found = names(one(&["gate_proj", "down_proj"]), true, true);
    let prefix = "base_model.model.dinov2_with_registers.encoder.layer.0.mlp";
    assert_eq!(found[2], format!("{prefix}.down_proj.lora_A.weight"));
    assert_eq!(found[5], format!("{prefix}.gate_proj.lora_A.weight"));
    let config = AdapterConfig { family: NameFamily::V4, ..one(&["weights_in", "key"]) };
    let found = names(config, true, false);
    let prefix = "base_model.model.dinov2.encoder.layer.0";
    assert_eq!(found[2], format!("{prefix}.attention.attention.key.lora_A.weight"));
    assert_eq!(found[6], format!("{prefix}.mlp.weights_in.lora_B.weight"));
}

#[test]
fn one_adapter_on_weights_in_stays_one() {
    let dir = tempfile::tempdir().unwrap();
    let model = tiny(true, 0);
    for (family, linears) in
        [(NameFamily::V4, vec![Linear::WeightsIn]), (NameFamily::V5, vec![Linear::GateProj, Linear::UpProj])]
    {
        let config = AdapterConfig {
            family,
            target_modules: Targets::Names(vec!["weights_in".into()]),
            layers_to_transform: vec![1],
            ..AdapterConfig::default()
        };
        write(dir.path(), &adapter(config, &model), false, None).unwrap();
        let found = read(dir.path()).unwrap();
        found.check(&model).unwrap();
        assert_eq!(found.modules.iter().map(|m| m.linear).collect::<Vec<_>>(), linears);
        let rows: usize = found.modules.iter().map(|m| m.b.shape[0]).sum();
        assert_eq!(rows, 2 * model.mlp_hidden);
    }
}

#[test]
fn the_family_of_shared_names_is_that_of_the_targets() {
    let dir = tempfile::tempdir().unwrap();
    for (targets, family) in [(["fc1", "value"], NameFamily::V4), (["fc1", "v_proj"], NameFamily::V5)] {
        let config = AdapterConfig {
            family,
            target_modules: Targets::Names(targets.map(String::from).to_vec()),
            exclude_modules: Some(Targets::Names(vec![targets[1].into()])),
            ..AdapterConfig::default()
        };
        write(dir.path(), &adapter(config, &tiny(false, 0)), false, None).unwrap();
        assert_eq!(read(dir.path()).unwrap().config.family, family);
    }
}

#[test]
fn a_bare_models_adapter_needs_no_head() {
    let dir = tempfile::tempdir().unwrap();
    let model = tiny(false, 0);
    let mut written = adapter(AdapterConfig { modules_to_save: vec![], ..AdapterConfig::default() }, &model);
    written.classifier = None;
    write(dir.path(), &written, false, None).unwrap();
    assert_eq!(read(dir.path()).unwrap(), written);
    assert!(json(dir.path())["modules_to_save"].is_null());
    // As peft saves from a Dinov2Model: no `dinov2.` in front.
    let path = dir.path().join("adapter_model.safetensors");
    let tensors = tensor_file::read(&path).unwrap();
    let bare = tensors.iter().map(|(name, tensor)| (name.replace("model.dinov2.", "model."), tensor));
    tensor_file::write(&path, bare).unwrap();
    let found = read(dir.path()).unwrap();
    assert_eq!(found.config.prefix, "");
    assert_eq!(found.modules, written.modules);
    found.check(&model).unwrap();
}
