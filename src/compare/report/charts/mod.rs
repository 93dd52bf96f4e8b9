//! The charts of a report. Each is drawn once; its SVG, its PNG and the one in the page are that drawing.

mod axis;
mod bars;
mod canvas;
pub(super) mod colours;
mod curves;
mod front;
mod text;

use canvas::{Canvas, Drawing};
pub(super) use text::escape;

use crate::Result;
use crate::compare::numbers::{bytes, percent_within};
use crate::compare::results::{Cell, Outcome, Results};
use crate::compare::stats::Spread;
use crate::compare::summary::{self, Row};

/// A chart with its words.
pub(super) struct Chart {
    /// Its files' name, and its id in the page.
    pub name: &'static str,
    pub title: String,
    /// What is drawn and how to read it.
    pub about: String,
    /// Whether it takes the page's whole width.
    pub is_wide: bool,
    drawing: Drawing,
}

impl Chart {
    fn new(name: &'static str, title: &str, about: String, is_wide: bool, canvas: Canvas) -> Self {
        Self { name, title: title.to_owned(), about, is_wide, drawing: canvas.into() }
    }

    /// The file `charts/<name>.svg`.
    pub fn svg(&self) -> String {
        self.drawing.file(&self.title, &self.about)
    }

    /// The drawing inside the page.
    pub fn inline(&self) -> String {
        self.drawing.inline(&format!("chart-{}", self.name), &self.title, &self.about)
    }

    /// The file `charts/<name>.png`.
    pub fn png(&self) -> Result<Vec<u8>> {
        self.drawing.png(&self.title)
    }
}

const BARS: &str = "Bars begin at zero. Dots are single seeds; the line across a bar's end is the 95 % interval of its mean, which takes \
                    two seeds or more.";

/// All charts of a comparison.
pub(super) fn all(results: &Results) -> Vec<Chart> {
    let overall = summary::overall(results);
    let styles = colours::of(results);
    let accuracy = |row: &Row, name: &str, colour| {
        bar(name, colour, row.test.as_ref(), seeds(results, row.dataset, row.variant), missing(results, row))
    };
    let mut charts = Vec::new();
    let of_all = bars::Group {
        heading: None,
        bars: overall.iter().zip(&styles).map(|(row, style)| accuracy(row, &style.name, style.colour)).collect(),
    };
    let (title, over) = match results.datasets.len() {
        1 => ("Test accuracy by strategy", String::new()),
        sets => ("Mean test accuracy by strategy", format!(" Means are over {sets} data sets.")),
    };
    charts.push(Chart::new(
        "accuracy",
        title,
        format!("{BARS}{over}"),
        false,
        bars::draw(&[of_all], 1, "Test accuracy", axis::percent_ticks),
    ));
    charts.push(memory(results, &overall, &styles));
    let note = front::axis_note();
    let about = |cost: &str| {
        format!(
            "{cost} on a logarithmic axis; vertical lines are 95 % intervals; the dashed line is the Pareto front by means: no \
             strategy is both cheaper than one on it and at least as accurate. {note}"
        )
    };
    let points = points(&overall, &styles, |row| row.peak_bytes as f64);
    charts.push(Chart::new(
        "accuracy-memory",
        "Test accuracy against peak memory",
        about("Peak device memory"),
        false,
        front::draw(&points, "Peak device memory", axis::byte_ticks),
    ));
    let points = self::points(&overall, &styles, |row| row.means.as_ref().map_or(0.0, |m| m.trained_parameters));
    charts.push(Chart::new(
        "accuracy-parameters",
        "Test accuracy against trained parameters",
        about("Values that are trained, head included,"),
        false,
        front::draw(&points, "Trained parameters", axis::count_ticks),
    ));
    if results.datasets.len() > 1 {
        let rows = summary::by_dataset(results);
        let groups: Vec<bars::Group> = results
            .datasets
            .iter()
            .enumerate()
            .map(|(set, info)| bars::Group {
                heading: Some(info.name.clone()),
                bars: rows
                    .iter()
                    .filter(|row| row.dataset == Some(set))
                    .zip(&styles)
                    .map(|(row, style)| accuracy(row, &style.name, style.colour))
                    .collect(),
            })
            .collect();
        let drawn = bars::draw(&groups, 2, "Test accuracy", axis::percent_ticks);
        charts.push(Chart::new(
            "accuracy-by-dataset",
            "Test accuracy by data set and strategy",
            BARS.into(),
            true,
            drawn,
        ));
    }
    charts.push(Chart::new(
        "curves",
        "Validation accuracy over epochs",
        "Mean over seeds, as far as all of them trained; the band is from the lowest seed to the highest. Each panel has its own \
         accuracy axis, which does not begin at zero."
            .into(),
        true,
        curves::draw(results),
    ));
    charts
}

