//! What is seen of a comparison while it runs: the table so far, what is left, and the run under way; without a terminal a line a run.

use std::time::Instant;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::results::{Cell, Outcome, Results};
use super::stats::Spread;
use super::summary::{self, Row};
use crate::train::Ui;

/// With more rows than this the table is that over all data sets.
const MOST_ROWS: usize = 16;

/// The view.
pub struct Live {
    ui: Ui,
    all: MultiProgress,
    /// The table's lines, none without a terminal.
    lines: Vec<ProgressBar>,
    total: Option<ProgressBar>,
    begun: Instant,
    /// Seconds of runs that this process did, and how many it has to do.
    spent: Vec<(usize, usize, f64)>,
}

impl Live {
    /// An empty view of these results.
    pub fn new(ui: &Ui, results: &Results) -> Self {
        let mut live = Self {
            ui: ui.clone(),
            all: MultiProgress::with_draw_target(ProgressDrawTarget::stderr()),
            lines: Vec::new(),
            total: None,
            begun: Instant::now(),
            spent: Vec::new(),
        };
        if ui.is_terminal && !ui.quiet {
            let plain = ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
            for _ in 0..=rows(results).len() {
                live.lines.push(live.all.add(ProgressBar::new(1).with_style(plain.clone())));
            }
            let bar = live.all.add(ProgressBar::new(results.cells.len() as u64));
            if let Ok(style) = ProgressStyle::with_template("runs {wide_bar} {pos}/{len} {msg}") {
                bar.set_style(style);
            }
            live.total = Some(bar);
            live.show(results);
        }
        live
    }

    /// Where the run of a cell is shown.
    pub fn of(&self, label: &str) -> Ui {
        self.ui.part(label, &self.all)
    }

    /// A cell is over, `seconds` after it began.
    pub fn done(&mut self, results: &Results, index: usize, seconds: f64) {
        let cell = &results.cells[index];
        self.spent.push((cell.dataset, cell.variant, seconds));
        self.show(results);
        if self.total.is_none() {
            let count = results.cells.iter().filter(|cell| !matches!(cell.outcome, Outcome::Pending)).count();
            let left = self.left(results).map_or(String::new(), |left| format!("; {left}"));
            self.ui.note(&format!(
                "[{count}/{}] {}: {}{left}",
                results.cells.len(),
                name(results, cell),
                outcome(cell)
            ));
        }
    }

    /// Ends the view.
    pub fn finish(&self) {
        self.lines.iter().chain(&self.total).for_each(ProgressBar::finish_and_clear);
    }

    fn show(&self, results: &Results) {
        let Some(total) = &self.total else { return };
        let rows = rows(results);
        let texts = std::iter::once(head()).chain(rows.iter().map(|row| line(results, row)));
        self.lines.iter().zip(texts).for_each(|(line, text)| line.set_message(text));
        let done = results.cells.iter().filter(|cell| !matches!(cell.outcome, Outcome::Pending)).count();
        total.set_position(done as u64);
        total.set_message(self.left(results).unwrap_or_default());
    }

    /// How long the rest may take, in words: by the runs of the same kind that were seen, else of the same data set, else of any.
    fn left(&self, results: &Results) -> Option<String> {
        if self.spent.is_empty() {
            return None;
        }
        let mean = |like: &dyn Fn(&(usize, usize, f64)) -> bool| {
            Spread::of(self.spent.iter().filter(|seen| like(seen)).map(|seen| seen.2)).map(|spread| spread.mean)
        };
        let of = |cell: &Cell| {
            mean(&|seen| (seen.0, seen.1) == (cell.dataset, cell.variant))
                .or_else(|| mean(&|seen| seen.0 == cell.dataset))
                .or_else(|| mean(&|_| true))
                .unwrap_or(0.0)
        };
        let gone = format!("{} gone", duration(self.begun.elapsed().as_secs_f64()));
        let pending: Vec<f64> =
            results.cells.iter().filter(|cell| matches!(cell.outcome, Outcome::Pending)).map(of).collect();
        if pending.is_empty() {
            return Some(gone);
        }
        Some(format!("{gone}, about {} left", duration(pending.iter().sum())))
    }
}

/// `birds dora, seed 2`.
pub fn name(results: &Results, cell: &Cell) -> String {
    let (set, variant) = (&results.datasets[cell.dataset].name, &results.variants[cell.variant].name);
    format!("{set} {variant}, seed {}", cell.seed)
}

fn outcome(cell: &Cell) -> String {
    match &cell.outcome {
        Outcome::Pending => "not done".to_owned(),
        Outcome::Failed { reason } => format!("failed: {reason}"),
        Outcome::Done(measured) => format!(
            "test {:.1} % (validation {:.1} %, epoch {}), {:.0} MiB, {}",
            100.0 * measured.test_accuracy,
            100.0 * measured.val_accuracy,
            measured.best_epoch,
            measured.peak_bytes as f64 / (1 << 20) as f64,
            duration(measured.wall_s)
        ),
    }
}

fn rows(results: &Results) -> Vec<Row> {
    let each = summary::by_dataset(results);
    if each.len() > MOST_ROWS { summary::overall(results) } else { each }
}

fn head() -> String {
    format!("{:<24} {:<10} {:>6} {:>16} {:>10} {:>9}", "data", "strategy", "runs", "test accuracy", "peak", "epoch")
}

fn line(results: &Results, row: &Row) -> String {
    let set = row.dataset.map_or("all", |set| &results.datasets[set].name);
    let set: String = set.chars().take(24).collect();
    let variant = &results.variants[row.variant].name;
    let runs = format!("{}/{}", row.done.0, row.done.1);
    let test = row.test.map_or("-".to_owned(), |test| match test.count {
        1 => format!("{:.1} %", 100.0 * test.mean),
        _ => format!("{:.1} % sd {:.1}", 100.0 * test.mean, 100.0 * test.sd),
    });
    let (peak, epoch) = match &row.means {
        Some(means) => {
            let mib = row.peak_bytes as f64 / (1 << 20) as f64;
            (format!("{mib:.0} MiB"), format!("{:.2} s", means.seconds_per_epoch))
        }
        None => ("-".to_owned(), "-".to_owned()),
    };
    let failed = if row.failures.is_empty() { "" } else { "  failed" };
    format!("{set:<24} {variant:<10} {runs:>6} {test:>16} {peak:>10} {epoch:>9}{failed}")
}

/// Seconds as people say them.
fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 9.95 => format!("{s:.1} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::example::results;

    #[test]
    fn lines_and_what_is_left() {
        let mut results = results();
        let mut live = Live::new(&Ui::silent(), &results);
        assert_eq!(live.left(&results), None);
        live.done(&results, 0, 100.0);
        assert!(live.left(&results).unwrap().ends_with("s gone"));
        // Two runs like the one that was seen, and one of another kind.
        for cell in [1, 2, 12] {
            results.cells[cell].outcome = Outcome::Pending;
        }
        assert!(live.left(&results).unwrap().ends_with("about 5 min left"));
        let rows = rows(&results);
        assert_eq!(rows.len(), 8);
        let first = line(&results, &rows[0]);
        assert!(first.contains("birds") && first.contains("1/3") && first.contains("60.0 %"), "{first}");
        assert!(line(&results, &rows[4]).contains("failed"));
        assert!(outcome(&results.cells[14]).starts_with("failed: no GPU memory"));
    }
}
