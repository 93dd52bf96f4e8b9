//! What a data set is: parts, classes, sizes, what cannot be read, what is there twice.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hasher;
use std::sync::mpsc;

use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};
use rayon::prelude::*;
use serde::Serialize;

use super::{BadImage, Item, Source, Splits, decode, decode_bytes, transform};
use crate::Error;
use crate::config::{Resize, Task};
use crate::task::tree::Tree;

/// What was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Survey {
    /// Where from, how laid out, counts: the line that training begins with.
    pub description: String,
    /// What labels are.
    pub task: Task,
    /// Class names in index order.
    pub classes: Vec<String>,
    /// Hierarchical: the tree of the classes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tree: Option<Tree>,
    /// Training, validation and testing, as far as they are there.
    pub parts: Vec<PartSurvey>,
    /// Images that cannot be read.
    pub unreadable: Vec<BadImage>,
    /// Images of equal bytes, each with the first of its kind.
    pub twins: Vec<Twins>,
}

/// One part of a data set.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PartSurvey {
    /// `train`, `val` or `test`.
    pub part: &'static str,
    /// Images.
    pub images: usize,
    /// Images of each class; multi-label: that have the label.
    pub counts: Vec<usize>,
    /// Smallest, median and largest width and height, in pixels, of those that can be read.
    pub width: Option<[usize; 3]>,
    /// The same of heights.
    pub height: Option<[usize; 3]>,
}

impl PartSurvey {
    /// How many times as many images the largest class has as the smallest that has any.
    pub fn imbalance(&self) -> Option<f64> {
        let most = self.counts.iter().max()?;
        let least = self.counts.iter().filter(|&&count| count > 0).min()?;
        Some(*most as f64 / *least as f64)
    }
}

/// Two images of equal bytes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Twins {
    /// Parts and paths.
    pub images: [(&'static str, String); 2],
    /// Whether their labels are the same.
    pub same_label: bool,
}

/// Decodes every image once. `progress` is told of images done and their total, on the caller's thread.
pub fn survey(splits: &Splits, progress: &dyn Fn(usize, usize)) -> Survey {
    let parts = [("train", Some(&splits.train)), ("val", splits.val.as_ref()), ("test", splits.test.as_ref())];
    let parts: Vec<_> = parts.into_iter().filter_map(|(name, set)| Some((name, set?))).collect();
    let items: Vec<(usize, &Item)> =
        parts.iter().enumerate().flat_map(|(part, (_, set))| set.items.iter().map(move |item| (part, item))).collect();
    let looks = look_at_all(&items, progress);

    let mut unreadable = Vec::new();
    let mut sizes: Vec<[Vec<usize>; 2]> = parts.iter().map(|_| [Vec::new(), Vec::new()]).collect();
    let mut by_bytes: HashMap<(u64, usize), Vec<usize>> = HashMap::new();
    for (index, ((part, item), look)) in items.iter().zip(looks).enumerate() {
        match look.size {
            Ok((width, height)) => {
                sizes[*part][0].push(width);
                sizes[*part][1].push(height);
            }
            Err(reason) => unreadable.push(BadImage { name: item.source.name(), reason }),
        }
        if let Some(bytes) = look.bytes {
            by_bytes.entry(bytes).or_default().push(index);
        }
    }
    // In the order of the images.
    let groups: BTreeMap<usize, Vec<usize>> =
        by_bytes.into_values().filter(|all| all.len() > 1).map(|all| (all[0], all)).collect();
    let mut twins = Vec::new();
    for all in groups.into_values() {
        let (first_part, first) = items[all[0]];
        for &other in &all[1..] {
            let (part, item) = items[other];
            let same_label = item.label == first.label;
            let of = |part: usize, item: &Item| (parts[part].0, item.source.name());
            twins.push(Twins { images: [of(first_part, first), of(part, item)], same_label });
        }
    }
    let of_part = |((name, set), [widths, heights]): (&(&'static str, &super::Dataset), [Vec<usize>; 2])| PartSurvey {
        part: name,
        images: set.items.len(),
        counts: set.class_counts(),
        width: spread(widths),
        height: spread(heights),
    };
    Survey {
        description: splits.description.clone(),
        task: splits.train.task,
        classes: splits.train.classes.clone(),
        tree: splits.train.tree.clone(),
        parts: parts.iter().zip(sizes).map(of_part).collect(),
        unreadable,
        twins,
    }
}

/// Smallest, median, largest.
fn spread(mut values: Vec<usize>) -> Option<[usize; 3]> {
    values.sort_unstable();
    Some([*values.first()?, values[values.len() / 2], *values.last()?])
}

/// What one image showed.
struct Look {
    size: std::result::Result<(usize, usize), String>,
    /// A hash of its bytes, and their number.
    bytes: Option<(u64, usize)>,
}

fn look_at_all(items: &[(usize, &Item)], progress: &dyn Fn(usize, usize)) -> Vec<Look> {
    let (send, receive) = mpsc::channel();
    let mut looks: Vec<Option<Look>> = items.iter().map(|_| None).collect();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            items.par_iter().enumerate().for_each_with(send, |send, (index, (_, item))| {
                // The receiver lives as long as this.
                let _ = send.send((index, look_at(&item.source)));
            });
        });
        for (done, (index, look)) in receive.iter().enumerate() {
            looks[index] = Some(look);
            progress(done + 1, items.len());
        }
    });
    let missing = || Look { size: Err("not looked at".into()), bytes: None };
    looks.into_iter().map(|look| look.unwrap_or_else(missing)).collect()
}

