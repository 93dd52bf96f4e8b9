//! Which files a folder has, and of which part each is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use regex_lite::Regex;

use crate::data::formats::Part;
use crate::data::has_image_extension;
use crate::{Error, Result};

/// Folders below the one given that are looked into: `SET/train/0000.parquet` is two deep.
const MOST_DEPTH: usize = 3;

/// What is read.
pub(super) struct Files {
    /// In byte order within a part.
    pub parts: Vec<(Part, PathBuf)>,
    /// What was passed over, for the description.
    pub passed_over: String,
}

/// The part that a word is the name of.
fn named(word: &str) -> Option<Part> {
    match word.to_ascii_lowercase().as_str() {
        "train" | "training" => Some(Part::Train),
        "val" | "valid" | "validation" | "dev" => Some(Part::Val),
        "test" | "testing" | "eval" | "evaluation" => Some(Part::Test),
        _ => None,
    }
}

/// The part that a file is of, by a word of its name, else by a folder's.
fn part_of(inside: &Path) -> Option<Part> {
    let stem = inside.file_stem()?.to_string_lossy();
    let own = stem.split(|c: char| !c.is_ascii_alphabetic()).find_map(named);
    own.or_else(|| inside.parent()?.iter().rev().find_map(|folder| named(folder.to_str()?)))
}

/// The set that a file is of, where a folder has several: the folders' names without those that say a part.
fn set_of(inside: &Path) -> PathBuf {
    let folders = inside.parent().into_iter().flatten();
    folders.filter(|folder| *folder != "data" && folder.to_str().is_none_or(|name| named(name).is_none())).collect()
}

/// All `.parquet` files, in byte order. Hidden folders hold what downloads leave behind.
pub(super) fn all(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    walk(dir, 0, &mut found);
    found.sort_by(|a, b| a.as_os_str().as_encoded_bytes().cmp(b.as_os_str().as_encoded_bytes()));
    found
}

fn walk(dir: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    // A folder that cannot be listed has nothing to read; whoever reads folders of images says why.
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    let name = dir.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let of_files = depth == 0 || name == "data" || named(name).is_some();
    for entry in entries.flatten() {
        let path = entry.path();
        let kind = entry.file_type();
        if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")) {
            continue;
        }
        if path.extension().is_some_and(|ending| ending == "parquet") {
            if path.is_file() {
                found.push(path);
            }
        } else if has_image_extension(&path) {
            if !of_files {
                // A class of a folder of classes: there may be a thousand, each of thousands.
                return;
            }
        } else if depth < MOST_DEPTH && kind.is_ok_and(|kind| kind.is_dir() || (kind.is_symlink() && path.is_dir())) {
            walk(&path, depth + 1, found);
        }
    }
}

/// The files to read.
///
/// # Errors
/// One line: no file, files of several sets, a file of a part that is lacking.
pub(super) fn find(dir: &Path) -> Result<Files> {
    let shown = dir.display();
    let mut sets: BTreeMap<PathBuf, Vec<PathBuf>> = BTreeMap::new();
    for path in all(dir) {
        let inside = path.strip_prefix(dir).unwrap_or(&path);
        sets.entry(set_of(inside)).or_default().push(path);
    }
    // What lies in the folder itself goes before sets of their own beside it.
    let own = sets.remove(Path::new(""));
    let (paths, others) = match (own, sets.len()) {
        (Some(own), _) => (own, sets),
        (None, 1) => (sets.into_values().next().unwrap_or_default(), BTreeMap::new()),
        (None, 0) => {
            return Err(Error::input(format!(
                "{shown}: no .parquet file in it, in its data folder or in one of a part (train, validation, test)"
            )));
        }
        (None, _) => {
            let names: Vec<_> = sets.keys().map(|set| set.display().to_string()).collect();
            return Err(Error::input(format!(
                "{shown}: {} sets in it ({}); give the folder of one, as {shown}/{}",
                names.len(),
                names.join(", "),
                names[0]
            )));
        }
    };
    let of = |path: &PathBuf| part_of(path.strip_prefix(dir).unwrap_or(path));
    let unnamed = paths.iter().all(|path| of(path).is_none());
    let mut parts = Vec::new();
    let mut unknown = Vec::new();
    for path in paths {
        match of(&path).or(unnamed.then_some(Part::Train)) {
            Some(part) => parts.push((part, path)),
            None => unknown.push(path),
        }
    }
    whole(parts.iter().map(|(_, path)| path.as_path()))?;
    parts.sort_by_key(|(part, _)| *part);
    let unknown = unknown.iter().chain(others.values().flatten());
    let unknown: Vec<_> = unknown.map(|path| path.strip_prefix(dir).unwrap_or(path).display().to_string()).collect();
    let passed_over = match &unknown[..] {
        [] => String::new(),
        [one] => format!(", without {one}"),
        [first, rest @ ..] => format!(", without {first} and {} more files", rest.len()),
    };
    Ok(Files { parts, passed_over })
}

/// Of `train-00000-of-00003.parquet` all three have to be there: downloads stop half way.
fn whole<'a>(paths: impl Iterator<Item = &'a Path>) -> Result<()> {
    let Ok(numbered) = Regex::new(r"^(.*)-(\d{5})-of-(\d{5})(-[0-9a-f]+)?$") else { return Ok(()) };
    let mut groups: BTreeMap<(PathBuf, usize), BTreeSet<usize>> = BTreeMap::new();
    for path in paths {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let Some(found) = numbered.captures(&stem) else { continue };
        // Five digits are a number.
        let number = |index: usize| found[index].parse::<usize>().unwrap_or(0);
        groups.entry((path.with_file_name(&found[1]), number(3))).or_default().insert(number(2));
    }
    for ((prefix, total), there) in groups {
        if let Some(lacking) = (0..total).find(|index| !there.contains(index)) {
            return Err(Error::input(format!(
                "{}-{lacking:05}-of-{total:05}.parquet: not there, but {} of these {total} files are; download the rest",
                prefix.display(),
                there.len()
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_by_names() {
        for (path, part) in [
            ("data/train-00000-of-00003.parquet", Some(Part::Train)),
            ("validation-00000-of-00001-0123abcd.parquet", Some(Part::Val)),
            ("val.parquet", Some(Part::Val)),
            ("valid_0.parquet", Some(Part::Val)),
            ("cifar100/test-00000-of-00001.parquet", Some(Part::Test)),
            ("default/train/0000.parquet", Some(Part::Train)),
            ("train/test-0.parquet", Some(Part::Test)),
            ("mnist-train.parquet", Some(Part::Train)),
            ("0000.parquet", None),
            ("data/extra-00000-of-00001.parquet", None),
            ("trainings.parquet", None),
        ] {
            assert_eq!(part_of(Path::new(path)), part, "{path}");
        }
        assert_eq!(set_of(Path::new("data/train-0.parquet")), Path::new(""));
        assert_eq!(set_of(Path::new("default/train/0000.parquet")), Path::new("default"));
    }
}
