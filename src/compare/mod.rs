//! The experiment of strategies by data sets: every run of it, what is known of them, and the report that is drawn from that.

pub mod advice;
mod cell;
pub mod config;
#[doc(hidden)]
pub mod example;
mod folder;
mod live;
pub mod numbers;
pub mod published;
pub mod report;
pub mod results;
mod run;
mod sheets;
pub mod stats;
pub mod summary;
mod tune;

pub use config::{CompareConfig, SetConfig, Tune};
pub(crate) use folder::file_name;
pub use run::run;

use std::path::Path;

use crate::Result;

/// Writes what is known so far as a report into a comparison's folder.
///
/// # Errors
/// Files that cannot be written.
pub fn write_report(results: &results::Results, folder: &Path, published: Option<&published::Published>) -> Result<()> {
    report::write(folder, results, &report::Extras { published, contact_sheets: sheets::of(results, folder) })
}
