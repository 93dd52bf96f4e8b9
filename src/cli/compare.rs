//! `peftk compare`.

use std::path::{Path, PathBuf};

use super::compare_flags::{Flags, OTHERWISE, Only, Seeds};
use super::resolve::{count, resolve};
use super::settings::{AdapterFlags, BatchSize, Settings};
use super::table::{self, Columns, Side};
use super::words;
use crate::compare::numbers::percent_within;
use crate::compare::results::{Outcome, Results, Variant};
use crate::compare::summary::{self, Row};
use crate::compare::{self, CompareConfig, SetConfig, Tune};
use crate::compare::{advice, published};
use crate::config::{Strategy, TrainConfig};
use crate::train::Ui;
use crate::{Error, Result};

/// Share of the images held back for testing where a data set has no test split.
const TEST_FRACTION: f64 = 0.2;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// What is compared: a list of full, freeze, lora, dora
    #[arg(long, value_name = "STRATEGY,..", value_delimiter = ',', value_parser = words::word::<Strategy>, default_value = "full,freeze,lora,dora", help_heading = "Comparison")]
    strategies: Vec<Strategy>,
    /// Ranks of the adapters; lora and dora are run with each [default: 8]
    #[arg(
        long,
        value_name = "N,..",
        value_delimiter = ',',
        allow_negative_numbers = true,
        help_heading = "Comparison"
    )]
    ranks: Vec<usize>,
    /// How many seeds, from 0 on, or a list of them
    #[arg(long, value_name = "N|N,..", default_value = "3", help_heading = "Comparison")]
    seeds: Seeds,
    /// Search each strategy's learning rate on each data set: 8 rates, by halving, in three times the epochs of a run
    #[arg(long, help_heading = "Comparison")]
    tune: bool,
    /// Search on this data set alone, and use what is found for all of them
    #[arg(long, value_name = "NAME", conflicts_with = "tune", help_heading = "Comparison")]
    tune_on: Option<String>,
    /// Learning rates, strategy by strategy, such as full=1e-5,lora=1e-3 [default: each strategy's own]
    #[arg(long, value_name = "STRATEGY=F,..", value_parser = words::patterns::<f64>, help_heading = "Comparison")]
    lrs: Option<::std::vec::Vec<(String, f64)>>,
    /// Settings of one data set alone, such as fashion:epochs=3,input_size=56 (names as in config.toml); may be repeated
    #[arg(long = "for", value_name = "NAME:KEY=VALUE,..", help_heading = "Comparison")]
    only: Vec<Only>,
    /// Show the published results of an experiment beside: gsoc2025
    #[arg(long, value_name = "WHICH", value_parser = ["gsoc2025"], help_heading = "Comparison")]
    against: Option<String>,
    /// What the reader of the report must know of backbone or data
    #[arg(long, value_name = "TEXT", help_heading = "Comparison")]
    note: Option<String>,
    /// Run again what failed before
    #[arg(long, help_heading = "Comparison")]
    retry: bool,
    #[command(flatten)]
    flags: Flags,
    /// Settings from a file, such as a run's config.toml, but for strategy, rank, learning rate and seed; flags go before it
    #[arg(long, value_name = "FILE.toml", help_heading = "Run")]
    config: Option<PathBuf>,
    /// The report's folder: missing or empty, or one of a comparison, which goes on
    #[arg(long, value_name = "DIR", help_heading = "Run")]
    out: PathBuf,
    /// Nothing on stderr but errors
    #[arg(long, help_heading = "Run")]
    quiet: bool,
}

