//! For each data set the most confident errors of the best strategy on it: the first lines of the sheet that its first seed's test left.

use std::io::Cursor;
use std::path::Path;

use image::{ImageFormat, imageops};

use super::report::ContactSheet;
use super::results::Results;
use super::summary;
use crate::train;

/// Lines of a run's sheet that a report shows.
const LINES: u32 = 2;

/// The sheets, where they are; one that cannot be read is left out, as a report without pictures is worth more than none.
pub fn of(results: &Results, folder: &Path) -> Vec<ContactSheet> {
    let rows = summary::by_dataset(results);
    let sheet = |set: usize| {
        let of_set = rows.iter().filter(|row| row.dataset == Some(set)).filter_map(|row| Some((row, row.test?)));
        let (best, _) = of_set.max_by(|a, b| a.1.mean.total_cmp(&b.1.mean))?;
        let of_best = |cell: &&super::results::Cell| {
            (cell.dataset, cell.variant) == (set, best.variant) && cell.outcome.measured().is_some()
        };
        let cell = results.cells.iter().find(of_best)?;
        let whole = image::open(folder.join(&cell.run).join(super::run::TEST).join("errors.png")).ok()?.into_rgb8();
        let height = whole.height().min(LINES * train::ERRORS_LINE as u32);
        let part = imageops::crop_imm(&whole, 0, 0, whole.width(), height).to_image();
        let mut png = Vec::new();
        part.write_to(&mut Cursor::new(&mut png), ImageFormat::Png).ok()?;
        let variant = &results.variants[cell.variant].name;
        let caption = format!(
            "{}: test images that {variant} (seed {}) is most sure of and wrong about. Below each: what it is, what it was taken for, how \
             probable that was.",
            results.datasets[set].name, cell.seed
        );
        Some(ContactSheet { dataset: set, caption, png })
    };
    (0..results.datasets.len()).filter_map(sheet).collect()
}
