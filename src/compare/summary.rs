//! From cells to rows: each variant on each data set, and over all of them.

use serde::Serialize;

use super::results::{Measured, Outcome, Results};
use super::stats::Spread;

/// A variant on one data set, or over all of them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Index into [`Results::datasets`]; none: over all of them.
    pub dataset: Option<usize>,
    /// Index into [`Results::variants`].
    pub variant: usize,
    /// Test accuracy over seeds; over all data sets that of each seed's mean over them. None where no seed is done (over all: of no seed everything).
    pub test: Option<Spread>,
    /// Validation accuracy of the best epochs, in the same way.
    pub val: Option<Spread>,
    /// Most device memory of any of its runs, in bytes; 0 where none is done.
    pub peak_bytes: u64,
    /// Means over its finished runs of the rest; none where none is done.
    pub means: Option<Means>,
    /// Runs done, and all of them.
    pub done: (usize, usize),
    /// Why runs failed, each reason once.
    pub failures: Vec<String>,
}

/// Means over runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Means {
    /// Seconds of training steps an epoch.
    pub seconds_per_epoch: f64,
    /// Seconds of training steps altogether.
    pub train_s: f64,
    /// Training images a second.
    pub images_per_s: f64,
    /// Joules; none where a run has none.
    pub energy_j: Option<f64>,
    /// Best epoch.
    pub best_epoch: f64,
    /// Values that were trained.
    pub trained_parameters: f64,
    /// Bytes on disk of what a run leaves.
    pub saved_bytes: f64,
}

/// A row a data set and variant, data sets outermost.
pub fn by_dataset(results: &Results) -> Vec<Row> {
    let sets = 0..results.datasets.len();
    sets.flat_map(|set| (0..results.variants.len()).map(move |variant| row(results, Some(set), variant))).collect()
}

/// A row a variant over all data sets.
pub fn overall(results: &Results) -> Vec<Row> {
    (0..results.variants.len()).map(|variant| row(results, None, variant)).collect()
}

fn row(results: &Results, dataset: Option<usize>, variant: usize) -> Row {
    let cells: Vec<_> = results
        .cells
        .iter()
        .filter(|cell| cell.variant == variant && dataset.is_none_or(|set| cell.dataset == set))
        .collect();
    let done: Vec<(u64, &Measured)> =
        cells.iter().filter_map(|cell| Some((cell.seed, cell.outcome.measured()?))).collect();
    // Over data sets a seed counts where it is done on all of them: a mean that lacks the hard ones would flatter.
    let needed = if dataset.is_some() { 1 } else { results.datasets.len() };
    let spread = |of: fn(&Measured) -> f64| {
        let seeds = results.protocol.seeds.iter().filter_map(|&seed| {
            let values: Vec<f64> = done.iter().filter(|cell| cell.0 == seed).map(|cell| of(cell.1)).collect();
            (values.len() == needed).then(|| values.iter().sum::<f64>() / needed as f64)
        });
        Spread::of(seeds)
    };
    let mut failures: Vec<String> = Vec::new();
    for cell in &cells {
        if let Outcome::Failed { reason } = &cell.outcome
            && !failures.contains(reason)
        {
            failures.push(reason.clone());
        }
    }
    Row {
        dataset,
        variant,
        test: spread(|measured| measured.test_accuracy),
        val: spread(|measured| measured.val_accuracy),
        peak_bytes: done.iter().map(|cell| cell.1.peak_bytes).max().unwrap_or(0),
        means: means(&done),
        done: (done.len(), cells.len()),
        failures,
    }
}

fn means(done: &[(u64, &Measured)]) -> Option<Means> {
    let mean = |of: fn(&Measured) -> f64| Spread::of(done.iter().map(|cell| of(cell.1))).map(|spread| spread.mean);
    let energy: Option<Vec<f64>> = done.iter().map(|cell| cell.1.energy_j).collect();
    Some(Means {
        seconds_per_epoch: mean(|m| m.seconds_per_epoch)?,
        train_s: mean(|m| m.train_s)?,
        images_per_s: mean(|m| m.images_per_s)?,
        energy_j: energy.and_then(Spread::of).map(|spread| spread.mean),
        best_epoch: mean(|m| m.best_epoch as f64)?,
        trained_parameters: mean(|m| m.trained_parameters as f64)?,
        saved_bytes: mean(|m| m.saved_bytes as f64)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::example::results;

    #[test]
    fn rows_of_a_small_comparison() {
        let results = results();
        let rows = by_dataset(&results);
        assert_eq!(rows.len(), results.datasets.len() * results.variants.len());
        for row in &rows {
            let cells: Vec<f64> =
                results.done(row.dataset.unwrap(), row.variant).map(|(_, m)| m.test_accuracy).collect();
            assert_eq!(row.done.0, cells.len());
            assert_eq!(row.test, Spread::of(cells));
        }
        // The example's one failed cell: its seed is no part of the mean over data sets.
        let all = overall(&results);
        let lacking = all.iter().find(|row| !row.failures.is_empty()).expect("a failure");
        assert_eq!(lacking.test.map(|spread| spread.count), Some(results.protocol.seeds.len() - 1));
        assert_eq!(lacking.done, (results.datasets.len() * results.protocol.seeds.len() - 1, 6));
    }
}
