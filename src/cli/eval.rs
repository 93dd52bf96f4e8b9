//! `peftk eval`.

use std::path::PathBuf;

use serde_json::Value;

use super::{check_precision, check_threshold, table, words as flag_words};
use crate::config::{Cache, Device, EvalConfig, Format, Precision};
use crate::train::run_dir::RunDir;
use crate::train::{self, EvalReport, Ui};
use crate::{Error, Result};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Run folder
    #[arg(long, value_name = "RUN")]
    model: PathBuf,
    /// Data folder
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// How the data is laid out: auto, or a format as in train [default: the run's, where it is a data set's own layout; else auto]
    #[arg(long, value_name = "FORMAT", value_parser = flag_words::word::<Format>)]
    format: Option<Format>,
    /// Writes classes.csv, errors.csv and errors.png there, and for a multi-class set confusion.csv and confusion.png
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Multi-label: give a label above this probability [default: the run's tuned thresholds, or 0.5]
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    threshold: Option<f64>,
    /// One JSON object on stdout
    #[arg(long)]
    json: bool,
    /// What decoded images are kept in, as in train; each is read twice, once to see that all can be [default: 1GiB]
    #[arg(long, value_name = "MEMORY[,DISK[,DIR]]")]
    cache: Option<Cache>,
    /// Where it runs: auto, cpu or cuda[:N]
    #[arg(long, value_name = "DEVICE", default_value_t)]
    device: Device,
    /// bf16 (a GPU alone) or f32 [default: bf16 on a GPU, f32 on the CPU]
    #[arg(long, value_name = "TYPE", value_parser = flag_words::word::<Precision>)]
    precision: Option<Precision>,
    /// Nothing on stderr but errors
    #[arg(long)]
    quiet: bool,
}

pub fn main(args: Args) -> Result<()> {
    check_precision(args.device, args.precision)?;
    RunDir::open(&args.model, "--model")?;
    let config = EvalConfig {
        model: args.model,
        data: args.data,
        format: args.format,
        out: args.out,
        threshold: args.threshold.map(check_threshold).transpose()?,
        json: args.json,
        cache: args.cache.unwrap_or_default(),
        device: args.device,
        precision: args.precision,
    };
    let ui = Ui::new(args.quiet);
    let report = train::eval(&config, &ui)?;
    let text = if args.json {
        serde_json::to_string(&report).map_err(|e| Error::Internal(format!("the report is not JSON: {e}")))?
    } else {
        words(&report)
    };
    ui.result(text.trim_end())
}

/// The measures that are plain numbers, as a table; the counts by class are for --json.
fn words(report: &EvalReport) -> String {
    let mut rows = vec![
        ("images".to_owned(), table::count(report.images)),
        ("loss".to_owned(), format!("{:.4}", report.loss)),
        ("accuracy".to_owned(), format!("{:.4}", report.accuracy)),
    ];
    let plain = report.more.iter().filter_map(|(name, value)| Some((name, value.as_f64()?)));
    rows.extend(plain.map(|(name, value)| (name.replace('_', " "), number(value))));
    // A number a level.
    let levels = report.more.get("level_accuracy").and_then(Value::as_array);
    let levels = levels.into_iter().flatten().filter_map(Value::as_f64).enumerate();
    rows.extend(levels.map(|(level, value)| (format!("accuracy, level {}", level + 1), number(value))));
    table::aligned(&rows)
}

fn number(value: f64) -> String {
    if value.fract() == 0.0 && value > 1.0 { Value::from(value as u64).to_string() } else { format!("{value:.4}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Map;

    #[test]
    fn a_report_in_words_and_in_json() {
        let more = Map::from_iter([
            ("balanced_accuracy".to_owned(), Value::from(0.5)),
            ("confusion".to_owned(), serde_json::json!([[1, 0]])),
        ]);
        let report = EvalReport { images: 1234, loss: 0.5, accuracy: 0.75, more };
        assert_eq!(
            words(&report),
            "images             1,234\nloss               0.5000\naccuracy           0.7500\nbalanced accuracy  0.5000\n"
        );
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(json, r#"{"images":1234,"loss":0.5,"accuracy":0.75,"balanced_accuracy":0.5,"confusion":[[1,0]]}"#);
    }
}
