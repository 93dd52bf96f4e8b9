use std::path::Path;

use peftk::io::{HostTensor, StateDict, save_transformers};
use serde_json::{Value, json};

use crate::common::{classifier, open, packed, refusal, says, state, tiny, write};

/// A good folder, changed: its config.json, its tensors.
fn folder(dir: &Path, json: impl FnOnce(&mut Value), tensors: impl FnOnce(&mut StateDict)) {
    let config = tiny(false, 0);
    save_transformers(dir, &config, &state(&config), Some(&classifier(128)), None).unwrap();
    let path = dir.join("config.json");
    let mut value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    json(&mut value);
    std::fs::write(&path, value.to_string()).unwrap();
    let path = dir.join("model.safetensors");
    let mut state = peftk::io::tensor_file::read(&path).unwrap();
    tensors(&mut state);
    write(&path, &state);
}

#[test]
fn a_wrong_tensor_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = |tensors: fn(&mut StateDict)| {
        folder(dir.path(), |_| {}, tensors);
        refusal(dir.path())
    };
    let norm = "dinov2.encoder.layer.1.norm1.weight";
    says(
        &error(|s| drop(s.remove("dinov2.encoder.layer.1.norm1.weight"))),
        &[norm, "missing", "[64]", "model.safetensors"],
    );
    let text = error(|s| s.retain(|name, _| !name.contains("layer.1.")));
    says(&text, &[norm, "missing", "and 17 more"]);
    let text = error(|s| drop(s.insert("dinov2.pooler.weight".into(), HostTensor::filled(&[1], 0.0))));
    says(&text, &["dinov2.pooler.weight", "not part"]);
    let text = error(|s| drop(s.insert("dinov2.layernorm.bias".into(), HostTensor::filled(&[65], 0.0))));
    says(&text, &["dinov2.layernorm.bias", "[65]", "[64]"]);
    let text = error(|s| drop(s.insert("dinov2.embeddings.mask_token".into(), HostTensor::filled(&[2], 0.0))));
    says(&text, &["mask_token", "[2]", "[1, 64]"]);
    let text = error(|s| s.get_mut("dinov2.encoder.layer.0.mlp.fc2.weight").unwrap().data[9] = f32::NAN);
    says(&text, &["dinov2.encoder.layer.0.mlp.fc2.weight", "NaN"]);
    let text = error(|s| s.get_mut("classifier.weight").unwrap().data[9] = f32::INFINITY);
    says(&text, &["classifier.weight", "inf"]);
    says(&error(|s| drop(s.remove("classifier.bias"))), &["classifier.bias", "missing"]);
    let text = error(|s| drop(s.insert("classifier.weight".into(), HostTensor::filled(&[3, 100], 0.0))));
    says(&text, &["classifier", "[3, 100]", "[classes, 128]"]);
    let text = error(|s| drop(s.insert("a\nb".into(), HostTensor::filled(&[1], 0.0))));
    says(&text, &["'a\\nb'"]);
    folder(dir.path(), |_| {}, |s| drop(s.remove("dinov2.embeddings.mask_token")));
    assert!(open(dir.path()).is_ok());
}

#[test]
fn a_wrong_config_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = |key: &str, value: Value| {
        folder(dir.path(), |json| json[key] = value, |_| {});
        refusal(dir.path())
    };
    says(&error("hidden_size", json!(128)), &["cls_token", "[1, 1, 64]", "[1, 1, 128]"]);
    says(&error("image_size", json!(8)), &["position_embeddings", "[1, 17, 64]"]);
    says(&error("num_hidden_layers", json!(3)), &["layer.2.norm1.weight", "missing"]);
    says(&error("num_hidden_layers", json!(1)), &["layer.1.", "not part"]);
    says(&error("num_hidden_layers", json!(1e15 as u64)), &["num_hidden_layers"]);
    says(&error("hidden_size", json!("64")), &["config.json", "hidden_size"]);
    says(&error("use_swiglu_ffn", json!(true)), &["weights_in"]);
    says(&error("model_type", json!("vit")), &["model_type", "'vit'", "dinov2"]);
    says(&error("model_type", Value::Null), &["model_type"]);
    says(&error("num_attention_heads", json!(0)), &["num_attention_heads"]);
    says(&error("num_attention_heads", json!(7)), &["num_attention_heads 7"]);
    says(&error("hidden_act", json!("relu")), &["hidden_act", "relu"]);
    says(&error("qkv_bias", json!(false)), &["qkv_bias"]);
    says(&error("num_channels", json!(1)), &["num_channels"]);
    says(&error("patch_size", json!(0)), &["patch_size 0"]);
    says(&error("mlp_ratio", json!(-1)), &["mlp_ratio"]);
    says(&error("mlp_ratio", json!(1e9)), &["mlp_ratio"]);
    says(&error("mlp_ratio", json!(0.001)), &["mlp_ratio"]);
    says(&error("hidden_size", json!(0)), &["hidden_size 0"]);
    says(&error("num_hidden_layers", json!(0)), &["num_hidden_layers 0"]);
    says(&error("layer_norm_eps", json!(0)), &["layer_norm_eps"]);
    says(&error("id2label", json!({"0": "a", "1": "b"})), &["id2label has 2", "3 rows"]);
    says(&error("id2label", json!({"0": "a", "2": "b"})), &["id2label"]);
    std::fs::write(dir.path().join("config.json"), "{\"a\":").unwrap();
    says(&refusal(dir.path()), &["config.json", "JSON"]);
    folder(dir.path(), |json| json["drop_path_rate"] = json!(0.1), |_| {});
    assert!(open(dir.path()).unwrap().1[0].contains("drop_path_rate"));
}

