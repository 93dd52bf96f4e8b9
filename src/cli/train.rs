//! `peftk train`.

use std::path::{Path, PathBuf};

use super::resolve::resolve;
use super::resume::resume;
use super::settings::Settings;
use super::table::{self, duration};
use crate::config::TrainConfig;
use crate::train::run_dir::RunDir;
use crate::train::{self, Summary, Ui};
use crate::{Error, Result};

/// Where runs go that are given no folder.
const RUNS: &str = "runs";

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    flags: SettingFlags,
    /// Run folder, missing or empty [default: the next number under runs/]
    #[arg(long, value_name = "RUN", help_heading = "Run")]
    out: Option<PathBuf>,
    /// Go on with the run in --out where it was stopped
    #[arg(long, help_heading = "Run")]
    resume: bool,
    /// Nothing on stderr but errors
    #[arg(long, help_heading = "Run")]
    quiet: bool,
}

/// The flags that train and plan share.
#[derive(Debug, clap::Args)]
pub struct SettingFlags {
    #[command(flatten)]
    settings: Settings,
    /// Settings from a file, such as a run's config.toml; flags go before it
    #[arg(long, value_name = "FILE.toml", help_heading = "Run")]
    config: Option<PathBuf>,
}

impl SettingFlags {
    /// The file's settings, empty without one.
    fn file(&self) -> Result<Settings> {
        self.config.as_deref().map_or_else(|| Ok(Settings::default()), Settings::read)
    }

    /// A validated configuration without a run folder.
    pub fn resolve(&self) -> Result<TrainConfig> {
        resolve(&self.settings, &self.file()?)
    }
}

impl Args {
    fn config(&self) -> Result<TrainConfig> {
        if self.resume {
            let out =
                self.out.as_deref().ok_or_else(|| Error::input("--resume: name the run to go on with by --out RUN"))?;
            return resume(out, &self.flags.settings, &self.flags.file()?);
        }
        let mut config = self.flags.resolve()?;
        config.out = match &self.out {
            Some(out) => out.clone(),
            None => RunDir::next_numbered(Path::new(RUNS))?,
        };
        RunDir::check_free(&config.out)?;
        Ok(config)
    }
}

pub fn main(args: Args) -> Result<()> {
    let config = args.config()?;
    let ui = Ui::new(args.quiet);
    if config.patience.is_some() && !config.validates() {
        ui.note("note: without validation there is no early stopping, so --patience has no effect");
    }
    let summary = train::run(&config, args.resume, &ui)?;
    ui.result(&closing(&summary))
}

/// The closing table and what to try next.
fn closing(summary: &Summary) -> String {
    let best = summary
        .best
        .map_or("no validation".to_owned(), |(epoch, accuracy)| format!("{:.1} % (epoch {epoch})", 100.0 * accuracy));
    let rows = [
        ("strategy", summary.strategy.name().to_owned()),
        ("best validation accuracy", best),
        ("epochs, steps", format!("{}, {}", summary.epochs, summary.steps)),
        ("last epoch's training loss", format!("{:.4}", summary.train_loss)),
        ("trained parameters", table::count(summary.trained_parameters)),
        ("images/s", format!("{:.1}", summary.images_per_s)),
        ("peak memory", table::bytes(summary.peak_bytes)),
        ("time", duration(summary.wall_s)),
        ("energy", summary.energy_j.map_or("not measured".to_owned(), |joules| format!("{:.1} Wh", joules / 3600.0))),
        ("run", summary.out.display().to_string()),
    ];
    let out = summary.out.display();
    let mut text = table::aligned(&rows);
    text.push_str(&format!("\ntry next\n  peftk predict --model {out} IMAGE\n"));
    if summary.embedded_data {
        text.push_str("  peftk train --data DIR --backbone dinov2-small    your own images, a folder a class\n");
    } else {
        text.push_str(&format!("  peftk eval --model {out} --data DIR\n"));
    }
    text.push_str(&format!("  peftk merge --model {out} --out DIR    a plain transformers folder\n"));
    text.push_str(&format!("  {}    loss and accuracy", summary.out.join("curves.svg").display()));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Strategy;

    #[test]
    fn the_closing_table_says_what_happened() {
        let summary = Summary {
            out: "runs/0001".into(),
            device: "CPU".into(),
            head: "head: fresh".into(),
            strategy: Strategy::Dora,
            epochs: 30,
            steps: 900,
            trained_parameters: 12_345,
            parameters: 1_234_567,
            train_s: 80.0,
            energy_j: Some(24_000.0),
            history: vec![],
            planned_bytes: 3 << 20,
            train_loss: 0.25,
            best: Some((7, 0.875)),
            images_per_s: 99.95,
            peak_bytes: 3 << 20,
            wall_s: 83.0,
            embedded_data: true,
        };
        let text = closing(&summary);
        for part in
            ["dora", "87.5 % (epoch 7)", "30, 900", "12,345", "3.0 MiB", "1 min 23 s", "predict --model runs/0001"]
        {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
        assert!(closing(&Summary { best: None, ..summary }).contains("no validation"));
    }
}