fn look_at(source: &Source) -> Look {
    let hashed = |bytes: &[u8]| {
        let mut hasher = std::hash::DefaultHasher::new();
        hasher.write(bytes);
        (hasher.finish(), bytes.len())
    };
    let encoded = |bytes: &[u8]| Look {
        size: decode_bytes(bytes).map(|image| (image.width, image.height)),
        bytes: Some(hashed(bytes)),
    };
    match source {
        Source::File(path) => match std::fs::read(path) {
            Ok(bytes) => encoded(&bytes),
            Err(e) => Look { size: Err(format!("cannot be read: {e}")), bytes: None },
        },
        Source::Memory { bytes, .. } => encoded(bytes),
        Source::Packed { images, row } => match images.read(*row) {
            Ok(bytes) => encoded(&bytes),
            Err(reason) => Look { size: Err(reason), bytes: None },
        },
        Source::Grey { images, index } => {
            let each = images.width * images.height;
            let pixels = images.pixels.get(index * each..(index + 1) * each);
            Look { size: Ok((images.width, images.height)), bytes: pixels.map(hashed) }
        }
    }
}

/// Images a row of a contact sheet, and the side of each in pixels.
const SHEET: (usize, usize) = (8, 96);
/// Rows of a contact sheet at most: one a class, so many classes.
pub const SHEET_ROWS: usize = 60;

/// A PNG of training images, a row a class, in index order, of [`SHEET_ROWS`] classes at most. What cannot be read is left white.
///
/// # Errors
/// None that depends on the images; [`crate::Error::Internal`] if a PNG cannot be made.
pub fn contact_sheet(splits: &Splits) -> crate::Result<Vec<u8>> {
    let (columns, side) = SHEET;
    let classes = splits.train.classes.len().min(SHEET_ROWS);
    let mut rows: Vec<Vec<&Source>> = vec![Vec::new(); classes];
    for item in &splits.train.items {
        for class in item.label.classes() {
            if class < classes && rows[class].len() < columns {
                rows[class].push(&item.source);
            }
        }
    }
    let width = columns * side;
    let mut sheet = vec![255_u8; width * side * 3 * classes.max(1)];
    sheet.par_chunks_mut(width * side * 3).zip(&rows).for_each(|(strip, row)| {
        let mut square = vec![0; side * side * 3];
        for (column, source) in row.iter().enumerate() {
            let made = decode(source).and_then(|image| transform::eval(&image, side, Resize::Crop, &mut square));
            if made.is_err() {
                continue;
            }
            for (y, line) in square.chunks(side * 3).enumerate() {
                let start = (y * width + column * side) * 3;
                strip[start..start + side * 3].copy_from_slice(line);
            }
        }
    });
    let mut png = Vec::new();
    let (width, height) = (width as u32, (classes.max(1) * side) as u32);
    PngEncoder::new(&mut png)
        .write_image(&sheet, width, height, ExtendedColorType::Rgb8)
        .map_err(|e| Error::Internal(format!("the contact sheet is no PNG: {e}")))?;
    Ok(png)
}
