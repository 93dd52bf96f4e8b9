//! A folder of three plainly different classes is learnt, and eval, predict and merge agree about it.

use std::path::Path;

use serde_json::Value;

use crate::{difference, done, lines, logits, pictures};

/// Trains on `dir/data`; the best epoch's line in the log.
fn train(dir: &Path, run: &str, flags: &str) -> Value {
    let out = done(dir, &format!("train --data data --backbone random:micro --input-size 42 --out {run} {flags}"));
    assert!(out.contains("best validation accuracy"), "{out}");
    let best = lines(&dir.join(run), "val")
        .into_iter()
        .reduce(|best, line| if line["accuracy"].as_f64() > best["accuracy"].as_f64() { line } else { best });
    best.expect("a validation")
}

/// eval on the validation images says what the log said at the best epoch; predict's labels and logits say it too; merging changes nothing.
fn agree(dir: &Path, run: &str, best: &Value) {
    let report: Value = serde_json::from_str(&done(dir, &format!("eval --model {run} --data data --json"))).unwrap();
    assert_eq!(report["accuracy"], best["accuracy"]);
    let (eval, trained) = (report["loss"].as_f64().unwrap(), best["loss"].as_f64().unwrap());
    assert!((eval - trained).abs() < 1e-5 * trained.max(0.2), "loss {eval}, in training {trained}");

    let (mut right, mut loss, mut count) = (0.0, 0.0, 0.0);
    for line in done(dir, &format!("predict --model {run} --json data/val")).lines() {
        let value: Value = serde_json::from_str(line).unwrap();
        let class = Path::new(value["path"].as_str().unwrap()).parent().unwrap().file_name().unwrap().to_str().unwrap();
        let index = ["disc", "flat", "stripes"].iter().position(|name| *name == class).unwrap();
        right += f64::from(u8::from(value["label"] == class));
        loss -= value["probs"][index].as_f64().unwrap().ln();
        count += 1.0;
    }
    assert_eq!(right / count, report["accuracy"].as_f64().unwrap());
    assert_eq!(count, report["images"].as_f64().unwrap());
    assert!((loss / count - eval).abs() < 1e-5 * eval.max(0.2), "loss {eval}, by predict {}", loss / count);

    done(dir, &format!("merge --model {run} --out {run}-merged"));
    let own = logits(dir, &format!("--model {run} data/val"));
    let merged = logits(dir, &format!("--backbone {run}-merged --input-size 42 data/val"));
    assert_eq!(own.len(), 18);
    for (path, own) in &own {
        let wrong = difference(&merged[path], own);
        assert!(wrong < 1e-5, "{run} merged, {}: {wrong:.1e}", path.display());
    }
}

#[test]
fn every_strategy_learns_and_every_command_agrees() {
    let dir = tempfile::tempdir().unwrap();
    pictures(&dir.path().join("data/train"), 20, 1);
    pictures(&dir.path().join("data/val"), 6, 2);
    // Without augmentation: a crop of a disc is flat.
    for (strategy, least, flags) in [
        ("dora", 0.95, "--epochs 6 --batch-size 16 --augment none --targets all-linear --lr 5e-3"),
        ("lora", 0.95, "--epochs 6 --batch-size 16 --augment none --targets all-linear --lr 5e-3"),
        ("full", 0.95, "--epochs 6 --batch-size 16 --augment none --lr 3e-4"),
        ("freeze", 0.5, "--epochs 6 --batch-size 16 --augment none"),
    ] {
        let best = train(dir.path(), strategy, &format!("--quiet --strategy {strategy} {flags}"));
        let accuracy = best["accuracy"].as_f64().unwrap();
        assert!(accuracy >= least, "{strategy}: accuracy {accuracy}");
        agree(dir.path(), strategy, &best);
    }
}

#[test]
fn a_bad_image_is_named_and_left_out() {
    let dir = tempfile::tempdir().unwrap();
    pictures(&dir.path().join("data"), 5, 1);
    std::fs::write(dir.path().join("data/flat/zero.png"), b"").unwrap();
    let line = "train --data data --backbone random:micro --input-size 42 --epochs 1 --out run --skip-bad";
    let output = crate::peftk(dir.path(), line);
    let stderr = crate::text(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.lines().any(|line| line.starts_with("skipped") && line.contains("zero.png")), "{stderr}");
}
