//! Food-101 (Bossard et al. 2014): `images/<class>/<id>.jpg`, and `meta/{train,test}.txt` with `<class>/<id>` a line.

use std::path::{Path, PathBuf};

use super::lines::lines;
use super::{Listed, Part, index_of};
use crate::config::Task;
use crate::data::Label;
use crate::data::open::Given;
use crate::{Error, Result};

fn root(dir: &Path) -> PathBuf {
    if dir.join("food-101/meta/train.txt").is_file() { dir.join("food-101") } else { dir.to_owned() }
}

pub(super) fn lies_in(dir: &Path) -> bool {
    let root = root(dir);
    ["meta/train.txt", "meta/test.txt", "meta/classes.txt"].iter().all(|file| root.join(file).is_file())
}

pub(super) fn read(dir: &Path) -> Result<Given> {
    let root = root(dir);
    let path = root.join("meta/classes.txt");
    let classes: Vec<String> = lines(&path)?.into_iter().map(|line| line.text.trim().to_owned()).collect();
    let index = index_of(&classes, &path.display().to_string())?;
    let mut listed = Listed::new(classes.clone(), Task::Multiclass);
    for part in [Part::Train, Part::Test] {
        for line in lines(&root.join(format!("meta/{}.txt", part.name())))? {
            listed.entry(|listed| {
                let entry = line.text.trim();
                let class = entry.split_once('/').and_then(|(class, _)| index.get(class)).ok_or_else(|| {
                    Error::input(format!(
                        "{}: expected CLASS/ID with a class of meta/classes.txt, found {entry:?}",
                        line.place
                    ))
                })?;
                listed.add(part, root.join(format!("images/{entry}.jpg")), Label::Class(*class), &line.place)
            })?;
        }
    }
    listed.given(format!("{}: Food-101, official split", dir.display()))
}
