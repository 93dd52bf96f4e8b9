//! `peftk data`: what lies in a data folder.

use std::cell::RefCell;
use std::fmt::Write;
use std::path::PathBuf;

use super::settings::TaskWord;
use super::{table, words as flag_words};
use crate::config::Format;
use crate::data::{self, OpenOptions, PartSurvey, SHEET_ROWS, Survey};
use crate::io::atomic;
use crate::train::Ui;
use crate::{Error, Result};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Data folder
    dir: PathBuf,
    /// How the data is laid out: auto, or a format as in train [default: auto]
    #[arg(long, value_name = "FORMAT", value_parser = flag_words::word::<Format>)]
    format: Option<Format>,
    /// What labels are: auto, multiclass, multilabel or hierarchical [default: auto]
    #[arg(long, value_name = "TASK", value_parser = flag_words::word::<TaskWord>)]
    task: Option<TaskWord>,
    /// Writes a contact sheet there, a PNG with a row of training images a class, of the first 60 classes
    #[arg(long, value_name = "FILE.png")]
    sheet: Option<PathBuf>,
    /// One JSON object on stdout
    #[arg(long)]
    json: bool,
    /// Nothing on stderr but errors
    #[arg(long)]
    quiet: bool,
}

/// Classes, unreadable files and twins that are listed; --json has all.
const LISTED: usize = 40;
/// Width of the longest bar.
const BAR: usize = 30;

pub fn main(args: &Args) -> Result<()> {
    let format = args.format.unwrap_or_default();
    let options = OpenOptions {
        format,
        task: args.task.and_then(TaskWord::task),
        val_data: None,
        val_fraction: 0.0,
        test_fraction: 0.0,
        seed: 0,
        shots: None,
    };
    let splits = data::open(&args.dir, &options)?;
    let ui = Ui::new(args.quiet);
    let total = splits.train.items.len()
        + [&splits.val, &splits.test].into_iter().flatten().map(|s| s.items.len()).sum::<usize>();
    let bar = RefCell::new((ui.bar(total as u64, "reading images"), 0));
    let survey = data::survey(&splits, &|done, _| {
        let (bar, shown) = &mut *bar.borrow_mut();
        bar.inc((done - *shown) as u64);
        *shown = done;
    });
    bar.into_inner().0.finish();
    if let Some(path) = &args.sheet {
        atomic::write_file(path, &data::contact_sheet(&splits)?)?;
        let classes = splits.train.classes.len();
        let of =
            if classes > SHEET_ROWS { format!(", the first {SHEET_ROWS} of {classes} classes") } else { String::new() };
        ui.note(&format!("contact sheet: {}{of}", path.display()));
    }
    let text = if args.json {
        serde_json::to_string(&survey).map_err(|e| Error::Internal(format!("the survey is not JSON: {e}")))?
    } else {
        words(&survey)
    };
    ui.result(text.trim_end())
}

fn words(survey: &Survey) -> String {
    let mut text = format!("{}\n", survey.description);
    for part in &survey.parts {
        let sizes = match (part.width, part.height) {
            (Some(width), Some(height)) => format!(
                "; {} x {} to {} x {} pixels, median {} x {}",
                width[0], height[0], width[2], height[2], width[1], height[1]
            ),
            _ => String::new(),
        };
        let imbalance =
            part.imbalance().map_or(String::new(), |times| format!("; largest class {times:.1} x the smallest"));
        let _ = writeln!(text, "{}: {} images{sizes}{imbalance}", part.part, table::count(part.images as u64));
    }
    if let Some(train) = survey.parts.first() {
        text.push('\n');
        text.push_str(&classes(survey, train));
    }
    let twins = survey.twins.iter().map(|twins| {
        let [(a, first), (b, second)] = &twins.images;
        let label = if twins.same_label { "" } else { ", with different labels" };
        format!("{a} {first} = {b} {second}{label}")
    });
    let unreadable = survey.unreadable.iter().map(|image| format!("{}: {}", image.name, image.reason));
    for (what, lines) in
        [("unreadable", unreadable.collect::<Vec<_>>()), ("the same image twice", twins.collect::<Vec<_>>())]
    {
        if !lines.is_empty() {
            let _ = writeln!(text, "\n{what}: {}", lines.len());
            lines.iter().take(LISTED).for_each(|line| text.push_str(&format!("  {line}\n")));
            text.push_str(&rest(lines.len()));
        }
    }
    text
}

/// Training images by class, as bars.
fn classes(survey: &Survey, train: &PartSurvey) -> String {
    let most = train.counts.iter().copied().max().unwrap_or(0) as u64;
    // Of a tree each label before those under it, which are set in.
    let (order, depth): (Vec<usize>, _) = match &survey.tree {
        Some(tree) => (tree.walk_all(), Some(|label| tree.depth(label))),
        None => ((0..survey.classes.len()).collect(), None),
    };
    let rows: Vec<(String, String)> = order
        .into_iter()
        .take(LISTED)
        .map(|label| {
            let (name, count) = (&survey.classes[label], train.counts[label] as u64);
            let indent = depth.as_ref().map_or(0, |depth| 2 * depth(label));
            let bar = format!("{:>7}  {}", table::count(count), table::bar(count, most, BAR));
            (format!("{:indent$}{name}", ""), bar.trim_end().to_owned())
        })
        .collect();
    table::aligned(&rows) + &rest(survey.classes.len())
}

/// How many are not listed.
fn rest(all: usize) -> String {
    match all.checked_sub(LISTED) {
        Some(more) if more > 0 => format!("  and {more} more; --json lists all\n"),
        _ => String::new(),
    }
}
