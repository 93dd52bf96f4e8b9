//! The images that a classifier is wrong about, the most confident first: a table, and a sheet of the first of them.

use std::path::Path;

use image::codecs::png::PngEncoder;
use image::imageops::{self, FilterType};
use image::{ExtendedColorType, ImageEncoder};
use rayon::prelude::*;

use super::eval_files::cell;
use crate::config::Task;
use crate::data::{Batch, Item, Source, decode};
use crate::io::{atomic, lettering};
use crate::task::labels::Labels;
use crate::task::tree::Tree;
use crate::{Error, Result};

/// Images a line of the sheet, and lines at most.
const COLUMNS: usize = 6;
const MOST_LINES: usize = 10;
/// Side of the square that an image is fitted into, the space around it, and a line of text, in pixels.
const SIDE: usize = 128;
const GAP: usize = 6;
const LINE: usize = lettering::HEIGHT + 3;
/// Lines under an image: what it is, what it was taken for, how probable that was.
const CAPTION: usize = 3;
/// Pixels from one line of images to the next.
pub(crate) const LINE_HEIGHT: usize = SIDE + CAPTION * LINE + GAP;
const BLACK: [u8; 3] = [0; 3];
/// Vermilion of Okabe and Ito, for what was said wrongly.
const RED: [u8; 3] = [213, 94, 0];

/// An image and what was wrong about it.
#[derive(Clone, Debug, PartialEq)]
pub struct WrongImage {
    /// The image.
    pub source: Source,
    /// What it shows: a class, the way through a tree, or a label that it has (`beach`) or has not (`not beach`).
    pub truth: String,
    /// What it was said to show, in the same words.
    pub predicted: String,
    /// How probable that was, from 0 to 1: of a tree the first wrong turn, of a label the label (of a missed one: what was left of it).
    pub probability: f64,
    /// By what the list is sorted: the same, but of a label how far its probability is on the wrong side of its threshold.
    pub confidence: f64,
}

/// Collects what is wrong, batch by batch.
///
/// Multi-class: another class than the image's is the most probable. Hierarchical: some label on the predicted way is not the image's,
/// wherever that is known. Multi-label: each label that an image is given wrongly and each that it has and is not given, on its own.
pub struct Errors<'a> {
    labels: &'a Labels,
    found: Vec<(usize, Wrong)>,
}

/// What is wrong about the image of an index.
struct Wrong {
    truth: String,
    predicted: String,
    probability: f64,
    confidence: f64,
}

impl<'a> Errors<'a> {
    /// Nothing yet.
    pub fn new(labels: &'a Labels) -> Self {
        Self { labels, found: Vec::new() }
    }

    /// Adds a batch by its logits \[images, labels\].
    pub fn add(&mut self, batch: &Batch, logits: &[f32]) {
        let count = self.labels.len().max(1);
        let nothing: &[f32] = &[];
        let rows = batch.targets.chunks_exact(count).chain(std::iter::repeat(nothing));
        for (place, ((&index, logits), row)) in
            batch.indices.iter().zip(logits.chunks_exact(count)).zip(rows).enumerate()
        {
            let probs = self.labels.probabilities(logits);
            let wrong = match (self.labels.task, &self.labels.tree, batch.labels.get(place)) {
                (Task::Hierarchical, Some(tree), _) => Vec::from_iter(self.wrong_way(tree, logits, &probs, row)),
                (Task::Multiclass, _, Some(&class)) => Vec::from_iter(self.wrong_class(logits, &probs, class)),
                _ => self.wrong_labels(logits, &probs, row),
            };
            self.found.extend(wrong.into_iter().map(|wrong| (index, wrong)));
        }
    }

    /// The list, the most confident first, of equals the first image; `items` are those of the data set.
    pub fn ranked(self, items: &[Item]) -> Vec<WrongImage> {
        let source = |index: usize| items.get(index).map(|item| item.source.clone());
        let wrong = |(index, wrong): (usize, Wrong)| {
            let Wrong { truth, predicted, probability, confidence } = wrong;
            Some(WrongImage { source: source(index)?, truth, predicted, probability, confidence })
        };
        let mut found = self.found;
        found.sort_by_key(|(index, _)| *index);
        let mut list: Vec<WrongImage> = found.into_iter().filter_map(wrong).collect();
        list.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
        list
    }

    fn wrong_class(&self, logits: &[f32], probs: &[f32], class: usize) -> Option<Wrong> {
        let said = self.labels.answer(logits).into_iter().next()?;
        let name = |class: usize| self.labels.names.get(class).cloned().unwrap_or_default();
        let probability = f64::from(probs[said]);
        let wrong = Wrong { truth: name(class), predicted: name(said), probability, confidence: probability };
        (said != class).then_some(wrong)
    }

    fn wrong_labels(&self, logits: &[f32], probs: &[f32], row: &[f32]) -> Vec<Wrong> {
        let given = self.labels.given(logits);
        let mut wrong = Vec::new();
        for (label, &truth) in row.iter().enumerate() {
            let (has, said) = (truth > 0.5, given.contains(&label));
            // Of a label that nobody knows nothing is wrong.
            if truth < 0.0 || has == said {
                continue;
            }
            let (name, p) = (&self.labels.names[label], f64::from(probs[label]));
            let threshold = self.labels.thresholds.as_ref().map_or(0.5, |all| all[label]);
            let [truth, predicted] = [has, said].map(|there| if there { name.clone() } else { format!("not {name}") });
            let probability = if said { p } else { 1.0 - p };
            wrong.push(Wrong { truth, predicted, probability, confidence: (p - threshold).abs() });
        }
        wrong
    }

