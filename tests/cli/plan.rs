//! `peftk plan`: a table with bars, or one JSON object, and both add up.

use serde_json::Value;

use super::{peftk, words};

/// What a call leaves on stdout.
fn stdout(line: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let output = peftk(dir.path(), &words(line));
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_plan_in_json_adds_up() {
    let text = stdout("plan --json --strategy lora --batch-size 4 --micro-batch 2 --device cpu");
    assert_eq!(text.lines().count(), 1);
    let plan: Value = serde_json::from_str(&text).unwrap();
    let keys: Vec<&String> = plan.as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        ["strategy", "batch", "micro_batch", "recompute", "device", "precision", "arch", "parts", "total"]
    );
    assert_eq!((&plan["strategy"], &plan["device"], &plan["arch"]), (&"lora".into(), &"cpu".into(), &Value::Null));
    assert_eq!((plan["batch"].as_u64(), plan["micro_batch"].as_u64()), (Some(4), Some(2)));
    let parts = plan["parts"].as_array().unwrap();
    assert_eq!(parts[0]["purpose"], "frozen weights");
    let sum: u64 = parts.iter().map(|part| part["bytes"].as_u64().unwrap()).sum();
    assert_eq!(plan["total"].as_u64(), Some(sum));
}

#[test]
fn a_gpu_s_plan_names_its_kernels() {
    let plan: Value = serde_json::from_str(&stdout("plan --json --device cuda")).unwrap();
    assert_eq!((&plan["device"], &plan["precision"]), (&"cuda:0".into(), &"bf16".into()));
    assert!(plan["arch"].as_str().unwrap().starts_with("sm_"), "{plan}");
}

#[test]
fn a_table_shows_shares() {
    let text = stdout("plan --batch-size 2 --device cpu --quiet");
    let bytes = |line: &str| -> u64 {
        let words: Vec<&str> = line.split_whitespace().collect();
        let unit = words.iter().position(|word| *word == "bytes").unwrap();
        words[unit - 1].parse().unwrap()
    };
    let rows: Vec<&str> = text.lines().collect();
    let (total, parts) = rows.split_last().unwrap();
    assert!(total.starts_with("total") && total.ends_with(&format!("100.0 %  {}", "█".repeat(30))), "{text}");
    assert_eq!(parts.iter().map(|row| bytes(row)).sum::<u64>(), bytes(total));
    for row in parts {
        assert_eq!(row.ends_with('%'), bytes(row) == 0, "{row}");
    }
}
