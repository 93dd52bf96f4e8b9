//! `results.csv`: a line a run, every number as it was measured.

use super::tables::{flattened, more_measures, state};
use crate::compare::results::{Cell, Outcome, Results};

/// Settings that have a column each; the rest is in `results.json`.
const SETTINGS: [&str; 12] = [
    "lr",
    "epochs",
    "batch_size",
    "weight_decay",
    "schedule",
    "warmup_steps",
    "patience",
    "label_smoothing",
    "input_size",
    "adapter.rank",
    "adapter.alpha",
    "adapter.targets",
];

const MEASURES: [&str; 17] = [
    "test_accuracy",
    "test_loss",
    "val_accuracy",
    "best_epoch",
    "epochs_done",
    "steps",
    "peak_bytes",
    "planned_bytes",
    "images_per_s",
    "seconds_per_epoch",
    "train_s",
    "wall_s",
    "energy_j",
    "trained_parameters",
    "parameters",
    "saved_bytes",
    "run",
];

/// The whole file.
pub fn of(results: &Results) -> String {
    let more = more_measures(results.cells.iter());
    let mut head: Vec<String> =
        ["dataset", "measure", "strategy", "rank", "variant", "seed", "state", "reason"].map(str::to_owned).into();
    head.extend(SETTINGS.map(|name| format!("config.{name}")));
    head.extend(MEASURES.map(str::to_owned));
    head.extend(more.iter().map(|name| format!("test.{name}")));
    let mut text = line(&head);
    for cell in &results.cells {
        text += &line(&row(results, cell, &more));
    }
    text
}

fn row(results: &Results, cell: &Cell, more: &[String]) -> Vec<String> {
    let set = results.datasets.get(cell.dataset);
    let variant = results.variants.get(cell.variant);
    let reason = match &cell.outcome {
        Outcome::Failed { reason } => reason.clone(),
        Outcome::Pending | Outcome::Done(_) => String::new(),
    };
    let mut row = vec![
        set.map_or(String::new(), |set| set.name.clone()),
        set.map_or(String::new(), |set| set.measure.clone()),
        variant.map_or(String::new(), |variant| variant.strategy.name().to_owned()),
        variant.and_then(|variant| variant.rank).map_or(String::new(), |rank| rank.to_string()),
        variant.map_or(String::new(), |variant| variant.name.clone()),
        cell.seed.to_string(),
        state(&cell.outcome).to_owned(),
        reason,
    ];
    let config = flattened(&cell.config);
    let setting = |name: &str| config.iter().find(|(key, _)| key == name).map_or(String::new(), |(_, v)| v.clone());
    row.extend(SETTINGS.map(setting));
    let measures = cell.outcome.measured();
    match measures {
        None => row.extend(vec![String::new(); MEASURES.len() - 1]),
        // Rust writes the shortest digits that read back as the same number.
        Some(m) => row.extend([
            m.test_accuracy.to_string(),
            m.test_loss.to_string(),
            m.val_accuracy.to_string(),
            m.best_epoch.to_string(),
            m.epochs.to_string(),
            m.steps.to_string(),
            m.peak_bytes.to_string(),
            m.planned_bytes.to_string(),
            m.images_per_s.to_string(),
            m.seconds_per_epoch.to_string(),
            m.train_s.to_string(),
            m.wall_s.to_string(),
            m.energy_j.map_or(String::new(), |joules| joules.to_string()),
            m.trained_parameters.to_string(),
            m.parameters.to_string(),
            m.saved_bytes.to_string(),
        ]),
    }
    row.push(cell.run.clone());
    let of = |name: &String| measures.and_then(|m| m.test_more.get(name)).map_or(String::new(), ToString::to_string);
    row.extend(more.iter().map(of));
    row
}

fn line(cells: &[String]) -> String {
    let quoted: Vec<String> = cells.iter().map(|cell| self::quoted(cell)).collect();
    quoted.join(",") + "\n"
}

/// A cell of CSV, in quotes where it needs them. A line break would make two lines of one run to simple readers.
fn quoted(text: &str) -> String {
    let text = text.replace(['\n', '\r'], " ");
    if text.contains([',', '"']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}
