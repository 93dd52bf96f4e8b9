use std::collections::BTreeMap;

use half::{bf16, f16};
use peftk::io::{BackboneSpec, HostTensor, StateDict, load, random, save_transformers};
use peftk::vit::names::{MASK_TOKEN, expected_tensors};
use peftk::vit::{Family, VitConfig};
use safetensors::tensor::{Dtype, TensorView};

use crate::common::{classifier, open, packed, state, tiny, write};

const SHAPES: [(bool, usize); 4] = [(false, 0), (false, 4), (true, 0), (true, 4)];

#[test]
fn transformers_folders_come_back_as_written() {
    let dir = tempfile::tempdir().unwrap();
    for (swiglu, registers) in SHAPES {
        let config = tiny(swiglu, registers);
        let state = state(&config);
        let labels = ["ant", "bee", "cat"].map(String::from);
        let head = classifier(128);
        save_transformers(dir.path(), &config, &state, Some(&head), Some(&labels)).unwrap();
        let (read, notes) = open(dir.path()).unwrap();
        assert_eq!(read.config, config);
        assert_eq!(read.classifier.unwrap(), head);
        assert_eq!(read.labels.unwrap(), labels);
        assert!(notes.is_empty(), "{notes:?}");
        let mut expected = state.clone();
        expected.insert(MASK_TOKEN.into(), HostTensor::filled(&[1, 64], 0.0));
        assert_eq!(read.state, expected);
    }
}

#[test]
fn a_bare_backbone_has_no_prefix_no_head_and_no_labels() {
    let dir = tempfile::tempdir().unwrap();
    let config = tiny(false, 0);
    save_transformers(dir.path(), &config, &state(&config), None, None).unwrap();
    let (read, _) = open(dir.path()).unwrap();
    assert!(read.classifier.is_none() && read.labels.is_none());
    let json = std::fs::read_to_string(dir.path().join("config.json")).unwrap();
    assert!(json.contains("\"Dinov2Model\"") && !json.contains("id2label"), "{json}");
    // Without labels they are placeholders, which are read as none.
    save_transformers(dir.path(), &config, &state(&config), Some(&classifier(128)), None).unwrap();
    assert!(open(dir.path()).unwrap().0.labels.is_none());
}

#[test]
fn a_classifier_on_cls_alone_is_widened_and_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let config = tiny(false, 0);
    let head = classifier(64);
    save_transformers(dir.path(), &config, &state(&config), Some(&head), None).unwrap();
    let wide = open(dir.path()).unwrap().0.classifier.unwrap();
    assert_eq!(wide.weight.shape, [3, 128]);
    assert_eq!(wide.cls_only(64).unwrap(), head);
    assert!(classifier(128).cls_only(64).is_none());
}

#[test]
fn the_shape_is_inferred_where_no_config_is() {
    for (swiglu, registers) in SHAPES {
        let dir = tempfile::tempdir().unwrap();
        let config = tiny(swiglu, registers);
        save_transformers(dir.path(), &config, &state(&config), Some(&classifier(128)), None).unwrap();
        std::fs::remove_file(dir.path().join("config.json")).unwrap();
        for path in [dir.path().to_owned(), dir.path().join("model.safetensors")] {
            let (read, notes) = open(&path).unwrap();
            assert_eq!(read.config, VitConfig { layerscale_value: 1.0, ..config.clone() });
            assert!(notes.len() == 1 && notes[0].contains("inferred"), "{notes:?}");
        }
    }
}

#[test]
fn metas_names_are_unpacked() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("meta.safetensors");
    for (swiglu, registers) in SHAPES {
        let config = tiny(swiglu, registers);
        let state = state(&config);
        write(&file, &packed(&state, &config, false));
        let (mut read, notes) = open(&file).unwrap();
        assert_eq!(read.config.family, Family::Meta);
        assert_eq!(VitConfig { family: Family::Transformers, layerscale_value: 0.5, ..read.config.clone() }, config);
        assert!(read.state.remove(MASK_TOKEN).is_some());
        assert_eq!(read.state, state);
        assert_eq!(notes.len(), 1);
    }
}

