//! What belongs beside a recommendation: runs to come, data sets that say otherwise, failures, how sure it is, and what was published.

use super::Candidate;
use crate::compare::numbers::{gap, list, percent, percent_within, plural};
use crate::compare::published::Published;
use crate::compare::results::{DatasetInfo, Outcome, Results};
use crate::compare::stats::{self, Spread};
use crate::compare::summary::{self, Row};
use crate::config::Task;

/// How many runs there are numbers of, while some are to come.
pub fn progress(results: &Results) -> Option<String> {
    let count = |wanted: fn(&Outcome) -> bool| results.cells.iter().filter(|cell| wanted(&cell.outcome)).count();
    let pending = count(|outcome| matches!(outcome, Outcome::Pending));
    let done = count(|outcome| outcome.measured().is_some());
    (pending > 0).then(|| {
        format!(
            "{done} of {} are done and {pending} are still to come: all that follows is of those and may change.",
            plural(results.cells.len(), "run")
        )
    })
}

/// Data sets whose best is not the best over all.
pub fn by_dataset(results: &Results, best: Option<usize>) -> Vec<String> {
    if results.datasets.len() < 2 {
        return Vec::new();
    }
    let rows = summary::by_dataset(results);
    let name = |row: &Row| results.variants.get(row.variant).map_or("", |variant| variant.name.as_str());
    let said = |test: &Spread| percent_within(test.mean, test.half_width);
    let of_set = |(set, info): (usize, &DatasetInfo)| {
        let of = rows.iter().filter(|row| row.dataset == Some(set));
        let mut ranked: Vec<(&Row, Spread)> =
            of.filter_map(|row| Some((row, row.test.filter(|test| test.mean.is_finite())?))).collect();
        ranked.sort_by(|a, b| b.1.mean.total_cmp(&a.1.mean));
        let (winner, test) = *ranked.first()?;
        if Some(winner.variant) == best {
            return None;
        }
        let head = format!("On {} {} has the highest mean, {}", info.name, name(winner), said(&test));
        let Some((row, general)) = ranked.iter().find(|(row, _)| Some(row.variant) == best) else {
            return Some(format!("{head}."));
        };
        let name = name(row);
        Some(match stats::differ(&test, general) {
            Some(true) => format!("{head}, ahead of {name} by {}, more than the noise.", gap(test.mean - general.mean)),
            Some(false) => format!("{head}, but {name} ({}) is within its noise.", said(general)),
            None => format!("{head}; {name} has {}. The noise is unknown.", said(general)),
        })
    };
    results.datasets.iter().enumerate().filter_map(of_set).collect()
}

/// Which runs failed, and why.
pub fn failures(results: &Results) -> Vec<String> {
    let of_row = |row: &Row| {
        let cells = results.cells.iter().filter(|cell| cell.variant == row.variant);
        let failed = cells.filter(|cell| matches!(cell.outcome, Outcome::Failed { .. })).count();
        let name = &results.variants.get(row.variant)?.name;
        let after = match row.done.0 {
            0 => "",
            _ => " Its numbers are of the runs that finished.",
        };
        (failed > 0).then(|| {
            let reasons: Vec<&str> = row.failures.iter().map(|reason| reason.trim_end_matches('.')).collect();
            format!("{name}: {failed} of {} failed ({}).{after}", plural(row.done.1, "run"), reasons.join("; "))
        })
    };
    summary::overall(results).iter().filter_map(of_row).collect()
}

/// Whether runs were done on more than one device.
pub fn has_several_devices(results: &Results) -> bool {
    let mut devices = results.cells.iter().filter_map(|cell| Some(&cell.outcome.measured()?.device));
    let first = devices.next();
    devices.any(|device| Some(device) != first)
}

