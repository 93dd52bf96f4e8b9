//! HAM10000 (Tschandl et al. 2018): `HAM10000_metadata` (or .csv) with lesion, image and diagnosis, images in two folders. Several images show
//! one lesion: a split has to keep them together, or it tests on lesions it was trained on.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::{Listed, Part, text};
use crate::config::Task;
use crate::data::open::Given;
use crate::data::{Item, Label, csv};
use crate::{Error, Result};

const METADATA: [&str; 2] = ["HAM10000_metadata", "HAM10000_metadata.csv"];
const FOLDERS: [&str; 5] = [
    "HAM10000_images_part_1",
    "HAM10000_images_part_2",
    "HAM10000_images_part1",
    "HAM10000_images_part2",
    "HAM10000_images",
];

fn metadata(dir: &Path) -> Option<PathBuf> {
    METADATA.iter().map(|name| dir.join(name)).find(|path| path.is_file())
}

pub(super) fn lies_in(dir: &Path) -> bool {
    metadata(dir).is_some()
}

pub(super) fn read(dir: &Path) -> Result<Given> {
    let path = metadata(dir)
        .ok_or_else(|| Error::input(format!("{}: no HAM10000_metadata or HAM10000_metadata.csv", dir.display())))?;
    let shown = path.display();
    let mut rows = csv::rows(&text(&path)?).map_err(|e| Error::input(format!("{shown}: {e}")))?.into_iter();
    let (_, header) = rows.next().ok_or_else(|| Error::input(format!("{shown}: empty")))?;
    let column = |name: &str| {
        header.iter().position(|cell| cell.trim() == name).ok_or_else(|| {
            Error::input(format!("{shown}: no column {name:?} in the header; is it the file of the data set?"))
        })
    };
    let (lesion, image, diagnosis) = (column("lesion_id")?, column("image_id")?, column("dx")?);
    let folders: Vec<PathBuf> = FOLDERS.iter().map(|name| dir.join(name)).filter(|path| path.is_dir()).collect();
    if folders.is_empty() {
        return Err(Error::input(format!(
            "{}: no folder HAM10000_images_part_1 or the like; unpack the images there",
            dir.display()
        )));
    }
    let mut entries = Vec::new();
    for (line, row) in rows {
        let cell = |at: usize| {
            row.get(at).map(|cell| cell.trim()).filter(|cell| !cell.is_empty()).ok_or_else(|| {
                Error::input(format!("{shown}, line {line}: column {:?} is empty; fill it", header[at].trim()))
            })
        };
        entries.push((line, cell(lesion)?.to_owned(), cell(image)?.to_owned(), cell(diagnosis)?.to_owned()));
    }
    let mut classes: Vec<String> = entries.iter().map(|entry| entry.3.clone()).collect();
    classes.sort();
    classes.dedup();
    let mut listed = Listed::new(classes.clone(), Task::Multiclass);
    let mut lesions = HashMap::new();
    for (line, lesion, image, diagnosis) in entries {
        let file = format!("{image}.jpg");
        let path = folders.iter().map(|folder| folder.join(&file)).find(|path| path.is_file());
        let path = path.unwrap_or_else(|| folders[0].join(&file));
        let class = classes.binary_search(&diagnosis).unwrap_or_default();
        let place = format!("{shown}, line {line}");
        listed.entry(|listed| listed.add(Part::Train, path.clone(), Label::Class(class), &place))?;
        lesions.insert(path.display().to_string(), lesion);
    }
    let described = format!("{}: HAM10000, split 60/20/20 by lesion", dir.display());
    listed.split_60_20_20(|item: &Item| lesions.get(&item.source.name()).cloned().unwrap_or_default(), described)
}
