//! `peftk bench` on the CPU: what its lines hold, and what happens to configurations that cannot be measured.

use std::path::Path;

use serde_json::Value;

use super::{peftk, words};

/// What the contract names, then what is added to it.
const KEYS: [&str; 18] = [
    "strategy",
    "size",
    "batch",
    "memory",
    "targets",
    "rank",
    "images_per_s",
    "ms_per_step",
    "device_mib",
    "planned_mib",
    "device",
    "commit",
    "micro_batch",
    "recompute",
    "precision",
    "peak_mib",
    "kernels",
    "loss",
];

const TINY: &str = "bench --device cpu --size micro --input-size 28 --classes 3 --batch-size 2 --steps 1 --warmup 0";

/// Exit code, stdout, stderr.
fn run(dir: &Path, flags: &str) -> (Option<i32>, String, String) {
    let line = format!("{TINY} {flags}");
    let output = peftk(dir, &words(&line));
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_line_holds_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let (code, stdout, stderr) = run(dir.path(), "--strategy lora --targets q,fc1 --rank 2 --memory lean --json");
    assert_eq!(code, Some(0), "{stderr}");
    let lines = lines(&stdout);
    let [line] = &lines[..] else { panic!("not one line: {stdout}") };
    assert_eq!(line.as_object().unwrap().keys().collect::<Vec<_>>(), KEYS);
    for (key, expected) in [
        ("strategy", Value::from("lora")),
        ("size", "micro".into()),
        ("batch", 2.into()),
        ("memory", "lean".into()),
        ("targets", "q,fc1".into()),
        ("rank", 2.into()),
        ("device_mib", Value::Null),
        ("commit", env!("PEFTK_BUILT_FROM").into()),
        ("precision", "f32".into()),
        ("kernels", Value::Null),
    ] {
        assert_eq!(line[key], expected, "{key}");
    }
    let number = |key: &str| line[key].as_f64().unwrap();
    assert!(line["device"].as_str().unwrap().starts_with("CPU"));
    assert!(number("loss") > 0.0 && number("peak_mib") > 0.0);
    assert!((number("images_per_s") * number("ms_per_step") / 2000.0 - 1.0).abs() < 1e-9, "2 images a step");
    // The plan is of what the step then takes: tests/train/memory.rs holds runs to 1 %.
    assert!((number("planned_mib") / number("peak_mib") - 1.0).abs() < 0.02, "{line}");
    for part in ["device: CPU", "f32", "lora, batch 2, memory lean: trains", "planned memory", "1/1  loss"] {
        assert!(stderr.contains(part), "{part} is missing in\n{stderr}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "something was written");
}

#[test]
fn a_table_has_a_line_a_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let (code, stdout, stderr) = run(dir.path(), "--strategy freeze,dora --memory fast,balanced --rank 4 --quiet");
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let rows: Vec<Vec<&str>> = stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0][..6], ["strategy", "size", "batch", "memory", "targets", "rank"]);
    let what: Vec<String> = rows[1..].iter().map(|row| row[..6].join(" ")).collect();
    assert_eq!(
        what,
        [
            "freeze micro 2 fast - -",
            "freeze micro 2 balanced - -",
            "dora micro 2 fast q,v 4",
            "dora micro 2 balanced q,v 4"
        ]
    );
    assert!(rows[1..].iter().all(|row| row.len() == 10 && row[8] == "-"), "no driver tells the CPU's memory\n{stdout}");
}

#[test]
fn one_that_fails_leaves_the_others() {
    let dir = tempfile::tempdir().unwrap();
    // The micro model has no gate: known when the model is built, and no matter to freeze.
    let (code, stdout, stderr) = run(dir.path(), "--strategy lora,freeze --targets gate --json");
    assert_eq!(code, Some(0), "{stderr}");
    let both = lines(&stdout);
    assert_eq!(both.len(), 2, "{stdout}");
    assert!(both[0]["error"].as_str().unwrap().contains("gate") && both[0].get("images_per_s").is_none());
    assert!(both[1].get("error").is_none() && both[1]["images_per_s"].as_f64().unwrap() > 0.0);
    assert!(!stderr.contains("error:"));

    let (code, stdout, stderr) = run(dir.path(), "--strategy lora,dora --targets gate --json --quiet");
    assert_eq!(code, Some(2));
    assert!(lines(&stdout).iter().all(|line| line["error"].is_string()));
    assert!(stderr.starts_with("error: ") && stderr.lines().count() == 1 && stderr.contains("gate"), "{stderr}");
}
