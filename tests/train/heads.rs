//! Heads that peft and transformers have no exact form for: on CLS alone, and several labels an image.

use std::path::Path;

use serde_json::Value;

use crate::{difference, done, lines, logits, pictures};

/// A head on CLS alone is written with zeros for the mean, and means the same wherever it is read.
#[test]
fn a_head_on_cls_alone() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    pictures(&dir.join("data/train"), 4, 3);
    pictures(&dir.join("data/val"), 2, 4);
    for strategy in ["dora", "freeze"] {
        let flags = format!("--strategy {strategy} --pool cls --backbone random:micro --epochs 1 --out {strategy}");
        done(dir, &format!("train --data data --input-size 42 {flags}"));
        let report: Value =
            serde_json::from_str(&done(dir, &format!("eval --model {strategy} --data data --json"))).unwrap();
        let trained = lines(&dir.join(strategy), "val")[0]["loss"].as_f64().unwrap();
        assert!((report["loss"].as_f64().unwrap() - trained).abs() < 1e-5, "{report} for {trained}");
        done(dir, &format!("merge --model {strategy} --out {strategy}-merged"));
        let own = logits(dir, &format!("--model {strategy} data/val"));
        let merged = logits(dir, &format!("--backbone {strategy}-merged --input-size 42 data/val"));
        for (path, own) in &own {
            assert!(difference(&merged[path], own) < 1e-5, "{}", path.display());
        }
    }
    done(
        dir,
        "train --data data --input-size 42 --backbone random:micro --init-adapter dora/adapter --epochs 1 --out again",
    );
}

/// A merged multi-label model still answers with sigmoids and a list of labels.
#[test]
fn a_merged_model_keeps_its_task() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/data/multilabel/data");
    let data = data.to_str().unwrap();
    done(dir, &format!("train --data {data} --backbone random:micro --epochs 1 --val-fraction 0 --out run"));
    done(dir, "merge --model run --out merged");
    for model in ["--model run", "--backbone merged"] {
        let out = done(dir, &format!("predict --json {model} {data}"));
        assert_eq!(out.lines().count(), 6);
        for line in out.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            assert!(line["label"].is_array(), "{model}: {line}");
            let (logit, prob) = (line["logits"][0].as_f64().unwrap(), line["probs"][0].as_f64().unwrap());
            assert!((prob - 1.0 / (1.0 + (-logit).exp())).abs() < 1e-6, "{model}: {line}");
        }
    }
}