#[test]
fn metas_chunked_blocks_are_unpacked() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("chunked.safetensors");
    let config = tiny(false, 0);
    let state = state(&config);
    let chunked = packed(&state, &config, false)
        .into_iter()
        .map(|(name, tensor)| (name.replace("blocks.0.", "blocks.0.0.").replace("blocks.1.", "blocks.1.1."), tensor));
    write(&file, &chunked.collect());
    let mut read = open(&file).unwrap().0.state;
    read.remove(MASK_TOKEN);
    assert_eq!(read, state);
}

#[test]
fn timms_names_are_unpacked() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("timm.safetensors");
    for (swiglu, registers) in SHAPES {
        let config = tiny(swiglu, registers);
        let mut state = state(&config);
        let mut tensors = packed(&state, &config, true);
        let head = classifier(64);
        tensors.insert("head.weight".into(), head.weight.clone());
        tensors.insert("head.bias".into(), head.bias.clone());
        if registers > 0 {
            // timm adds CLS's position to the token for good and keeps the patches' only.
            let positions = tensors.get_mut("pos_embed").unwrap();
            positions.data.drain(..64);
            positions.shape[1] -= 1;
            state.get_mut("embeddings.position_embeddings").unwrap().data[..64].fill(0.0);
        }
        write(&file, &tensors);
        let (read, _) = open(&file).unwrap();
        assert_eq!(read.config.family, Family::Timm);
        assert_eq!((read.config.swiglu, read.config.registers), (swiglu, registers));
        assert_eq!((read.config.mlp_hidden, read.config.image_size), (config.mlp_hidden, 6));
        assert_eq!(read.state, state);
        assert_eq!(read.classifier.unwrap(), head);
    }
}

#[test]
fn the_family_outlives_a_transformers_folder() {
    let dir = tempfile::tempdir().unwrap();
    for family in [Family::Meta, Family::Timm] {
        let config = VitConfig { family, ..tiny(false, 0) };
        save_transformers(dir.path(), &config, &state(&config), None, None).unwrap();
        assert_eq!(open(dir.path()).unwrap().0.config.family, family);
    }
}

#[test]
fn half_types_are_read_exactly() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("model.safetensors");
    let config = tiny(false, 0);
    for dtype in [Dtype::F16, Dtype::BF16] {
        // Values that both 16-bit types hold.
        let mut state = state(&config);
        state
            .values_mut()
            .for_each(|t| t.data.iter_mut().for_each(|v| *v = bf16::from_f32((*v * 64.0).round() / 64.0).to_f32()));
        let bytes: BTreeMap<&String, Vec<u8>> = state
            .iter()
            .map(|(name, tensor)| {
                let encode = |&v: &f32| match dtype {
                    Dtype::F16 => f16::from_f32(v).to_le_bytes(),
                    _ => bf16::from_f32(v).to_le_bytes(),
                };
                (name, tensor.data.iter().flat_map(encode).collect())
            })
            .collect();
        let views =
            bytes.iter().map(|(name, b)| (*name, TensorView::new(dtype, state[*name].shape.clone(), b).unwrap()));
        std::fs::write(&file, safetensors::serialize(views, None).unwrap()).unwrap();
        assert_eq!(open(&file).unwrap().0.state, state);
    }
}

