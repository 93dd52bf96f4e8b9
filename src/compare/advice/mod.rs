//! What to choose, said in sentences that are computed from the numbers, and never of a difference that the seeds' noise covers.

mod choice;
mod notes;
#[cfg(test)]
mod tests;

use serde::Serialize;

use super::numbers::{bytes, gap, list, percent_within, plural, seconds};
use super::published::Published;
use super::results::{Outcome, Results};
use super::stats::{self, Spread};
use super::summary::{self, Row};

/// The recommendation, most important sentence first.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Advice {
    /// Its sentences.
    pub sentences: Vec<Sentence>,
}

/// A sentence or a few about one thing.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sentence {
    /// What it is about.
    pub about: About,
    /// Plain text.
    pub text: String,
}

/// What a sentence is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum About {
    /// Runs that are still to come.
    Progress,
    /// The best accuracy, and what cannot be told from it.
    Best,
    /// The best choice by memory.
    Memory,
    /// What more training time buys.
    Time,
    /// A data set where another strategy is ahead.
    Dataset,
    /// Runs that failed.
    Failure,
    /// How sure all this is.
    Noise,
    /// Published results.
    Published,
}

impl About {
    /// A heading of one or two words.
    pub fn heading(self) -> &'static str {
        match self {
            Self::Progress => "Under way",
            Self::Best => "Accuracy",
            Self::Memory => "Memory",
            Self::Time => "Training time",
            Self::Dataset => "By data set",
            Self::Failure => "Failures",
            Self::Noise => "How sure",
            Self::Published => "Published",
        }
    }
}

impl Advice {
    /// Sentences under one heading each, in order.
    pub fn grouped(&self) -> Vec<(About, Vec<&str>)> {
        let mut groups: Vec<(About, Vec<&str>)> = Vec::new();
        for sentence in &self.sentences {
            match groups.last_mut() {
                Some((about, texts)) if *about == sentence.about => texts.push(&sentence.text),
                _ => groups.push((sentence.about, vec![&sentence.text])),
            }
        }
        groups
    }
}

/// A variant that has a mean over all data sets, so that it can be ranked.
struct Candidate<'a> {
    variant: usize,
    name: &'a str,
    test: Spread,
    peak_bytes: u64,
    train_s: f64,
    /// Runs that failed: its means lack them, and what they would have needed is not known.
    failed: usize,
}

impl<'a> Candidate<'a> {
    fn of(results: &'a Results, row: &Row) -> Option<Self> {
        let test = row.test.filter(|test| test.mean.is_finite())?;
        let failed = |cell: &&super::results::Cell| {
            cell.variant == row.variant && matches!(cell.outcome, Outcome::Failed { .. })
        };
        Some(Self {
            variant: row.variant,
            name: &results.variants.get(row.variant)?.name,
            test,
            peak_bytes: row.peak_bytes,
            train_s: row.means.as_ref()?.train_s,
            failed: results.cells.iter().filter(failed).count(),
        })
    }

    /// `71.0 % ± 2.5`.
    fn accuracy(&self) -> String {
        percent_within(self.test.mean, self.test.half_width)
    }
}

/// What the numbers say; `against` adds what a published table says of the same order.
pub fn of(results: &Results, against: Option<&Published>) -> Advice {
    let rows = summary::overall(results);
    let mut candidates: Vec<Candidate> = rows.iter().filter_map(|row| Candidate::of(results, row)).collect();
    // The sort is stable: equals stay in the order given.
    candidates.sort_by(|a, b| b.test.mean.total_cmp(&a.test.mean));
    let mut sentences = Vec::new();
    let mut say = |about, text: Option<String>| sentences.extend(text.map(|text| Sentence { about, text }));
    say(About::Progress, notes::progress(results));
    for text in best(results, &candidates) {
        say(About::Best, Some(text));
    }
    // Memory and time of one device say nothing of another's.
    if !notes::has_several_devices(results) {
        say(About::Memory, choice::by_memory(results, &candidates));
        say(About::Time, choice::by_time(&candidates));
    }
    for text in notes::by_dataset(results, candidates.first().map(|best| best.variant)) {
        say(About::Dataset, Some(text));
    }
    for text in notes::failures(results) {
        say(About::Failure, Some(text));
    }
    for text in notes::noise(results, &candidates) {
        say(About::Noise, Some(text));
    }
    say(About::Published, against.and_then(|published| notes::against(results, &candidates, published)));
    Advice { sentences }
}

