//! Every task with every strategy: trained, killed and resumed to the same bits, evaluated, used and merged.

use std::path::Path;

use serde_json::Value;

use crate::resume::{again, start, wait_for_lines};
use crate::{assert_same_bits, difference, done, failure, lines, logits, pictures};

/// Pictures of three kinds under `train` and `val`, laid out for a task.
pub(crate) fn laid_out(dir: &Path, task: &str) {
    for (part, each, seed) in [("train", 12, 1), ("val", 5, 2)] {
        let part = dir.join(part);
        pictures(&part, each, seed);
        match task {
            // plain { flat, stripes } and disc.
            "hierarchical" => {
                std::fs::create_dir(part.join("plain")).unwrap();
                for kind in ["flat", "stripes"] {
                    std::fs::rename(part.join(kind), part.join("plain").join(kind)).unwrap();
                }
                std::fs::create_dir_all(part.join("round")).unwrap();
                std::fs::rename(part.join("disc"), part.join("round/disc")).unwrap();
            }
            "multilabel" => {
                let mut table = "filename,disc,flat,even\n".to_owned();
                for kind in ["disc", "flat", "stripes"] {
                    for number in 0..each {
                        // Of every fourth nobody knows whether it is even.
                        let even = if number % 4 == 3 {
                            ""
                        } else if kind == "stripes" {
                            "0"
                        } else {
                            "1"
                        };
                        let (disc, flat) = (u8::from(kind == "disc"), u8::from(kind == "flat"));
                        table.push_str(&format!("{kind}/{number:03}.png,{disc},{flat},{even}\n"));
                    }
                }
                std::fs::write(part.join("labels.csv"), table).unwrap();
            }
            _ => {}
        }
    }
}

const TRAIN: &str = "train --data data --backbone random:micro --input-size 28 --batch-size 8 --epochs 3";

/// One task with one strategy.
fn check(dir: &Path, task: &str, strategy: &str, more: &str) {
    let what = format!("{task} {strategy}");
    let flags = format!("{TRAIN} --strategy {strategy} {more}");
    done(dir, &format!("{flags} --out whole --quiet"));

    let mut child = start(dir, &format!("{flags} --out cut --quiet"), "0");
    wait_for_lines(&mut child, &dir.join("cut"), 7);
    // It may have ended before: then it is the whole run once more.
    let _ = child.kill();
    child.wait().unwrap();
    done(dir, &again(dir, "cut", &flags));
    assert_same_bits(&dir.join("whole"), &dir.join("cut"));

    let labels: Value = serde_json::from_slice(&std::fs::read(dir.join("whole/labels.json")).unwrap()).unwrap();
    assert_eq!(labels["task"], task, "{what}");
    let best = lines(&dir.join("whole"), "val")
        .into_iter()
        .reduce(|best, line| if line["accuracy"].as_f64() > best["accuracy"].as_f64() { line } else { best })
        .unwrap();
    let report: Value = serde_json::from_str(&done(dir, "eval --model whole --data data --json")).unwrap();
    assert_eq!(report["accuracy"], best["accuracy"], "{what}");
    let (eval, trained) = (report["loss"].as_f64().unwrap(), best["loss"].as_f64().unwrap());
    assert!((eval - trained).abs() < 1e-5 * trained.max(0.2), "{what}: loss {eval}, in training {trained}");

    done(dir, "merge --model whole --out merged");
    let merged = logits(dir, "--backbone merged --input-size 28 data/val");
    for (path, own) in logits(dir, "--model whole data/val") {
        assert!(difference(&merged[&path], &own) < 1e-5, "{what}: {}", path.display());
    }
    // The answers of the merged model have the same form and, beside its adapter, the run's names.
    let answers = |model: &str| done(dir, &format!("predict --json {model} data/val"));
    let own = answers("--model whole");
    let labels = |text: &str| -> Vec<Value> {
        text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["label"].clone()).collect()
    };
    assert_eq!(labels(&answers("--backbone merged --input-size 28")), labels(&own), "{what}");
    if matches!(strategy, "lora" | "dora") {
        let beside = answers("--backbone random:micro --adapter whole/adapter --input-size 28");
        assert_eq!(labels(&beside), labels(&own), "{what}");
    }
    for line in own.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let [label, probs] = ["label", "probs"].map(|key| line[key].clone());
        let probs: Vec<f64> = probs.as_array().unwrap().iter().map(|p| p.as_f64().unwrap()).collect();
        match task {
            "multiclass" => assert!(label.is_string() && (probs.iter().sum::<f64>() - 1.0).abs() < 1e-5, "{line}"),
            "multilabel" => assert!(label.is_array() && probs.iter().all(|p| (0.0..=1.0).contains(p)), "{line}"),
            _ => {
                // plain, round; flat, stripes; disc by itself, which all that is round is.
                let label: Vec<&str> = label.as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
                let root = if probs[0] >= probs[1] { "plain" } else { "round" };
                let leaf = if root == "round" {
                    "disc"
                } else if probs[2] >= probs[3] {
                    "flat"
                } else {
                    "stripes"
                };
                assert_eq!(label, [root, leaf], "{line}");
                assert!((probs[0] + probs[1] - 1.0).abs() < 1e-5 && (probs[2] + probs[3] - 1.0).abs() < 1e-5, "{line}");
            }
        }
    }
    done(dir, &format!("plan {}", flags.trim_start_matches("train ")));
    for folder in ["whole", "cut", "merged"] {
        std::fs::remove_dir_all(dir.join(folder)).unwrap();
    }
}

