//! Class folders: `DIR/<class>/<image>`, and the listing that they and `labels.csv` share.

use std::path::{Path, PathBuf};

use super::{Dataset, Item, Label, Source, csv, has_image_extension, nested, plural};
use crate::config::Task;
use crate::{Error, Result};

/// The file that makes a folder a multi-label one.
pub(super) const LABELS: &str = "labels.csv";

/// What was passed over in a folder: nothing is left out without being counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ignored {
    /// Files and folders whose name starts with a dot.
    pub hidden: usize,
    /// Files without an image's ending.
    pub not_images: usize,
    /// Folders inside class folders, or beside what is used.
    pub folders: usize,
    /// Images that no label names: beside the class folders, or not in `labels.csv`.
    pub unlabelled: usize,
}

impl Ignored {
    pub fn add(&mut self, other: Self) {
        self.hidden += other.hidden;
        self.not_images += other.not_images;
        self.folders += other.folders;
        self.unlabelled += other.unlabelled;
    }
}

impl std::fmt::Display for Ignored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts = [
            (self.not_images, "file that is not an image", "files that are not images"),
            (self.unlabelled, "image without a label", "images without a label"),
            (self.folders, "folder", "folders"),
            (self.hidden, "hidden entry", "hidden entries"),
        ];
        let parts =
            parts.iter().filter(|p| p.0 > 0).map(|(n, one, more)| format!("{n} {}", if *n == 1 { one } else { more }));
        f.write_str(&parts.collect::<Vec<_>>().join(", "))
    }
}

/// One folder's labelled images, whatever tells the labels.
#[derive(Debug)]
pub(super) struct Found {
    /// The images.
    pub dataset: Dataset,
    /// What was passed over.
    pub ignored: Ignored,
}

/// Reads a folder with `labels.csv`, or else one of class folders, these with a tree of labels where one is written down or the folders lie within
/// each other. `flag` is what the folder was given by.
///
/// Every class folder becomes a class, an empty one too: the caller knows whether that is an error.
pub(super) fn read(dir: &Path, task: Option<Task>, flag: &str) -> Result<Found> {
    check_folder(dir, flag)?;
    let has_table = dir.join(LABELS).is_file();
    // A tree that a file writes down holds for both layouts.
    if let (None | Some(Task::Hierarchical), Some(tree)) = (task, nested::tree_file(dir)) {
        let found = if has_table { csv::read(dir, None)? } else { class_folders(dir, Some(Task::Multiclass))? };
        return nested::under_tree(without_empty(found), dir, &tree);
    }
    if has_table { csv::read(dir, task) } else { class_folders(dir, task) }
}

/// Without the classes of empty folders: in a tree others say which labels there are.
fn without_empty(mut found: Found) -> Found {
    let set = &mut found.dataset;
    if set.items.iter().all(|item| matches!(item.label, Label::Class(_))) {
        let counts = set.class_counts();
        let mut index = vec![0; counts.len()];
        let mut kept = Vec::new();
        for (class, name) in set.classes.iter().enumerate().filter(|(class, _)| counts[*class] > 0) {
            index[class] = kept.len();
            kept.push(name.clone());
        }
        set.classes = kept;
        set.items.iter_mut().for_each(|item| {
            if let Label::Class(class) = &mut item.label {
                *class = index[*class];
            }
        });
    }
    found
}

/// An error unless `dir` is a folder.
pub(super) fn check_folder(dir: &Path, flag: &str) -> Result<()> {
    let shown = dir.display();
    if dir.is_dir() {
        return Ok(());
    }
    let found = if dir.exists() { "is a file, not a folder" } else { "there is no such folder" };
    Err(Error::input(format!("{flag} {shown}: {found}; give a folder of class folders, or one with {LABELS}")))
}

pub(super) fn class_folders(dir: &Path, task: Option<Task>) -> Result<Found> {
    let shown = dir.display();
    if task == Some(Task::Multilabel) {
        return Err(Error::input(format!(
            "{shown}: --task multilabel needs {LABELS} there (filename, then one 0/1 column a label), found none; add it or leave --task out"
        )));
    }
    let listing = list(dir)?;
    let mut ignored = listing.ignored;
    // Images beside the class folders have no class.
    ignored.unlabelled += listing.images.iter().filter(|p| !p.is_dir()).count();
    let mut folders = listing.folders;
    // A class may be called like a file.
    folders.extend(listing.images.into_iter().filter(|p| p.is_dir()));
    sort(&mut folders);
    if task == Some(Task::Hierarchical) || (task.is_none() && nested::is_nested(&folders)?) {
        return nested::read(dir);
    }
    if folders.is_empty() {
        let images = plural(ignored.unlabelled, "image");
        return Err(Error::input(format!(
            "{shown}: no class folders (and {images} outside of any); expected {shown}/<class>/<image>, or {LABELS}"
        )));
    }
    let mut classes = Vec::new();
    let mut items = Vec::new();
    for (class, folder) in folders.iter().enumerate() {
        let name = folder.file_name().and_then(|n| n.to_str()).ok_or_else(|| {
            Error::input(format!("{}: a class folder's name must be valid UTF-8; rename it", folder.display()))
        })?;
        classes.push(name.to_owned());
        let inside = list(folder)?;
        ignored.add(inside.ignored);
        ignored.folders += inside.folders.len();
        items.extend(inside.images.into_iter().map(|p| Item { source: Source::File(p), label: Label::Class(class) }));
    }
    Ok(Found { dataset: Dataset { classes, items, task: Task::Multiclass, tree: None }, ignored })
}

/// What lies directly in a folder, by name in byte order.
pub(super) struct Listing {
    /// Whatever is called like an image, be it a folder or a broken link: decoding will say so.
    pub images: Vec<PathBuf>,
    /// Other folders.
    pub folders: Vec<PathBuf>,
    /// The rest.
    pub ignored: Ignored,
}

/// Lists a folder.
pub(super) fn list(dir: &Path) -> Result<Listing> {
    let mut listing = Listing { images: Vec::new(), folders: Vec::new(), ignored: Ignored::default() };
    for entry in std::fs::read_dir(dir).map_err(|e| Error::io("read", dir, e))? {
        let entry = entry.map_err(|e| Error::io("read", dir, e))?;
        let path = entry.path();
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            listing.ignored.hidden += 1;
        } else if has_image_extension(&path) {
            listing.images.push(path);
        } else if path.is_dir() {
            listing.folders.push(path);
        } else if entry.file_name() != nested::TREE {
            listing.ignored.not_images += 1;
        }
    }
    sort(&mut listing.images);
    sort(&mut listing.folders);
    Ok(listing)
}

/// By name, in byte order.
fn sort(paths: &mut [PathBuf]) {
    paths.sort_by(|a, b| a.as_os_str().as_encoded_bytes().cmp(b.as_os_str().as_encoded_bytes()));
}
