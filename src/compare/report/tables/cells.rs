//! A row a run, a trial, a data set.

use super::{Cell, Column, Table, Tone, columns, more_measures, share_or_number, state, words};
use crate::compare::numbers::{bytes, count, fixed, joules, percent, rate, seconds};
use crate::compare::results::{Outcome, Results};

/// Every run with its numbers, or why it has none.
pub fn runs(results: &Results) -> Table {
    let more = more_measures(results.cells.iter());
    let mut names = columns(&["Data set", "Strategy", "Seed#", "State", "Test accuracy#", "Test loss#"]);
    names.extend(more.iter().map(|name| Column { name: format!("Test {}", words(name)), is_number: true }));
    names.extend(columns(&[
        "Validation#",
        "Best epoch#",
        "Epochs#",
        "Steps#",
        "Peak memory#",
        "Planned#",
        "Images a second#",
        "An epoch#",
        "Training#",
        "Start to end#",
        "Energy#",
        "Trained parameters#",
        "Parameters#",
        "On disk#",
        "Folder",
    ]));
    let numbers = names.len() - 5;
    let rows = results.cells.iter().map(|cell| {
        let set = results.datasets.get(cell.dataset).map_or("", |set| set.name.as_str());
        let variant = results.variants.get(cell.variant).map_or("", |variant| variant.name.as_str());
        let mut row = vec![Cell::text(set), Cell::text(variant), Cell::number(cell.seed as f64, cell.seed.to_string())];
        row.push(match &cell.outcome {
            Outcome::Pending => Cell::faint("not yet"),
            Outcome::Done(_) => Cell::text("done"),
            Outcome::Failed { reason } => {
                Cell { text: format!("{}: {reason}", state(&cell.outcome)), key: None, tone: Tone::Bad }
            }
        });
        match cell.outcome.measured() {
            None => row.extend((0..numbers).map(|_| Cell::faint("–"))),
            Some(m) => {
                let whole = |value: u64| Cell::number(value as f64, count(value as f64));
                row.push(Cell::number(m.test_accuracy, percent(m.test_accuracy)));
                row.push(Cell::number(m.test_loss, fixed(m.test_loss, 4)));
                row.extend(more.iter().map(|name| {
                    Cell::or_dash(m.test_more.get(name).and_then(serde_json::Value::as_f64), share_or_number)
                }));
                row.push(Cell::number(m.val_accuracy, percent(m.val_accuracy)));
                row.push(whole(m.best_epoch as u64));
                row.push(whole(m.epochs as u64));
                row.push(whole(m.steps));
                row.push(Cell::number(m.peak_bytes as f64, bytes(m.peak_bytes as f64)));
                row.push(Cell::number(m.planned_bytes as f64, bytes(m.planned_bytes as f64)));
                row.push(Cell::number(m.images_per_s, fixed(m.images_per_s, 1)));
                row.push(Cell::number(m.seconds_per_epoch, seconds(m.seconds_per_epoch)));
                row.push(Cell::number(m.train_s, seconds(m.train_s)));
                row.push(Cell::number(m.wall_s, seconds(m.wall_s)));
                row.push(Cell::or_dash(m.energy_j, joules));
                row.push(whole(m.trained_parameters));
                row.push(whole(m.parameters));
                row.push(Cell::number(m.saved_bytes as f64, bytes(m.saved_bytes as f64)));
            }
        }
        row.push(Cell::text(&cell.run));
        row
    });
    Table { id: "runs".into(), caption: "Numbers of each run".into(), rows: rows.collect(), columns: names, foot: None }
}

/// Every trial of a learning rate; none where none was searched.
pub fn tuning(results: &Results) -> Option<Table> {
    let columns = columns(&[
        "Data set",
        "Strategy",
        "Round#",
        "Learning rate#",
        "Epochs#",
        "Validation accuracy#",
        "Validation loss#",
        "Outcome",
    ]);
    let mut rows = Vec::new();
    for tuning in &results.tuning {
        let set = results.datasets.get(tuning.dataset).map_or("", |set| set.name.as_str());
        let variant = results.variants.get(tuning.variant).map_or("", |variant| variant.name.as_str());
        let last = tuning.trials.iter().map(|trial| trial.round).max();
        for trial in &tuning.trials {
            let is_taken = Some(trial.round) == last && trial.lr == tuning.lr;
            let outcome = match &trial.reason {
                Some(reason) => Cell { text: format!("failed: {reason}"), key: None, tone: Tone::Bad },
                None if is_taken => {
                    let text = format!("taken; {} epochs over all trials", tuning.epochs);
                    Cell { text, key: None, tone: Tone::Best }
                }
                None => Cell::faint("–"),
            };
            rows.push(vec![
                Cell::text(set),
                Cell::text(variant),
                Cell::number(trial.round as f64, trial.round.to_string()),
                Cell::number(trial.lr, rate(trial.lr)),
                Cell::number(trial.epochs as f64, trial.epochs.to_string()),
                Cell::or_dash(trial.val_accuracy, percent),
                Cell::or_dash(trial.val_loss, |loss| fixed(loss, 4)),
                outcome,
            ]);
        }
    }
    (!rows.is_empty()).then(|| Table {
        id: "tuning".into(),
        caption: "Trials of learning rates".into(),
        columns,
        rows,
        foot: None,
    })
}

/// The data sets.
pub fn datasets(results: &Results) -> Table {
    let columns =
        columns(&["Data set", "Task", "Classes#", "Training#", "Validation#", "Test#", "Accuracy means", "Read as"]);
    let rows = results.datasets.iter().map(|set| {
        let whole = |value: usize| Cell::number(value as f64, count(value as f64));
        vec![
            Cell::text(&set.name),
            Cell::text(set.task.name()),
            whole(set.classes),
            whole(set.train),
            whole(set.val),
            whole(set.test),
            Cell::text(&set.measure),
            Cell::text(&set.description),
        ]
    });
    Table { id: "datasets".into(), caption: "Data sets, in images".into(), rows: rows.collect(), columns, foot: None }
}
