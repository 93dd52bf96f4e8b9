//! Folders within folders as a tree of labels, and `labels.toml`, which writes a tree down.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::folder::{Found, Ignored, Listing};
use super::problems::Problems;
use super::{Dataset, Item, Label, Source, folder};
use crate::config::{Task, toml_error};
use crate::task::tree::Tree;
use crate::{Error, Result};

/// The file with the tree of the labels that `labels.csv` or the class folders name.
pub(super) const TREE: &str = "labels.toml";

/// What folders of parts are called.
const PARTS: [&str; 5] = ["train", "val", "valid", "validation", "test"];

/// How deep folders may lie in each other: more is a loop of links.
const DEEPEST: usize = 32;

/// Labels under each other before they are put in a tree's order.
#[derive(Debug, Default)]
pub(super) struct Growing {
    /// Names, unique or not.
    pub names: Vec<String>,
    /// Each label's parent.
    pub parents: Vec<Option<usize>>,
    /// Labels that exclude each other; none: those with the same parent do.
    pub groups: Option<Vec<Vec<usize>>>,
}

impl Growing {
    /// The data set of these labels in the tree's order. `shown` is what messages begin with. An item's label is a class, or a row in this
    /// order; ancestors are added.
    ///
    /// # Errors
    /// What [`Tree::new`] refuses; an image with two labels that exclude each other.
    pub fn dataset(self, items: Vec<Item>, shown: &str) -> Result<Dataset> {
        let (classes, tree, place) = self.tree(shown)?;
        let mut problems = Problems::default();
        let mut placed = Vec::with_capacity(items.len());
        for item in items {
            placed.extend(problems.keep(in_tree(item, &tree, &classes, |label| Some(place[label])))?);
        }
        problems.finish()?;
        Ok(Dataset { items: placed, classes, task: Task::Hierarchical, tree: Some(tree) })
    }

    /// (names in the tree's order, the tree, where each label went).
    pub fn tree(self, shown: &str) -> Result<(Vec<String>, Tree, Vec<usize>)> {
        let groups = self.groups.clone().unwrap_or_else(|| Tree::siblings(&self.parents));
        let (tree, order) =
            Tree::new(&self.names, &self.parents, &groups).map_err(|e| Error::input(format!("{shown}: {e}")))?;
        let names = self.unique();
        let mut place = vec![0; order.len()];
        order.iter().enumerate().for_each(|(new, &old)| place[old] = new);
        Ok((order.iter().map(|&old| names[old].clone()).collect(), tree, place))
    }

    /// The names; one that several labels have becomes the way to it from the root. The parents are no circle.
    fn unique(&self) -> Vec<String> {
        let mut counts: HashMap<&str, usize> = HashMap::new();
        self.names.iter().for_each(|name| *counts.entry(name).or_default() += 1);
        let way = |label: usize| {
            let mut way: Vec<&str> = std::iter::successors(Some(label), |&label| self.parents[label])
                .map(|label| self.names[label].as_str())
                .collect();
            way.reverse();
            way.join("/")
        };
        let named = self.names.iter().enumerate();
        named.map(|(label, name)| if counts[name.as_str()] > 1 { way(label) } else { name.clone() }).collect()
    }
}

/// An item with the row that a tree makes of its labels; `place` says where each of them went.
pub(super) fn in_tree(
    item: Item,
    tree: &Tree,
    classes: &[String],
    place: impl Fn(usize) -> Option<usize>,
) -> Result<Item> {
    let all = |wanted: &dyn Fn(f32) -> bool, row: &[f32]| -> Vec<usize> {
        row.iter().enumerate().filter(|(_, value)| wanted(**value)).filter_map(|(label, _)| place(label)).collect()
    };
    let (has, unknown) = match &item.label {
        // One label says nothing of what lies under it.
        Label::Class(class) => {
            let has: Vec<usize> = place(*class).into_iter().collect();
            let under = |label: &usize| tree.parent(*label).is_some_and(|parent| has.contains(&parent));
            let unknown = tree.single().filter(under).collect();
            (has, unknown)
        }
        Label::Multi(row) => (all(&|value| value > 0.5, row), all(&|value| value < 0.0, row)),
    };
    let row = tree.row(&has, &unknown).map_err(|(first, second)| {
        Error::input(format!(
            "{}: it is labelled {:?} and {:?}, which exclude each other; keep one",
            item.source, classes[first], classes[second]
        ))
    })?;
    Ok(Item { label: Label::Multi(row), ..item })
}

