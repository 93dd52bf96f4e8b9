//! One test a case.

use peftk::adapter;
use peftk::autograd::{Grads, Params};
use peftk::config::Recompute;
use peftk::cpu::Cpu;
use peftk::io::BackboneSpec;
use peftk::train::optimizer::{Hyper, Optimizer};
use peftk::train::step::{StepOptions, forward_backward};
use peftk::vit::export;
use safetensors::SafeTensors;

use crate::case::Case;
use crate::names::find;
use crate::{cpu, error, largest, tensor};

/// `key_bias`: the key's bias has a gradient of zero in theory, so nothing is compared there after AdamW has normalised its noise.
fn check(name: &str, options: impl Fn(StepOptions) -> StepOptions) {
    let case = Case::read(name);
    let file = SafeTensors::deserialize(&case.tensors).unwrap();
    let (vit, mut params) = case.model(cpu());
    let options = options(case.options());

    let logits = error(&case.logits(&vit, &params), &tensor(&file, "logits").0, 0.0);
    assert!(logits < 1e-5, "{name}: logits {logits:.2e}");

    let mut grads = Grads::new(&params);
    let loss = forward_backward(&vit, &params, &case.batch, &options, 0, &mut grads).unwrap();
    let expected = tensor(&file, "loss").0[0];
    assert!((loss - expected).abs() / expected.abs().max(0.2) < 1e-5, "{name}: loss {loss} for {expected}");
    check_grads(name, &file, &params, &grads);

    let hyper = &case.json["optimizer"];
    let mut optimizer = Optimizer::new(&params, Hyper::new(hyper["weight_decay"].as_f64().unwrap())).unwrap();
    for (step, &expected) in tensor(&file, "losses").0.iter().enumerate() {
        let mut grads = Grads::new(&params);
        let loss = forward_backward(&vit, &params, &case.batch, &options, 0, &mut grads).unwrap();
        let wrong = (loss - expected).abs() / expected.abs().max(0.2);
        assert!(wrong < 1e-4, "{name}: loss {loss} for {expected} at step {step}");
        optimizer.step(&mut params, &mut grads, hyper["lr"].as_f64().unwrap()).unwrap();
    }
    let wrong = error(&case.logits(&vit, &params), &tensor(&file, "final_logits").0, 0.0);
    assert!(wrong < 1e-4, "{name}: final logits {wrong:.2e}");
    let mut compared = 0;
    for tensor_name in file.names().iter().filter(|n| n.starts_with("final.")) {
        let expected = tensor(&file, tensor_name).0;
        let place = find(&params, tensor_name.trim_start_matches("final."));
        let got = params.download(place.id).unwrap();
        let wrong = error(place.of(&got), &expected, 0.0);
        assert!(wrong < 1e-4, "{name}: {tensor_name} {wrong:.2e}");
        compared += 1;
    }
    let has_finals = file.names().iter().any(|n| n.starts_with("final."));
    assert_eq!(compared > 0, has_finals);
}

fn check_grads(name: &str, file: &SafeTensors<'_>, params: &Params<Cpu>, grads: &Grads<Cpu>) {
    let names: Vec<_> = file.names().into_iter().filter(|n| n.starts_with("grad.")).collect();
    let floor = 1e-3 * names.iter().map(|n| largest(&tensor(file, n).0)).fold(0.0, f64::max);
    for tensor_name in &names {
        let expected = tensor(file, tensor_name).0;
        let place = find(params, tensor_name.trim_start_matches("grad."));
        let Some(grad) = grads.get(place.id) else { panic!("{name}: no gradient for {tensor_name}") };
        let got = grad.download(params.backend()).unwrap();
        let wrong = error(place.of(&got), &expected, floor);
        assert!(wrong < 1e-4, "{name}: {tensor_name} {wrong:.2e}");
    }
    // Every trained value was compared: the case has as many numbers as the model trains, the mask token aside.
    if !names.is_empty() {
        let trained: usize = params.trainable().map(|(_, p)| p.value.elements()).sum();
        let compared: usize = names.iter().map(|n| tensor(file, n).0.len()).sum();
        assert_eq!(trained, compared, "{name}: trained values and golden gradients");
    }
}

