//! Datumaro's JSON: `annotations/<subset>.json`, images under `images/<subset>`. Labels with one each are classes, with any number labels, with
//! parents a tree.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Listed, Part, index_of, json};
use crate::config::Task;
use crate::data::nested::Growing;
use crate::data::open::Given;
use crate::data::{Label, decode};
use crate::{Error, Result};

#[derive(Deserialize)]
struct File {
    categories: Categories,
    items: Vec<Entry>,
}

#[derive(Deserialize)]
struct Categories {
    label: Labels,
}

#[derive(Deserialize)]
struct Labels {
    labels: Vec<Name>,
    #[serde(default)]
    label_groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Name {
    name: String,
    /// Empty: none.
    #[serde(default)]
    parent: Option<String>,
}

/// Labels that exclude each other.
#[derive(Deserialize)]
struct Group {
    /// `exclusive`, which an absent one is too, `inclusive` or `restricted`.
    #[serde(default)]
    group_type: Option<String>,
    #[serde(default)]
    labels: Vec<String>,
}

#[derive(Deserialize)]
struct Entry {
    id: String,
    #[serde(default)]
    annotations: Vec<Annotation>,
    image: Option<ImageOf>,
}

#[derive(Deserialize)]
struct Annotation {
    #[serde(rename = "type")]
    kind: String,
    label_id: Option<usize>,
}

#[derive(Deserialize)]
struct ImageOf {
    path: Option<String>,
}

/// The subset's file.
fn file(dir: &Path, part: Part) -> Option<PathBuf> {
    let names: &[&str] = match part {
        Part::Train => &["train"],
        Part::Val => &["val", "validation"],
        Part::Test => &["test"],
    };
    names.iter().map(|name| dir.join(format!("annotations/{name}.json"))).find(|path| path.is_file())
}

pub(super) fn lies_in(dir: &Path) -> bool {
    file(dir, Part::Train).is_some() && dir.join("images").is_dir()
}

pub(super) fn read(dir: &Path, task: Option<Task>) -> Result<Given> {
    let mut parts = Vec::new();
    for part in Part::ALL {
        if let Some(path) = file(dir, part) {
            parts.push((part, json::<File>(&path)?, path));
        }
    }
    let Some((_, first, path)) = parts.iter().find(|(part, ..)| *part == Part::Train) else {
        return Err(Error::input(format!("{}: no annotations/train.json", dir.display())));
    };
    let names = |file: &File| -> Vec<String> { file.categories.label.labels.iter().map(|l| l.name.clone()).collect() };
    let classes = names(first);
    index_of(&classes, &path.display().to_string())?;
    let of = |entry: &Entry| -> Vec<usize> {
        entry.annotations.iter().filter(|a| a.kind == "label").filter_map(|a| a.label_id).collect()
    };
    let single = parts.iter().all(|(_, file, _)| file.items.iter().all(|entry| of(entry).len() == 1));
    let has_parents = first
        .categories
        .label
        .labels
        .iter()
        .any(|label| label.parent.as_deref().is_some_and(|parent| !parent.is_empty()));
    let tree = match task {
        Some(Task::Hierarchical) => true,
        Some(_) => false,
        None => has_parents,
    };
    let tree = if tree { Some(grown(&first.categories.label, &path.display().to_string())?) } else { None };
    let task = match (&tree, single, task) {
        (Some(_), ..) => Task::Hierarchical,
        (None, true, None | Some(Task::Multiclass)) => Task::Multiclass,
        _ => Task::Multilabel,
    };
    // Only a class set has classes.
    let single = task == Task::Multiclass;
    let mut listed = Listed::new(classes.clone(), task);
    for (part, file, path) in &parts {
        let shown = path.display();
        if names(file) != classes {
            return Err(Error::input(format!("{shown}: its labels are not those of train.json")));
        }
        let subset = path.file_stem().unwrap_or_default();
        let folder = dir.join("images").join(subset);
        for entry in &file.items {
            listed.entry(|listed| {
                let place = format!("{shown}, item {:?}", entry.id);
                let labels = of(entry);
                if let Some(wrong) = labels.iter().find(|&&label| label >= classes.len()) {
                    return Err(Error::input(format!("{place}: label_id {wrong} of {} labels", classes.len())));
                }
                let label = match labels[..] {
                    [class] if single => Label::Class(class),
                    _ => {
                        let mut row = vec![0.0; classes.len()];
                        labels.iter().for_each(|&label| row[label] = 1.0);
                        Label::Multi(row)
                    }
                };
                listed.add(*part, image(dir, &folder, entry), label, &place)
            })?;
        }
    }
    if let Some(tree) = tree {
        return listed
            .given_in_tree(tree, |unused| format!("{}: Datumaro{}", dir.display(), super::coco::without(unused)));
    }
    let (listed, unused) = listed.without_unused();
    listed.given(format!("{}: Datumaro{}", dir.display(), super::coco::without(unused)))
}

/// How the labels lie under each other, and which exclude each other: those of a group, or if there are no groups those with one parent.
fn grown(labels: &Labels, place: &str) -> Result<Growing> {
    let names: Vec<String> = labels.labels.iter().map(|label| label.name.clone()).collect();
    let index = index_of(&names, place)?;
    let find = |name: &str, of: &str| {
        index.get(name).copied().ok_or_else(|| {
            Error::input(format!("{place}: {name:?}, {of}, is not one of its labels; add it or correct the name"))
        })
    };
    let mut parents = Vec::with_capacity(names.len());
    for label in &labels.labels {
        let parent = label.parent.as_deref().filter(|parent| !parent.is_empty());
        parents.push(parent.map(|parent| find(parent, &format!("the parent of {:?}", label.name))).transpose()?);
    }
    let mut groups = Vec::with_capacity(labels.label_groups.len());
    for group in &labels.label_groups {
        match group.group_type.as_deref().unwrap_or("exclusive") {
            "exclusive" => {}
            // Any of them, or all and none: labels by themselves.
            "inclusive" | "restricted" => continue,
            other => {
                return Err(Error::input(format!(
                    "{place}: a label group of type {other:?}; exclusive, inclusive and restricted are known"
                )));
            }
        }
        groups.push(group.labels.iter().map(|name| find(name, "in a group")).collect::<Result<Vec<_>>>()?);
    }
    let groups = (!labels.label_groups.is_empty()).then_some(groups);
    Ok(Growing { names, parents, groups })
}

/// Where an item's image lies: its path, or its id with an image's ending.
fn image(dir: &Path, folder: &Path, entry: &Entry) -> PathBuf {
    let named = entry.image.as_ref().and_then(|image| image.path.as_deref()).filter(|path| !path.is_empty());
    let places = [folder.to_owned(), dir.join("images"), dir.to_owned()];
    if let Some(named) = named {
        return places
            .iter()
            .map(|place| place.join(named))
            .find(|p| p.is_file())
            .unwrap_or_else(|| folder.join(named));
    }
    let endings = decode::EXTENSIONS.iter().map(|ending| format!("{}.{ending}", entry.id));
    let mut paths = endings.flat_map(|name| places[..2].iter().map(move |place| place.join(&name)));
    paths.find(|path| path.is_file()).unwrap_or_else(|| folder.join(&entry.id))
}
