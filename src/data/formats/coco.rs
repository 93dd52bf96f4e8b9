//! COCO's JSON (Lin et al. 2014) as labels of whole images: an image has the label of every category that is annotated in it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Listed, Part, index_of, json};
use crate::config::Task;
use crate::data::Label;
use crate::data::open::Given;
use crate::{Error, Result};

#[derive(Deserialize)]
struct File {
    images: Vec<Image>,
    #[serde(default)]
    annotations: Vec<Annotation>,
    categories: Vec<Category>,
}

#[derive(Deserialize)]
struct Image {
    id: u64,
    file_name: String,
}

#[derive(Deserialize)]
struct Annotation {
    image_id: u64,
    category_id: u64,
}

#[derive(Deserialize)]
struct Category {
    id: u64,
    name: String,
}

/// A part's annotations, and the folders that its images may be in.
struct Places {
    part: Part,
    file: PathBuf,
    folders: Vec<PathBuf>,
}

/// `annotations/instances_<split>*.json` with images in a folder of the split's name or in `images`, or
/// `<split>/_annotations.coco.json` beside the images; of several years the latest.
fn places(dir: &Path) -> Vec<Places> {
    let names = |part| match part {
        Part::Train => &["train"][..],
        Part::Val => &["val", "valid", "validation"],
        Part::Test => &["test"],
    };
    let mut found = Vec::new();
    for part in Part::ALL {
        let beside = names(part).iter().map(|name| dir.join(name));
        let beside =
            beside.map(|folder| (folder.join("_annotations.coco.json"), folder)).find(|(file, _)| file.is_file());
        if let Some((file, folder)) = beside {
            found.push(Places { part, file, folders: vec![folder] });
            continue;
        }
        let Ok(entries) = std::fs::read_dir(dir.join("annotations")) else { continue };
        let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        files.sort();
        let mut of_part = files.into_iter().filter_map(|file| {
            let stem = file.file_name()?.to_str()?.strip_prefix("instances_")?.strip_suffix(".json")?.to_owned();
            names(part).iter().any(|name| stem.starts_with(name)).then_some((file, stem))
        });
        // Of several years the latest.
        if let Some((file, stem)) = of_part.next_back() {
            let folders = [format!("images/{stem}"), stem, "images".to_owned()].map(|folder| dir.join(folder));
            found.push(Places { part, file, folders: folders.into_iter().filter(|folder| folder.is_dir()).collect() });
        }
    }
    found
}

/// What a description says of categories that were left out.
pub(super) fn without(unused: usize) -> String {
    match unused {
        0 => String::new(),
        1 => ", without a category that no image has".to_owned(),
        more => format!(", without {more} categories that no image has"),
    }
}

pub(super) fn lies_in(dir: &Path) -> bool {
    places(dir).iter().any(|places| places.part == Part::Train)
}

pub(super) fn read(dir: &Path) -> Result<Given> {
    let places = places(dir);
    if !places.iter().any(|places| places.part == Part::Train) {
        return Err(Error::input(format!(
            "{}: no annotations/instances_train*.json or train/_annotations.coco.json",
            dir.display()
        )));
    }
    let mut listed: Option<(Vec<String>, Listed)> = None;
    for Places { part, file, folders } in places {
        let shown = file.display().to_string();
        let parsed: File = json(&file)?;
        let mut categories = parsed.categories;
        categories.sort_by_key(|category| category.id);
        let by_id: HashMap<u64, usize> =
            categories.iter().enumerate().map(|(at, category)| (category.id, at)).collect();
        if by_id.len() != categories.len() {
            return Err(Error::input(format!("{shown}: two categories have one id; correct one")));
        }
        let names: Vec<String> = categories.into_iter().map(|category| category.name).collect();
        index_of(&names, &shown)?;
        let (classes, listed) =
            listed.get_or_insert_with(|| (names.clone(), Listed::new(names.clone(), Task::Multilabel)));
        if *classes != names {
            return Err(Error::input(format!("{shown}: its categories are not those of the training part")));
        }
        let mut rows: HashMap<u64, Vec<f32>> = HashMap::new();
        for image in &parsed.images {
            if rows.insert(image.id, vec![0.0; names.len()]).is_some() {
                return Err(Error::input(format!("{shown}: two images have id {}; correct one", image.id)));
            }
        }
        for Annotation { image_id, category_id } in parsed.annotations {
            let lacks =
                |what: &str, id| Error::input(format!("{shown}: an annotation's {what} {id} is not in the file"));
            let row = rows.get_mut(&image_id).ok_or_else(|| lacks("image", image_id))?;
            row[*by_id.get(&category_id).ok_or_else(|| lacks("category", category_id))?] = 1.0;
        }
        for image in parsed.images {
            let path = folders.iter().map(|folder| folder.join(&image.file_name)).find(|path| path.is_file());
            let path = path.unwrap_or_else(|| folders.first().unwrap_or(&dir.to_owned()).join(&image.file_name));
            let row = rows.remove(&image.id).unwrap_or_default();
            let place = format!("{shown}, image {}", image.id);
            listed.entry(|listed| listed.add(part, path, Label::Multi(row), &place))?;
        }
    }
    let (_, listed) = listed.ok_or_else(|| Error::Internal("no part of a COCO set".into()))?;
    let (listed, unused) = listed.without_unused();
    listed.given(format!("{}: COCO{}", dir.display(), without(unused)))
}
