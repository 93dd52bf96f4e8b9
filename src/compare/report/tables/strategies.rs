//! A row a strategy: over all data sets, and on each.

use super::super::charts::missing;
use super::{Cell, Column, Table, Tone, columns, mean_of_more, more_measures, share_or_number, words};
use crate::compare::numbers::{bytes, count, fixed, joules, percent_within, points, seconds};
use crate::compare::results::{DatasetInfo, Results};
use crate::compare::stats::{self, Spread};
use crate::compare::summary::{self, Row};

/// All strategies over all data sets.
pub fn overall(results: &Results) -> Table {
    let caption = match results.datasets.len() {
        1 => "Strategies".to_owned(),
        sets => format!("Strategies over {sets} data sets"),
    };
    strategies(results, &summary::overall(results), "overall", caption, &[])
}

/// All strategies on one data set, with the task's other measures.
pub fn by_dataset(results: &Results) -> Vec<Table> {
    let rows = summary::by_dataset(results);
    let table = |(set, info): (usize, &DatasetInfo)| {
        let of_set: Vec<Row> = rows.iter().filter(|row| row.dataset == Some(set)).cloned().collect();
        let more = more_measures(results.cells.iter().filter(|cell| cell.dataset == set));
        let caption = format!("{} ({})", info.name, info.measure);
        strategies(results, &of_set, &format!("set-{set}"), caption, &more)
    };
    results.datasets.iter().enumerate().map(table).collect()
}

/// The row with the highest mean, and its mean.
fn best(rows: &[Row]) -> Option<(usize, Spread)> {
    let tests = rows.iter().enumerate().filter_map(|(i, row)| Some((i, row.test?)));
    tests.filter(|(_, test)| test.mean.is_finite()).fold(None, |best: Option<(usize, Spread)>, one| match best {
        Some(best) if best.1.mean >= one.1.mean => Some(best),
        _ => Some(one),
    })
}

fn strategies(results: &Results, rows: &[Row], id: &str, caption: String, more: &[String]) -> Table {
    let mut names = columns(&["Strategy", "Test accuracy#", "Against the best, points#", "Validation#"]);
    names.extend(more.iter().map(|name| Column { name: format!("Test {}", words(name)), is_number: true }));
    names.extend(columns(&[
        "Peak memory#",
        "Training a run#",
        "An epoch#",
        "Images a second#",
        "Energy a run#",
        "Trained parameters#",
        "On disk#",
        "Best epoch#",
        "Runs done#",
    ]));
    let best = best(rows);
    let row = |(i, row): (usize, &Row)| {
        let name = results.variants.get(row.variant).map_or("", |variant| variant.name.as_str());
        let means = row.means.as_ref();
        let mut cells = vec![
            Cell::text(name),
            accuracy(results, row, row.test.as_ref(), best.is_some_and(|best| best.0 == i)),
            against(row, best.filter(|best| best.0 != i).map(|best| best.1)),
            accuracy(results, row, row.val.as_ref(), false),
        ];
        cells.extend(more.iter().map(|name| {
            let mean = row.dataset.and_then(|set| mean_of_more(results, set, row.variant, name));
            Cell::or_dash(mean, share_or_number)
        }));
        cells.extend([
            Cell::or_dash((row.done.0 > 0).then_some(row.peak_bytes as f64), bytes),
            Cell::or_dash(means.map(|m| m.train_s), seconds),
            Cell::or_dash(means.map(|m| m.seconds_per_epoch), seconds),
            Cell::or_dash(means.map(|m| m.images_per_s), |value| fixed(value, if value < 100.0 { 1 } else { 0 })),
            Cell::or_dash(means.and_then(|m| m.energy_j), joules),
            Cell::or_dash(means.map(|m| m.trained_parameters), count),
            Cell::or_dash(means.map(|m| m.saved_bytes), bytes),
            Cell::or_dash(means.map(|m| m.best_epoch), |value| fixed(value, 1)),
            done(row),
        ]);
        cells
    };
    Table { id: id.to_owned(), caption, columns: names, rows: rows.iter().enumerate().map(row).collect(), foot: None }
}

/// A mean with its interval, or why there is none.
fn accuracy(results: &Results, row: &Row, test: Option<&Spread>, is_best: bool) -> Cell {
    let Some(test) = test else {
        let why = missing(results, row);
        let tone = if why == "failed" { Tone::Bad } else { Tone::Faint };
        return Cell { text: why, key: None, tone };
    };
    let cell = Cell::number(test.mean, percent_within(test.mean, test.half_width));
    if is_best { Cell { tone: Tone::Best, ..cell } } else { cell }
}

/// How far behind the best, and whether that is more than noise.
fn against(row: &Row, best: Option<Spread>) -> Cell {
    let (Some(test), Some(best)) = (row.test, best) else { return Cell::faint("–") };
    let gap = test.mean - best.mean;
    match stats::difference(&test, &best) {
        Some((_, half)) => {
            let verdict = if gap.abs() > half { "" } else { ", within noise" };
            Cell::number(gap, format!("{} ± {}{verdict}", points(gap), fixed(100.0 * half, 1)))
        }
        None => Cell::number(gap, format!("{}, noise unknown", points(gap))),
    }
}

fn done(row: &Row) -> Cell {
    let cell = Cell::number(row.done.0 as f64, format!("{} of {}", row.done.0, row.done.1));
    let tone = if row.failures.is_empty() { Tone::Plain } else { Tone::Bad };
    Cell { tone, ..cell }
}

/// A row a data set, a column a strategy.
pub fn accuracies(results: &Results) -> Table {
    let rows = summary::by_dataset(results);
    let mut names = columns(&["Data set", "Measure"]);
    names.extend(results.variants.iter().map(|variant| Column { name: variant.name.clone(), is_number: true }));
    let line = |(set, info): (usize, &DatasetInfo)| {
        let of_set: Vec<Row> = rows.iter().filter(|row| row.dataset == Some(set)).cloned().collect();
        let best = best(&of_set);
        let mut cells = vec![Cell::text(&info.name), Cell::text(&info.measure)];
        cells.extend(
            of_set
                .iter()
                .enumerate()
                .map(|(i, row)| accuracy(results, row, row.test.as_ref(), best.is_some_and(|best| best.0 == i))),
        );
        cells
    };
    let foot = (results.datasets.len() > 1).then(|| {
        let all = summary::overall(results);
        let best = self::best(&all);
        let mut cells = vec![Cell::text("mean"), Cell::text("")];
        cells.extend(
            all.iter()
                .enumerate()
                .map(|(i, row)| accuracy(results, row, row.test.as_ref(), best.is_some_and(|best| best.0 == i))),
        );
        cells
    });
    let rows = results.datasets.iter().enumerate().map(line).collect();
    Table { id: "accuracies".into(), caption: "Test accuracy by data set".into(), columns: names, rows, foot }
}