fn check_merge(name: &str) {
    let case = Case::read(name);
    let tensors = case.tensors.clone();
    let file = SafeTensors::deserialize(&tensors).unwrap();
    let (vit, params) = case.model(cpu());
    let merged = export::backbone(&vit, &params, &case.backbone.state).unwrap();
    let mut compared = 0;
    for tensor_name in file.names().into_iter().filter(|n| n.starts_with("merged.")) {
        let (expected, _) = tensor(&file, tensor_name);
        let name_on_disk = tensor_name
            .trim_start_matches("merged.")
            .trim_start_matches("dinov2_with_registers.")
            .trim_start_matches("dinov2.")
            .replace("q_proj", "attention.query")
            .replace("k_proj", "attention.key")
            .replace("v_proj", "attention.value")
            .replace("o_proj", "output.dense")
            .replace("down_proj", "weights_out")
            .replace("gate_proj", "weights_in")
            .replace("up_proj", "weights_in");
        let values = &merged[&name_on_disk].data;
        let got = match tensor_name {
            n if n.contains("gate_proj") => &values[..values.len() / 2],
            n if n.contains("up_proj") => &values[values.len() / 2..],
            _ => values,
        };
        let wrong = error(got, &expected, 0.0);
        assert!(wrong < 1e-6, "{name}: {tensor_name} {wrong:.2e}");
        compared += 1;
    }
    assert!(compared > 0);

    // The merged folder is a model of its own with the same logits.
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("merged");
    let head = export::classifier(&vit, &params).unwrap();
    peftk::io::save_transformers(&dir, &case.backbone.config, &merged, Some(&head), None).unwrap();
    let alone =
        Case { adapter: None, backbone: peftk::io::load(&BackboneSpec::Folder(dir), &mut |_| {}).unwrap(), ..case };
    let (vit, params) = alone.model(cpu());
    let wrong = error(&alone.logits(&vit, &params), &tensor(&file, "logits").0, 0.0);
    assert!(wrong < 1e-5, "{name}: merged logits {wrong:.2e}");
}

macro_rules! cases {
    ($($name:ident $merge:literal),* $(,)?) => {$(
        #[test]
        fn $name() {
            check(stringify!($name), |options| options);
            // Micro-batches and recomputation change nothing but rounding.
            check(stringify!($name), |options| StepOptions { micro_batch: Some(4), recompute: Recompute::BLOCKS, ..options });
            if $merge {
                check_merge(stringify!($name));
            }
        }
    )*};
}

cases! {
    full false, freeze false, lora_qv true, lora_all true, dora_qv true, dora_all true, patterns true, registers true, swiglu true,
    multilabel true, legacy_names false,
}

/// An adapter written by us, under the family of names it was read with, is read back the same.
#[test]
fn adapters_round_trip() {
    for name in ["dora_all", "legacy_names", "swiglu", "patterns", "registers"] {
        let case = Case::read(name);
        let adapter = case.adapter.as_ref().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("adapter");
        adapter::write(&dir, adapter, case.backbone.config.registers > 0, None).unwrap();
        let keys = |dir: &std::path::Path| {
            let bytes = std::fs::read(dir.join("adapter_model.safetensors")).unwrap();
            let file = SafeTensors::deserialize(&bytes).unwrap();
            let mut list: Vec<_> = file
                .iter()
                .map(|(name, view)| (name.to_owned(), view.shape().to_vec(), view.data().to_vec()))
                .collect();
            list.sort();
            list
        };
        assert_eq!(keys(&dir), keys(&crate::data().join(name).join("adapter")), "{name}");
    }
}
