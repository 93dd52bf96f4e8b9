//! A comparison's folder: what lies where, and what of it may be taken up again.
//!
//! `runs/<set>/<variant>/seed-<n>/` is a run folder as `train` makes it, with `cell.json` once it is over and `seed-<n>.begun.json` beside it until then; `tune/<set>/<variant>.json` holds a
//! search's trials, written after each.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::TrainConfig;
use crate::io::atomic;
use crate::{Error, Result};

/// Says that the folder is a comparison's.
const MARK: &str = "compare.txt";
const MARK_TEXT: &str = "A comparison of peftk. The same peftk compare command goes on with it, also with more data sets, strategies, ranks or seeds.\n";

/// What may differ when a comparison goes on: it changes no number, or is told by the images themselves.
const FREE: [&str; 6] = ["cache", "device", "micro_batch", "recompute", "data", "val_data"];

/// A comparison's folder, held by this process.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    _lock: File,
}

/// A run or a search that is over, or in part: how it was made, and what it came to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record<T> {
    /// The images, in short.
    pub images: String,
    /// Its settings.
    pub config: Value,
    /// What it came to.
    pub result: T,
}

impl Folder {
    /// Makes the folder, missing or empty, or takes up the comparison in it.
    ///
    /// # Errors
    /// [`Error::Input`] where it holds something else, or another process is at it; [`Error::Io`] where it cannot be written.
    pub fn open(path: &Path) -> Result<Self> {
        let shown = path.display();
        let mark = path.join(MARK);
        if path.exists() && !mark.is_file() {
            let mut entries = std::fs::read_dir(path).map_err(|e| Error::io("read", path, e))?;
            if entries.next().is_some() {
                return Err(Error::input(format!(
                    "--out {shown}: expected a missing or empty folder or one of a comparison, found others' files; name another"
                )));
            }
        }
        std::fs::create_dir_all(path).map_err(|e| Error::io("create", path, e))?;
        atomic::write_file(&mark, MARK_TEXT.as_bytes())?;
        let lock_path = path.join(".lock");
        let lock = File::create(&lock_path).map_err(|e| Error::io("create", &lock_path, e))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(Error::input(format!(
                "--out {shown}: another peftk is comparing in this folder; wait for it, or name another folder"
            ))),
            Err(TryLockError::Error(e)) => Err(Error::io("lock", &lock_path, e)),
        }
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads a record, if there is one, and holds it to what is asked for now.
    ///
    /// # Errors
    /// [`Error::Input`] where it was made of other images or with other settings, or is no such file.
    pub fn read<T: DeserializeOwned>(&self, path: &Path, images: &str, config: &TrainConfig) -> Result<Option<T>> {
        if !path.is_file() {
            return Ok(None);
        }
        let bytes = std::fs::read(path).map_err(|e| Error::io("read", path, e))?;
        let record: Record<T> = serde_json::from_slice(&bytes)
            .map_err(|e| Error::input(format!("{}: not a record of peftk compare: {e}; remove it", path.display())))?;
        let other = |what: String| {
            Error::input(format!(
                "--out {}: {} was made {what}; ask for the same, or name another folder",
                self.path.display(),
                path.display()
            ))
        };
        if record.images != images {
            return Err(other("of other images".to_owned()));
        }
        match difference(&record.config, &settings(config)?) {
            Some((name, was, is)) => Err(other(format!("with {name} = {was}, {is} is asked for now"))),
            None => Ok(Some(record.result)),
        }
    }

    /// Writes a record.
    ///
    /// # Errors
    /// [`Error::Io`] naming the file.
    pub fn write<T: Serialize>(&self, path: &Path, images: &str, config: &TrainConfig, result: &T) -> Result<()> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|e| Error::io("create", parent, e))?;
        }
        let record = Record { images: images.to_owned(), config: settings(config)?, result };
        let text = serde_json::to_string_pretty(&record).map_err(|e| Error::Internal(format!("a record: {e}")))?;
        atomic::write_file(path, format!("{text}\n").as_bytes())
    }

    /// `runs/<set>/<variant>/seed-<n>`, from the folder; `variant` as [`super::results::Variant::folder`] has it.
    pub fn run(set: &str, variant: &str, seed: u64) -> String {
        format!("runs/{}/{}/seed-{seed}", file_name(set), file_name(variant))
    }

    /// The record of a run that was begun, beside its folder, which has to be empty then. Its result says nothing.
    pub fn begun(&self, run: &str) -> PathBuf {
        self.path.join(format!("{run}.begun.json"))
    }

    /// A run's record.
    pub fn cell(&self, run: &str) -> PathBuf {
        self.path.join(run).join("cell.json")
    }

    /// A search's record.
    pub fn search(&self, set: &str, variant: &str) -> PathBuf {
        self.path.join("tune").join(file_name(set)).join(format!("{}.json", file_name(variant)))
    }
}

