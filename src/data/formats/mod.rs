//! Data sets in the layouts that their authors gave them, with their own splits and class names.

mod aircraft;
mod cars;
mod coco;
mod cub;
mod datumaro;
mod food;
mod ham10000;
mod idx;
mod kitti;
mod lines;
mod mat;
mod parquet;
mod resisc45;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::folder::Ignored;
use super::nested::{self, Growing};
use super::open::Given;
use super::problems::Problems;
use super::{Dataset, Item, Label, Source, split};
use crate::config::{Format, Task};
use crate::{Error, Result};

/// The format that lies in a folder, by the files that only it has; none: a folder of images, or a table of them.
///
/// # Errors
/// Files of several formats.
pub(super) fn detect(dir: &Path) -> Result<Option<Format>> {
    type LiesIn = fn(&Path) -> bool;
    let looks: [(Format, LiesIn); 11] = [
        (Format::Aircraft, aircraft::lies_in),
        (Format::Food101, food::lies_in),
        (Format::StanfordCars, cars::lies_in),
        (Format::Cub200, cub::lies_in),
        (Format::Ham10000, ham10000::lies_in),
        (Format::Kitti, kitti::lies_in),
        (Format::Datumaro, datumaro::lies_in),
        (Format::Coco, coco::lies_in),
        (Format::Idx, idx::lies_in),
        (Format::Parquet, parquet::lies_in),
        (Format::Resisc45, resisc45::lies_in),
    ];
    let found: Vec<Format> = looks.into_iter().filter(|(_, lies_in)| lies_in(dir)).map(|(format, _)| format).collect();
    match found[..] {
        [] => Ok(None),
        [format] => Ok(Some(format)),
        [first, second, ..] => Err(Error::input(format!(
            "{}: files of {} and of {} lie there; say which with --format",
            dir.display(),
            first.name(),
            second.name()
        ))),
    }
}

/// Reads a data set of its own layout. `None` for what `folder` and `csv` read.
///
/// # Errors
/// One line that names the file, the line in it and the mend: a file that is not there, a label out of range, an image that is listed twice.
pub(super) fn read(dir: &Path, format: Format, task: Option<Task>) -> Option<Result<Given>> {
    let read = match format {
        Format::Auto | Format::Folder | Format::Csv => return None,
        Format::Aircraft if task == Some(Task::Hierarchical) => aircraft::hierarchy,
        Format::Aircraft => aircraft::variants,
        Format::AircraftFamily => aircraft::families,
        Format::AircraftManufacturer => aircraft::manufacturers,
        Format::Food101 => food::read,
        Format::StanfordCars => cars::read,
        Format::Cub200 => cub::read,
        Format::Ham10000 => ham10000::read,
        Format::Kitti => kitti::read,
        Format::Datumaro => return Some(datumaro::read(dir, task)),
        Format::Coco => coco::read,
        Format::Idx => idx::read,
        Format::Parquet => parquet::read,
        Format::Resisc45 => resisc45::read,
    };
    Some(read(dir))
}

/// The part of a data set that an image belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Part {
    Train,
    Val,
    Test,
}

impl Part {
    const ALL: [Self; 3] = [Self::Train, Self::Val, Self::Test];

    fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Val => "val",
            Self::Test => "test",
        }
    }
}

/// Images as a reader lists them, one after the other.
pub(super) struct Listed {
    classes: Vec<String>,
    task: Task,
    parts: HashMap<Part, Vec<Item>>,
    /// Where an image was listed first.
    seen: HashMap<PathBuf, String>,
    folders: HashMap<PathBuf, HashSet<std::ffi::OsString>>,
    problems: Problems,
}

impl Listed {
    /// No images yet.
    pub(super) fn new(classes: Vec<String>, task: Task) -> Self {
        Self {
            classes,
            task,
            parts: HashMap::new(),
            seen: HashMap::new(),
            folders: HashMap::new(),
            problems: Problems::default(),
        }
    }

