//! What the plan says is what the run takes.

use crate::{done, lines, pictures};

#[test]
fn planned_and_measured_memory_agree() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    pictures(&dir.join("data"), 12, 5);
    let mut totals = Vec::new();
    for strategy in ["full", "freeze", "lora", "dora", "dora --targets all-linear --lora-dropout 0.1"] {
        for memory in ["--memory fast", "--memory balanced", "--memory lean", "--batch-size 1000"] {
            let run = format!("run{}", totals.len());
            let flags = format!("--data data --backbone random:micro --strategy {strategy} {memory} --quiet");
            let plan = done(dir, &format!("plan {flags}"));
            let rows: Vec<(&str, u64)> = plan
                .lines()
                .map(|line| {
                    let (purpose, rest) = line.split_once("  ").expect("columns");
                    (purpose, rest.split_whitespace().next().expect("bytes").parse().expect("a number"))
                })
                .collect();
            let (total, parts) = rows.split_last().expect("rows");
            assert_eq!((total.0, total.1), ("total", parts.iter().map(|part| part.1).sum()), "{plan}");
            for purpose in ["frozen weights", "trained values", "optimiser moments", "gradients", "saved by linear"] {
                assert!(parts.iter().any(|part| part.0 == purpose), "{purpose} is missing in\n{plan}");
            }
            done(dir, &format!("train {flags} --epochs 1 --out {run}"));
            let end = &lines(&dir.join(run), "end")[0];
            assert_eq!(end["planned_device_bytes"], total.1);
            let measured = end["peak_device_bytes"].as_u64().expect("bytes");
            let ratio = total.1 as f64 / measured as f64;
            assert!((0.99..1.01).contains(&ratio), "{strategy} {memory}: planned {}, measured {measured}", total.1);
            totals.push(total.1);
        }
    }
    for modes in totals.chunks(4) {
        assert!(modes[0] > modes[2], "lean does not take less: {modes:?}");
    }
}
