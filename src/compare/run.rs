//! A comparison from its settings to its report: what was done before is taken up, the rest is done run by run.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::cell::{measured, remove, remove_file, still_there, train};
use super::config::{CompareConfig, SetConfig, Tune};
use super::folder::{Folder, settings};
use super::live::{self, Live};
use super::results::*;
use super::tune::{self, Next, Search};
use crate::config::{EvalConfig, Precision, Task, TrainConfig};
use crate::data::ImageCache;
use crate::train::{self, Images, Place, Ui, interrupt};
use crate::{Error, Result};

/// Folder in a run's for what its test images came to: by class, confused classes, the most confident errors.
pub(super) const TEST: &str = "test";
/// Seconds between two writings of the report while runs are left.
const REPORT_EVERY: f64 = 30.0;

/// Compares. `report` is called with what is known so far, at times and at the end.
///
/// # Errors
/// Whatever is wrong with data, backbone or flags, before the first run; [`Error::Interrupted`] after Ctrl-C, with all that was done saved;
/// files that cannot be written; a GPU that no longer answers. A run that fails is no error: its cell says so.
pub fn run(config: &CompareConfig, ui: &Ui, report: &mut dyn FnMut(&Results, &Path) -> Result<()>) -> Result<Results> {
    let first = &config.sets[0].runs[0];
    let place = Place::choose(first.device, first.precision)?;
    let (device, precision) = (place.words(), place.settings(first.device).1);
    // Every run opens it for itself.
    drop(place);
    ui.note(&format!("device: {device}"));
    // Read once here, so that one that is not there is no row of failures.
    let backbone = train::load_backbone(first.backbone.as_deref(), ui)?;
    ui.note(&format!("backbone: {}", backbone.source));
    drop(backbone);
    let folder = Folder::open(&config.out)?;
    let cache = Arc::new(ImageCache::open(&first.cache)?);
    let sets = config.sets.iter().map(|set| Set::open(set, cache.clone(), ui)).collect::<Result<Vec<_>>>()?;
    ui.note(&cache.words(sets.iter().map(|set| set.images.count()).sum()));
    let mut compare = Compare { config, results: empty(config, &sets, device), precision, folder, sets };
    compare.take_up_searches()?;
    compare.take_up_cells()?;
    let left = compare.results.cells.iter().filter(|cell| matches!(cell.outcome, Outcome::Pending)).count();
    ui.note(&format!(
        "compare: {} runs, {} of them done before; {} variants, {} seeds, {} data sets; report in {}",
        compare.results.cells.len(),
        compare.results.cells.len() - left,
        config.variants.len(),
        config.seeds.len(),
        config.sets.len(),
        config.out.display()
    ));
    let done = compare.all(ui, report);
    if matches!(done, Err(Error::Interrupted)) {
        let left = compare.results.cells.iter().filter(|cell| matches!(cell.outcome, Outcome::Pending)).count();
        let all = compare.results.cells.len();
        ui.note(&format!("stopped after {} of {all} runs; the same command goes on", all - left));
    }
    // What is known is worth a report, whatever ended it.
    compare.results.device = one_or_list(&compare.results, |measured| &measured.device, &compare.results.device);
    compare.results.commit = one_or_list(&compare.results, |measured| &measured.commit, &compare.results.commit);
    report(&compare.results, compare.folder.path())?;
    done.map(|()| compare.results)
}

/// A data set, opened.
struct Set {
    images: Images,
    /// The images, in short: what is trained, validated and tested on.
    print: String,
}

impl Set {
    fn open(set: &SetConfig, cache: Arc<ImageCache>, ui: &Ui) -> Result<Self> {
        let images = Images::open(&set.runs[0], cache, ui)?;
        ui.note(&format!("data: {}", images.splits.description));
        let lacks = |what: &str, mend: &str| {
            Error::input(format!("--data {}: no {what} images, which a comparison needs; {mend}", set.name))
        };
        if images.splits.val.is_none() {
            return Err(lacks("validation", "give --val-fraction above 0, or a val folder"));
        }
        let test = images.splits.test.as_ref();
        let test = test.ok_or_else(|| lacks("test", "give --test-fraction above 0, or a test folder"))?;
        // Those of testing too: a comparison that went on with others would compare nothing.
        let tested = train::fingerprint(&crate::data::Splits {
            train: test.clone(),
            val: None,
            test: None,
            description: String::new(),
        });
        let print = format!("{}-{tested}-{}", train::fingerprint(&images.splits), images.bytes());
        Ok(Self { images, print })
    }

