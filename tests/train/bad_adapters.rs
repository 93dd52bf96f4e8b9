//! `--init-adapter` with flags, data and backbones that contradict the folder.

use std::path::Path;

use crate::{done, failure};

#[test]
fn contradictions_are_named_and_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/data");
    let golden = golden.display();
    let common =
        format!("train --backbone {golden}/backbones/plain --input-size 56 --val-fraction 0 --quiet --out run");
    let check = |case: &str, flags: &str, named: &[&str]| {
        let line = format!("{common} --init-adapter {golden}/{case}/adapter --data {golden}/{case}/data {flags}");
        let error = failure(dir, &line, 2);
        for part in named {
            assert!(error.contains(part), "{flags} does not name {part}: {error}");
        }
        assert!(!dir.join("run").exists(), "{flags} left a run");
    };
    // r 4, alpha 8, q and v of both blocks, no dropout, a classifier on CLS and mean.
    for (flags, named) in [
        ("--strategy dora", ["--strategy dora", "lora"]),
        ("--rank 8", ["--rank 8", "4"]),
        ("--alpha 3", ["--alpha 3", "8"]),
        ("--targets q", ["--targets q_proj", "q_proj,v_proj"]),
        ("--targets all-linear", ["--targets all-linear", "q_proj,v_proj"]),
        ("--layers 0", ["--layers 0", "0,1"]),
        ("--rslora", ["--rslora true", "false"]),
        ("--lora-dropout 0.5", ["--lora-dropout 0.5", "0"]),
        ("--rank-pattern q_proj=2", ["--rank-pattern", "q_proj"]),
        ("--alpha-pattern v_proj=2", ["--alpha-pattern", "v_proj"]),
        ("--pool cls", ["--pool cls", "cls+mean"]),
        ("--dora-norm-grad", ["--dora-norm-grad", "lora"]),
        ("--backbone random:micro", ["--init-adapter", "adapter"]),
        ("--backbone random:small", ["--init-adapter", "lora_A"]),
    ] {
        // A flag given twice is an error of its own: the backbone is replaced.
        if flags.starts_with("--backbone") {
            let line = format!("{flags} --init-adapter {golden}/lora_qv/adapter --data {golden}/lora_qv/data");
            let error = failure(dir, &format!("train --input-size 56 --val-fraction 0 --quiet --out run {line}"), 2);
            assert!(named.iter().all(|part| error.contains(part)), "{flags}: {error}");
            assert!(!dir.join("run").exists());
        } else {
            check("lora_qv", flags, &named);
        }
    }
    check("dora_qv", "--strategy lora", &["--strategy lora", "dora"]);
    check("patterns", "--rank-pattern q_proj=1", &["--rank-pattern"]);
}

#[test]
fn what_agrees_is_taken_and_written_down() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/data");
    let golden = golden.display();
    for (number, (case, backbone, flags)) in [
        ("lora_qv", "plain", "--strategy lora --rank 4 --alpha 8 --targets q,v --layers 0,1 --pool cls+mean"),
        ("lora_all", "plain", "--targets all-linear"),
        ("legacy_names", "plain", "--targets query,value --strategy dora --dora-norm-grad"),
        ("swiglu", "swiglu", ""),
        ("patterns", "plain", ""),
    ]
    .into_iter()
    .enumerate()
    {
        let data = format!("--input-size 56 --val-fraction 0 --epochs 1 --quiet --data {golden}/{case}/data");
        let folder = format!("--backbone {golden}/backbones/{backbone} --init-adapter {golden}/{case}/adapter");
        done(dir, &format!("train {folder} {data} {flags} --out run{number}"));
        // The settings written are the folder's own: the same once more agrees with it, and so does going on.
        done(dir, &format!("train --config run{number}/config.toml --quiet --out again{number}"));
        done(dir, &format!("train --resume --out run{number} --quiet"));
        let adapter = |run: &str| std::fs::read(dir.join(format!("{run}{number}/adapter/adapter_model.safetensors")));
        assert_eq!(adapter("run").unwrap(), adapter("again").unwrap(), "{case}");
    }
    let config = std::fs::read_to_string(dir.join("run0/config.toml")).unwrap();
    assert!(config.contains("strategy = \"lora\"") && config.contains("rank = 4"), "{config}");
}

#[test]
fn a_classifier_for_other_classes_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    crate::pictures(&dir.join("data"), 3, 1);
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/data");
    let golden = golden.display();
    let line = format!(
        "train --backbone {golden}/backbones/plain --init-adapter {golden}/lora_qv/adapter --data data --input-size 28 --out run"
    );
    let error = failure(dir, &line, 2);
    assert!(error.contains("--init-adapter") && error.contains('5') && error.contains('3'), "{error}");
    assert!(!dir.join("run").exists());
}
