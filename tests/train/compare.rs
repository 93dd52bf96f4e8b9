//! `peftk compare` on small folders: its cells are `train`'s runs, a killed comparison ends with the numbers of a whole one, and what fails is
//! told in its row.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::resume::start;
use crate::{done, failure, pictures};

const COMPARE: &str =
    "compare --data data --backbone random:micro --input-size 28 --batch-size 8 --epochs 3 --device cpu";

/// Every record in a comparison's folder, without what tells time.
fn records(out: &Path) -> BTreeMap<PathBuf, Value> {
    let mut found = BTreeMap::new();
    let mut folders = vec![out.join("runs"), out.join("tune")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.file_name().is_some_and(|name| name == "cell.json") || path.starts_with(out.join("tune")) {
                let mut value: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).expect("a record");
                if let Some(result) = value["result"].as_object_mut() {
                    for name in ["images_per_s", "seconds_per_epoch", "train_s", "wall_s"] {
                        result.remove(name);
                    }
                }
                found.insert(path.strip_prefix(out).unwrap().to_owned(), value);
            }
        }
    }
    found
}

fn data(dir: &Path) {
    pictures(&dir.join("data/train"), 12, 1);
    pictures(&dir.join("data/test"), 6, 2);
}

#[test]
fn killed_and_taken_up_again_it_gives_the_same_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    data(dir);
    let line = format!("{COMPARE} --strategies freeze,lora --seeds 2 --tune --quiet");
    done(dir, &format!("{line} --out whole"));
    let whole = records(&dir.join("whole"));
    assert_eq!(whole.len(), 2 * 2 + 2, "{:?}", whole.keys());

    // Killed over and over, a little later each time, until it gets through.
    let mut kills = 0;
    for milliseconds in (150..).step_by(120) {
        let mut child = start(dir, &format!("{line} --out cut"), "0");
        std::thread::sleep(std::time::Duration::from_millis(milliseconds));
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success());
            break;
        }
        kills += 1;
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(kills > 1, "it was never killed");
    let cut = records(&dir.join("cut"));
    assert_eq!(cut, whole);
    // Nothing is left of the trials, nor of what only goes on with a run.
    for leftover in ["tune/data/lora-r8.trial", "runs/data/lora-r8/seed-1/last", "runs/data/lora-r8/seed-1.begun.json"]
    {
        let leftover = format!("cut/{leftover}");
        assert!(!dir.join(&leftover).exists(), "{leftover}");
    }
    assert!(dir.join("cut/runs/data/lora-r8/seed-1/adapter/adapter_model.safetensors").is_file());

    // Once more with another seed: only that is run.
    let before = std::fs::metadata(dir.join("cut/runs/data/lora-r8/seed-0/cell.json")).unwrap().modified().unwrap();
    done(dir, &format!("{} --out cut", line.replace("--seeds 2", "--seeds 0,1,5")));
    assert_eq!(
        std::fs::metadata(dir.join("cut/runs/data/lora-r8/seed-0/cell.json")).unwrap().modified().unwrap(),
        before
    );
    assert_eq!(records(&dir.join("cut")).len(), 2 * 3 + 2);
    let error = failure(dir, &format!("{} --out cut", line.replace("--batch-size 8", "--batch-size 4")), 2);
    assert!(error.contains("batch_size = 8") && error.contains("4"), "{error}");
}

#[test]
fn a_run_under_way_is_held_to_its_settings() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    data(dir);
    let line =
        format!("{COMPARE} --strategies full --seeds 1 --out report --quiet").replace("--epochs 3", "--epochs 500");
    let mut child = start(dir, &line, "0");
    let run = dir.join("report/runs/data/full/seed-0");
    assert!(crate::resume::wait_for_lines(&mut child, &run, 10));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(run.join("config.toml").is_file() && !run.join("cell.json").exists());
    let error = failure(dir, &line.replace("--epochs 500", "--epochs 2"), 2);
    assert!(error.contains("epochs = 500") && error.contains('2'), "{error}");
    // Ctrl-C says how to go on.
    let mut child = start(dir, &line.replace(" --quiet", ""), "0");
    assert!(crate::resume::wait_for_lines(&mut child, &run, 30));
    let kill = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    let output = child.wait_with_output().unwrap();
    let stderr = crate::text(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    assert!(stderr.contains("stopped after 0 of 1 runs; the same command goes on"), "{stderr}");
    assert!(dir.join("report/report.html").is_file());
}

#[test]
fn a_cell_is_what_train_and_eval_say() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    pictures(&dir.join("data"), 20, 3);
    done(dir, &format!("{COMPARE} --strategies dora --seeds 4,6 --ranks 2,4 --lrs dora=5e-3 --quiet --out report"));
    let cell = &records(&dir.join("report"))[Path::new("runs/data/dora-r4/seed-6/cell.json")];
    let flags = COMPARE.strip_prefix("compare ").unwrap();
    done(
        dir,
        &format!(
            "train {flags} --strategy dora --seed 6 --rank 4 --lr 5e-3 --split-seed 0 --test-fraction 0.2 --out run"
        ),
    );
    let eval: Value = serde_json::from_str(&done(dir, "eval --model run --data data --json")).unwrap();
    assert_eq!(eval["images"], 12, "a fifth of 60 images was held back");
    assert_eq!(eval["accuracy"], cell["result"]["test_accuracy"]);
    assert_eq!(eval["loss"], cell["result"]["test_loss"]);
    let again: Value =
        serde_json::from_str(&done(dir, "eval --model report/runs/data/dora-r4/seed-6 --data data --json")).unwrap();
    assert_eq!(again["loss"], eval["loss"]);
    let best = crate::lines(&dir.join("run"), "val").into_iter().map(|line| line["accuracy"].as_f64().unwrap());
    assert_eq!(Some(best.fold(0.0, f64::max)), cell["result"]["val_accuracy"].as_f64());
    let size = std::fs::metadata(dir.join("run/adapter/adapter_model.safetensors")).unwrap().len()
        + std::fs::metadata(dir.join("run/adapter/adapter_config.json")).unwrap().len();
    assert_eq!(cell["result"]["saved_bytes"], size);
}

