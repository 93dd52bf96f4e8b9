use std::path::Path;

use peftk::Result;
use peftk::adapter::{AdapterConfig, AdapterFile, Targets, read, write};
use peftk::io::{HostTensor, StateDict, tensor_file};
use serde_json::{Value, json};

use crate::adapters::adapter;
use crate::common::{says, tiny};

/// A good DoRA adapter on q and v of the tiny model in a folder, changed.
fn folder(dir: &Path, json: impl FnOnce(&mut Value), tensors: impl FnOnce(&mut StateDict)) {
    let config = AdapterConfig { use_dora: true, ..AdapterConfig::default() };
    write(dir, &adapter(config, &tiny(false, 0)), false, None).unwrap();
    let path = dir.join("adapter_config.json");
    let mut value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    json(&mut value);
    std::fs::write(&path, value.to_string()).unwrap();
    let path = dir.join("adapter_model.safetensors");
    let mut state = tensor_file::read(&path).unwrap();
    tensors(&mut state);
    crate::common::write(&path, &state);
}

#[track_caller]
fn line<T: std::fmt::Debug>(result: Result<T>) -> String {
    let error = result.unwrap_err();
    assert_eq!(error.exit_code(), 2, "{error}");
    let text = error.to_string();
    assert!(!text.contains('\n') && text.len() < 600, "{text}");
    text
}

#[test]
fn settings_that_would_change_the_maths_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let set = |key: &str, value: Value| {
        folder(dir.path(), |json| json[key] = value, |_| {});
        read(dir.path())
    };
    for (key, value) in [
        ("peft_type", json!("LOHA")),
        ("peft_type", Value::Null),
        ("bias", json!("all")),
        ("lora_bias", json!(true)),
        ("fan_in_fan_out", json!(true)),
        ("use_qalora", json!(true)),
        ("alora_invocation_tokens", json!([1])),
        ("trainable_token_indices", json!([1])),
        ("target_parameters", json!(["x"])),
        ("layer_replication", json!([[0, 1]])),
        ("megatron_config", json!({"a": 1})),
        ("arrow_config", json!({"a": 1})),
        ("loftq_config", json!({"bits": 4})),
        ("some_future_switch", json!(true)),
        ("some_future_size", json!(3)),
        ("init_lora_weights", json!("pissa_niter_4")),
        ("init_lora_weights", json!("olora")),
        ("layers_pattern", json!("blocks")),
        ("layers_to_transform", json!("1")),
        ("r", json!(2.5)),
        ("r", json!(-1)),
        ("lora_alpha", json!("8")),
        ("use_dora", json!("yes")),
        ("rank_pattern", json!({"q_proj": 1.5})),
        ("alpha_pattern", json!([1])),
        ("target_modules", json!([1])),
        ("target_modules", Value::Null),
        ("modules_to_save", json!("classifier")),
    ] {
        says(&line(set(key, value)), &["adapter_config.json", key]);
    }
    says(&line(set("r", json!(0))), &["rank 0"]);
    says(&line(set("rank_pattern", json!({"fc1": 0}))), &["'fc1'"]);
    says(&line(set("alpha_pattern", json!({"(?=x)": 1}))), &["regular expression"]);
    says(&line(set("lora_dropout", json!(1.5))), &["lora_dropout"]);
    says(&line(set("modules_to_save", json!(["classifier", "norm"]))), &["'norm'"]);
    for (key, value) in [
        ("init_lora_weights", json!("orthogonal")),
        ("init_lora_weights", json!(false)),
        ("layers_pattern", json!(["layer"])),
        ("peft_version", json!("0.99")),
        ("some_future_switch", json!(false)),
        ("some_future_object", json!({})),
        ("layers_to_transform", json!([0, 1])),
    ] {
        assert!(set(key, value.clone()).is_ok(), "{key} {value}");
    }
}

