//! Broken data, backbones and settings: one line that names the thing, the right exit code, nothing left behind.

use std::path::Path;

use crate::{done, failure, lines, peftk, pictures};

fn fixture(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

/// Refused with and without --quiet, no run made.
#[track_caller]
fn refused(dir: &Path, flags: &str, named: &[&str]) {
    for quiet in ["", "--quiet"] {
        let error = failure(dir, &format!("train --input-size 28 --epochs 1 --out run {flags} {quiet}"), 2);
        for part in named {
            assert!(error.contains(part), "{flags} does not name {part}: {error}");
        }
        assert!(!dir.join("run").exists(), "{flags} left a run");
    }
}

#[test]
fn broken_data_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let random = "--backbone random:micro";
    pictures(&dir.join("empty"), 4, 1);
    std::fs::create_dir(dir.join("empty/void")).unwrap();
    refused(dir, &format!("{random} --data empty"), &["empty", "void"]);

    pictures(&dir.join("one"), 4, 1);
    for class in ["disc", "flat"] {
        std::fs::remove_dir_all(dir.join("one").join(class)).unwrap();
    }
    refused(dir, &format!("{random} --data one"), &["one class", "stripes"]);
    refused(dir, &format!("{random} --data missing"), &["missing"]);

    pictures(&dir.join("cut"), 4, 1);
    let jpeg = std::fs::read(fixture("fixtures/images/grey.jpg")).unwrap();
    std::fs::write(dir.join("cut/flat/cut.jpg"), &jpeg[..jpeg.len() / 2]).unwrap();
    refused(dir, &format!("{random} --data cut"), &["cut.jpg", "--skip-bad"]);
    let output = peftk(dir, &format!("train --input-size 28 --epochs 1 --out skipped {random} --data cut --skip-bad"));
    let stderr = crate::text(&output.stderr);
    assert!(output.status.success() && stderr.contains("skipped") && stderr.contains("cut.jpg"), "{stderr}");
    assert_eq!(lines(&dir.join("skipped"), "end").len(), 1);

    pictures(&dir.join("zero"), 4, 1);
    std::fs::write(dir.join("zero/disc/000.png"), b"").unwrap();
    refused(dir, &format!("{random} --data zero"), &["000.png"]);

    pictures(&dir.join("data"), 4, 1);
    refused(dir, &format!("{random} --data data --format csv"), &["--format csv", "labels.csv"]);
    refused(dir, &format!("{random} --data data --val-data missing"), &["missing"]);
    std::fs::create_dir_all(dir.join("strange/cat")).unwrap();
    std::fs::copy(dir.join("data/disc/000.png"), dir.join("strange/cat/0.png")).unwrap();
    refused(dir, &format!("{random} --data data --val-data strange"), &["cat"]);
}

#[test]
fn broken_backbones_and_settings_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    pictures(&dir.join("data"), 4, 1);
    let backbone = dir.join("backbone");
    std::fs::create_dir(&backbone).unwrap();
    let plain = fixture("golden/data/backbones/plain");
    let config = std::fs::read_to_string(plain.join("config.json")).unwrap();
    let weights = std::fs::read(plain.join("model.safetensors")).unwrap();
    let put = |config: &str, weights: &[u8]| {
        std::fs::write(backbone.join("config.json"), config).unwrap();
        std::fs::write(backbone.join("model.safetensors"), weights).unwrap();
    };
    put(&config.replace("\"hidden_size\": 128", "\"hidden_size\": 192"), &weights);
    refused(dir, "--data data --backbone backbone", &["backbone", "expected", "192"]);
    let mut corrupt = weights.clone();
    corrupt[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    put(&config, &corrupt);
    refused(dir, "--data data --backbone backbone", &["model.safetensors"]);
    put(&config, &weights[..weights.len() / 2]);
    refused(dir, "--data data --backbone backbone", &["model.safetensors"]);
    put("{", &weights);
    refused(dir, "--data data --backbone backbone", &["config.json"]);

    for (flags, named) in [
        ("--rank 0", "--rank"),
        ("--lr NaN", "--lr"),
        ("--targets gate", "--targets"),
        ("--layers 99", "--layers"),
        ("--init pissa --rank 500", "--init pissa"),
        ("--backbone dinov2-tiny", "dinov2-tiny"),
        ("--schedule plateau --val-fraction 0", "--schedule"),
    ] {
        let micro = if flags.contains("--backbone") { "" } else { "--backbone random:micro" };
        refused(dir, &format!("--data data {micro} {flags}"), &[named]);
    }

    // A folder that holds something stays as it is.
    let taken = dir.join("taken");
    std::fs::create_dir(&taken).unwrap();
    std::fs::write(taken.join("mine"), "1").unwrap();
    let error = failure(dir, "train --data data --backbone random:micro --out taken --quiet", 2);
    assert!(error.contains("--out taken"), "{error}");
    assert_eq!(std::fs::read_dir(&taken).unwrap().count(), 1);
}

#[test]
fn a_loss_that_is_no_number_keeps_what_was_good() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    pictures(&dir.join("data"), 8, 1);
    let common = "train --data data --backbone random:micro --input-size 28 --batch-size 4 --quiet";
    let error = failure(dir, &format!("{common} --strategy full --lr 1e30 --epochs 2 --out first"), 1);
    assert!(
        error.contains("lower --lr") && error.contains("--grad-clip") && error.contains("nothing was saved"),
        "{error}"
    );
    assert!(!dir.join("first/last").exists());
    // One step an epoch: the update that spoils the weights is the epoch's last, and its own loss is still good.
    let one = "train --data data --backbone random:micro --input-size 28 --batch-size 100 --val-fraction 0 --quiet";
    let error = failure(dir, &format!("{one} --strategy full --lr 1e38 --weight-decay 10 --epochs 3 --out one"), 1);
    assert!(error.contains("lower --lr"), "{error}");
    assert!(!dir.join("one/last").exists() && !dir.join("one/model.safetensors").exists());

    // A good epoch first, then a rate raised behind the run's back: what the epoch left stays, and can be used.
    let good = dir.join("good");
    done(dir, &format!("{common} --strategy full --lr 1e-4 --schedule constant --epochs 1 --out good"));
    let (last, config) = (good.join("last"), good.join("config.toml"));
    let kept = std::fs::read(last.join("state.safetensors")).unwrap();
    let text = std::fs::read_to_string(&config).unwrap().replace("epochs = 1", "epochs = 3");
    std::fs::write(&config, text.replace("lr = 0.0001", "lr = 1e30")).unwrap();
    let mut state: serde_json::Value =
        serde_json::from_slice(&std::fs::read(last.join("state.json")).unwrap()).unwrap();
    state["finished"] = false.into();
    state["schedule"]["base"] = 1e30.into();
    state["schedule"]["plateau"]["lr"] = 1e30.into();
    std::fs::write(last.join("state.json"), state.to_string()).unwrap();
    let error = failure(dir, "train --resume --out good --quiet", 1);
    assert!(error.contains("kept in good"), "{error}");
    assert!(std::fs::read(last.join("state.safetensors")).unwrap() == kept);
    done(dir, "eval --model good --data data --quiet");
}
