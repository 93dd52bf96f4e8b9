//! Data: from a folder (or the embedded set) to batches of square u8 images, or of what a device needs to make them.
//!
//! [`open`] finds the images and their labels, [`verify`] decodes each of them once before the first step, and a [`Loader`]
//! hands out batches that depend on the seed, the epoch and the data alone: not on threads, not on where an epoch was resumed.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::path::PathBuf;
use std::sync::Arc;

use crate::config::Task;
use crate::task::labels::Labels;
use crate::task::tree::Tree;

mod cache;
mod cache_file;
mod csv;
mod decode;
mod embedded;
mod epoch;
mod exif;
mod folder;
mod formats;
mod jpeg;
mod loader;
mod nameless;
mod nested;
mod open;
mod packed;
mod png;
mod problems;
mod sampler;
mod sources;
mod split;
mod survey;
pub mod transform;
mod verify;

pub use cache::ImageCache;
pub use decode::{MAX_PIXELS, RgbImage, decode, decode_bytes, has_image_extension};
pub use embedded::embedded;
pub use epoch::Epoch;
pub use loader::{Batch, Loader, LoaderOptions};
pub use open::{OpenOptions, Splits, open, open_for_eval};
pub use packed::PackedImages;
pub use sources::{MAX_SOURCE_SIDE, Sources};
pub use survey::{PartSurvey, SHEET_ROWS, Survey, Twins, contact_sheet, survey};
pub use verify::{BadImage, verify};

/// Grey images of one size, that one file holds.
pub struct GreyImages {
    /// The file.
    pub name: String,
    /// Pixels across.
    pub width: usize,
    /// Pixels down.
    pub height: usize,
    /// u8 \[images, height, width\].
    pub pixels: Vec<u8>,
}

/// Where an image is.
#[derive(Clone)]
pub enum Source {
    /// A file.
    File(PathBuf),
    /// An image inside the executable.
    Memory {
        /// What to call it in messages: `embedded/<split>/<class>/<file>`.
        name: String,
        /// The encoded image.
        bytes: &'static [u8],
    },
    /// One of many in a file that is in memory.
    Grey {
        /// All of the file's.
        images: Arc<GreyImages>,
        /// Which.
        index: usize,
    },
    /// One of many encoded images in a file that is on the disk.
    Packed {
        /// All of the file's.
        images: Arc<PackedImages>,
        /// Which row, counted from 0.
        row: usize,
    },
}

impl Source {
    /// The path, or the name of an embedded image.
    pub fn name(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Memory { name, .. } => f.write_str(name),
            Self::Grey { images, index } => write!(f, "{}[{index}]", images.name),
            Self::Packed { images, row } => write!(f, "{}[{row}]", images.path().display()),
        }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

// Two sources are the same image if they have the same path or name: hashing the bytes would cost more than it tells.
impl PartialEq for Source {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File(a), Self::File(b)) => a == b,
            (Self::Memory { name: a, .. }, Self::Memory { name: b, .. }) => a == b,
            (Self::Grey { images: a, index: i }, Self::Grey { images: b, index: j }) => i == j && a.name == b.name,
            (Self::Packed { images: a, row: i }, Self::Packed { images: b, row: j }) => i == j && a.path() == b.path(),
            _ => false,
        }
    }
}

impl Eq for Source {}

impl Hash for Source {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::File(path) => path.hash(state),
            Self::Memory { name, .. } => name.hash(state),
            Self::Grey { images, index } => (&images.name, index).hash(state),
            Self::Packed { images, row } => (images.path(), row).hash(state),
        }
    }
}

/// What an image shows.
#[derive(Clone, Debug, PartialEq)]
pub enum Label {
    /// One class, by its index.
    Class(usize),
    /// A row, one entry a class: 1 where the image has it, 0 where not, -1 where nobody knows.
    Multi(Vec<f32>),
}

impl Label {
    /// The classes that the image counts for.
    pub fn classes(&self) -> Vec<usize> {
        match self {
            Self::Class(class) => vec![*class],
            Self::Multi(row) => (0..row.len()).filter(|&c| row[c] > 0.5).collect(),
        }
    }
}

/// One labelled image.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// Where it is.
    pub source: Source,
    /// What it shows.
    pub label: Label,
}

/// Labelled images of one split, in their fixed order: by class, then by file name, in byte order.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    /// Class names in index order.
    pub classes: Vec<String>,
    /// The images.
    pub items: Vec<Item>,
    /// What the labels are; every item has the fitting [`Label`].
    pub task: Task,
    /// Hierarchical: the tree of the classes. Rows hold ancestors, too.
    pub tree: Option<Tree>,
}

impl Dataset {
    /// What its labels are, for a classifier of them.
    pub fn labels(&self) -> Labels {
        Labels { tree: self.tree.clone(), ..Labels::new(self.task, &self.classes) }
    }

    /// The one class that an image is drawn, held back and counted by: its class, or in a tree its deepest label. None for multi-label images.
    pub fn stratum(&self, item: &Item) -> Option<usize> {
        match (&item.label, &self.tree) {
            (Label::Class(class), _) => Some(*class),
            (Label::Multi(row), Some(tree)) => tree.leaf(row),
            _ => None,
        }
    }

    /// Images a class, in index order (multi-label: images that have the label).
    pub fn class_counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.classes.len()];
        for item in &self.items {
            match &item.label {
                Label::Class(class) => counts[*class] += 1,
                Label::Multi(row) => row.iter().zip(&mut counts).for_each(|(&v, n)| *n += usize::from(v > 0.5)),
            }
        }
        counts
    }
}

/// The word for a count: `1 image`, `2 images`.
fn plural(count: usize, one: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") }
}
