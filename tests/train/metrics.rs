//! The measures against scikit-learn's on random logits: tools/fixtures/metrics.py wrote them.

use peftk::task::metrics::ClassCounter;
use peftk::task::multilabel_metrics::LabelCounter;
use peftk::task::tree::Tree;
use peftk::task::tree_metrics::TreeCounter;
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
    for case in cases("multilabel").into_iter().chain(cases("masked")) {
        let labels = case["labels"].as_u64().unwrap() as usize;
        let logits: Vec<f32> = numbers(&case, "logits").into_iter().map(|x| x as f32).collect();
        let truths: Vec<f32> = numbers(&case, "truths").into_iter().map(|x| x as f32).collect();
        let mut counter = LabelCounter::new(labels, None);
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

/// Each label's F1 at the threshold that was found for it is the best of all that scikit-learn tries.
#[test]
fn tuned_thresholds_have_the_best_f1() {
    for case in cases("masked") {
        let labels = case["labels"].as_u64().unwrap() as usize;
        let logits: Vec<f32> = numbers(&case, "logits").into_iter().map(|x| x as f32).collect();
        let truths: Vec<f32> = numbers(&case, "truths").into_iter().map(|x| x as f32).collect();
        let counter = |thresholds: Option<&[f64]>| {
            let mut counter = LabelCounter::new(labels, thresholds);
            counter.add(&logits, &truths);
            counter
        };
        let tuned = counter(Some(&counter(None).best_thresholds())).metrics();
        for (counts, best) in tuned.per_label.iter().zip(numbers(&case, "best_f1")) {
            let f1 = (2 * counts.correct) as f64 / (counts.support + counts.predicted) as f64;
            assert!((f1 - best).abs() < 1e-9, "{f1}, scikit-learn has {best}");
        }
    }
}

#[test]
fn measures_by_a_tree_are_scikit_learns() {
    for case in cases("tree") {
        let parents: Vec<Option<usize>> = serde_json::from_value(case["parents"].clone()).unwrap();
        let sizes: Vec<usize> = serde_json::from_value(case["heads"].clone()).unwrap();
        let names: Vec<String> = (0..parents.len()).map(|label| format!("label {label}")).collect();
        let mut end = 0;
        let groups: Vec<Vec<usize>> = sizes
            .iter()
            .map(|size| {
                end += size;
                (end - size..end).collect()
            })
            .collect();
        let (tree, order) = Tree::new(&names, &parents, &groups).unwrap();
        assert!(order.is_sorted(), "the fixture's labels are in the tree's order");
        let logits: Vec<f32> = numbers(&case, "logits").into_iter().map(|x| x as f32).collect();
        let rows: Vec<f32> = numbers(&case, "rows").into_iter().map(|x| x as f32).collect();
        for (logits, path) in logits.chunks(names.len()).zip(case["paths"].as_array().unwrap()) {
            let mut found = tree.predict(logits);
            found.sort();
            assert_eq!(serde_json::to_value(&found).unwrap(), *path);
        }
        let mut counter = TreeCounter::new(tree.into());
        for (logits, rows) in logits.chunks(7 * names.len()).zip(rows.chunks(7 * names.len())) {
            counter.add(logits, rows);
        }
        let found = counter.metrics();
        check(&case, "path_accuracy", found.path_accuracy);
        check(&case, "mean_accuracy", found.mean_accuracy);
        check(&case, "consistency", found.consistency);
        for (found, expected) in found.level_accuracy.iter().zip(numbers(&case, "level_accuracy")) {
            assert!((found - expected).abs() < 1e-9, "{found}, scikit-learn has {expected}");
        }
    }
}

/// errors.csv holds as many images as the measures say are wrong, the most confident first, with what predict says of them.
#[cfg(unix)]
#[test]
fn eval_lists_what_is_wrong() {
    for (task, measure) in
        [("multiclass", "accuracy"), ("hierarchical", "path_accuracy"), ("multilabel", "binary_accuracy")]
    {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        crate::tasks::laid_out(&dir.join("data"), task);
        let flags =
            "--backbone random:micro --input-size 28 --batch-size 8 --epochs 1 --strategy lora --lr 1e-4 --quiet";
        crate::done(dir, &format!("train --data data {flags} --out run"));
        let report: Value =
            serde_json::from_str(&crate::done(dir, "eval --model run --data data --out tables --json")).unwrap();
        let table = std::fs::read_to_string(dir.join("tables/errors.csv")).unwrap();
        let rows: Vec<Vec<&str>> = table.lines().skip(1).map(|line| line.split(',').collect()).collect();
        assert!(table.starts_with("path,truth,predicted,probability\n") && !rows.is_empty(), "{table}");
        // Of the 15 images' 3 labels each those of "even" are unknown for one image in four.
        let decisions = if task == "multilabel" { 15.0 * 3.0 - 3.0 } else { 15.0 };
        let wrong = decisions * (1.0 - report[measure].as_f64().unwrap());
        assert!((rows.len() as f64 - wrong).abs() < 1e-6, "{task}: {wrong} wrong by {measure}\n{table}");
        for pair in rows.windows(2).filter(|_| task != "multilabel") {
            assert!(pair[0][3].parse::<f64>().unwrap() >= pair[1][3].parse::<f64>().unwrap(), "{table}");
        }
        for row in &rows {
            let [path, truth, predicted, _] = row[..] else { panic!("{row:?}") };
            assert_ne!(truth, predicted);
            let answer: Value =
                serde_json::from_str(&crate::done(dir, &format!("predict --model run --json {path}"))).unwrap();
            let said = match &answer["label"] {
                Value::String(name) => vec![name.clone()],
                names => serde_json::from_value(names.clone()).unwrap(),
            };
            match task {
                "multilabel" => {
                    assert_eq!(said.contains(&predicted.replace("not ", "")), !predicted.starts_with("not "))
                }
                _ => assert_eq!(said.join(" > "), predicted, "{path}"),
            }
        }
        let sheet = image::open(dir.join("tables/errors.png")).unwrap();
        assert_eq!(sheet.width(), 6 + 134 * rows.len().min(6) as u32);
    }
}
