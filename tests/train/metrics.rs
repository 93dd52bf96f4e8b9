//! The measures against scikit-learn's on random logits: tools/fixtures/metrics.py wrote them.

use peftk::task::metrics::ClassCounter;
use peftk::task::multilabel_metrics::LabelCounter;
use serde_json::Value;

fn cases(kind: &str) -> Vec<Value> {
    let text = include_str!("../fixtures/metrics/metrics.json");
    let all: Value = serde_json::from_str(text).unwrap();
    all[kind].as_array().unwrap().clone()
}

fn numbers(case: &Value, name: &str) -> Vec<f64> {
    case[name].as_array().unwrap_or_else(|| panic!("{name}")).iter().map(|x| x.as_f64().unwrap()).collect()
}

fn check(case: &Value, name: &str, found: f64) {
    let expected = case[name].as_f64().unwrap_or_else(|| panic!("{name}"));
    assert!((found - expected).abs() < 1e-9, "{name}: {found}, scikit-learn has {expected}");
}

#[test]
fn multiclass_measures_are_scikit_learns() {
    for case in cases("multiclass") {
        let classes = case["classes"].as_u64().unwrap() as usize;
        let logits: Vec<f32> = numbers(&case, "logits").into_iter().map(|x| x as f32).collect();
        let labels: Vec<usize> = numbers(&case, "labels").into_iter().map(|x| x as usize).collect();
        let mut counter = ClassCounter::new(classes);
        // In batches of 7, as an evaluation adds them.
        for (logits, labels) in logits.chunks(7 * classes).zip(labels.chunks(7)) {
            counter.add(logits, labels);
        }
        let found = counter.metrics();
        check(&case, "top1", found.top1);
        check(&case, "top5", found.top5);
        check(&case, "balanced_accuracy", found.balanced_accuracy);
        check(&case, "macro_f1", found.macro_f1);
        assert_eq!(serde_json::to_value(&found.confusion).unwrap(), case["confusion"]);
    }
}

#[test]
fn multilabel_measures_are_scikit_learns() {
    for case in cases("multilabel") {
        let labels = case["labels"].as_u64().unwrap() as usize;
        let logits: Vec<f32> = numbers(&case, "logits").into_iter().map(|x| x as f32).collect();
        let truths: Vec<bool> = numbers(&case, "truths").into_iter().map(|x| x > 0.5).collect();
        let mut counter = LabelCounter::new(labels);
        for (logits, truths) in logits.chunks(7 * labels).zip(truths.chunks(7 * labels)) {
            counter.add(logits, truths);
        }
        let found = counter.metrics();
        check(&case, "map_macro", found.map_macro);
        check(&case, "map_micro", found.map_micro);
        check(&case, "binary_accuracy", found.binary_accuracy);
        check(&case, "f1_macro", found.f1_macro);
        check(&case, "f1_micro", found.f1_micro);
    }
}