#[test]
fn what_fails_is_a_row_and_stops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    data(dir);
    let line = format!("{COMPARE} --strategies full,freeze --seeds 1 --lrs full=1e30 --out report --quiet");
    done(dir, &line);
    let of = |strategy: &str| {
        records(&dir.join("report"))[&PathBuf::from(format!("runs/data/{strategy}/seed-0/cell.json"))]["result"].clone()
    };
    assert_eq!(of("full")["state"], "failed");
    assert!(of("full")["reason"].as_str().unwrap().contains("--lr"), "{}", of("full"));
    assert_eq!(of("freeze")["state"], "done");
    // A failure stays what it is, until it is to be tried again: then by the same settings.
    done(dir, &line);
    done(dir, &format!("{line} --retry"));
    assert_eq!(of("full")["state"], "failed");
    let error = failure(dir, &format!("{COMPARE} --strategies full --seeds 1 --lrs full=1e30 --out all --quiet"), 1);
    assert!(error.contains("every run failed"), "{error}");
}

#[test]
fn what_cannot_be_compared_is_said_first() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    data(dir);
    std::fs::create_dir(dir.join("mine")).unwrap();
    std::fs::write(dir.join("mine/thesis.tex"), "x").unwrap();
    for (flags, words) in [
        ("--out mine", "others' files"),
        ("--out r --strategy lora", "--strategies"),
        ("--out r --lr 1", "--lrs"),
        ("--out r --seed 1", "--seeds"),
        ("--out r --rank 1", "--ranks"),
        ("--out r --strategies lora,lora", "name it once"),
        ("--out r --strategies lora --lrs full=1", "not among"),
        ("--out r --tune-on birds", "there are data"),
        ("--out r --for birds:epochs=1", "there are data"),
        ("--out r --for data:epoch=1", "--for"),
        ("--out r --val-fraction 0", "validation"),
        ("--out r --seeds 1,1", "twice"),
        ("--out r --tune --lrs full=1", "--tune"),
        ("--out r --against gsoc2024", "gsoc2025"),
        ("--out r --data elsewhere", "elsewhere"),
    ] {
        let error = failure(dir, &format!("{COMPARE} {flags}"), 2);
        assert!(error.contains(words), "{flags}: {error}");
    }
    let error = failure(dir, &format!("{} --out r", COMPARE.replace("random:micro", "nowhere")), 2);
    assert!(error.contains("backbone") && error.contains("nowhere"), "{error}");
    assert!(!dir.join("r/runs").exists());
    pictures(&dir.join("flat"), 8, 4);
    let line = COMPARE.replace("--data data", "--data flat");
    let error = failure(dir, &format!("{line} --test-fraction 0 --out s --quiet"), 2);
    assert!(error.contains("no test images"), "{error}");
}

#[test]
fn a_folder_takes_more_cells_and_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    data(dir);
    let line = format!("{COMPARE} --strategies freeze,lora --seeds 1 --out report --quiet");
    done(dir, &line);
    let before = records(&dir.join("report"));
    // Another rank comes beside the one that is there.
    done(dir, &line.replace("--seeds 1", "--seeds 1 --ranks 8,2"));
    let more = records(&dir.join("report"));
    assert_eq!(more.len(), before.len() + 1);
    assert!(before.iter().all(|(name, record)| more[name] == *record));
    // Memory is measured, so runs with more of it are no runs with less.
    let error = failure(dir, &format!("{line} --memory lean"), 2);
    assert!(error.contains("memory = \"fast\""), "{error}");
    // Rates that are searched now are not those that these runs had; where they happen to be, the runs stand.
    let output = crate::peftk(dir, &format!("{line} --tune"));
    let stderr = crate::text(&output.stderr);
    assert!(output.status.success() || stderr.contains("lr = "), "{stderr}");
    let after = records(&dir.join("report"));
    assert!(before.iter().all(|(name, record)| after[name] == *record));
    // Images of the same names that are others.
    pictures(&dir.join("data/test"), 6, 9);
    let error = failure(dir, &line, 2);
    assert!(error.contains("other images"), "{error}");
}

#[test]
fn images_held_back_are_told_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    pictures(&dir.join("data"), 15, 1);
    let line = "train --data data --backbone random:micro --input-size 28 --batch-size 8 --epochs 1 --strategy freeze";
    done(dir, &format!("{line} --test-fraction 0.2 --out run --quiet"));
    let said = crate::peftk(dir, "eval --model run --data data --json");
    assert!(crate::text(&said.stderr).contains("the 9 images held back for testing"));
    // A copy is another folder, and it says what that means.
    let copied = std::process::Command::new("cp").args(["-r", "data", "copy"]).current_dir(dir).status().unwrap();
    assert!(copied.success());
    let said = crate::peftk(dir, "eval --model run --data copy --json");
    assert!(said.status.success() && crate::text(&said.stderr).contains("also copies of those it was trained on"));
    std::fs::copy(dir.join("data/disc/000.png"), dir.join("data/disc/new.png")).unwrap();
    let error = failure(dir, "eval --model run --data data", 2);
    assert!(error.contains("held back cannot be told"), "{error}");
}
