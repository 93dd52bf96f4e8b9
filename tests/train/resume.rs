//! A run that is stopped, by whatever, and goes on is the run that was not stopped, bit by bit.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use crate::{assert_same_bits, command, done, lines, pictures, text};

/// Everything that has a state: dropout, augmentation, shuffling, a plateau that falls, clipping, warm-up, moments.
const PLATEAU: &str = "train --data data --backbone random:micro --input-size 28 --batch-size 8 --epochs 12 --targets all-linear \
                       --lora-dropout 0.1 --schedule plateau --lr 5e-2 --grad-clip 1 --warmup-steps 5";

pub(crate) fn start(dir: &Path, line: &str, save_every: &str) -> Child {
    let mut command = command(dir, line);
    command.env("PEFTK_SAVE_EVERY_S", save_every).stdout(Stdio::null()).stderr(Stdio::piped());
    command.spawn().expect("peftk starts")
}

/// The state of a run as saved: `None` before the first save.
pub(crate) fn state(run: &Path) -> Option<Value> {
    // A kill between two renames leaves it under its aside name.
    let bytes =
        ["last", "last.old.tmp"].iter().find_map(|last| std::fs::read(run.join(last).join("state.json")).ok())?;
    serde_json::from_slice(&bytes).ok()
}

/// Lines of the log so far.
fn logged(run: &Path) -> usize {
    std::fs::read(run.join("metrics.jsonl")).map_or(0, |log| log.iter().filter(|&&b| b == b'\n').count())
}

/// Waits until the log has so many lines; `false` where the run ended before.
pub(crate) fn wait_for_lines(child: &mut Child, run: &Path, count: usize) -> bool {
    let start = Instant::now();
    while logged(run) < count {
        assert!(start.elapsed() < Duration::from_secs(60), "no line {count} within a minute");
        if child.try_wait().expect("a child").is_some() {
            return false;
        }
        std::thread::sleep(Duration::from_micros(300));
    }
    true
}

/// The same command again, or the run's continuation once it is one.
pub(crate) fn again(dir: &Path, run: &str, flags: &str) -> String {
    if dir.join(run).join("config.toml").is_file() {
        format!("train --resume --out {run} --quiet")
    } else {
        format!("{flags} --out {run} --quiet")
    }
}

#[test]
fn twenty_kills_leave_no_trace() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    pictures(&dir.join("data"), 20, 6);
    let mut child = start(dir, &format!("{PLATEAU} --out whole --quiet"), "60");
    let begun = Instant::now();
    assert!(wait_for_lines(&mut child, &dir.join("whole"), 2));
    let startup = begun.elapsed();
    assert!(child.wait().unwrap().success());
    let training = begun.elapsed() - startup;
    let rates: BTreeSet<String> = lines(&dir.join("whole"), "step").iter().map(|line| line["lr"].to_string()).collect();
    assert!(rates.len() > 5, "the plateau never lowered the rate: {rates:?}");

    let mut random = ChaCha8Rng::seed_from_u64(1);
    let (mut kills, mut mid_epoch, mut places, mut number) = (0, 0, BTreeSet::new(), 0);
    while kills < 20 {
        // A run that gets through between two kills is compared too, and the kills go on with another.
        let run = format!("killed{number}");
        number += 1;
        assert!(number < 10, "only {kills} kills in {number} runs");
        loop {
            let mut child = start(dir, &again(dir, &run, PLATEAU), "0");
            if kills < 20 {
                std::thread::sleep(
                    startup.mul_f64(random.random_range(0.3..1.1)) + training.mul_f64(random.random_range(0.0..0.15)),
                );
            }
            let is_running = child.try_wait().unwrap().is_none();
            if kills == 20 || !is_running {
                let output = child.wait_with_output().unwrap();
                assert!(output.status.success(), "{}", text(&output.stderr));
                break;
            }
            child.kill().unwrap();
            // By the signal, not by an end that came first.
            if child.wait().unwrap().code().is_some() {
                continue;
            }
            kills += 1;
            if let Some(state) = state(&dir.join(&run)) {
                mid_epoch += usize::from(state["batches_done"] != 0);
                places.insert((number, state["step"].as_u64()));
            }
        }
        assert_same_bits(&dir.join("whole"), &dir.join(&run));
    }
    eprintln!("{kills} kills over {number} runs, {} places, {mid_epoch} within an epoch", places.len());
    assert!(places.len() >= 5, "kills at {places:?} only");
    assert!(mid_epoch >= 3, "{mid_epoch} kills within an epoch");
}

/// Ctrl-C once the log has so many lines; whether the run was still going. It must say how to go on.
pub(crate) fn interrupt(dir: &Path, run: &str, flags: &str, at_line: usize) -> bool {
    let mut child = start(dir, &again(dir, run, flags).replace("--quiet", ""), "60");
    if !wait_for_lines(&mut child, &dir.join(run), at_line) {
        return false;
    }
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).stderr(Stdio::null()).status();
    assert!(sent.expect("kill").success());
    let output = child.wait_with_output().unwrap();
    let stderr = text(&output.stderr);
    if output.status.success() {
        return false;
    }
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    assert_eq!(stderr.lines().filter(|line| line.starts_with("error:")).collect::<Vec<_>>(), ["error: interrupted"]);
    assert!(stderr.contains(&format!("go on with: peftk train --out {run} --resume")), "{stderr}");
    true
}

#[test]
fn ctrl_c_saves_in_the_middle_of_an_epoch_and_of_a_validation() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    pictures(&dir.join("data/train"), 16, 7);
    // Many to validate on, so that there is time to interrupt it.
    pictures(&dir.join("data/val"), 100, 8);
    let flags = "train --data data --backbone random:micro --input-size 28 --batch-size 8 --epochs 3 --strategy lora \
                 --lora-dropout 0.1 --schedule cosine --balanced --micro-batch 3 --grad-clip 0.5";
    done(dir, &format!("{flags} --out whole --quiet"));
    // The line of the run, then 6 steps and a validation an epoch.
    assert_eq!(lines(&dir.join("whole"), "step").len(), 18);
    for (name, at_line, expected) in [("epoch", 4, 1..6), ("validation", 7, 6..7)] {
        let caught = (0..10).find_map(|attempt| {
            let run = format!("{name}{attempt}");
            let stopped = interrupt(dir, &run, flags, at_line);
            let state = stopped.then(|| state(&dir.join(&run)).expect("a saved state"))?;
            let is_there = state["epoch"] == 1 && expected.contains(&state["batches_done"].as_u64().unwrap());
            is_there.then_some(run)
        });
        let run = caught.unwrap_or_else(|| panic!("never caught within the {name}"));
        // Stopped once more on the way, then to the end.
        interrupt(dir, &run, flags, 12);
        done(dir, &again(dir, &run, flags));
        assert_same_bits(&dir.join("whole"), &dir.join(&run));
    }
}

#[test]
fn a_wrong_save_interval_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for wrong in ["often", "-1", "NaN"] {
        let child = start(dir.path(), "train --epochs 1 --out run", wrong);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).contains("error: PEFTK_SAVE_EVERY_S"), "{}", text(&output.stderr));
        assert!(!dir.path().join("run").exists());
    }
}