    fn info(&self, set: &SetConfig) -> DatasetInfo {
        let splits = &self.images.splits;
        let count = |part: &Option<crate::data::Dataset>| part.as_ref().map_or(0, |part| part.items.len());
        DatasetInfo {
            name: set.name.clone(),
            description: splits.description.clone(),
            task: splits.train.task,
            classes: splits.train.classes.len(),
            train: splits.train.items.len(),
            val: count(&splits.val),
            test: count(&splits.test),
            epochs: set.runs[0].epochs,
            batch_size: set.runs[0].batch_size,
            input_size: set.runs[0].input_size,
            measure: match splits.train.task {
                Task::Multiclass => "top-1",
                Task::Multilabel => "mean average precision",
                Task::Hierarchical => "whole paths",
            }
            .to_owned(),
        }
    }
}

/// All cells, not done yet.
fn empty(config: &CompareConfig, sets: &[Set], device: String) -> Results {
    let first = &config.sets[0].runs[0];
    let mut cells = Vec::new();
    for (dataset, set) in config.sets.iter().enumerate() {
        for (variant, named) in config.variants.iter().enumerate() {
            cells.extend(config.seeds.iter().map(|&seed| Cell {
                dataset,
                variant,
                seed,
                run: Folder::run(&set.name, &named.folder(), seed),
                config: serde_json::Value::Null,
                outcome: Outcome::Pending,
            }));
        }
    }
    let given = &config.rates_given;
    let rates = match (config.tune, given.len()) {
        (Tune::Each, _) => "found for each data set by successive halving on its validation images".to_owned(),
        (Tune::On(set), _) => format!(
            "found by successive halving on the validation images of {}, used for all data sets",
            config.sets[set].name
        ),
        (Tune::No, 0) => "each strategy's default".to_owned(),
        (Tune::No, _)
            if config.variants.iter().all(|variant| given.iter().any(|name| name == variant.strategy.name())) =>
        {
            "as given".to_owned()
        }
        (Tune::No, _) => format!("as given for {}, else each strategy's default", given.join(", ")),
    };
    Results {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: train::bench::COMMIT.to_owned(),
        device,
        backbone: first.backbone.clone().unwrap_or_else(|| "embedded".to_owned()),
        note: config.note.clone(),
        protocol: Protocol {
            seeds: config.seeds.clone(),
            rates,
            split: format!(
                "The same for all runs (seed {}); validation images choose the best epoch, test images choose nothing.",
                first.split_seed.unwrap_or(0)
            ),
            memory_budget: first.memory_budget,
        },
        datasets: config.sets.iter().zip(sets).map(|(set, opened)| opened.info(set)).collect(),
        variants: config.variants.clone(),
        cells,
        tuning: Vec::new(),
    }
}

/// What the finished runs say of themselves, each once; without any `else_`.
fn one_or_list(results: &Results, of: impl Fn(&Measured) -> &str, else_: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    for measured in results.cells.iter().filter_map(|cell| cell.outcome.measured()) {
        if !names.contains(&of(measured)) {
            names.push(of(measured));
        }
    }
    if names.is_empty() { else_.to_owned() } else { names.join("; ") }
}

/// A comparison under way.
struct Compare<'a> {
    config: &'a CompareConfig,
    results: Results,
    /// Which numbers the device computes in.
    precision: Option<Precision>,
    folder: Folder,
    sets: Vec<Set>,
}