    /// One entry of a list. What is wrong with it is said once all entries were looked at.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(super) fn entry(&mut self, one: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let result = one(self);
        self.problems.keep(result).map(drop)
    }

    /// One image; `place` is what lists it: a file and a line.
    pub(super) fn add(&mut self, part: Part, path: PathBuf, label: Label, place: &str) -> Result<()> {
        self.check(&label, place)?;
        if !self.is_there(&path)? {
            return Err(Error::input(format!(
                "{place}: no file {}; unpack the images there, or remove the entry",
                path.display()
            )));
        }
        if let Some(first) = self.seen.insert(path.clone(), place.to_owned()) {
            return Err(Error::input(format!("{place}: {} is listed at {first} already; keep one", path.display())));
        }
        self.parts.entry(part).or_default().push(Item { source: Source::File(path), label });
        Ok(())
    }

    /// One image that is no file of its own.
    pub(super) fn add_source(&mut self, part: Part, source: Source, label: Label, place: &str) -> Result<()> {
        self.check(&label, place)?;
        self.parts.entry(part).or_default().push(Item { source, label });
        Ok(())
    }

    /// An error for a label that is no class.
    fn check(&self, label: &Label, place: &str) -> Result<()> {
        let highest = label.classes().into_iter().max().unwrap_or(0);
        if highest < self.classes.len() {
            return Ok(());
        }
        Err(Error::input(format!(
            "{place}: label {highest}, counted from 0, but there are {} classes; correct one of them",
            self.classes.len()
        )))
    }

    /// Whether a file is there, by one listing a folder: sets have a hundred thousand.
    fn is_there(&mut self, path: &Path) -> Result<bool> {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return Ok(false) };
        if !self.folders.contains_key(folder) {
            let mut names = HashSet::new();
            if folder.is_dir() {
                for entry in std::fs::read_dir(folder).map_err(|e| Error::io("read", folder, e))? {
                    names.insert(entry.map_err(|e| Error::io("read", folder, e))?.file_name());
                }
            }
            self.folders.insert(folder.to_owned(), names);
        }
        Ok(self.folders[folder].contains(name))
    }

    /// Without the classes that no image has: exports list super-categories, and subsets the categories of the whole. With how many there were.
    pub(super) fn without_unused(mut self) -> (Self, usize) {
        let mut used = vec![false; self.classes.len()];
        let items = || self.parts.values().flatten();
        items().flat_map(|item| item.label.classes()).for_each(|class| used[class] = true);
        let unused = used.iter().filter(|used| !**used).count();
        // Nothing is used: the caller's check of the classes says that better.
        if unused == 0 || unused == used.len() {
            return (self, 0);
        }
        let index: Vec<usize> = used
            .iter()
            .scan(0, |next, &used| {
                let own = *next;
                *next += usize::from(used);
                Some(own)
            })
            .collect();
        for item in self.parts.values_mut().flatten() {
            match &mut item.label {
                Label::Class(class) => *class = index[*class],
                Label::Multi(row) => {
                    let mut used = used.iter();
                    row.retain(|_| used.next() == Some(&true));
                }
            }
        }
        let mut keep = used.into_iter();
        self.classes.retain(|_| keep.next() == Some(true));
        (self, unused)
    }

    /// The parts; `described` is where from and how laid out.
    ///
    /// # Errors
    /// What was wrong with the entries.
    pub(super) fn given(mut self, described: String) -> Result<Given> {
        self.problems.finish()?;
        let (classes, task) = (&self.classes, self.task);
        let mut of = |part| {
            let items = self.parts.remove(&part)?;
            let mut dataset = Dataset { classes: classes.clone(), items, task, tree: None };
            // By class, then by file, as everywhere.
            dataset.items.sort_by_cached_key(|item| {
                let class = item.label.classes().first().copied().filter(|_| task == Task::Multiclass);
                match &item.source {
                    Source::Grey { images, index } => (class, images.name.clone(), *index),
                    Source::Packed { images, row } => (class, images.path().display().to_string(), *row),
                    source => (class, source.name(), 0),
                }
            });
            Some(dataset)
        };
        let [train, val, test] = Part::ALL.map(&mut of);
        let train =
            train.unwrap_or_else(|| Dataset { classes: self.classes.clone(), items: Vec::new(), task, tree: None });
        Ok(Given { train, val, test, ignored: Ignored::default(), described })
    }

    /// The parts, their labels in a tree of which `labels` says how they lie under each other; items are rows in its order. With how many labels no
    /// image has, which are left out.
    ///
    /// # Errors
    /// What was wrong with the entries; what is no tree; an image with labels that exclude each other.
    pub(super) fn given_in_tree(mut self, labels: Growing, described: impl Fn(usize) -> String) -> Result<Given> {
        self.problems.finish()?;
        let mut used = vec![false; labels.names.len()];
        let above = |label: usize| std::iter::successors(Some(label), |&label| labels.parents[label]);
        // Who refuses circles comes later.
        let most = labels.names.len();
        let items = || self.parts.values().flatten();
        items().flat_map(|item| item.label.classes()).for_each(|label| {
            above(label).take(most).for_each(|label| used[label] = true);
        });
        let unused = used.iter().filter(|used| !**used).count();
        let mut place = vec![None; most];
        (0..most).filter(|&label| used[label]).enumerate().for_each(|(new, old)| place[old] = Some(new));
        let moved = |label: &usize| place[*label];
        let kept = Growing {
            names: labels.names.iter().zip(&used).filter(|(_, used)| **used).map(|(name, _)| name.clone()).collect(),
            parents: (0..most)
                .filter(|&old| used[old])
                .map(|old| labels.parents[old].as_ref().and_then(moved))
                .collect(),
            groups: labels
                .groups
                .map(|groups| groups.iter().map(|group| group.iter().filter_map(moved).collect()).collect()),
        };
        let described = described(unused);
        let (classes, tree, order) = kept.tree(&described)?;
        for item in self.parts.values_mut().flatten() {
            let placed = |label: usize| place[label].map(|label: usize| order[label]);
            *item = nested::in_tree(item.clone(), &tree, &classes, placed)?;
        }
        self.classes = classes;
        let mut given = self.given(described)?;
        let sets = std::iter::once(&mut given.train).chain(&mut given.val).chain(&mut given.test);
        sets.for_each(|set| set.tree = Some(tree.clone()));
        Ok(given)
    }

    /// Where the authors give no split: 60 % of each class for training, 20 for validation and 20 for testing, the same ones always. Images of
    /// one `group` stay together.
    ///
    /// # Errors
    /// What was wrong with the entries.
    pub(super) fn split_60_20_20(self, group: impl Fn(&Item) -> String, described: String) -> Result<Given> {
        let mut given = self.given(described)?;
        let parts = split::three_ways(std::mem::take(&mut given.train.items), group);
        let of = |items| Dataset { classes: given.train.classes.clone(), items, task: given.train.task, tree: None };
        let [train, val, test] = parts.map(of);
        Ok(Given { train, val: Some(val), test: Some(test), ..given })
    }
}

/// Some editors begin a file of UTF-8 so.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// The bytes of a file of text, without the mark that it may begin with.
fn marked_bytes(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = std::fs::read(path).map_err(|e| Error::io("read", path, e))?;
    if bytes.starts_with(MARK) {
        bytes.drain(..MARK.len());
    }
    Ok(bytes)
}

/// The text of a file that a format needs.
pub(super) fn text(path: &Path) -> Result<String> {
    String::from_utf8(marked_bytes(path)?)
        .map_err(|_| Error::input(format!("{}: not UTF-8 text; save it as UTF-8", path.display())))
}

/// A JSON file that a format needs.
pub(super) fn json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    serde_json::from_slice(&marked_bytes(path)?).map_err(|e| Error::input(format!("{}: {e}", path.display())))
}

/// An index of names; a name that is there twice is an error.
pub(super) fn index_of<'a>(names: &'a [String], place: &str) -> Result<HashMap<&'a str, usize>> {
    let mut index = HashMap::with_capacity(names.len());
    for (i, name) in names.iter().enumerate() {
        if index.insert(name.as_str(), i).is_some() {
            return Err(Error::input(format!("{place}: {name:?} is there twice; keep one")));
        }
    }
    Ok(index)
}
