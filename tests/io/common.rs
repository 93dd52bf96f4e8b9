//! Small models, and their tensors under Meta's and timm's names.

use std::path::Path;

use peftk::io::{Backbone, BackboneSpec, Classifier, HostTensor, StateDict, load, random, tensor_file};
use peftk::vit::{Family, VitConfig};

/// Width 64, two blocks, one head, 3 x 3 patches of 2 pixels.
pub fn tiny(swiglu: bool, registers: usize) -> VitConfig {
    VitConfig {
        hidden: 64,
        layers: 2,
        heads: 1,
        mlp_hidden: VitConfig::mlp_hidden_for(64, 2.0, swiglu),
        swiglu,
        registers,
        patch: 2,
        image_size: 6,
        layer_norm_eps: 1e-6,
        layerscale_value: 0.5,
        family: Family::Transformers,
    }
}

/// Random weights in which no two tensors are alike, biases and LayerScale included.
pub fn state(config: &VitConfig) -> StateDict {
    let mut state = random(config, 7);
    for (place, tensor) in state.values_mut().enumerate() {
        let first = tensor.data[0];
        if tensor.data.iter().all(|&v| v == first) {
            let vary = |(i, v): (usize, &mut f32)| *v += (i + 1) as f32 / 256.0 + place as f32 / 8.0;
            tensor.data.iter_mut().enumerate().for_each(vary);
        }
    }
    state
}

/// A classifier of three classes on `width` features.
pub fn classifier(width: usize) -> Classifier {
    let data = (0..3 * width).map(|i| (i % 17) as f32 / 16.0).collect();
    Classifier {
        weight: HostTensor { shape: vec![3, width], data },
        bias: HostTensor { shape: vec![3], data: vec![0.5, -0.25, 1.0] },
    }
}

/// The same weights as Meta names and packs them, or timm.
pub fn packed(state: &StateDict, config: &VitConfig, timm: bool) -> StateDict {
    let mut out = StateDict::new();
    for (name, tensor) in state {
        let name = name
            .replace("embeddings.cls_token", "cls_token")
            .replace("embeddings.position_embeddings", "pos_embed")
            .replace("embeddings.register_tokens", if timm { "reg_token" } else { "register_tokens" })
            .replace("embeddings.patch_embeddings.projection", "patch_embed.proj")
            .replace("encoder.layer.", "blocks.")
            .replace("attention.output.dense", "attn.proj")
            .replace("layer_scale1.lambda1", "ls1.gamma")
            .replace("layer_scale2.lambda1", "ls2.gamma")
            .replace("layernorm.", "norm.")
            .replace("mlp.weights_in", if timm { "mlp.fc1" } else { "mlp.w12" })
            .replace("mlp.weights_out", if timm { "mlp.fc2" } else { "mlp.w3" });
        if !name.contains("attention.attention") {
            out.insert(name, tensor.clone());
        }
    }
    for layer in 0..config.layers {
        for part in ["weight", "bias"] {
            let mut data = Vec::new();
            for third in ["query", "key", "value"] {
                data.extend(&state[&format!("encoder.layer.{layer}.attention.attention.{third}.{part}")].data);
            }
            let mut shape = vec![3 * config.hidden];
            if part == "weight" {
                shape.push(config.hidden);
            }
            out.insert(format!("blocks.{layer}.attn.qkv.{part}"), HostTensor { shape, data });
        }
    }
    if !timm {
        out.insert("mask_token".into(), HostTensor::filled(&[1, config.hidden], 0.0));
    }
    out
}

/// Writes tensors to one safetensors file.
pub fn write(path: &Path, tensors: &StateDict) {
    tensor_file::write(path, tensors.iter().map(|(name, tensor)| (name.clone(), tensor))).unwrap();
}

/// Loads a path and gives what was logged.
pub fn open(path: &Path) -> peftk::Result<(Backbone, Vec<String>)> {
    let mut notes = Vec::new();
    let spec = BackboneSpec::parse(path.to_str().unwrap())?;
    let backbone = load(&spec, &mut |note| notes.push(note.to_owned()))?;
    Ok((backbone, notes))
}

/// The error of opening a path: one line, the user's to mend.
pub fn refusal(path: &Path) -> String {
    let error = open(path).unwrap_err();
    assert_eq!(error.exit_code(), 2, "{error}");
    let text = error.to_string();
    assert!(!text.contains('\n') && text.len() < 600, "{text}");
    text
}

/// Whether a text holds all the words.
#[track_caller]
pub fn says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "expected {word:?} in: {text}");
    }
}
