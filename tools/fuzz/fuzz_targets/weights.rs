//! Weights in safetensors and the JSON beside them. The first byte says which file the others are; the rest of the folder stands.

#![no_main]

mod common;

use std::path::Path;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use peftk::adapter;
use peftk::io::{BackboneSpec, HostTensor, load, random, save_transformers, tensor_file};
use peftk::vit::{Family, VitConfig};

/// The smallest model there is.
static MODEL: LazyLock<VitConfig> = LazyLock::new(|| VitConfig {
    hidden: 2,
    layers: 1,
    heads: 1,
    mlp_hidden: 2,
    swiglu: false,
    registers: 0,
    patch: 1,
    image_size: 1,
    layer_norm_eps: 1e-6,
    layerscale_value: 1.0,
    family: Family::Transformers,
});

/// Most data that is put behind a header.
const MOST_DATA: u64 = 1 << 20;

/// The folders, each with the files that stand.
static FOLDERS: LazyLock<&Path> = LazyLock::new(|| {
    let state = random(&MODEL, 0);
    for folder in ["config", "index"] {
        save_transformers(&common::FOLDER.join(folder), &MODEL, &state, None, None).expect("it fits");
    }
    let index = common::FOLDER.join("index");
    std::fs::remove_file(index.join("model.safetensors")).expect("it was written");
    let of = |first: bool| {
        let tensors = state.iter().filter(move |(name, _)| name.starts_with("embeddings") == first);
        tensors.map(|(name, tensor)| (name.clone(), tensor))
    };
    tensor_file::write(&index.join("1.safetensors"), of(true)).expect("it was written");
    tensor_file::write(&index.join("2.safetensors"), of(false)).expect("it was written");
    let linear = "base_model.model.dinov2.encoder.layer.0.attention.attention.query";
    let tensors = [
        (format!("{linear}.lora_A.weight"), &HostTensor::filled(&[1, 2], 0.5)),
        (format!("{linear}.lora_B.weight"), &HostTensor::filled(&[2, 1], 0.5)),
        (format!("{linear}.lora_magnitude_vector"), &HostTensor::filled(&[2], 1.0)),
    ];
    common::write("adapter_config/adapter_model.safetensors", b"");
    tensor_file::write(&common::FOLDER.join("adapter_config/adapter_model.safetensors"), tensors).expect("written");
    let config = br#"{"peft_type": "LORA", "r": 1, "use_dora": true, "target_modules": "all-linear"}"#;
    common::write("adapter_header/adapter_config.json", config);
    &common::FOLDER
});

/// A file of this header, with as many bytes of data as it speaks of.
fn with_header(header: &[u8]) -> Vec<u8> {
    let json: serde_json::Value = serde_json::from_slice(header).unwrap_or_default();
    let entries = json.as_object().into_iter().flatten();
    let end = entries.filter_map(|(_, entry)| entry.get("data_offsets")?.get(1)?.as_u64()).max().unwrap_or(0);
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header);
    file.resize(file.len() + end.min(MOST_DATA) as usize, 0);
    file
}

fuzz_target!(init: common::init(), |bytes: &[u8]| {
    common::run(|| {
        let Some((kind, bytes)) = bytes.split_first() else { return };
        let backbone = |folder: &str| load(&BackboneSpec::Folder(FOLDERS.join(folder)), &mut |_| ()).map(|_| ());
        let adapter = |folder: &str| adapter::read(&FOLDERS.join(folder)).and_then(|read| read.check(&MODEL));
        LazyLock::force(&FOLDERS);
        let read = match kind % 6 {
            0 => {
                common::write("raw/model.safetensors", bytes);
                backbone("raw")
            }
            1 => {
                common::write("header/model.safetensors", &with_header(bytes));
                backbone("header")
            }
            2 => {
                common::write("config/config.json", bytes);
                backbone("config")
            }
            3 => {
                common::write("index/model.safetensors.index.json", bytes);
                backbone("index")
            }
            4 => {
                common::write("adapter_config/adapter_config.json", bytes);
                adapter("adapter_config")
            }
            _ => {
                common::write("adapter_header/adapter_model.safetensors", &with_header(bytes));
                adapter("adapter_header")
            }
        };
        match read {
            Ok(()) => common::check_reason("read"),
            Err(error) => common::check_reason(&error.to_string()),
        }
    });
});
