//! What more memory and more time buy: stairs, each step better than the one before by more than the noise.

use super::Candidate;
use crate::compare::numbers::{bytes, fixed, gap, list, percent, seconds};
use crate::compare::results::Results;
use crate::compare::stats;

/// The stairs over a cost: the cheapest first, then each that is better than the step before it. With spreads unknown (one seed) a higher mean
/// is a step; the sentence says so.
fn stairs<'a, 'b>(candidates: &'b [Candidate<'a>], cost: impl Fn(&Candidate) -> f64) -> Vec<&'b Candidate<'a>> {
    let mut sorted: Vec<&Candidate> = candidates.iter().filter(|one| one.failed == 0).collect();
    // Of equal cost the better one first.
    sorted.sort_by(|a, b| cost(a).total_cmp(&cost(b)).then(b.test.mean.total_cmp(&a.test.mean)));
    let mut steps: Vec<&Candidate> = Vec::new();
    for one in sorted {
        let is_step = steps
            .last()
            .is_none_or(|last| one.test.mean > last.test.mean && stats::differ(&one.test, &last.test) != Some(false));
        if is_step {
            steps.push(one);
        }
    }
    steps
}

/// Whether any comparison among these lacks a spread.
fn lacks_spread(candidates: &[Candidate]) -> bool {
    candidates.iter().any(|one| one.failed == 0 && one.test.count < 2)
}

const BY_MEANS: &str = " This goes by the means alone: with one seed the noise is unknown.";

/// The best within the budget, or where none is given the limits at which the choice changes.
pub fn by_memory(results: &Results, candidates: &[Candidate]) -> Option<String> {
    let mut text = match results.protocol.memory_budget {
        Some(budget) => within_budget(candidates, budget)?,
        None => {
            let steps = stairs(candidates, |one| one.peak_bytes as f64);
            let (first, rest) = steps.split_first()?;
            let mut text = format!(
                "The least: {}, {} for {}.",
                first.name,
                bytes(first.peak_bytes as f64),
                percent(first.test.mean)
            );
            if rest.is_empty() && candidates.len() == 1 {
                return Some(text);
            }
            let mut last = *first;
            for &step in rest {
                text += &format!(
                    " From {} on: {}, {} more.",
                    bytes(step.peak_bytes as f64),
                    step.name,
                    gap(step.test.mean - last.test.mean)
                );
                last = step;
            }
            text + nothing_more(candidates, last, "memory", |one| one.peak_bytes as f64)
        }
    };
    if lacks_spread(candidates) && candidates.len() > 1 {
        text += BY_MEANS;
    }
    Some(text)
}

fn nothing_more(
    candidates: &[Candidate],
    last: &Candidate,
    what: &str,
    cost: impl Fn(&Candidate) -> f64,
) -> &'static str {
    let is_more = candidates.iter().any(|one| one.failed == 0 && cost(one) > cost(last));
    match (is_more, what) {
        (false, _) => "",
        (true, "memory") => " More memory than that buys nothing that can be told from noise.",
        (true, _) => " More time than that buys nothing that can be told from noise.",
    }
}

fn within_budget(candidates: &[Candidate], budget: u64) -> Option<String> {
    let said = bytes(budget as f64);
    let sound: Vec<&Candidate> = candidates.iter().filter(|one| one.failed == 0).collect();
    if sound.is_empty() {
        return None;
    }
    let (fitting, over): (Vec<&Candidate>, Vec<&Candidate>) =
        sound.into_iter().partition(|one| one.peak_bytes <= budget);
    let sized = |of: &[&Candidate]| {
        let each: Vec<String> =
            of.iter().map(|one| format!("{} ({})", one.name, bytes(one.peak_bytes as f64))).collect();
        list(&each)
    };
    let Some((best, others)) = fitting.split_first() else {
        return Some(format!("No strategy stayed within the budget of {said}: {}.", sized(&over)));
    };
    let mut text = format!(
        "Within the budget of {said} the best is {}, {} in {}.",
        best.name,
        percent(best.test.mean),
        bytes(best.peak_bytes as f64)
    );
    let equal: Vec<&Candidate> =
        others.iter().copied().filter(|other| stats::differ(&best.test, &other.test) == Some(false)).collect();
    if !equal.is_empty() {
        text += &format!(" Within the noise of it: {}.", sized(&equal));
    }
    if !over.is_empty() {
        text += &format!(" Over the budget: {}.", sized(&over));
    }
    Some(text)
}

/// What more training time buys.
pub fn by_time(candidates: &[Candidate]) -> Option<String> {
    let steps = stairs(candidates, |one| one.train_s);
    let (first, rest) = steps.split_first()?;
    let mut text =
        format!("The quickest: {}, {} a run for {}.", first.name, seconds(first.train_s), percent(first.test.mean));
    let mut last = *first;
    for &step in rest {
        let (more, gained) = (step.train_s - last.train_s, step.test.mean - last.test.mean);
        // A gain a minute of what takes seconds would be a number that nobody can have.
        let rate = if more >= 60.0 {
            format!(", {} points a minute", fixed(100.0 * gained * 60.0 / more, 2))
        } else {
            String::new()
        };
        text += &format!(" Then {}: {} more for {} more{rate}.", step.name, seconds(more), gap(gained));
        last = step;
    }
    if candidates.len() > 1 {
        text += nothing_more(candidates, last, "time", |one| one.train_s);
        if lacks_spread(candidates) {
            text += BY_MEANS;
        }
    }
    let left_out: Vec<&str> = candidates.iter().filter(|one| one.failed > 0).map(|one| one.name).collect();
    if !left_out.is_empty() {
        text += &format!(" Left out here and under memory, because runs failed: {}.", list(&left_out));
    }
    text += " Time is the mean over runs of their seconds of training steps, without validation, reading and saving.";
    Some(text)
}
