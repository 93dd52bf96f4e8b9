//! Stanford Cars (Krause et al. 2013): `cars_train/`, `cars_test/` and MATLAB files of annotations, whose labels count from 1.

use std::path::{Path, PathBuf};

use super::{Listed, Part, index_of, mat};
use crate::config::Task;
use crate::data::Label;
use crate::data::open::Given;
use crate::{Error, Result};

/// A file of annotations, in the development kit or beside it, as the archives have it.
fn annotations(dir: &Path, name: &str) -> Option<PathBuf> {
    ["devkit", "car_devkit/devkit", "."].iter().map(|place| dir.join(place).join(name)).find(|path| path.is_file())
}

fn root(dir: &Path) -> PathBuf {
    let inner = dir.join("stanford_cars");
    if inner.join("cars_train").is_dir() { inner } else { dir.to_owned() }
}

pub(super) fn lies_in(dir: &Path) -> bool {
    let root = root(dir);
    root.join("cars_train").is_dir() && annotations(&root, "cars_train_annos.mat").is_some()
}

pub(super) fn read(dir: &Path) -> Result<Given> {
    let root = root(dir);
    let needed = |name: &str| {
        annotations(&root, name).ok_or_else(|| {
            Error::input(format!("{}: no {name} there or in devkit; unpack the development kit", root.display()))
        })
    };
    let meta = needed("cars_meta.mat")?;
    let classes = mat::variable(&meta, "class_names")?
        .texts()
        .ok_or_else(|| Error::input(format!("{}: class_names is no list of names", meta.display())))?;
    index_of(&classes, &meta.display().to_string())?;
    let mut listed = Listed::new(classes.clone(), Task::Multiclass);
    // The test images' labels came in a file of their own, later.
    for (part, file, folder) in [
        (Part::Train, "cars_train_annos.mat", "cars_train"),
        (Part::Test, "cars_test_annos_withlabels.mat", "cars_test"),
    ] {
        if part == Part::Test && annotations(&root, file).is_none() {
            continue;
        }
        let path = needed(file)?;
        let shown = path.display();
        let list = mat::variable(&path, "annotations")?;
        let column = |name: &str| {
            list.field(name).ok_or_else(|| Error::input(format!("{shown}: annotations have no field {name:?}")))
        };
        for (index, (class, name)) in column("class")?.into_iter().zip(column("fname")?).enumerate() {
            let place = format!("{shown}, annotation {}", index + 1);
            listed.entry(|listed| {
                let number = class.number().filter(|&n| n >= 1.0 && n <= classes.len() as f64 && n.fract() == 0.0);
                let class = number.ok_or_else(|| {
                    Error::input(format!("{place}: expected a class from 1 to {}, found {class:?}", classes.len()))
                })?;
                let name = name.text().ok_or_else(|| Error::input(format!("{place}: fname is no text")))?;
                listed.add(part, root.join(folder).join(name), Label::Class(class as usize - 1), &place)
            })?;
        }
    }
    listed.given(format!("{}: Stanford Cars, official split", dir.display()))
}