#[test]
fn wrong_tensors_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let change = |tensors: fn(&mut StateDict)| {
        folder(dir.path(), |_| {}, tensors);
        line(read(dir.path()))
    };
    const Q: &str = "base_model.model.dinov2.encoder.layer.0.attention.q_proj.";
    let q = "'dinov2.encoder.layer.0.attention.q_proj'";
    says(&change(|s| drop(s.remove(&format!("{Q}lora_A.weight")))), &["lora_A", q, "missing"]);
    says(&change(|s| drop(s.remove(&format!("{Q}lora_B.weight")))), &["lora_B", q, "missing"]);
    says(&change(|s| drop(s.remove(&format!("{Q}lora_magnitude_vector")))), &["lora_magnitude_vector", q, "use_dora"]);
    let text = change(|s| drop(s.insert(format!("{Q}lora_A.weight"), HostTensor::filled(&[3, 64], 0.0))));
    says(&text, &[q, "[3, 64]", "rank 8"]);
    says(&change(|s| s.get_mut(&format!("{Q}lora_B.weight")).unwrap().data[3] = f32::NAN), &["q_proj.lora_B", "NaN"]);
    says(&change(|s| drop(s.remove("base_model.model.classifier.bias"))), &["classifier.bias", "missing"]);
    let text = change(|s| {
        s.remove("base_model.model.classifier.bias");
        s.remove("base_model.model.classifier.weight");
    });
    says(&text, &["classifier", "modules_to_save"]);
    for stranger in [
        "base_model.model.dinov2.embeddings.patch_embeddings.projection.lora_A.weight",
        "base_model.model.blocks.0.attn.qkv.lora_A.weight",
        "base_model.model.dinov2.encoder.layer.x.attention.q_proj.lora_A.weight",
        "base_model.model.dinov2.encoder.layer.0.attention.q_proj.weight",
        "dinov2.encoder.layer.0.attention.q_proj.lora_A.weight",
    ] {
        folder(dir.path(), |_| {}, |s| drop(s.insert(stranger.into(), HostTensor::filled(&[8, 64], 0.0))));
        says(&line(read(dir.path())), &[stranger, "no linear"]);
    }
    let old = Q.replace("attention.q_proj", "attention.attention.key");
    folder(dir.path(), |_| {}, |s| drop(s.insert(format!("{old}lora_A.weight"), HostTensor::filled(&[8, 64], 0.0))));
    says(&line(read(dir.path())), &["mix", "attention.key"]);
    let other = Q.replace("dinov2", "dinov2_with_registers");
    folder(dir.path(), |_| {}, |s| drop(s.insert(format!("{other}lora_A.weight"), HostTensor::filled(&[8, 64], 0.0))));
    says(&line(read(dir.path())), &["prefix"]);
    let twice =
        |s: &mut StateDict| drop(s.insert(format!("{Q}lora_magnitude_vector.weight"), HostTensor::filled(&[64], 0.0)));
    folder(dir.path(), |_| {}, twice);
    says(&line(read(dir.path())), &["twice"]);
    folder(dir.path(), |json| json["use_dora"] = json!(false), |_| {});
    says(&line(read(dir.path())), &["use_dora is false"]);
    folder(dir.path(), |json| json["r"] = json!(4), |_| {});
    says(&line(read(dir.path())), &["rank 4", "[8, 64]"]);
}

#[test]
fn missing_and_damaged_files_are_told() {
    let dir = tempfile::tempdir().unwrap();
    says(&line(read(dir.path())), &["adapter_config.json"]);
    folder(dir.path(), |_| {}, |_| {});
    let file = dir.path().join("adapter_model.safetensors");
    std::fs::write(&file, b"").unwrap();
    says(&line(read(dir.path())), &["adapter_model.safetensors", "0 bytes"]);
    std::fs::remove_file(&file).unwrap();
    says(&line(read(dir.path())), &["adapter_model.safetensors"]);
    std::fs::write(dir.path().join("adapter_config.json"), "[]").unwrap();
    says(&line(read(dir.path())), &["adapter_config.json", "JSON object"]);
}

#[test]
fn an_adapter_of_another_model_is_refused() {
    let model = tiny(false, 0);
    let all = AdapterConfig { target_modules: Targets::AllLinear, ..AdapterConfig::default() };
    let good = adapter(all, &model);
    good.check(&model).unwrap();
    let refused = |change: &dyn Fn(&mut AdapterFile), words: &[&str]| {
        let mut file = good.clone();
        change(&mut file);
        says(&line(file.check(&model)), words);
    };
    let shallow = peftk::vit::VitConfig { layers: 1, ..model.clone() };
    says(&line(good.check(&shallow)), &["block 1", "1 blocks"]);
    says(&line(good.check(&tiny(true, 0))), &["mlp.fc1", "SwiGLU"]);
    let wide = peftk::vit::VitConfig { hidden: 128, ..model.clone() };
    says(&line(good.check(&wide)), &["[8, 64]", "[8, 128]"]);
    let deep = peftk::vit::VitConfig { layers: 3, ..model.clone() };
    says(&line(good.check(&deep)), &["layer.2.attention.q_proj", "missing"]);
    refused(&|f| drop(f.modules.remove(3)), &["layer.0.attention.o_proj", "missing"]);
    refused(&|f| f.config.layers_to_transform = vec![0], &["layer.1", "targets"]);
    refused(&|f| f.config.target_modules = Targets::Names(vec!["q_proj".into()]), &["k_proj", "targets"]);
    refused(&|f| f.config.use_dora = true, &["magnitude"]);
    refused(&|f| f.config.rank_pattern = vec![("fc2".into(), 3)], &["mlp.fc2", "[3, 128]"]);
    refused(&|f| f.modules[0].magnitude = Some(HostTensor::filled(&[9], 1.0)), &["[9]", "[64]"]);
    refused(&|f| f.classifier.as_mut().unwrap().weight.shape = vec![3, 99], &["classifier", "[3, 99]"]);
    let nothing = |f: &mut AdapterFile| {
        f.modules.clear();
        f.config.target_modules = Targets::Names(vec!["c_attn".into()]);
    };
    refused(&nothing, &["name no linear"]);
}
