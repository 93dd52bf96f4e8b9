//! The command line: raw flags first, then a validated configuration that the rest of the program trusts.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use clap::error::ErrorKind as FlagError;
use clap::{CommandFactory, Parser, Subcommand};

use crate::config::{Device, Precision};
use crate::error::one_line;
use crate::train::{interrupt, ui};
use crate::{Error, Result};

mod bench;
mod compare;
mod compare_flags;
mod data;
mod doctor;
mod eval;
mod explain;
mod merge;
mod plan;
mod predict;
mod resolve;
mod resume;
mod settings;
mod table;
mod train;
mod words;

/// Fine-tunes DINOv2 image classifiers: full, frozen backbone, LoRA, DoRA.
#[derive(Debug, Parser)]
#[command(name = "peftk", version, about, subcommand_required = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Train a classifier; with no flags, on the embedded images
    Train(train::Args),
    /// Measure a trained classifier on a data folder
    Eval(eval::Args),
    /// Classify images
    Predict(predict::Args),
    /// Draw what a classifier looked at, a picture an image
    Explain(explain::Args),
    /// Write a plain transformers folder with the adapter merged into the backbone
    Merge(merge::Args),
    /// Show the memory of a training run by purpose, without running it
    Plan(plan::Args),
    /// Train strategies on data sets over several seeds, and report what each costs and reaches
    Compare(Box<compare::Args>),
    /// Show what lies in a data folder: format, parts, classes, sizes, what cannot be read, what is there twice
    Data(data::Args),
    /// Time training steps on random images, and measure their memory
    Bench(bench::Args),
    /// Show what this machine has, and what to do about what is missing
    Doctor(doctor::Args),
}

/// Runs the program: parses the flags, does the work, says what went wrong in one line.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(error) if matches!(error.kind(), FlagError::DisplayHelp | FlagError::DisplayVersion) => {
            // A reader that went away (`peftk --help | head`) is no failure.
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        Err(error) => return fail(&Error::input(flag_error(&error, &args))),
    };
    interrupt::install();
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// Runs a command. A panic, which is a bug here, ends in one line like any error; one that a decoder's own guard catches leaves none.
fn run(command: Command) -> Result<()> {
    static LAST: Mutex<String> = Mutex::new(String::new());
    std::panic::set_hook(Box::new(|info| {
        *LAST.lock().unwrap_or_else(PoisonError::into_inner) = info.to_string();
    }));
    let done = std::panic::catch_unwind(AssertUnwindSafe(|| match command {
        Command::Train(args) => train::main(args),
        Command::Eval(args) => eval::main(args),
        Command::Predict(args) => predict::main(args),
        Command::Explain(args) => explain::main(args),
        Command::Merge(args) => merge::main(args),
        Command::Plan(args) => plan::main(args),
        Command::Compare(args) => compare::main(&args),
        Command::Data(args) => data::main(&args),
        Command::Bench(args) => bench::main(args),
        Command::Doctor(args) => doctor::main(&args),
    }));
    done.unwrap_or_else(|_| {
        let what = LAST.lock().unwrap_or_else(PoisonError::into_inner);
        Err(Error::Internal(format!("a bug in peftk, please report it: {what}")))
    })
}

/// One `error:` line and the exit code that belongs to it.
fn fail(error: &Error) -> ExitCode {
    if let Error::Io { source, path, .. } = error
        && source.kind() == ErrorKind::BrokenPipe
        && path.as_os_str() == "stdout"
    {
        return ExitCode::SUCCESS;
    }
    ui::line_to_stderr(&format!("error: {}", one_line(&error.to_string())));
    ExitCode::from(error.exit_code())
}

/// clap's message without its usage, which would be lines of its own; the help named is that of the command in `args`.
fn flag_error(error: &clap::Error, args: &[OsString]) -> String {
    if matches!(error.kind(), FlagError::MissingSubcommand | FlagError::DisplayHelpOnMissingArgumentOrSubcommand) {
        return "no command given; expected train, compare, eval, predict, explain, merge, plan, data, bench or doctor; see peftk --help"
            .to_owned();
    }
    let text = error.to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let message = text.split("\nUsage:").next().unwrap_or(text);
    let message = message.split("\nFor more information").next().unwrap_or(message);
    let message = one_line(&message.replace("\n  tip:", ";")).replace(" ;", ";");
    let app = Cli::command();
    let command = args.get(1).and_then(|arg| app.find_subcommand(arg)).map_or("", clap::Command::get_name);
    let space = if command.is_empty() { "" } else { " " };
    format!("{message}; see peftk {command}{space}--help")
}

/// Refuses numbers that a device does not compute in.
///
/// # Errors
/// [`Error::Input`] naming `--precision`.
fn check_precision(device: Device, precision: Option<Precision>) -> Result<()> {
    match (device, precision) {
        (Device::Cpu, Some(Precision::Bf16)) => {
            Err(Error::input("--precision bf16: the CPU computes in f32; leave it out or use --precision f32"))
        }
        _ => Ok(()),
    }
}

/// A probability that something may be above.
///
/// # Errors
/// [`Error::Input`] naming `--threshold`.
fn check_threshold(value: f64) -> Result<f64> {
    let fits = (0.0..1.0).contains(&value);
    fits.then_some(value)
        .ok_or_else(|| Error::input(format!("--threshold: expected a number from 0 to below 1, found {value}")))
}

/// An input size that patches of 14 pixels tile.
///
/// # Errors
/// [`Error::Input`] naming `--input-size`.
fn check_input_size(size: usize) -> Result<usize> {
    // 512 patches a side: far beyond what attention over all of them can hold, and no product of sizes overflows below it.
    const LARGEST: usize = 14 * 512;
    if size == 0 || !size.is_multiple_of(14) || size > LARGEST {
        return Err(Error::input(format!(
            "--input-size {size}: expected a positive multiple of 14 of at most {LARGEST}, for example 224"
        )));
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn clap_s_errors_become_one_line() {
        let line = |args: &[&str]| {
            let args: Vec<OsString> = ["peftk"].iter().chain(args).map(OsString::from).collect();
            flag_error(&Cli::try_parse_from(&args).unwrap_err(), &args)
        };
        for args in [&[][..], &["fly"], &["train", "--lrr", "1"], &["eval"], &["train", "--rank", "x"]] {
            let text = line(args);
            assert!(!text.contains('\n') && text.contains("--help") && !text.contains("Usage"), "{text}");
        }
        assert!(line(&["train", "--lrr", "1"]).contains("a similar argument exists: '--lr'"));
        assert!(line(&["train", "--lrr", "1"]).ends_with("see peftk train --help"));
        assert!(line(&["eval", "--data", "x"]).contains("--model"));
    }
}
