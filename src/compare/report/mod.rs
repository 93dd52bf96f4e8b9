//! The report of a comparison: a page, the same in Markdown, the raw numbers, the charts. The same results give the same bytes.

mod charts;
mod csv;
mod html;
mod json;
mod markdown;
mod tables;

use std::path::Path;

use super::advice;
use super::published::Published;
use super::results::Results;
use crate::io::atomic;
use crate::{Error, Result};

/// What a report holds beside the results.
#[derive(Default)]
pub struct Extras<'a> {
    /// A published table to show beside them.
    pub published: Option<&'a Published>,
    /// Pictures of test images that were wrong with confidence.
    pub contact_sheets: Vec<ContactSheet>,
}

/// A picture of confident errors on a data set.
pub struct ContactSheet {
    /// Index into [`Results::datasets`].
    pub dataset: usize,
    /// What it shows, in a sentence.
    pub caption: String,
    /// A PNG file's bytes.
    pub png: Vec<u8>,
}

/// Writes report.html, report.md, results.csv, results.json and charts/*.svg and *.png into `dir`, which is made where it is missing. Runs may
/// be pending or failed.
///
/// # Errors
/// A folder that cannot be made, a file that cannot be written.
pub fn write(dir: &Path, results: &Results, extras: &Extras) -> Result<()> {
    let folder = dir.join("charts");
    std::fs::create_dir_all(&folder).map_err(|e| Error::io("create", &folder, e))?;
    let advice = advice::of(results, extras.published);
    let charts = charts::all(results);
    for chart in &charts {
        atomic::write_file(&folder.join(format!("{}.svg", chart.name)), chart.svg().as_bytes())?;
        atomic::write_file(&folder.join(format!("{}.png", chart.name)), &chart.png()?)?;
    }
    atomic::write_file(&dir.join("results.csv"), csv::of(results).as_bytes())?;
    atomic::write_file(&dir.join("results.json"), &json::of(results, &advice)?)?;
    atomic::write_file(&dir.join("report.md"), markdown::of(results, &advice, &charts, extras).as_bytes())?;
    // Last: whoever reloads the page finds the files that it names.
    atomic::write_file(&dir.join("report.html"), html::of(results, &advice, &charts, extras).as_bytes())
}
