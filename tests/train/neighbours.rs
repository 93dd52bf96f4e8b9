//! What happens around a run: readers beside it, a second training in its folder, its data changed under it.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{command, done, failure, losses, pictures, text};

#[test]
fn readers_do_not_disturb_a_training_and_a_second_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    pictures(&dir.join("data"), 12, 5);
    let flags = "train --data data --backbone random:micro --epochs 40 --batch-size 4 --augment none --out run --quiet";
    let mut training = command(dir, flags).env("PEFTK_SAVE_EVERY_S", "0").spawn().expect("peftk starts");
    let begun = Instant::now();
    while !dir.join("run/adapter").exists() {
        assert!(training.try_wait().unwrap().is_none(), "the training ended early");
        assert!(begun.elapsed() < Duration::from_secs(60), "no epoch in a minute");
        std::thread::sleep(Duration::from_millis(5));
    }
    let (mut read, mut refused) = (0, 0);
    while training.try_wait().unwrap().is_none() && read < 10 {
        let out = command(dir, "predict --model run data/disc --json").output().unwrap();
        let errors = text(&out.stderr);
        assert!(out.status.success(), "{errors}");
        read += 1;
        if refused == 0 {
            let again = failure(dir, "train --out run --resume --quiet", 2);
            assert!(again.contains("another peftk is training"), "{again}");
            refused += 1;
        }
    }
    assert!(read > 0 && refused == 1, "the training was over too soon");
    assert!(training.wait().unwrap().success());
    assert_eq!(losses(&dir.join("run")).len(), 40 * 8);
}

#[test]
fn a_run_goes_on_only_with_its_own_data() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    pictures(&dir.join("data"), 6, 6);
    done(dir, "train --data data --backbone random:micro --epochs 1 --out run");
    let labels = || std::fs::read(dir.join("run/labels.json")).unwrap();
    let before = labels();
    std::fs::rename(dir.join("data/disc"), dir.join("data/zebra")).unwrap();
    let error = failure(dir, "train --out run --resume --quiet", 2);
    assert!(error.contains("not those that the run began with"), "{error}");
    assert_eq!(labels(), before);
    std::fs::rename(dir.join("data/zebra"), dir.join("data/disc")).unwrap();
    done(dir, "train --out run --resume");
    let labels: Value = serde_json::from_slice(&labels()).unwrap();
    assert_eq!(labels["labels"][0], "disc");
}

/// A mistake that shows only once data and adapter are known leaves no folder behind that the mended command would stumble over.
#[test]
fn a_refused_run_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    pictures(&dir.join("data"), 4, 7);
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/data/multilabel/data");
    for (flags, words) in [
        (format!("--data {} --balanced --val-fraction 0", golden.display()), "balanced"),
        (format!("--data {} --label-smoothing 0.1 --val-fraction 0", golden.display()), "--label-smoothing"),
        ("--data data --rank-pattern nosuch=2".to_owned(), "'nosuch'"),
        ("--data data --rank-pattern q_proj=2,q_proj=4".to_owned(), "twice"),
        ("--data data --alpha-pattern q_proj=2,q_proj=4".to_owned(), "twice"),
    ] {
        let error = failure(dir, &format!("train --quiet --backbone random:micro --epochs 1 --out run {flags}"), 2);
        assert!(error.contains(words), "{flags}: {error}");
        assert!(!dir.join("run").exists(), "{flags}");
    }
}