#[test]
fn absent_keys_have_the_defaults_of_their_model() {
    let dir = tempfile::tempdir().unwrap();
    // Patches of 2 pixels are stored, so the default in the error is what was assumed.
    for (registers, words) in [(0, "patch_size 14"), (4, "patch_size 16")] {
        let config = tiny(false, registers);
        save_transformers(dir.path(), &config, &state(&config), None, None).unwrap();
        let path = dir.path().join("config.json");
        let mut json: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        json.as_object_mut().unwrap().remove("patch_size");
        std::fs::write(&path, json.to_string()).unwrap();
        says(&refusal(dir.path()), &[words]);
        // These are at their defaults already.
        let mut json = hf(&config);
        for key in ["layer_norm_eps", "hidden_act", "qkv_bias", "num_channels", "use_swiglu_ffn", "num_register_tokens"]
        {
            json.as_object_mut().unwrap().remove(key);
        }
        std::fs::write(&path, json.to_string()).unwrap();
        assert_eq!(open(dir.path()).unwrap().0.config, config);
    }
}

/// The config.json of a model, as it is written.
fn hf(config: &peftk::vit::VitConfig) -> Value {
    let dir = tempfile::tempdir().unwrap();
    save_transformers(dir.path(), config, &state(config), None, None).unwrap();
    serde_json::from_slice(&std::fs::read(dir.path().join("config.json")).unwrap()).unwrap()
}

#[test]
fn damaged_files_are_told_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("model.safetensors");
    let config = tiny(false, 0);
    write(&file, &state(&config));
    let good = std::fs::read(&file).unwrap();
    let error = |bytes: &[u8]| {
        std::fs::write(&file, bytes).unwrap();
        refusal(&file)
    };
    says(&error(&[]), &["model.safetensors", "0 bytes"]);
    says(&error(&good[..5]), &["5 bytes"]);
    says(&error(&good[..100]), &["truncated"]);
    says(&error(&good[..good.len() - 1]), &["truncated"]);
    says(&error(&[&good[..], b"x"].concat()), &["longer"]);
    says(&error(b"<!DOCTYPE html><html></html>"), &["not a safetensors file"]);
    says(&error(&[&16u64.to_le_bytes()[..], b"{\"a\": not json} "].concat()), &["corrupt header"]);
    let header = br#"{"a":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}}"#;
    let integers = [&(header.len() as u64).to_le_bytes()[..], header, &[0; 8]].concat();
    says(&error(&integers), &["'a'", "I64", "BF16"]);
    let empty = [&2u64.to_le_bytes()[..], b"{}"].concat();
    says(&error(&empty), &["not a DINOv2"]);
}

#[test]
fn wrong_paths_and_foreign_names_are_told() {
    let dir = tempfile::tempdir().unwrap();
    says(&refusal(dir.path()), &["model.safetensors"]);
    std::fs::write(dir.path().join("adapter_config.json"), "{}").unwrap();
    says(&refusal(dir.path()), &["this folder is an adapter"]);
    let text = dir.path().join("weights.txt");
    std::fs::write(&text, "x").unwrap();
    says(&refusal(&text), &["weights.txt", ".pth"]);

    let file = dir.path().join("x.safetensors");
    write(&file, &StateDict::from([("conv1.weight".into(), HostTensor::filled(&[1], 0.0))]));
    says(&refusal(&file), &["not a DINOv2", "conv1.weight"]);
    let config = tiny(false, 0);
    let mut meta = packed(&state(&config), &config, false);
    meta.remove("blocks.1.attn.qkv.bias");
    write(&file, &meta);
    says(&refusal(&file), &["blocks.1.attn.qkv.bias", "[192]", "missing"]);
    let mut meta = packed(&state(&config), &config, false);
    meta.insert("pos_embed".into(), HostTensor::filled(&[1, 9, 64], 0.0));
    write(&file, &meta);
    says(&refusal(&file), &["pos_embed", "[1, 9, 64]"]);
    let mut meta = packed(&state(&config), &config, false);
    meta.insert("blocks.99999999.norm1.bias".into(), HostTensor::filled(&[64], 0.0));
    write(&file, &meta);
    says(&refusal(&file), &["blocks."]);
}

#[test]
fn empty_tensors_that_claim_extents_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x.safetensors");
    let config = tiny(false, 4);
    let huge = 1 << 62;
    for (name, shape) in [
        ("patch_embed.proj.weight", vec![64, 3, 0, 0]),
        ("patch_embed.proj.weight", vec![0, 3, huge, 1]),
        ("blocks.0.mlp.fc2.weight", vec![64, 0]),
        ("blocks.0.mlp.fc2.weight", vec![0, huge]),
        ("pos_embed", vec![1, huge, 0]),
        ("pos_embed", vec![1, huge + 1, 0]),
        ("register_tokens", vec![1, huge, 0]),
        ("cls_token", vec![1, 1, 0]),
    ] {
        let mut meta = packed(&state(&config), &config, false);
        meta.insert(name.into(), HostTensor { shape, data: vec![] });
        write(&file, &meta);
        says(&refusal(&file), &[name]);
    }
}

#[test]
fn two_spellings_of_a_block_are_not_merged() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x.safetensors");
    let config = tiny(false, 0);
    for chunked in [&["blocks.0.1."][..], &["blocks.0.1.", "blocks.1.1."]] {
        let mut meta = packed(&state(&config), &config, false);
        let name = "blocks.1.norm1.bias";
        let tensor = if chunked.len() == 1 { meta[name].clone() } else { meta.remove(name).unwrap() };
        for chunk in chunked {
            meta.insert(name.replace("blocks.1.", chunk), tensor.clone());
        }
        write(&file, &meta);
        says(&refusal(&file), &[&format!("{}norm1.bias", chunked[chunked.len() - 1]), "not part"]);
    }
}
