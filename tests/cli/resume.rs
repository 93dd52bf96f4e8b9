//! `--resume` against flags that say something else than the run.

use std::path::Path;

use peftk::config::{Strategy, TrainConfig};
use peftk::train::run_dir::RunDir;

use super::refusal;

fn run(dir: &Path, change: impl FnOnce(&mut TrainConfig)) {
    let mut config = TrainConfig { out: dir.join("r"), data: Some("d".into()), ..TrainConfig::default() };
    change(&mut config);
    RunDir::create(&config).unwrap();
}

#[test]
fn a_resumed_run_keeps_its_settings() {
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), |_| ());
    for (flags, named) in [
        ("--lr 0.5", "lr = 0.5"),
        ("--rank 4", "adapter."),
        ("--strategy full", "strategy = \"full\""),
        ("--patience 3", "patience = 3"),
        ("--data other", "data = \"other\""),
    ] {
        let error = refusal(dir.path(), &format!("train --out r --resume {flags}"));
        assert!(error.contains("--resume") && error.contains(named), "{flags}: {error}");
    }
}

/// Less memory changes no bit, nor does another cache: a run may go on with it.
#[test]
fn a_resumed_run_may_take_less_memory() {
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), |config| config.recompute = Some(peftk::config::Recompute::NOTHING));
    let error = refusal(
        dir.path(),
        "train --out r --resume --memory lean --memory-budget 1GiB --cache none --device cpu --quiet",
    );
    // It gets as far as the data, which is not there.
    assert!(error.contains("--data d: there is no such folder"), "{error}");
}

#[test]
fn a_run_whose_settings_were_broken_is_named() {
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), |config| {
        config.strategy = Strategy::Full;
        config.adapter = None;
    });
    let path = dir.path().join("r/config.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("\"full\"", "\"fall\"")).unwrap();
    let error = refusal(dir.path(), "train --out r --resume");
    assert!(error.contains("config.toml line"), "{error}");
}