/// Reads folders within folders: each is a label, under that of the folder it lies in; images lie in any of them.
///
/// # Errors
/// A name that is not UTF-8, folders deeper than anyone lays them, what [`Growing::dataset`] refuses.
pub(super) fn read(dir: &Path) -> Result<Found> {
    let listing = list(dir)?;
    let mut ignored = listing.ignored;
    ignored.unlabelled += listing.images.iter().filter(|path| !path.is_dir()).count();
    let (mut labels, mut items) = (Growing::default(), Vec::new());
    for folder in listing.folders {
        walk(&folder, None, 1, &mut labels, &mut items, &mut ignored)?;
    }
    if labels.names.is_empty() {
        let shown = dir.display();
        return Err(Error::input(format!("{shown}: no folders; expected {shown}/<label>/<label>/<image>")));
    }
    let dataset = labels.dataset(items, &dir.display().to_string())?;
    Ok(Found { dataset, ignored })
}

fn walk(
    folder: &Path,
    parent: Option<usize>,
    depth: usize,
    labels: &mut Growing,
    items: &mut Vec<Item>,
    ignored: &mut Ignored,
) -> Result<()> {
    let shown = folder.display();
    if depth > DEEPEST {
        return Err(Error::input(format!("{shown}: folders more than {DEEPEST} deep: a loop of links? remove it")));
    }
    let name = folder.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| {
        Error::input(format!("{shown}: a folder that is a label must have a name in valid UTF-8; rename it"))
    })?;
    let own = labels.names.len();
    labels.names.push(name.to_owned());
    labels.parents.push(parent);
    let inside = list(folder)?;
    ignored.add(inside.ignored);
    items.extend(inside.images.into_iter().map(|path| Item { source: Source::File(path), label: Label::Class(own) }));
    inside.folders.iter().try_for_each(|folder| walk(folder, Some(own), depth + 1, labels, items, ignored))
}

/// What lies in a folder; one that is called like an image is a folder.
fn list(dir: &Path) -> Result<Listing> {
    let mut listing = folder::list(dir)?;
    let (folders, images) = listing.images.into_iter().partition(|path: &PathBuf| path.is_dir());
    listing.images = images;
    listing.folders.extend::<Vec<PathBuf>>(folders);
    listing.folders.sort_by(|a, b| a.as_os_str().as_encoded_bytes().cmp(b.as_os_str().as_encoded_bytes()));
    Ok(listing)
}