/// Settings as a run's `config.toml` has them.
/// What is asked of memory is there too, which a run's own settings hold only as what it was settled to: a comparison measures it.
pub fn settings(config: &TrainConfig) -> Result<Value> {
    settled(config, config)
}

/// A run's settings once all was settled, with what was asked of memory.
///
/// # Errors
/// None; [`Error::Internal`] where settings are no JSON.
pub fn settled(config: &TrainConfig, asked: &TrainConfig) -> Result<Value> {
    let mut value = serde_json::to_value(config).map_err(|e| Error::Internal(format!("settings: {e}")))?;
    if let Some(settings) = value.as_object_mut() {
        settings.insert("memory".into(), asked.memory.name().into());
        settings.insert("memory_budget".into(), asked.memory_budget.into());
        settings.insert("micro_batch_asked".into(), asked.micro_batch.into());
    }
    Ok(value)
}

/// A name that is one part of a path on any system.
pub fn file_name(name: &str) -> String {
    let plain = |c: char| if c.is_alphanumeric() || "-_.+".contains(c) { c } else { '-' };
    let name: String = name.chars().map(plain).collect();
    if name.trim_matches('.').is_empty() { format!("_{name}") } else { name }
}

/// The first setting that differs, those aside that may: its name, then both values.
fn difference(was: &Value, is: &Value) -> Option<(String, String, String)> {
    let (was, is) = (was.as_object()?, is.as_object()?);
    let name = was.keys().chain(is.keys()).find(|name| {
        !FREE.contains(&name.as_str())
            && match (was.get(*name), is.get(*name)) {
                // A backbone may have moved with the comparison.
                (Some(Value::String(a)), Some(Value::String(b))) if *name == "backbone" => last_part(a) != last_part(b),
                (a, b) => a != b,
            }
    })?;
    let of =
        |settings: &serde_json::Map<String, Value>| settings.get(name).map_or("nothing".to_owned(), Value::to_string);
    Some((name.clone(), of(was), of(is)))
}

fn last_part(path: &str) -> &str {
    path.trim_end_matches(['/', '\\']).rsplit(['/', '\\']).next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_held_to_images_and_settings() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(&dir.path().join("cmp")).unwrap();
        assert!(Folder::open(folder.path()).unwrap_err().to_string().contains("another peftk"));
        let path = folder.cell(&Folder::run("a/b", "dora r16", 3));
        assert!(path.ends_with("runs/a-b/dora-r16/seed-3/cell.json"), "{}", path.display());
        let config = TrainConfig { backbone: Some("/x/vit".into()), ..TrainConfig::default() };
        assert!(folder.read::<usize>(&path, "i", &config).unwrap().is_none());
        folder.write(&path, "i", &config, &7usize).unwrap();
        assert_eq!(folder.read::<usize>(&path, "i", &config).unwrap(), Some(7));
        let moved = TrainConfig { backbone: Some("/y/vit/".into()), data: Some("/z".into()), ..config.clone() };
        assert_eq!(folder.read::<usize>(&path, "i", &moved).unwrap(), Some(7));
        let error = folder.read::<usize>(&path, "j", &config).unwrap_err().to_string();
        assert!(error.contains("other images"), "{error}");
        let other = TrainConfig { lr: 0.5, ..config };
        let error = folder.read::<usize>(&path, "i", &other).unwrap_err().to_string();
        assert!(error.contains("lr = 0.002") && error.contains("0.5"), "{error}");
        std::fs::write(&path, "{").unwrap();
        assert!(folder.read::<usize>(&path, "i", &other).unwrap_err().to_string().contains("remove it"));
    }

    #[test]
    fn others_files_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("thesis.tex"), "").unwrap();
        assert!(Folder::open(dir.path()).unwrap_err().to_string().contains("others' files"));
        assert_eq!((file_name(".."), file_name("a b:c")), ("_..".to_owned(), "a-b-c".to_owned()));
    }
}