fn every_strategy(task: &str, more: &str) {
    let dir = tempfile::tempdir().unwrap();
    laid_out(&dir.path().join("data"), task);
    for strategy in ["full", "freeze", "lora", "dora"] {
        check(dir.path(), task, strategy, more);
    }
}

#[test]
fn multiclass() {
    every_strategy("multiclass", "--class-weights balanced --label-smoothing 0.1");
}

#[test]
fn multilabel() {
    every_strategy("multilabel", "--loss asymmetric");
}

#[test]
fn hierarchical() {
    every_strategy("hierarchical", "--label-smoothing 0.1 --balanced");
}

/// Easy pictures are learnt in each task, and the measures say so.
#[test]
fn tasks_are_learnt() {
    for (task, flags) in [("multilabel", ""), ("multilabel", "--loss asymmetric"), ("hierarchical", "")] {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        laid_out(&dir.join("data"), task);
        let flags = format!("{flags} --targets all-linear --lr 5e-3 --augment none --epochs 8");
        done(dir, &format!("{TRAIN} --strategy dora {flags} --out run").replacen("--epochs 3", "", 1));
        let report: Value =
            serde_json::from_str(&done(dir, "eval --model run --data data --out tables --json")).unwrap();
        assert!(report["accuracy"].as_f64().unwrap() > 0.9, "{task} {flags}: {report}");
        let table = std::fs::read_to_string(dir.join("tables/classes.csv")).unwrap();
        assert!(table.contains("\nflat,5,"), "{table}");
        if task == "hierarchical" {
            let levels = report["level_accuracy"].as_array().unwrap();
            assert!(levels.len() == 2 && levels.iter().all(|level| level.as_f64().unwrap() > 0.9), "{report}");
            let line = done(dir, "predict --model run data/val/plain/flat/000.png");
            assert!(line.trim_end().ends_with("\tplain > flat"), "{line}");
        }
    }
}

#[test]
fn thresholds_are_tuned_kept_and_used() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    laid_out(&dir.join("data"), "multilabel");
    done(dir, &format!("{TRAIN} --tune-thresholds --out run"));
    let labels: Value = serde_json::from_slice(&std::fs::read(dir.join("run/labels.json")).unwrap()).unwrap();
    let thresholds: Vec<f64> = labels["thresholds"].as_array().unwrap().iter().map(|t| t.as_f64().unwrap()).collect();
    assert_eq!(thresholds.len(), 3);
    done(dir, "merge --model run --out merged");
    let mut differs = false;
    for model in ["--model run", "--backbone merged --input-size 28"] {
        for line in done(dir, &format!("predict --json {model} data/val")).lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            let names = ["disc", "flat", "even"].into_iter().enumerate();
            let above = |least: &dyn Fn(usize) -> f64| -> Vec<&str> {
                names.clone().filter(|(i, _)| line["probs"][i].as_f64().unwrap() > least(*i)).map(|n| n.1).collect()
            };
            assert_eq!(line["label"], serde_json::json!(above(&|i| thresholds[i])), "{line}");
            differs |= above(&|i| thresholds[i]) != above(&|_| 0.5);
        }
    }
    assert!(differs, "thresholds {thresholds:?} change nothing: this test shows nothing");
    // One for all of them goes before.
    let answer = done(dir, "predict --model run --threshold 0 --json data/val/disc/000.png");
    assert_eq!(serde_json::from_str::<Value>(&answer).unwrap()["label"], serde_json::json!(["disc", "flat", "even"]));
    // eval's F1 at the thresholds is no lower than the best epoch's at one half.
    let report: Value = serde_json::from_str(&done(dir, "eval --model run --data data --json")).unwrap();
    let best = lines(&dir.join("run"), "val")
        .into_iter()
        .reduce(|best, line| if line["accuracy"].as_f64() > best["accuracy"].as_f64() { line } else { best })
        .unwrap();
    assert!(report["f1_macro"].as_f64() >= best["f1_macro"].as_f64(), "{report}, {best}");
}

#[test]
fn settings_of_another_task_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for task in ["multiclass", "multilabel", "hierarchical"] {
        laid_out(&dir.join(task), task);
    }
    for (task, flag) in [
        ("multiclass", "--loss bce"),
        ("multiclass", "--asymmetric k=1"),
        ("multiclass", "--tune-thresholds"),
        ("multiclass", "--class-weights 1,2"),
        ("multilabel", "--label-smoothing 0.1"),
        ("multilabel", "--class-weights balanced"),
        ("multilabel", "--asymmetric k=1"),
        ("multilabel", "--balanced"),
        ("hierarchical", "--class-weights balanced"),
        ("hierarchical", "--tune-thresholds"),
    ] {
        let line = format!("train --data {task} --backbone random:micro --input-size 28 {flag} --out run --quiet");
        let error = failure(dir, &line, 2);
        assert!(error.contains(flag.split(' ').next().unwrap()), "{flag} on {task}: {error}");
        assert!(!dir.join("run").exists(), "{flag} on {task} left a run");
    }
    done(dir, "train --data multiclass --backbone random:micro --input-size 28 --epochs 1 --out classes");
    let error = failure(dir, "eval --model classes --data multiclass --threshold 0.4 --quiet", 2);
    assert!(error.contains("--threshold: it is for multi-label classifiers"), "{error}");
    let error = failure(dir, "predict --model classes --threshold 1 --quiet multiclass", 2);
    assert!(error.contains("--threshold: expected a number from 0 to below 1"), "{error}");
    let error = failure(dir, "train --data multiclass --task multilabel --out run --quiet", 2);
    assert!(error.contains("--task multilabel"), "{error}");
}