/// Whether the folder of a label holds no image, but a folder that does, at whatever depth: then this is a tree.
pub(super) fn is_nested(folders: &[PathBuf]) -> Result<bool> {
    fn holds_images(folder: &Path, depth: usize) -> Result<bool> {
        let inside = list(folder)?;
        if !inside.images.is_empty() || depth > DEEPEST {
            return Ok(!inside.images.is_empty());
        }
        for folder in &inside.folders {
            if holds_images(folder, depth + 1)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
    for folder in folders {
        let inside = list(folder)?;
        if inside.images.is_empty() {
            for below in &inside.folders {
                if holds_images(below, 2)? {
                    return Ok(true);
                }
            }
        }
    }
    Ok(false)
}

/// What `labels.toml` says.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    /// Labels that exclude each other, if not those with the same parent.
    groups: Option<Vec<Vec<String>>>,
    /// Labels that are yes or no by themselves.
    #[serde(default)]
    single: Vec<String>,
    /// A label's parent.
    #[serde(default)]
    parents: BTreeMap<String, String>,
}

/// The file beside the images or, where they are a part of the data, beside the parts.
pub(super) fn tree_file(dir: &Path) -> Option<PathBuf> {
    let is_part = |name: &std::ffi::OsStr| PARTS.iter().any(|part| name == *part);
    let places = [Some(dir), dir.parent().filter(|_| dir.file_name().is_some_and(is_part))];
    places.into_iter().flatten().map(|place| place.join(TREE)).find(|path| path.is_file())
}

/// Reads `labels.toml`: the labels in byte order of their names, and how they lie under each other.
///
/// # Errors
/// What is no such file; a label that is there twice.
pub(super) fn read_tree(path: &Path) -> Result<Growing> {
    let shown = path.display();
    let text = super::formats::text(path)?;
    let written: Written = toml::from_str(&text).map_err(|e| toml_error(path, &text, &e))?;
    let mut names: BTreeSet<&String> = written.parents.iter().flat_map(|(label, parent)| [label, parent]).collect();
    names.extend(written.groups.iter().flatten().flatten().chain(&written.single));
    let names: Vec<String> = names.into_iter().cloned().collect();
    if names.is_empty() {
        return Err(Error::input(format!("{shown}: no labels; expected `groups`, `single` or a table `parents`")));
    }
    // Every name is among them.
    let place = |name: &String| names.binary_search(name).unwrap_or_default();
    let parents: Vec<Option<usize>> = names.iter().map(|name| written.parents.get(name).map(place)).collect();
    let single: BTreeSet<usize> = written.single.iter().map(place).collect();
    let groups = match &written.groups {
        Some(groups) => groups.iter().map(|group| group.iter().map(place).collect()).collect(),
        None => Tree::siblings(&parents),
    };
    let mut groups: Vec<Vec<usize>> = groups;
    if let Some(label) = groups.iter().flatten().find(|label| written.groups.is_some() && single.contains(label)) {
        return Err(Error::input(format!("{shown}: {:?} is in a group and single; keep one", names[*label])));
    }
    groups.iter_mut().for_each(|group| group.retain(|label| !single.contains(label)));
    Ok(Growing { names, parents, groups: Some(groups) })
}

/// What was read of a folder, its classes or columns being labels of a tree.
///
/// # Errors
/// A class that is not in the tree; what [`Growing::dataset`] refuses.
pub(super) fn under_tree(found: Found, dir: &Path, tree: &Path) -> Result<Found> {
    let labels = read_tree(tree)?;
    let index: HashMap<&str, usize> = labels.names.iter().enumerate().map(|(at, name)| (name.as_str(), at)).collect();
    let mut place = Vec::with_capacity(found.dataset.classes.len());
    for class in &found.dataset.classes {
        place.push(*index.get(class.as_str()).ok_or_else(|| {
            Error::input(format!(
                "{}: label {class:?} is not in {}; add it there or rename it",
                dir.display(),
                tree.display()
            ))
        })?);
    }
    let (classes, tree, moved) = labels.tree(&tree.display().to_string())?;
    let place = |label: usize| moved[place[label]];
    // Nothing is said of labels by themselves that have no column.
    let silent: Vec<usize> =
        tree.single().filter(|label| (0..found.dataset.classes.len()).all(|column| place(column) != *label)).collect();
    let (mut problems, mut items) = (Problems::default(), Vec::with_capacity(found.dataset.items.len()));
    for item in found.dataset.items {
        let columns = match &item.label {
            Label::Multi(row) => row.clone(),
            Label::Class(_) => Vec::new(),
        };
        let Some(mut item) = problems.keep(in_tree(item, &tree, &classes, |label| Some(place(label))))? else {
            continue;
        };
        let Label::Multi(row) = &mut item.label else { continue };
        let denied = (0..columns.len()).map(|column| (column, place(column)));
        if let Some((_, label)) = denied.into_iter().find(|&(column, label)| columns[column] == 0.0 && row[label] > 0.5)
        {
            let name = &classes[label];
            problems.keep::<()>(Err(Error::input(format!(
                "{}: it has a label under {name:?}, but 0 for {name:?} itself; correct one of them",
                item.source
            ))))?;
            continue;
        }
        if !columns.is_empty() {
            for &label in &silent {
                row[label] = if row[label] == 0.0 { -1.0 } else { row[label] };
            }
        }
        items.push(item);
    }
    problems.finish()?;
    Ok(Found { dataset: Dataset { classes, items, task: Task::Hierarchical, tree: Some(tree) }, ..found })
}