/// What accuracy is called: the measure where all data sets share one.
fn measure(results: &Results) -> String {
    let over = match results.datasets.len() {
        1 => String::new(),
        sets => format!(" over {sets} data sets"),
    };
    let mean = if results.datasets.len() == 1 { "test accuracy" } else { "mean test accuracy" };
    match results.datasets.split_first() {
        Some((first, rest)) if rest.iter().all(|set| set.measure == first.measure) => {
            format!("{mean} ({}){over}", first.measure)
        }
        _ => format!("{mean}{over}"),
    }
}

/// The best accuracy first, then how the others stand to it.
fn best(results: &Results, candidates: &[Candidate]) -> Vec<String> {
    let Some((best, others)) = candidates.split_first() else {
        return vec![if results.is_complete() {
            "No strategy has a finished run on every data set, so none can be recommended over all of them.".to_owned()
        } else {
            "No strategy has a finished run on every data set yet.".to_owned()
        }];
    };
    let seeds = plural(best.test.count, "seed");
    let mut texts = vec![format!("Highest {}: {}, {} ({seeds}).", measure(results), best.name, best.accuracy())];
    if others.is_empty() {
        let is_alone = results.variants.len() == 1;
        texts.push(
            if is_alone { "It is the only one compared." } else { "No other can be compared with it." }.to_owned(),
        );
        return texts;
    }
    let split = |wanted: Option<bool>| -> Vec<&Candidate> {
        others.iter().filter(|other| stats::differ(&best.test, &other.test) == wanted).collect()
    };
    let (within, behind, unknown) = (split(Some(false)), split(Some(true)), split(None));
    let named = |of: &[&Candidate], number: &dyn Fn(&Candidate) -> String| {
        let each: Vec<String> = of.iter().map(|other| format!("{} ({})", other.name, number(other))).collect();
        list(&each)
    };
    let behind_by = named(&behind, &|other| gap(best.test.mean - other.test.mean));
    if within.is_empty() && unknown.is_empty() {
        texts.push(format!("It is ahead of every other by more than the noise between seeds: {behind_by}."));
        return texts;
    }
    if !within.is_empty() {
        let names = named(&within, &|other| other.accuracy());
        let equal: Vec<&Candidate> = std::iter::once(best).chain(within).collect();
        texts.push(format!("Within the noise between seeds of it: {names}.{}", thriftiest(&equal)));
    }
    if !behind.is_empty() {
        texts.push(format!("By more than the noise it is ahead of {behind_by}."));
    }
    if !unknown.is_empty() {
        texts.push(format!(
            "Whether it is better than {} is unknown: it takes two seeds of each to see the noise, so the difference may be chance.",
            named(&unknown, &|other| other.accuracy())
        ));
    }
    texts
}

/// Which of equally accurate ones to take. One with failed runs is no thrifty choice: what those needed is not known.
fn thriftiest(equal: &[&Candidate]) -> String {
    let sound = || equal.iter().filter(|one| one.failed == 0);
    let least = sound().min_by_key(|one| one.peak_bytes);
    let quickest = sound().min_by(|a, b| a.train_s.total_cmp(&b.train_s));
    match (least, quickest) {
        (Some(least), Some(quickest)) if least.variant == quickest.variant => format!(
            " Of these {} takes the least memory ({}) and trains the quickest ({} a run).",
            least.name,
            bytes(least.peak_bytes as f64),
            seconds(least.train_s)
        ),
        (Some(least), Some(quickest)) => format!(
            " Of these {} takes the least memory ({}) and {} trains the quickest ({} a run).",
            least.name,
            bytes(least.peak_bytes as f64),
            quickest.name,
            seconds(quickest.train_s)
        ),
        _ => String::new(),
    }
}