impl Args {
    fn config(&self) -> Result<CompareConfig> {
        let given = &self.flags.settings;
        let asked = [
            given.strategy.is_some(),
            given.adapter.rank.is_some(),
            given.lr.is_some(),
            given.seed.is_some(),
            given.init_adapter.is_some(),
        ];
        if let Some((_, (_, text))) = asked.into_iter().zip(OTHERWISE).find(|(asked, _)| *asked) {
            return Err(Error::input(text));
        }
        let mut file = self.config.as_deref().map_or_else(|| Ok(Settings::default()), Settings::read)?;
        // What a run's file holds of its own strategy, or was settled for it.
        (file.strategy, file.lr, file.seed, file.adapter.rank, file.init_adapter) = (None, None, None, None, None);
        (file.warmup_steps, file.micro_batch, file.recompute, file.adapter.alpha) = (None, None, None, None);
        if !self.flags.data.is_empty() {
            file.val_data = None;
        }
        if given.batch_size == Some(BatchSize::Auto) || file.batch_size == Some(BatchSize::Auto) {
            return Err(Error::input(
                "--batch-size auto: each strategy would have another batch, and accuracies would not compare; give a number",
            ));
        }
        let data: Vec<Option<PathBuf>> = match (&self.flags.data[..], &file.data) {
            ([], own) => vec![own.clone()],
            (given, _) => given.iter().cloned().map(Some).collect(),
        };
        if data.len() > 1 && given.val_data.is_some() {
            return Err(Error::input("--val-data: it belongs to one data set, and several are compared; leave it out"));
        }
        let variants = self.variants()?;
        let names = names(&data);
        if let Some(unknown) = self.only.iter().find(|only| !names.contains(&only.name)) {
            return Err(Error::input(format!(
                "--for {}: no data set of that name; there are {}",
                unknown.name,
                names.join(", ")
            )));
        }
        let mut sets = Vec::new();
        for (name, data) in names.iter().zip(&data) {
            let own = self.only.iter().filter(|only| only.name == *name);
            let own = own.fold(Settings::default(), |all, only| only.settings.clone().over(all));
            let flags = Settings { data: data.clone(), ..own.over(given.clone()) };
            let runs = variants.iter().map(|variant| self.run(variant, &flags, &file)).collect::<Result<Vec<_>>>()?;
            sets.push(SetConfig { name: name.clone(), runs });
        }
        let tune = match &self.tune_on {
            None if self.tune => Tune::Each,
            None => Tune::No,
            Some(wanted) => Tune::On(names.iter().position(|name| name == wanted).ok_or_else(|| {
                Error::input(format!("--tune-on {wanted}: no data set of that name; there are {}", names.join(", ")))
            })?),
        };
        if tune != Tune::No && self.lrs.is_some() {
            return Err(Error::input("--lrs: --tune finds the rates; leave one out"));
        }
        Ok(CompareConfig {
            sets,
            variants,
            seeds: self.seeds.0.clone(),
            tune,
            rates_given: self.lrs.iter().flatten().map(|(name, _)| name.clone()).collect(),
            note: self.note.clone(),
            retry: self.retry,
            against: self.against.as_deref().and_then(published::named),
            out: self.out.clone(),
        })
    }

    /// Strategies, those with adapters once a rank.
    fn variants(&self) -> Result<Vec<Variant>> {
        let ranks = self.ranks.iter().map(|&rank| count("--ranks", rank)).collect::<Result<Vec<_>>>()?;
        let ranks = if ranks.is_empty() { vec![8] } else { ranks };
        let mut variants: Vec<Variant> = Vec::new();
        for &strategy in &self.strategies {
            let ranks: Vec<Option<usize>> =
                if strategy.has_adapter() { ranks.iter().copied().map(Some).collect() } else { vec![None] };
            for &rank in &ranks {
                let name = match rank {
                    Some(rank) if ranks.len() > 1 => format!("{} r{rank}", strategy.name()),
                    _ => strategy.name().to_owned(),
                };
                if variants.iter().any(|variant| variant.name == name) {
                    return Err(Error::input(format!("{name} is to be compared with itself; name it once")));
                }
                variants.push(Variant { strategy, rank, name });
            }
        }
        for (name, _) in self.lrs.iter().flatten() {
            if !self.strategies.iter().any(|strategy| strategy.name() == name) {
                return Err(Error::input(format!("--lrs {name}: it is not among the strategies compared")));
            }
        }
        Ok(variants)
    }

    /// A run's settings, as `peftk train` makes them of the same flags.
    fn run(&self, variant: &Variant, flags: &Settings, file: &Settings) -> Result<TrainConfig> {
        let has_adapter = variant.strategy.has_adapter();
        let adapter = |given: &AdapterFlags| {
            if has_adapter { AdapterFlags { rank: variant.rank, ..given.clone() } } else { AdapterFlags::default() }
        };
        let lr = self.lrs.iter().flatten().find(|(name, _)| name == variant.strategy.name()).map(|(_, lr)| *lr);
        // The norm's gradient is DoRA's; in a list it is for those that have one.
        let mut adapter = adapter(&flags.adapter);
        if variant.strategy == Strategy::Lora {
            adapter.dora_norm_grad = None;
        }
        let flags = Settings {
            strategy: Some(variant.strategy),
            lr,
            seed: Some(0),
            adapter,
            test_fraction: flags.test_fraction.or(file.test_fraction).or(Some(TEST_FRACTION)),
            split_seed: flags.split_seed.or(file.split_seed).or(Some(0)),
            ..flags.clone()
        };
        let mut file = file.clone();
        if variant.strategy == Strategy::Lora {
            file.adapter.dora_norm_grad = None;
        }
        if !has_adapter {
            file.adapter = AdapterFlags::default();
        }
        let mut config = resolve(&flags, &file)?;
        crate::train::make_paths_absolute(&mut config)?;
        Ok(config)
    }
}

