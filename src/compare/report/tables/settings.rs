//! Protocol and exact settings.

use serde_json::Value;

use super::{Cell, Column, Table, columns};
use crate::compare::numbers::{bytes, list};
use crate::compare::results::{DatasetInfo, Results};

/// What holds for every run, in words.
pub fn protocol(results: &Results) -> Vec<(&'static str, String)> {
    let protocol = &results.protocol;
    let seeds: Vec<String> = protocol.seeds.iter().map(u64::to_string).collect();
    let mut rows = vec![
        ("Program", format!("peftk {} ({})", results.version, results.commit)),
        ("Device", results.device.clone()),
        ("Backbone", results.backbone.clone()),
        ("Epochs at most", of_sets(results, |set| set.epochs.to_string())),
        ("Images a step", of_sets(results, |set| set.batch_size.to_string())),
        ("Input", of_sets(results, |set| format!("{0} × {0} pixels", set.input_size))),
        ("Head", heads(results)),
        ("Seeds", list(&seeds)),
        ("Learning rates", protocol.rates.clone()),
        ("Split", protocol.split.clone()),
        (
            "Chosen by",
            "The best epoch is that of the highest validation accuracy. Nothing is chosen by the test images.".into(),
        ),
    ];
    if let Some(budget) = protocol.memory_budget {
        rows.push(("Memory budget", bytes(budget as f64)));
    }
    rows
}

/// Where heads came from, as runs say it.
fn heads(results: &Results) -> String {
    let mut heads: Vec<String> = Vec::new();
    for measured in results.cells.iter().filter_map(|cell| cell.outcome.measured()) {
        let head = measured.head.trim_start_matches("head: ").to_owned();
        if !head.is_empty() && !heads.contains(&head) {
            heads.push(head);
        }
    }
    if heads.is_empty() { "not known yet".to_owned() } else { heads.join("; ") }
}

/// What is the same for all data sets once, else set by set.
fn of_sets(results: &Results, of: impl Fn(&DatasetInfo) -> String) -> String {
    let values: Vec<String> = results.datasets.iter().map(&of).collect();
    match values.first() {
        Some(first) if values.iter().all(|value| value == first) => first.clone(),
        _ => list(&results.datasets.iter().map(|set| format!("{} ({})", of(set), set.name)).collect::<Vec<_>>()),
    }
}

/// Settings of the runs' configurations.
pub struct Settings {
    /// Those with one value in all runs.
    pub shared: Vec<(String, String)>,
    /// The rest: a row a setting, a column a strategy.
    pub differing: Option<Table>,
}

/// All settings, the nested ones under dotted names.
pub fn settings(results: &Results) -> Settings {
    let flat: Vec<Vec<(String, String)>> = results.cells.iter().map(|cell| flattened(&cell.config)).collect();
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in flat.iter().flatten() {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let value = |run: usize, name: &str| flat[run].iter().find(|(n, _)| n == name).map_or("–", |(_, v)| v.as_str());
    let distinct = |runs: &mut dyn Iterator<Item = usize>, name: &str| {
        let mut values: Vec<String> = Vec::new();
        for run in runs {
            let value = value(run, name).to_owned();
            if !values.contains(&value) {
                values.push(value);
            }
        }
        values
    };
    let (mut shared, mut rows) = (Vec::new(), Vec::new());
    for name in names {
        let mut all = distinct(&mut (0..flat.len()), name);
        if all.len() == 1 {
            shared.push((name.to_owned(), all.remove(0)));
            continue;
        }
        let mut row = vec![Cell::text(name)];
        for variant in 0..results.variants.len() {
            let mut runs = (0..flat.len()).filter(|&run| results.cells[run].variant == variant);
            let values = distinct(&mut runs, name);
            // A folder a run is no setting to compare.
            row.push(if values.len() > 6 {
                Cell::faint(format!("{} values", values.len()))
            } else {
                Cell::text(values.join("; "))
            });
        }
        rows.push(row);
    }
    let mut names = columns(&["Setting"]);
    names.extend(results.variants.iter().map(|variant| Column { name: variant.name.clone(), is_number: false }));
    let differing = (!rows.is_empty()).then(|| Table {
        id: "settings".into(),
        caption: "Settings that differ between runs".into(),
        columns: names,
        rows,
        foot: None,
    });
    Settings { shared, differing }
}

/// Leaves of a JSON value under dotted names; what is null is not a setting.
pub(in super::super) fn flattened(value: &Value) -> Vec<(String, String)> {
    fn walk(prefix: &str, value: &Value, out: &mut Vec<(String, String)>) {
        match value {
            Value::Null => {}
            Value::Object(map) => {
                for (key, value) in map {
                    let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                    walk(&name, value, out);
                }
            }
            Value::String(text) => out.push((prefix.to_owned(), text.clone())),
            other => out.push((prefix.to_owned(), other.to_string())),
        }
    }
    let mut out = Vec::new();
    walk("", value, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::example;
    use serde_json::json;

    #[test]
    fn shared_and_differing() {
        let mut results = example::results();
        for cell in &mut results.cells {
            cell.config["adapter"] = json!({"rank": 8, "targets": ["q", "v"]});
        }
        let settings = settings(&results);
        let shared = |name: &str| settings.shared.iter().find(|s| s.0 == name).map(|s| s.1.as_str());
        assert_eq!(shared("adapter.rank"), Some("8"));
        assert_eq!(shared("adapter.targets"), Some("[\"q\",\"v\"]"));
        let differing = settings.differing.unwrap();
        let rows: Vec<String> =
            differing.rows.iter().map(|r| r.iter().map(|c| c.text.as_str()).collect::<Vec<_>>().join("|")).collect();
        assert_eq!(rows, ["strategy|full|freeze|lora|dora", "seed|0; 1; 2|0; 1; 2|0; 1; 2|0; 1; 2"]);
    }
}