    /// The way is wrong where [`crate::task::tree_metrics::TreeMetrics::path_accuracy`] counts it as such.
    fn wrong_way(&self, tree: &Tree, logits: &[f32], probs: &[f32], row: &[f32]) -> Option<Wrong> {
        if row.len() != tree.labels() {
            return None;
        }
        let taken = tree.predict(logits);
        // (depth, how probable what was said instead) of each decision that is wrong.
        let mut turns: Vec<(usize, f64)> = Vec::new();
        for head in tree.heads() {
            let Some(truth) = head.clone().find(|&label| row[label] > 0.5) else { continue };
            if !taken.contains(&truth) {
                let said = head.clone().find(|label| taken.contains(label));
                let probability = said.map_or(1.0 - f64::from(probs[truth]), |label| f64::from(probs[label]));
                turns.push((tree.depth(truth), probability));
            }
        }
        for label in tree.single() {
            let asked = row[label] >= 0.0 && tree.parent(label).is_none_or(|parent| row[parent] > 0.5);
            let (has, said, p) = (row[label] > 0.5, taken.contains(&label), f64::from(probs[label]));
            if asked && has != said {
                turns.push((tree.depth(label), if said { p } else { 1.0 - p }));
            }
        }
        let (_, probability) = turns.into_iter().min_by_key(|turn| turn.0)?;
        let way = |labels: &mut dyn Iterator<Item = usize>| {
            let names: Vec<&str> = labels.map(|label| &*self.labels.names[label]).collect();
            if names.is_empty() { "(none)".to_owned() } else { names.join(" > ") }
        };
        let truth = way(&mut tree.walk_all().into_iter().filter(|&label| row[label] > 0.5));
        let predicted = way(&mut taken.iter().copied());
        Some(Wrong { truth, predicted, probability, confidence: probability })
    }
}

/// Writes `errors.csv`, a line an error, and `errors.png`, the first 60 of them as [`sheet`] draws them.
///
/// # Errors
/// A folder that cannot be made, a file that cannot be written.
pub fn write(dir: &Path, list: &[WrongImage]) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(|e| Error::io("create", dir, e))?;
    let line = |wrong: &WrongImage| {
        let [path, truth, predicted] = [&wrong.source.name(), &wrong.truth, &wrong.predicted].map(|text| cell(text));
        format!("{path},{truth},{predicted},{}\n", wrong.probability)
    };
    let table = "path,truth,predicted,probability\n".to_owned() + &list.iter().map(line).collect::<String>();
    atomic::write_file(&dir.join("errors.csv"), table.as_bytes())?;
    atomic::write_file(&dir.join("errors.png"), &sheet(list)?)
}

/// A PNG of the first 60 images of a list, six a line, whole and fitted into 128 pixels; below each what it is, what it was taken for and how
/// probable that was. What cannot be read is left white. Of an empty list it says that there are no errors.
///
/// # Errors
/// None that depends on the images; [`Error::Internal`] if a PNG cannot be made.
pub fn sheet(list: &[WrongImage]) -> Result<Vec<u8>> {
    let list = &list[..list.len().min(COLUMNS * MOST_LINES)];
    let columns = list.len().clamp(1, COLUMNS);
    let (width, height) = (columns * (SIDE + GAP) + GAP, LINE_HEIGHT);
    let lines = list.chunks(COLUMNS).len().max(1);
    let mut pixels = vec![255_u8; width * height * lines * 3];
    let strips: Vec<_> = pixels.chunks_mut(width * height * 3).zip(list.chunks(COLUMNS)).collect();
    strips.into_par_iter().for_each(|(strip, images)| {
        for (column, wrong) in images.iter().enumerate() {
            let left = GAP + column * (SIDE + GAP);
            put_image(strip, width, left, &wrong.source);
            let said = format!("{:.1} %", wrong.probability * 100.0);
            let captions = [(&wrong.truth, BLACK), (&wrong.predicted, RED), (&said, RED)];
            for (number, (text, colour)) in captions.into_iter().enumerate() {
                let place = (left, GAP + SIDE + 3 + number * LINE);
                lettering::draw(strip, width, place, &lettering::fitted(text, SIDE / lettering::ADVANCE), colour);
            }
        }
    });
    if list.is_empty() {
        lettering::draw(&mut pixels, width, (GAP, GAP), "no errors", BLACK);
    }
    let mut png = Vec::new();
    PngEncoder::new(&mut png)
        .write_image(&pixels, width as u32, (height * lines) as u32, ExtendedColorType::Rgb8)
        .map_err(|e| Error::Internal(format!("the sheet of errors is no PNG: {e}")))?;
    Ok(png)
}

/// An image in the middle of its square, its sides in their proportion.
fn put_image(strip: &mut [u8], width: usize, left: usize, source: &Source) {
    let Ok(image) = decode(source) else { return };
    let longest = image.width.max(image.height).max(1);
    let fit = |side: usize| (side * SIDE).div_ceil(longest).clamp(1, SIDE);
    let (across, down) = (fit(image.width), fit(image.height));
    let Some(image) = image::RgbImage::from_raw(image.width as u32, image.height as u32, image.pixels) else { return };
    let small = imageops::resize(&image, across as u32, down as u32, FilterType::Triangle);
    let (left, top) = (left + (SIDE - across) / 2, GAP + (SIDE - down) / 2);
    for (line, row) in small.as_raw().chunks_exact(across * 3).enumerate() {
        let start = ((top + line) * width + left) * 3;
        strip[start..start + across * 3].copy_from_slice(row);
    }
}

#[cfg(test)]
#[path = "errors_sheet_tests.rs"]
mod tests;
