//! `peftk compare` on a GPU: the same numbers twice, also where the second was killed on the way; a strategy that does not fit fails alone.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::commands::{command, run};
use crate::harness::{Needs, Test};

pub const TESTS: &[Test] = &[
    Test { name: "compare::killed_or_not_it_gives_the_same_numbers", needs: Needs::Gpu, run: killed_and_taken_up },
    Test { name: "compare::what_does_not_fit_fails_alone", needs: Needs::Gpu, run: no_room },
];

/// What each cell came to, without times and energy.
fn cells(out: &Path) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    for strategy in ["full", "freeze", "lora-r8", "dora-r8"] {
        for seed in 0..2 {
            let name = format!("runs/embedded/{strategy}/seed-{seed}/cell.json");
            let Ok(bytes) = std::fs::read(out.join(&name)) else { continue };
            let record: Value = serde_json::from_slice(&bytes).unwrap();
            let mut result = record["result"].clone();
            for time in ["images_per_s", "seconds_per_epoch", "train_s", "wall_s", "energy_j"] {
                result.as_object_mut().unwrap().remove(time);
            }
            found.insert(name, result);
        }
    }
    found
}

fn killed_and_taken_up() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, cut) = (dir.path().join("whole"), dir.path().join("cut"));
    let flags = "compare --device cuda --epochs 2 --seeds 2";
    run(&format!("{flags} --out {}", whole.display()));
    let expected = cells(&whole);
    assert_eq!(expected.len(), 8);
    for (name, cell) in &expected {
        assert_eq!(cell["state"], "done", "{name}: {cell}");
        assert_eq!(cell["peak_bytes"], cell["planned_bytes"], "{name}");
    }
    let line = format!("{flags} --out {}", cut.display());
    let mut kills = 0;
    for seconds in [3.0, 4.0, 5.0] {
        let mut child = command(&line).env("PEFTK_SAVE_EVERY_S", "0").spawn().unwrap();
        std::thread::sleep(Duration::from_secs_f64(seconds));
        kills += usize::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(kills > 0, "it was never killed");
    run(&line);
    assert_eq!(cells(&cut), expected);
    let record: Value =
        serde_json::from_slice(&std::fs::read(whole.join("runs/embedded/full/seed-0/cell.json")).unwrap()).unwrap();
    // Not asserted: not every machine lets the counter be read.
    println!("energy of a run: {} J", record["result"]["energy_j"]);
}

fn no_room() {
    let plan = |strategy: &str, memory: &str| -> u64 {
        let output = run(&format!("plan --device cuda --strategy {strategy} --memory {memory} --json"));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()["total"].as_u64().unwrap()
    };
    let (full, freeze) = (plan("full", "lean"), plan("freeze", "lean"));
    assert!(freeze < full);
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("report");
    let budget = ((freeze + full) / 2) >> 10;
    run(&format!(
        "compare --device cuda --epochs 1 --seeds 1 --strategies full,freeze --memory-budget {budget}KiB --out {}",
        out.display()
    ));
    let cells = cells(&out);
    let of = |strategy: &str| &cells[&format!("runs/embedded/{strategy}/seed-0/cell.json")];
    assert_eq!(of("full")["state"], "failed");
    assert!(of("full")["reason"].as_str().unwrap().contains("--memory-budget"), "{}", of("full"));
    assert_eq!(of("freeze")["state"], "done");
}
