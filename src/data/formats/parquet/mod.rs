//! Parquet files with the images in them, as Hugging Face's `datasets` writes and the hub serves them.

mod columns;
mod files;
mod labels;
mod pages;
mod rows;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use columns::{Columns, Kind, LabelColumn};
use labels::{Labels, Value, Values};
use rows::Shard;

use super::{Listed, Part, index_of};
use crate::config::Task;
use crate::data::folder::{LABELS, list};
use crate::data::open::Given;
use crate::data::packed::{Copies, PackedImages};
use crate::data::{Label, Source, nameless, plural};
use crate::{Error, Result};

/// A table of labels goes before, and so do class folders with a table of something else beside them.
pub(super) fn lies_in(dir: &Path) -> bool {
    let nothing_else = || {
        let listing = list(dir);
        listing
            .is_ok_and(|found| found.images.is_empty() && found.folders.iter().all(|folder| folder.ends_with("data")))
    };
    let of_images = |path: &PathBuf| rows::is_of_images(path) || nothing_else();
    !dir.join(LABELS).is_file() && files::all(dir).first().is_some_and(of_images)
}

pub(super) fn read(dir: &Path) -> Result<Given> {
    let files = files::find(dir)?;
    let mut copies = Copies::inside(nameless::folder());
    let mut values = Values::default();
    let mut shards: Vec<(Part, Shard)> = Vec::new();
    for (part, path) in &files.parts {
        let shard = rows::read(path, &mut values, &mut copies)?;
        if let Some((_, first)) = shards.first() {
            same_columns(first, &shard)?;
        }
        shards.push((*part, shard));
    }
    let Some((_, first)) = shards.first() else {
        return Err(Error::input(format!("{}: no .parquet file of a part in it", dir.display())));
    };
    let columns = first.columns.clone();
    let place = format!("{}, column {:?}", first.path.display(), columns.label.name);
    let (classes, numbers, absent) = classes(&columns.label, values, &shards);
    index_of(&classes, &place)?;
    let task = if columns.label.list { Task::Multilabel } else { Task::Multiclass };
    let mut listed = Listed::new(classes, task);
    let copy = copies.finish()?;
    let mut unlabelled: BTreeMap<Part, usize> = BTreeMap::new();
    for (part, shard) in shards {
        let Shard { path, labels, places, paths, .. } = shard;
        let images = Arc::new(PackedImages::new(path, places, copy.clone()));
        for (row, labels) in labels.iter().enumerate() {
            let Some(label) = label(labels, &numbers, listed.classes.len(), absent) else {
                *unlabelled.entry(part).or_default() += 1;
                continue;
            };
            let source = Source::Packed { images: images.clone(), row };
            let place = source.name();
            listed.entry(|listed| match paths.get(&row) {
                Some(beside) => listed.add(part, file(dir, beside, &place)?, label, &place),
                None => listed.add_source(part, source, label, &place),
            })?;
        }
    }
    let (listed, unused) = listed.without_unused();
    let mut described = format!("{}: parquet, labels by {:?}", dir.display(), columns.label.name);
    if !columns.other_labels.is_empty() {
        described.push_str(&format!(" and not by {}", columns.other_labels.join(", ")));
    }
    described.push_str(&files.passed_over);
    described.push_str(&super::coco::without(unused));
    for (part, count) in unlabelled {
        let have = if count == 1 { "has" } else { "have" };
        described.push_str(&format!(", without {} of {} that {have} no label", plural(count, "row"), part.name()));
    }
    listed.given(described)
}

/// All files of a set have the same columns, or labels would mean different things.
fn same_columns(first: &Shard, other: &Shard) -> Result<()> {
    let (a, b) = (&first.columns, &other.columns);
    let differ = |what: &str, a: String, b: String| {
        let (first, other) = (first.path.display(), other.path.display());
        Error::input(format!("{other}: {what} {b}, but in {first} {a}; are they of one set?"))
    };
    let kinds = |columns: &Columns| {
        let one = if columns.label.kind == Kind::Text { "text" } else { "numbers" };
        format!("{:?} of {}{one}", columns.label.name, if columns.label.list { "lists of " } else { "" })
    };
    if kinds(a) != kinds(b) {
        return Err(differ("the labels are column", kinds(a), kinds(b)));
    }
    if a.label.names == b.label.names {
        return Ok(());
    }
    let names = |label: &LabelColumn| match &label.names {
        Some(names) => format!("{} names", names.len()),
        None => "no names".to_owned(),
    };
    Err(match (&a.label.names, &b.label.names) {
        (Some(one), Some(two)) if one.len() == two.len() => {
            let at = one.iter().zip(two).position(|(one, two)| one != two).unwrap_or(0);
            differ(&format!("label {at} is called"), format!("{:?}", one[at]), format!("{:?}", two[at]))
        }
        _ => differ(&format!("column {:?} has", a.label.name), names(&a.label), names(&b.label)),
    })
}

/// Class names, the class of each number that labels were read as, and the number that stands for no label.
fn classes(column: &LabelColumn, values: Values, shards: &[(Part, Shard)]) -> (Vec<String>, Vec<usize>, Option<u32>) {
    if let Some(names) = &column.names {
        return (names.clone(), (0..names.len()).collect(), None);
    }
    let values = values.into_list();
    // Numbers without names may begin at -1; where no image is trained on that, it is the hub's sign for a label that is kept back.
    let trained = |number: u32| {
        let labels = shards.iter().filter(|(part, _)| *part == Part::Train).flat_map(|(_, shard)| &shard.labels);
        labels.into_iter().any(|labels| matches!(labels, Labels::One(label) if *label == number))
    };
    let absent = values.iter().position(|value| *value == Value::Int(-1)).map(|number| number as u32);
    let absent = absent.filter(|&number| !column.list && !trained(number));
    let kept = values.iter().enumerate().filter(|(number, _)| absent != Some(*number as u32));
    let sorted: BTreeSet<&Value> = kept.map(|(_, value)| value).collect();
    let class: BTreeMap<&Value, usize> = sorted.iter().enumerate().map(|(class, value)| (*value, class)).collect();
    let numbers = values.iter().map(|value| class.get(value).copied().unwrap_or(0)).collect();
    let name = |value: &&Value| match value {
        Value::Int(number) => number.to_string(),
        Value::Text(text) => text.clone(),
    };
    (sorted.iter().map(name).collect(), numbers, absent)
}

/// A row's label; none where it has none.
fn label(labels: &Labels, numbers: &[usize], classes: usize, absent: Option<u32>) -> Option<Label> {
    match labels {
        Labels::None => None,
        Labels::One(number) if absent == Some(*number) => None,
        Labels::One(number) => Some(Label::Class(numbers[*number as usize])),
        Labels::Many(labels) => {
            let mut row = vec![0.0; classes];
            labels.iter().for_each(|&number| row[numbers[number as usize]] = 1.0);
            Some(Label::Multi(row))
        }
    }
}

/// The file of an image that is not in the table.
fn file(dir: &Path, beside: &str, place: &str) -> Result<PathBuf> {
    let path = Path::new(beside);
    // A table from somewhere has no business elsewhere on this disk.
    if path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) && !beside.is_empty() {
        return Ok(dir.join(path));
    }
    Err(Error::input(format!(
        "{place}: no bytes, and the path {beside:?} is not inside the data folder; write the set again with its images embedded"
    )))
}
