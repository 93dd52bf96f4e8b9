//! With a frozen backbone the features of images that are not augmented are computed once: the same run, bit by bit.

use std::path::Path;

use serde_json::Value;

use crate::{bits, command, lines, pictures, text};

const FLAGS: &str = "train --data data --backbone random:micro --strategy freeze --input-size 28";

/// All that a run leaves, but the memory it took: less, where no gradient waits while the backbone runs.
#[track_caller]
fn assert_same_run(one: &Path, other: &Path) {
    let [one, other] = [one, other].map(|run| {
        let mut bits = bits(run);
        let log = bits.get_mut(Path::new("metrics.jsonl")).expect("a log");
        let line = |line: &str| {
            let mut value: Value = serde_json::from_str(line).expect("a line is JSON");
            value.as_object_mut().expect("an object").remove("peak_device_bytes");
            format!("{value}\n")
        };
        *log = text(log).lines().map(line).collect::<String>().into_bytes();
        bits
    });
    assert_eq!(one.keys().collect::<Vec<_>>(), other.keys().collect::<Vec<_>>());
    for (name, bytes) in &one {
        assert!(bytes == &other[name], "{} differs", name.display());
    }
}

/// stderr of a run that ends well, with PEFTK_FEATURE_CACHE as given.
#[track_caller]
fn run(dir: &Path, line: &str, limit: Option<&str>) -> String {
    let mut command = command(dir, line);
    if let Some(limit) = limit {
        command.env("PEFTK_FEATURE_CACHE", limit);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{line}\n{}", text(&output.stderr));
    text(&output.stderr)
}

/// What the log says of features.
fn notes(stderr: &str) -> Vec<&str> {
    stderr.lines().filter(|line| line.contains("feature")).map(|line| line.split("  ").next().unwrap()).collect()
}

#[test]
fn kept_features_change_no_bit() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    // 25 a class, of which 20 to train on: 60 images, so that the last batch of 8 is short.
    pictures(&dir.join("data"), 25, 11);
    let cases = [
        "--augment none --batch-size 8",
        "--augment none --batch-size 8 --balanced --micro-batch 3 --grad-clip 0.5 --schedule plateau",
        "--augment none --batch-size 8 --no-shuffle --val-fraction 0 --pool cls --memory lean --label-smoothing 0.1",
        "--augment none --batch-size 1",
        "--batch-size 8 --micro-batch 5",
    ];
    for (number, case) in cases.into_iter().enumerate() {
        let line = |run: &str| format!("{FLAGS} --epochs 4 {case} --out {run}{number}");
        let kept = run(dir, &line("kept"), None);
        let plain = run(dir, &line("plain"), Some("0"));
        assert!(kept.contains("computed once and kept"), "{case}\n{kept}");
        assert!(!plain.contains("computed once and kept"), "{case}\n{plain}");
        assert_same_run(&dir.join(format!("kept{number}")), &dir.join(format!("plain{number}")));
        let step = &lines(&dir.join(format!("kept{number}")), "step")[0];
        assert!(step["images_per_s"].as_f64().is_some_and(|speed| speed > 0.0), "{step}");
    }
}

#[test]
fn the_log_says_what_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    pictures(&dir.join("data/train"), 20, 12);
    pictures(&dir.join("data/val"), 4, 13);
    let line = |run: &str, more: &str| format!("{FLAGS} --epochs 2 {more} --out {run}");
    // 256 numbers an image.
    let train = "freeze without augmentation: features of 60 images are computed once and kept (0.1 MiB); the head trains on them";
    let val = "freeze, validation: features of 12 images are computed once and kept (0.0 MiB)";
    let over = |which: &str, size: &str, left: &str| {
        format!(
            "freeze{which} would take {size} MiB of the {left} MiB that PEFTK_FEATURE_CACHE leaves: computed in every epoch"
        )
    };
    let stderr = run(dir, &line("both", "--augment none"), None);
    assert_eq!(notes(&stderr), [train, val, "features 60/60"]);
    let stderr = run(dir, &line("augmented", ""), None);
    assert_eq!(notes(&stderr), [val]);
    let stderr = run(dir, &line("limited", "--augment none"), Some("0.03"));
    assert_eq!(notes(&stderr), [&over(" without augmentation: features of 60 images", "0.1", "0.0")[..], val]);
    let stderr = run(dir, &line("none", "--augment none"), Some("0"));
    let both = [
        over(" without augmentation: features of 60 images", "0.1", "0.0"),
        over(", validation: features of 12 images", "0.0", "0.0"),
    ];
    assert_eq!(notes(&stderr), both);
    let stderr = run(dir, &line("lora", "--augment none").replace("freeze", "lora"), None);
    assert_eq!(notes(&stderr), [""; 0]);
    for wrong in ["much", "-1", "NaN"] {
        let output = command(dir, &line("wrong", "")).env("PEFTK_FEATURE_CACHE", wrong).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).contains("error: PEFTK_FEATURE_CACHE"), "{}", text(&output.stderr));
    }
}

#[cfg(unix)]
#[test]
fn a_run_that_was_stopped_computes_them_again() {
    use crate::done;
    use crate::resume::{again, interrupt, start, state, wait_for_lines};

    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    // Enough that the pass over the images can be caught.
    pictures(&dir.join("data"), 100, 14);
    let flags = FLAGS.replace("28", "112") + " --augment none --batch-size 8 --balanced --micro-batch 3 --epochs 12";
    run(dir, &format!("{flags} --out whole --quiet"), Some("0"));
    let whole = dir.join("whole");
    // The run's line is written before the pass; the first step's after it.
    let mut caught = [false; 2];
    for attempt in 0..10 {
        for (place, at_line) in
            [1, 200].into_iter().enumerate().filter(|(place, _)| !caught[*place]).collect::<Vec<_>>()
        {
            let name = format!("stopped{place}-{attempt}");
            if !interrupt(dir, &name, &flags, at_line) {
                continue;
            }
            let step = state(&dir.join(&name)).unwrap()["step"].as_u64().unwrap();
            caught[place] = (place == 0) == (step == 0);
            done(dir, &again(dir, &name, &flags));
            assert_same_run(&whole, &dir.join(&name));
        }
    }
    assert_eq!(caught, [true; 2], "within the pass over the images, after it");

    let mut child = start(dir, &again(dir, "killed", &flags), "0");
    assert!(wait_for_lines(&mut child, &dir.join("killed"), 100), "it ended before the kill");
    child.kill().unwrap();
    child.wait().unwrap();
    done(dir, &again(dir, "killed", &flags));
    assert_same_run(&whole, &dir.join("killed"));
}
