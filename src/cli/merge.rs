//! `peftk merge`.

use std::path::PathBuf;

use super::predict::SourceFlags;
use crate::config::{MergeConfig, ModelSource};
use crate::train::run_dir::RunDir;
use crate::train::{self, Ui};
use crate::{Error, Result};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    source: SourceFlags,
    /// Folder to write, missing or empty
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Nothing on stderr but errors
    #[arg(long)]
    quiet: bool,
}

pub fn main(args: Args) -> Result<()> {
    let model = args.source.source()?;
    if matches!(model, ModelSource::Backbone { adapter: None, .. }) {
        return Err(Error::input("--backbone: there is nothing to merge without --adapter A"));
    }
    RunDir::check_free(&args.out)?;
    let ui = Ui::new(args.quiet);
    let config = MergeConfig { model, out: args.out };
    train::merge(&config, &ui)?;
    ui.result(&config.out.display().to_string())
}