fn bar(name: &str, colour: &'static str, test: Option<&Spread>, dots: Vec<f64>, missing: String) -> bars::Bar {
    bars::Bar {
        name: name.to_owned(),
        colour,
        value: test.map(|test| test.mean),
        half_width: test.and_then(|test| test.half_width),
        dots,
        label: test.map_or(missing, |test| percent_within(test.mean, test.half_width)),
    }
}

fn memory(results: &Results, overall: &[Row], styles: &[colours::Style]) -> Chart {
    let bars = overall.iter().zip(styles).map(|(row, style)| {
        let value = (row.done.0 > 0).then_some(row.peak_bytes as f64);
        bars::Bar {
            name: style.name.clone(),
            colour: style.colour,
            value,
            half_width: None,
            dots: Vec::new(),
            label: value.map_or(missing(results, row), bytes),
        }
    });
    let groups = [bars::Group { heading: None, bars: bars.collect() }];
    let largest = overall.iter().map(|row| row.peak_bytes).max().unwrap_or(0);
    // The axis in the unit of its largest value, in round numbers of that.
    let (unit, name) = if largest >= 1 << 30 { (f64::from(1 << 30), "GiB") } else { (f64::from(1 << 20), "MiB") };
    let scaled: Vec<bars::Group> = groups
        .into_iter()
        .map(|mut group| {
            group.bars.iter_mut().for_each(|bar| bar.value = bar.value.map(|value| value / unit));
            group
        })
        .collect();
    let words = |ticks: &[f64]| ticks.iter().map(|&tick| (tick, plain(tick))).collect();
    let drawn = bars::draw(&scaled, 1, &format!("Peak device memory in {name}"), words);
    let about = "The most bytes of the device in use at once in any run of the strategy. Bars begin at zero.";
    Chart::new("memory", "Peak device memory by strategy", about.into(), false, drawn)
}

/// A tick without needless zeros.
fn plain(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Accuracy of single seeds: on a data set, or of seeds that are done on all of them their means.
fn seeds(results: &Results, dataset: Option<usize>, variant: usize) -> Vec<f64> {
    let seed = |&seed: &u64| {
        let sets: Vec<usize> = dataset.map_or((0..results.datasets.len()).collect(), |set| vec![set]);
        let values: Option<Vec<f64>> = sets
            .iter()
            .map(|&set| results.done(set, variant).find(|run| run.0 == seed).map(|run| run.1.test_accuracy))
            .collect();
        values.and_then(Spread::of).map(|spread| spread.mean)
    };
    results.protocol.seeds.iter().filter_map(seed).collect()
}

/// Why there is no number: runs to come, or failed ones.
pub(super) fn missing(results: &Results, row: &Row) -> String {
    let of = |cell: &&Cell| cell.variant == row.variant && row.dataset.is_none_or(|set| cell.dataset == set);
    let is_pending = results.cells.iter().filter(of).any(|cell| matches!(cell.outcome, Outcome::Pending));
    match (is_pending, row.done.0) {
        (true, _) => "not yet".to_owned(),
        (false, 0) => "failed".to_owned(),
        (false, _) => "no seed finished on every data set".to_owned(),
    }
}

fn points(overall: &[Row], styles: &[colours::Style], cost: impl Fn(&Row) -> f64) -> Vec<front::Point> {
    let point = |(row, style): (&Row, &colours::Style)| {
        let test = row.test.filter(|test| test.mean.is_finite())?;
        Some(front::Point {
            name: style.name.clone(),
            colour: style.colour,
            cost: cost(row),
            value: test.mean,
            half_width: test.half_width,
        })
    };
    overall.iter().zip(styles).filter_map(point).collect()
}