impl Compare<'_> {
    /// Fills in the searches that were done before.
    fn take_up_searches(&mut self) -> Result<()> {
        for (set, variant) in self.searches() {
            let search = self.search(set, variant)?;
            if search.next().is_none() {
                self.results.tuning.push(search.result(set, variant));
            }
        }
        Ok(())
    }

    /// Fills in the runs that were done before, as far as their learning rates are known.
    fn take_up_cells(&mut self) -> Result<()> {
        for index in 0..self.results.cells.len() {
            if !matches!(self.results.cells[index].outcome, Outcome::Pending) {
                continue;
            }
            // A run whose rate is not found yet was not made.
            let Some(wanted) = self.wanted(index) else { continue };
            let cell = &self.results.cells[index];
            let path = self.folder.cell(&cell.run);
            let print = &self.sets[cell.dataset].print;
            let outcome = self.folder.read::<Outcome>(&path, print, &wanted)?;
            // One that was stopped on the way goes on by the settings it has.
            self.folder.read::<()>(&self.folder.begun(&cell.run), print, &wanted)?;
            let again = self.config.retry && matches!(outcome, Some(Outcome::Failed { .. }));
            let cell = &mut self.results.cells[index];
            cell.config = settings(&wanted)?;
            if again {
                remove(&wanted.out)?;
            } else if let Some(outcome) = outcome {
                cell.take(outcome);
            }
        }
        Ok(())
    }

    fn all(&mut self, ui: &Ui, report: &mut dyn FnMut(&Results, &Path) -> Result<()>) -> Result<()> {
        for (set, variant) in self.searches() {
            if !self.results.tuning.iter().any(|done| (done.dataset, done.variant) == (set, variant)) {
                self.tune(set, variant, ui)?;
            }
        }
        // Those whose rates were searched just now may have been run before.
        self.take_up_cells()?;
        let mut live = Live::new(ui, &self.results);
        let done = self.cells(&mut live, report);
        live.finish();
        done
    }

    /// Runs the cells that are left, seed by seed, so that a comparison that is stopped has something of everything.
    fn cells(&mut self, live: &mut Live, report: &mut dyn FnMut(&Results, &Path) -> Result<()>) -> Result<()> {
        let mut order: Vec<usize> = (0..self.results.cells.len()).collect();
        let seeds = self.config.seeds.clone();
        order.sort_by_key(|&index| seeds.iter().position(|&seed| seed == self.results.cells[index].seed));
        let mut written = Instant::now();
        for index in order {
            if !matches!(self.results.cells[index].outcome, Outcome::Pending) {
                continue;
            }
            interrupt::check()?;
            let begun = Instant::now();
            let label = live::name(&self.results, &self.results.cells[index]);
            let (outcome, wanted) = self.cell(index, &live.of(&label))?;
            let cell = &mut self.results.cells[index];
            self.folder.write(&self.folder.cell(&cell.run), &self.sets[cell.dataset].print, &wanted, &outcome)?;
            remove_file(&self.folder.begun(&cell.run))?;
            // What is only needed to go on with a run: up to three times the trained values.
            remove(&wanted.out.join("last"))?;
            cell.take(outcome);
            live.done(&self.results, index, begun.elapsed().as_secs_f64());
            if written.elapsed().as_secs_f64() > REPORT_EVERY {
                report(&self.results, self.folder.path())?;
                written = Instant::now();
            }
        }
        Ok(())
    }

    /// One cell, from wherever it stands.
    fn cell(&self, index: usize, ui: &Ui) -> Result<(Outcome, TrainConfig)> {
        let wanted = self.wanted(index).ok_or_else(|| Error::Internal("a run before its learning rate".into()))?;
        let cell = &self.results.cells[index];
        let Set { images, print } = &self.sets[cell.dataset];
        self.folder.write(&self.folder.begun(&cell.run), print, &wanted, &())?;
        let done = train(&wanted, images, self.precision, ui).and_then(|summary| {
            let test = images.splits.test.clone();
            let test = test.ok_or_else(|| Error::Internal("no test images".into()))?;
            let eval = EvalConfig {
                model: wanted.out.clone(),
                data: wanted.data.clone().unwrap_or_default(),
                format: None,
                out: Some(wanted.out.join(TEST)),
                threshold: None,
                json: false,
                cache: wanted.cache.clone(),
                device: wanted.device,
                precision: wanted.precision,
            };
            let evaluation = train::eval_set(&eval, test, images.cache.clone(), ui)?;
            measured(&wanted, &summary, &evaluation)
        });
        match done {
            Ok(measured) => Ok((Outcome::Done(Box::new(measured)), wanted)),
            // A full disk is no fault of the run's, and would be the end of the next one as well.
            Err(error @ (Error::Interrupted | Error::Io { .. })) => Err(error),
            Err(error) => {
                still_there(&wanted, &error)?;
                Ok((Outcome::Failed { reason: error.to_string() }, wanted))
            }
        }
    }

    /// The settings of a cell; none while its learning rate is being searched.
    fn wanted(&self, index: usize) -> Option<TrainConfig> {
        let cell = &self.results.cells[index];
        let run = &self.config.sets[cell.dataset].runs[cell.variant];
        let at = match self.config.tune {
            Tune::No => None,
            Tune::Each => Some(cell.dataset),
            Tune::On(set) => Some(set),
        };
        let lr = match at {
            None => run.lr,
            Some(set) => {
                self.results.tuning.iter().find(|done| (done.dataset, done.variant) == (set, cell.variant))?.lr
            }
        };
        Some(TrainConfig { lr, seed: cell.seed, out: self.folder.path().join(&cell.run), ..run.clone() })
    }

    /// The searches there are: data set and variant.
    fn searches(&self) -> Vec<(usize, usize)> {
        let variants = 0..self.config.variants.len();
        match self.config.tune {
            Tune::No => Vec::new(),
            Tune::On(set) => variants.map(|variant| (set, variant)).collect(),
            Tune::Each => (0..self.config.sets.len()).flat_map(|set| variants.clone().map(move |v| (set, v))).collect(),
        }
    }

    /// A search with the trials that were done before.
    fn search(&self, set: usize, variant: usize) -> Result<Search> {
        let (named, run) = (&self.config.sets[set], &self.config.sets[set].runs[variant]);
        let path = self.folder.search(&named.name, &self.config.variants[variant].folder());
        let trials = self.folder.read::<Vec<Trial>>(&path, &self.sets[set].print, &trial_base(run))?;
        Ok(Search::new(run, trials.unwrap_or_default()))
    }

    fn tune(&mut self, set: usize, variant: usize, ui: &Ui) -> Result<()> {
        let mut search = self.search(set, variant)?;
        let (named, run) = (&self.config.sets[set], &self.config.sets[set].runs[variant]);
        let name = &self.config.variants[variant].name;
        let path = self.folder.search(&named.name, &self.config.variants[variant].folder());
        let bar = ui.bar(Search::total() as u64, &format!("learning rate, {} {name}", named.name));
        bar.inc(search.trials().len() as u64);
        while let Some(next) = search.next() {
            interrupt::check()?;
            search.add(self.trial(set, run, &path, next, &ui.hushed())?);
            self.folder.write(&path, &self.sets[set].print, &trial_base(run), &search.trials())?;
            bar.inc(1);
            bar.set_message(format!("round {}, rate {:e}", next.round, next.lr));
        }
        let found = search.result(set, variant);
        bar.set_message(format!("{:e} after {} epochs", found.lr, found.epochs));
        bar.finish();
        self.results.tuning.push(found);
        Ok(())
    }

    /// One short run, whose folder goes when its result is known.
    fn trial(&self, set: usize, run: &TrainConfig, record: &Path, next: Next, ui: &Ui) -> Result<Trial> {
        let out = record.with_extension("trial");
        let config = TrainConfig { lr: next.lr, epochs: next.epochs, out: out.clone(), ..trial_base(run) };
        // One that was stopped in the middle is short: it begins again.
        remove(&out)?;
        let (round, lr, epochs) = (next.round, next.lr, next.epochs);
        let trial = match train::run_on(&config, false, Some(&self.sets[set].images), ui) {
            Ok(summary) => {
                let best = summary.best.map_or(0, |best| best.0);
                let loss = summary.history.iter().find(|record| record.epoch == best).and_then(|r| r.val_loss);
                let accuracy = summary.best.map(|best| best.1);
                Trial { round, lr, epochs, val_accuracy: accuracy, val_loss: loss, reason: None }
            }
            Err(error @ (Error::Interrupted | Error::Io { .. })) => return Err(error),
            Err(error) => {
                still_there(&config, &error)?;
                let reason = Some(error.to_string());
                Trial { round, lr, epochs, val_accuracy: None, val_loss: None, reason }
            }
        };
        remove(&out)?;
        Ok(trial)
    }
}

/// What is the same for all trials of a search.
fn trial_base(run: &TrainConfig) -> TrainConfig {
    TrainConfig { seed: tune::SEED, out: Default::default(), ..run.clone() }
}
