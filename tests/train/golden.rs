//! The golden cases through the command line: the losses of four steps and the logits before and after them, as transformers and peft
//! computed them.

use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

use crate::{difference, done, logits, losses};

const CASES: [&str; 11] = [
    "dora_all",
    "dora_qv",
    "freeze",
    "full",
    "legacy_names",
    "lora_all",
    "lora_qv",
    "multilabel",
    "patterns",
    "registers",
    "swiglu",
];

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/data")
}

fn tensor(file: &[u8], name: &str) -> Vec<f64> {
    let file = SafeTensors::deserialize(file).unwrap();
    let view = file.tensor(name).unwrap();
    let numbers = |size| view.data().chunks_exact(size);
    match view.dtype() {
        Dtype::F64 => numbers(8).map(|bytes| f64::from_le_bytes(bytes.try_into().unwrap())).collect(),
        Dtype::F32 => numbers(4).map(|bytes| f64::from(f32::from_le_bytes(bytes.try_into().unwrap()))).collect(),
        other => panic!("{name} is {other:?}"),
    }
}

/// The program's logits, images in the order of the case.
fn in_order(dir: &Path, case: &Path, json: &Value, model: &str) -> Vec<f64> {
    let images = case.join("data");
    let found = logits(dir, &format!("{model} --input-size 56 --resize squash {}", images.display()));
    let files = json["files"].as_array().unwrap();
    assert_eq!(found.len(), files.len());
    files.iter().flat_map(|file| found[&case.join(file.as_str().unwrap())].clone()).collect()
}

#[test]
fn losses_and_logits_are_those_of_peft() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for name in CASES {
        let case = data().join(name);
        let json: Value = serde_json::from_slice(&std::fs::read(case.join("case.json")).unwrap()).unwrap();
        let tensors = std::fs::read(case.join("tensors.safetensors")).unwrap();
        let backbone = data().join(json["backbone"].as_str().unwrap().trim_start_matches("../"));
        let (backbone, images) = (backbone.display(), case.join("data"));
        let adapter = case.join("adapter");
        let (init, with) = if adapter.is_dir() {
            let adapter = adapter.display();
            (format!("--init-adapter {adapter}"), format!("--adapter {adapter}"))
        } else {
            (format!("--strategy {}", json["strategy"].as_str().unwrap()), String::new())
        };

        let found = in_order(dir, &case, &json, &format!("--backbone {backbone} {with}"));
        let wrong = difference(&found, &tensor(&tensors, "logits"));
        assert!(wrong < 1e-5, "{name}: logits {wrong:.1e}");

        done(
            dir,
            &format!(
                "train {init} --backbone {backbone} --data {} --no-shuffle --augment none --val-fraction 0 --batch-size 6 \
                 --lr 0.001 --epochs 4 --schedule constant --input-size 56 --resize squash --quiet --out {name}",
                images.display()
            ),
        );
        let (found, expected) = (losses(&dir.join(name)), tensor(&tensors, "losses"));
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-4 * expected.max(0.2), "{name}: loss {found} for {expected}");
        }
        let found = in_order(dir, &case, &json, &format!("--model {name}"));
        let wrong = difference(&found, &tensor(&tensors, "final_logits"));
        assert!(wrong < 1e-4, "{name}: final logits {wrong:.1e}");
    }
}