#[test]
fn shards_are_read_by_their_index() {
    let dir = tempfile::tempdir().unwrap();
    let config = tiny(true, 0);
    let state = state(&config);
    let mut map = serde_json::Map::new();
    let (mut one, mut two) = (StateDict::new(), StateDict::new());
    for (i, (name, tensor)) in state.iter().enumerate() {
        let (shard, file) = if i % 2 == 0 { (&mut one, "a.safetensors") } else { (&mut two, "b.safetensors") };
        shard.insert(name.clone(), tensor.clone());
        map.insert(name.clone(), file.into());
    }
    write(&dir.path().join("a.safetensors"), &one);
    write(&dir.path().join("b.safetensors"), &two);
    let index = serde_json::json!({"metadata": {"total_size": 1}, "weight_map": map});
    let path = dir.path().join("model.safetensors.index.json");
    std::fs::write(&path, index.to_string()).unwrap();
    assert_eq!(open(dir.path()).unwrap().0.state, state);

    let lost = state.keys().next().unwrap();
    one.remove(lost);
    write(&dir.path().join("a.safetensors"), &one);
    let error = open(dir.path()).unwrap_err().to_string();
    assert!(error.contains(lost) && error.contains("a.safetensors"), "{error}");

    std::fs::write(&path, r#"{"weight_map":{"x":"../a.safetensors"}}"#).unwrap();
    let error = open(dir.path()).unwrap_err().to_string();
    assert!(error.contains("file name in the same folder"), "{error}");
}

#[test]
fn random_weights_are_those_of_their_seed() {
    let config = VitConfig::named("micro-reg").unwrap();
    let state = random(&config, 3);
    assert_eq!(state, random(&config, 3));
    assert_eq!(state.len(), expected_tensors(&config).len());
    assert_ne!(state["embeddings.cls_token"], random(&config, 4)["embeddings.cls_token"]);
    let query = &state["encoder.layer.0.attention.attention.query.weight"].data;
    assert_ne!(query, &state["encoder.layer.0.attention.attention.key.weight"].data);
    let variance = query.iter().map(|v| f64::from(v * v)).sum::<f64>() / query.len() as f64;
    assert!((variance.sqrt() - 0.02).abs() < 5e-4, "{}", variance.sqrt());
    let mean = query.iter().map(|&v| f64::from(v)).sum::<f64>() / query.len() as f64;
    assert!(mean.abs() < 1e-3, "{mean}");
    assert!(state["encoder.layer.0.norm1.weight"].data.iter().all(|&v| v == 1.0));
    assert!(state["encoder.layer.0.mlp.fc1.bias"].data.iter().all(|&v| v == 0.0));
    assert!(state["encoder.layer.4.layer_scale2.lambda1"].data.iter().all(|&v| v == 1.0));
}

#[test]
fn specs_are_told_apart() {
    let parse = |text: &str| BackboneSpec::parse(text);
    assert_eq!(parse("random:small-reg").unwrap(), BackboneSpec::Random { size: "small-reg".into() });
    assert_eq!(parse("dinov2-large-reg").unwrap(), BackboneSpec::Hub { name: "dinov2-large-reg".into() });
    assert_eq!(parse("embedded").unwrap(), BackboneSpec::Embedded);
    for path in ["./dinov2-small", "facebook/dinov2-small", "x.safetensors", "x.pth", ".x", "~/x", "no\\where"] {
        assert!(parse(path).unwrap_err().to_string().contains("no such file"), "{path}");
    }
    assert!(parse("facebook/dinov2-small").unwrap_err().to_string().contains("short names"));
    for unknown in ["dinov2-tiny", "dinov2-micro", "resnet", "", "dinov2-small-reg-reg"] {
        assert!(parse(unknown).unwrap_err().to_string().contains("expected dinov2-small"), "{unknown}");
    }
    assert!(parse("random:huge").is_err());
    let micro = load(&BackboneSpec::Embedded, &mut |_| {}).unwrap();
    assert!(micro.source.contains("trained on drawings"));
    // bf16 as stored; trained weights are far wider than fresh ones.
    let widest = |state: &StateDict| {
        let values = state["encoder.layer.0.mlp.fc1.weight"].data.iter();
        values.fold(0.0_f32, |most, value| most.max(value.abs()))
    };
    let is_bf16 = |value: &f32| half::bf16::from_f32(*value).to_f32() == *value;
    assert!(micro.state.values().all(|tensor| tensor.data.iter().all(is_bf16)));
    assert_eq!(micro.config, VitConfig::named("micro").unwrap());
    let random = load(&parse("random:micro").unwrap(), &mut |_| {}).unwrap();
    assert!(widest(&micro.state) > 2.0 * widest(&random.state), "{} {}", widest(&micro.state), widest(&random.state));
}
