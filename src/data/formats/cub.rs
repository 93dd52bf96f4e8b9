//! CUB-200-2011 (Wah et al. 2011): `images.txt`, `image_class_labels.txt`, `train_test_split.txt`, `classes.txt`, all keyed by an id.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::lines::{Line, lines};
use super::{Listed, Part};
use crate::config::Task;
use crate::data::Label;
use crate::data::open::Given;
use crate::{Error, Result};

fn root(dir: &Path) -> PathBuf {
    let inner = dir.join("CUB_200_2011");
    if inner.join("image_class_labels.txt").is_file() { inner } else { dir.to_owned() }
}

pub(super) fn lies_in(dir: &Path) -> bool {
    let root = root(dir);
    ["images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt"]
        .iter()
        .all(|file| root.join(file).is_file())
}

/// A file's lines by their first column.
fn by_id(path: &Path) -> Result<HashMap<String, Line>> {
    let mut found = HashMap::new();
    for line in lines(path)? {
        let id = line.two()?.0.to_owned();
        if let Some(before) = found.insert(id.clone(), line) {
            return Err(Error::input(format!("{}: image {id} is there twice; keep one", before.place)));
        }
    }
    Ok(found)
}

pub(super) fn read(dir: &Path) -> Result<Given> {
    let root = root(dir);
    let mut classes = Vec::new();
    for line in lines(&root.join("classes.txt"))? {
        let (id, name) = line.two()?;
        if line.counted_from_1(id, usize::MAX)? != classes.len() {
            return Err(Error::input(format!("{}: expected class {}, found {id}", line.place, classes.len() + 1)));
        }
        classes.push(name.to_owned());
    }
    let (labels, split) = ("image_class_labels.txt", "train_test_split.txt");
    let (labels_of, split_of) = (by_id(&root.join(labels))?, by_id(&root.join(split))?);
    let mut listed = Listed::new(classes.clone(), Task::Multiclass);
    for line in lines(&root.join("images.txt"))? {
        listed.entry(|listed| {
            let (id, file) = line.two()?;
            let lacks = |what: &str| Error::input(format!("{}: image {id} is not in {what}; add it", line.place));
            let labelled = labels_of.get(id).ok_or_else(|| lacks(labels))?;
            let class = labelled.counted_from_1(labelled.two()?.1, classes.len())?;
            let in_part = split_of.get(id).ok_or_else(|| lacks(split))?;
            let part = match in_part.two()?.1 {
                "1" => Part::Train,
                "0" => Part::Test,
                other => {
                    let place = &in_part.place;
                    return Err(Error::input(format!("{place}: expected 1 (train) or 0 (test), found {other:?}")));
                }
            };
            listed.add(part, root.join("images").join(file), Label::Class(class), &line.place)
        })?;
    }
    listed.given(format!("{}: CUB-200-2011, official split", dir.display()))
}
