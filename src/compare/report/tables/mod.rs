//! The tables of a report, as rows of cells that the page and the Markdown are both made of.

mod cells;
mod published;
mod settings;
mod strategies;

pub(super) use cells::{datasets, runs, tuning};
pub(super) use published::{published, unmatched};
pub(super) use settings::{flattened, protocol, settings};
pub(super) use strategies::{accuracies, by_dataset, overall};

use crate::compare::numbers::{fixed, percent};
use crate::compare::results::{Cell as Run, Outcome, Results};
use crate::compare::stats::Spread;

/// A table with its heading.
pub(super) struct Table {
    /// Its id in the page.
    pub id: String,
    pub caption: String,
    pub columns: Vec<Column>,
    pub rows: Vec<Vec<Cell>>,
    /// A row that stays last, whatever the others are sorted by.
    pub foot: Option<Vec<Cell>>,
}

/// A column.
pub(super) struct Column {
    pub name: String,
    /// Numbers stand to the right.
    pub is_number: bool,
}

/// A cell.
#[derive(Default)]
pub(super) struct Cell {
    pub text: String,
    /// What it is sorted by, where that is a number.
    pub key: Option<f64>,
    pub tone: Tone,
}

/// How a cell stands out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tone {
    #[default]
    Plain,
    /// The highest mean of its column.
    Best,
    /// No number, or one that says little.
    Faint,
    /// A failure.
    Bad,
}

impl Cell {
    /// Words.
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    /// A number as it is shown.
    pub fn number(value: f64, text: impl Into<String>) -> Self {
        Self { text: text.into(), key: value.is_finite().then_some(value), tone: Tone::Plain }
    }

    /// What stands where there is no number.
    pub fn faint(text: impl Into<String>) -> Self {
        Self { text: text.into(), key: None, tone: Tone::Faint }
    }

    /// A number, or a dash.
    pub fn or_dash(value: Option<f64>, shown: impl Fn(f64) -> String) -> Self {
        value.map_or_else(|| Self::faint("–"), |value| Self::number(value, shown(value)))
    }
}

/// Columns from names; those that end in `#` hold numbers.
fn columns(names: &[&str]) -> Vec<Column> {
    let column = |name: &&str| Column { name: name.trim_end_matches('#').to_owned(), is_number: name.ends_with('#') };
    names.iter().map(column).collect()
}

/// What stands in columns of its own already: the accuracy by its task's name, and the number of images.
const SHOWN: [&str; 4] = ["images", "top1", "map_macro", "path_accuracy"];

/// The task's other measures, by name in the order in which they come.
pub(super) fn more_measures<'a>(runs: impl Iterator<Item = &'a Run>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for measured in runs.filter_map(|run| run.outcome.measured()) {
        for (name, value) in &measured.test_more {
            if value.is_number() && !names.contains(name) && !SHOWN.contains(&name.as_str()) {
                names.push(name.clone());
            }
        }
    }
    names
}

/// `macro_f1` as `macro f1`.
fn words(name: &str) -> String {
    name.replace('_', " ")
}

/// Mean of a measure over a variant's finished runs on a data set.
fn mean_of_more(results: &Results, set: usize, variant: usize, name: &str) -> Option<f64> {
    let values = results.done(set, variant).filter_map(|(_, measured)| measured.test_more.get(name)?.as_f64());
    Spread::of(values).map(|spread| spread.mean)
}

/// A share in per cent where it can be one, else the bare number.
fn share_or_number(value: f64) -> String {
    if (0.0..=1.0).contains(&value) { percent(value) } else { fixed(value, 4) }
}

/// A run's state in a word.
pub(super) fn state(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Pending => "pending",
        Outcome::Done(_) => "done",
        Outcome::Failed { .. } => "failed",
    }
}