/// What tables call data sets: the folder's name, with a number where another has it already.
fn names(data: &[Option<PathBuf>]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for path in data {
        let name = path.as_ref().map_or_else(
            || "embedded".to_owned(),
            |path| {
                let full = std::path::absolute(path).unwrap_or_else(|_| path.clone());
                full.file_name().map_or_else(|| "data".to_owned(), |name| name.to_string_lossy().into_owned())
            },
        );
        let mut unique = name.clone();
        let mut number = 2;
        // Their folders are to be told apart as well, also where upper and lower case are one.
        let folder = |name: &str| compare::file_name(name).to_lowercase();
        while names.iter().any(|other| folder(other) == folder(&unique)) {
            unique = format!("{name}-{number}");
            number += 1;
        }
        names.push(unique);
    }
    names
}

pub fn main(args: &Args) -> Result<()> {
    let config = args.config()?;
    let ui = Ui::new(args.quiet);
    let mut report = |results: &Results, folder: &Path| compare::write_report(results, folder, config.against);
    let results = compare::run(&config, &ui, &mut report)?;
    let reasons = results.cells.iter().map(|cell| match &cell.outcome {
        Outcome::Failed { reason } => Some(reason),
        _ => None,
    });
    // A run that failed is told in its row; where nothing else is there, that is the answer.
    match reasons.collect::<Option<Vec<_>>>().and_then(|reasons| reasons.first().copied()) {
        Some(reason) => Err(Error::NonFinite(format!("every run failed, the first so: {reason}"))),
        None => ui.result(&closing(&results, &config)),
    }
}

/// The table, what follows from it, and where the rest stands.
fn closing(results: &Results, config: &CompareConfig) -> String {
    let mut text = table(results);
    for (about, sentences) in advice::of(results, config.against).grouped() {
        text.push_str(&format!("\n{}\n", about.heading()));
        sentences.iter().for_each(|sentence| text.push_str(&format!("  {sentence}\n")));
    }
    text + &format!("\nreport  {}", config.out.join("report.html").display())
}

/// A line a strategy on each data set, and over all of several.
fn table(results: &Results) -> String {
    let mut rows = summary::by_dataset(results);
    if results.datasets.len() > 1 {
        rows.extend(summary::overall(results));
    }
    let cells = |row: &Row| -> Vec<String> {
        let set = row.dataset.map_or("all", |set| &results.datasets[set].name);
        let test = row.test.map_or("failed".to_owned(), |test| percent_within(test.mean, test.half_width));
        let mut cells = vec![set.to_owned(), results.variants[row.variant].name.clone(), test];
        if let Some(means) = &row.means {
            cells.extend([
                table::bytes(row.peak_bytes),
                format!("{:.2}", means.seconds_per_epoch),
                format!("{:.0}", means.images_per_s),
                means.energy_j.map_or("-".to_owned(), |joules| format!("{joules:.0} J")),
                table::count(means.trained_parameters.round() as u64),
                table::bytes(means.saved_bytes.round() as u64),
            ]);
        }
        cells
    };
    let head =
        ["data", "strategy", "test accuracy", "peak memory", "s/epoch", "images/s", "energy", "trained", "on disk"];
    let lines: Vec<Vec<String>> =
        std::iter::once(head.map(str::to_owned).to_vec()).chain(rows.iter().map(cells)).collect();
    let columns = Columns::new((0..head.len()).map(|column| {
        let widest = lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max();
        (widest.unwrap_or(0), if column < 2 { Side::Left } else { Side::Right })
    }));
    lines.iter().fold(String::new(), |text, line| text + &columns.line(line) + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart() {
        let data = ["a/x", "b/x", "y/", "a b", "a-b", "Y"].map(|path| Some(PathBuf::from(path)));
        assert_eq!(names(&data), ["x", "x-2", "y", "a b", "a-b-2", "Y-2"]);
        assert_eq!(names(&[None]), ["embedded"]);
    }
}