/// What the intervals are, what they leave out, and how large the error of the test images themselves is.
pub fn noise(results: &Results, candidates: &[Candidate]) -> Vec<String> {
    let mut texts = Vec::new();
    let seeds = results.protocol.seeds.len();
    if seeds < 2 {
        texts.push(
            "There is one seed, so the noise between seeds is unknown and no difference is known to exceed it. Two seeds give \
             an interval, three or more a useful one."
                .to_owned(),
        );
    } else if candidates.len() > 1 {
        texts.push(format!(
            "Intervals (±) are Student's 95 % over {seeds} seeds; two means differ by more than the noise where Welch's 95 % \
             interval of their difference leaves out zero, each pair for itself. Within the noise does not mean equal: these seeds \
             cannot tell."
        ));
    }
    if has_several_devices(results) {
        texts.push("Runs were done on several devices, so memory, time and energy do not compare, and numbers may differ in the last digits.".to_owned());
    }
    texts.extend(sampling(results));
    texts
}

/// Standard errors of shares of test images. A mean average precision is no such share.
fn sampling(results: &Results) -> Option<String> {
    let mut errors: Vec<(&DatasetInfo, f64)> = Vec::new();
    for (set, info) in results.datasets.iter().enumerate() {
        let rows = (0..results.variants.len()).flat_map(|variant| results.done(set, variant));
        let Some(mean) = Spread::of(rows.map(|(_, measured)| measured.test_accuracy)) else { continue };
        let p = mean.mean;
        if info.task != Task::Multilabel && info.test > 0 && (0.0..=1.0).contains(&p) {
            errors.push((info, (p * (1.0 - p) / info.test as f64).sqrt()));
        }
    }
    let said = |&(info, error): &(&DatasetInfo, f64)| {
        format!("{} in {} ({})", gap(error), info.name, plural(info.test, "image"))
    };
    let each = match errors.len() {
        0 => return None,
        1..=3 => list(&errors.iter().map(said).collect::<Vec<_>>()),
        _ => {
            errors.sort_by(|a, b| a.1.total_cmp(&b.1));
            let ends: Vec<String> = errors.first().into_iter().chain(errors.last()).map(said).collect();
            ends.join(" to ")
        }
    };
    Some(format!(
        "The test images are a sample as well: an accuracy measured on them has a standard error of about {each}. All strategies \
         share it, as they are tested on the same images; no interval here holds it."
    ))
}

/// Where the order of strategies is another than the published one, by more than the noise.
pub fn against(results: &Results, candidates: &[Candidate], published: &Published) -> Option<String> {
    let strategy = |one: &Candidate| results.variants.get(one.variant).map(|variant| variant.strategy);
    let row = |one: &Candidate| strategy(one).and_then(|strategy| published.row(strategy));
    // Of several ranks the best one stands for its strategy.
    let mut first: Vec<&Candidate> = Vec::new();
    for one in candidates {
        if row(one).is_some() && !first.iter().any(|other| strategy(other) == strategy(one)) {
            first.push(one);
        }
    }
    if first.len() < 2 {
        return None;
    }
    let mut reversed = Vec::new();
    for (i, better) in first.iter().enumerate() {
        for worse in &first[i + 1..] {
            let (Some(a), Some(b)) = (row(better), row(worse)) else { continue };
            if stats::differ(&better.test, &worse.test) == Some(true) && a.mean() < b.mean() {
                reversed.push(format!("{} is ahead of {}", better.name, worse.name));
            }
        }
    }
    let mut order: Vec<_> = published.rows.iter().collect();
    order.sort_by(|a, b| b.mean().total_cmp(&a.mean()));
    let order: Vec<String> = order.iter().map(|row| format!("{} {}", row.name, percent(row.mean() / 100.0))).collect();
    let here = results.datasets.iter().filter(|set| published.dataset(&set.name).is_some()).count();
    let sets = format!("Data sets here that it has too: {here} of {}.", results.datasets.len());
    let verdict = if reversed.is_empty() {
        "No difference here that exceeds the noise is against that order.".to_owned()
    } else {
        format!("Here, against that order and by more than the noise, {}.", list(&reversed))
    };
    Some(format!("Order of the published means ({}): {}. {verdict} {sets}", published.name, order.join(", ")))
}
