//! FGVC-Aircraft (Maji et al. 2013): `data/images/*.jpg`, and per level and split a list of `id class`; class names hold spaces and slashes.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use super::lines::lines;
use super::{Listed, Part, index_of};
use crate::config::Task;
use crate::data::Label;
use crate::data::nested::Growing;
use crate::data::open::Given;
use crate::{Error, Result};

/// A level of the hierarchy: what its files are called.
struct Level {
    /// In `images_<name>_train.txt`.
    name: &'static str,
    /// The file of its classes.
    classes: &'static str,
}

/// The folder with the lists: the archive's `data`, or the folder itself.
fn root(dir: &Path) -> PathBuf {
    if dir.join("data/images_variant_train.txt").is_file() { dir.join("data") } else { dir.to_owned() }
}

pub(super) fn lies_in(dir: &Path) -> bool {
    let root = root(dir);
    root.join("images_variant_train.txt").is_file() && root.join("images").is_dir()
}

/// 100 variants, such as `737-300`.
pub(super) fn variants(dir: &Path) -> Result<Given> {
    read(dir, &Level { name: "variant", classes: "variants.txt" })
}

/// 70 families, such as `Boeing 737`.
pub(super) fn families(dir: &Path) -> Result<Given> {
    read(dir, &Level { name: "family", classes: "families.txt" })
}

/// 41 manufacturers, such as `Boeing`.
pub(super) fn manufacturers(dir: &Path) -> Result<Given> {
    read(dir, &Level { name: "manufacturer", classes: "manufacturers.txt" })
}

/// Variants under families under manufacturers, as the three lists have them for each image.
pub(super) fn hierarchy(dir: &Path) -> Result<Given> {
    let root = root(dir);
    let levels = [("manufacturer", "manufacturers.txt"), ("family", "families.txt"), ("variant", "variants.txt")];
    let mut labels = Growing::default();
    let mut index: [HashMap<String, usize>; 3] = Default::default();
    for ((_, classes), index) in levels.iter().zip(&mut index) {
        for line in lines(&root.join(classes))? {
            index.insert(line.text.trim().to_owned(), labels.names.len());
            labels.names.push(line.text.trim().to_owned());
            labels.parents.push(None);
        }
    }
    let mut listed = Listed::new(labels.names.clone(), Task::Hierarchical);
    for part in Part::ALL {
        let mut of_image: BTreeMap<String, (String, Vec<usize>)> = BTreeMap::new();
        for (depth, (level, classes)) in levels.iter().enumerate() {
            for line in lines(&root.join(format!("images_{level}_{}.txt", part.name())))? {
                let (id, class) = line.two()?;
                let label = *index[depth]
                    .get(class)
                    .ok_or_else(|| Error::input(format!("{}: class {class:?} is not in {classes}", line.place)))?;
                let (place, found) = of_image.entry(id.to_owned()).or_insert_with(|| (line.place.clone(), Vec::new()));
                if found.len() != depth {
                    return Err(Error::input(format!(
                        "{place}: image {id} is not once in each of the lists by manufacturer, family and variant"
                    )));
                }
                found.push(label);
            }
        }
        for (id, (place, found)) in of_image {
            let [manufacturer, family, variant] = found[..] else {
                return Err(Error::input(format!("{place}: image {id} is not in the lists of all three levels")));
            };
            for (child, parent) in [(family, manufacturer), (variant, family)] {
                if let Some(other) = labels.parents[child].replace(parent).filter(|&other| other != parent) {
                    return Err(Error::input(format!(
                        "{place}: image {id} has {:?} under {:?}, others have it under {:?}",
                        labels.names[child], labels.names[parent], labels.names[other]
                    )));
                }
            }
            let mut row = vec![0.0; labels.names.len()];
            found.iter().for_each(|&label| row[label] = 1.0);
            listed
                .entry(|listed| listed.add(part, root.join(format!("images/{id}.jpg")), Label::Multi(row), &place))?;
        }
    }
    listed.given_in_tree(labels, |_| format!("{}: FGVC-Aircraft as a tree, official split", dir.display()))
}

fn read(dir: &Path, level: &Level) -> Result<Given> {
    let root = root(dir);
    let path = root.join(level.classes);
    let classes: Vec<String> = lines(&path)?.into_iter().map(|line| line.text.trim().to_owned()).collect();
    let index = index_of(&classes, &path.display().to_string())?;
    let mut listed = Listed::new(classes.clone(), Task::Multiclass);
    for part in Part::ALL {
        let list = root.join(format!("images_{}_{}.txt", level.name, part.name()));
        for line in lines(&list)? {
            listed.entry(|listed| {
                let (id, class) = line.two()?;
                let class = *index.get(class).ok_or_else(|| {
                    Error::input(format!("{}: class {class:?} is not in {}", line.place, level.classes))
                })?;
                listed.add(part, root.join(format!("images/{id}.jpg")), Label::Class(class), &line.place)
            })?;
        }
    }
    listed.given(format!("{}: FGVC-Aircraft by {}, official split", dir.display(), level.name))
}
