//! The folder of a training run: what lies where, and when it may be written.

use std::fs::{File, TryLockError};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use crate::config::TrainConfig;
use crate::io::atomic;
use crate::task::labels::Labels;
use crate::{Error, Result};

/// A run's folder. It is a run as soon as it holds `config.toml`, which is written first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunDir {
    path: PathBuf,
}

impl RunDir {
    /// Makes `config.out`, missing or empty, a run with these settings.
    ///
    /// # Errors
    /// [`Error::Input`] where it holds something already, [`Error::Io`] where it cannot be written.
    pub fn create(config: &TrainConfig) -> Result<Self> {
        let run = Self { path: config.out.clone() };
        Self::check_free(&run.path)?;
        std::fs::create_dir_all(&run.path).map_err(|e| Error::io("create", &run.path, e))?;
        atomic::write_file(&run.config(), config.to_toml()?.as_bytes())?;
        Ok(run)
    }

    /// The run in `path`, for reading: nothing is changed in it. `flag` is named where there is none.
    ///
    /// # Errors
    /// [`Error::Input`] where `path` is no run.
    pub fn open(path: &Path, flag: &str) -> Result<Self> {
        let run = Self { path: path.to_owned() };
        if !run.config().is_file() {
            let missing = if path.is_dir() { "config.toml is missing in it" } else { "no such folder" };
            return Err(Error::input(format!("{flag} {}: expected the folder of a run, {missing}", path.display())));
        }
        Ok(run)
    }

    /// Mends what a kill left half replaced. Only the training that holds the lock may.
    ///
    /// # Errors
    /// [`Error::Io`] naming the folder.
    pub fn recover(&self) -> Result<()> {
        atomic::recover_dir(&self.adapter())?;
        atomic::recover_dir(&self.last())
    }

    /// Takes the run for this process until the file is dropped: two trainings in one folder would undo each other.
    ///
    /// # Errors
    /// [`Error::Input`] where another process trains in it, [`Error::Io`] where it cannot be written.
    pub fn lock(&self) -> Result<File> {
        let path = self.path.join(".lock");
        let file = File::create(&path).map_err(|e| Error::io("create", &path, e))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(Error::input(format!(
                "--out {}: another peftk is training in this folder; wait for it, or name another folder",
                self.path.display()
            ))),
            Err(TryLockError::Error(e)) => Err(Error::io("lock", &path, e)),
        }
    }

    /// Refuses a folder that holds something. What a kill before `config.toml` was whole leaves does not count.
    ///
    /// # Errors
    /// [`Error::Input`] naming `--out`, [`Error::Io`] where the folder cannot be read.
    pub fn check_free(path: &Path) -> Result<()> {
        if !path.exists() {
            return Ok(());
        }
        if !path.is_dir() {
            return Err(Error::input(format!("--out {}: expected a folder, found a file", path.display())));
        }
        let entries = std::fs::read_dir(path).map_err(|e| Error::io("read", path, e))?;
        for entry in entries {
            let entry = entry.map_err(|e| Error::io("read", path, e))?;
            if entry.file_name() != "config.toml.tmp" {
                let mend = if path.join("config.toml").is_file() {
                    "holds a run already; continue it with --resume or name another folder"
                } else {
                    "is not empty; name a missing or empty folder"
                };
                return Err(Error::input(format!("--out {}: {mend}", path.display())));
            }
        }
        Ok(())
    }

    /// The next free numbered folder under `parent`: one above the highest there, `0001` first.
    ///
    /// # Errors
    /// [`Error::Io`] where `parent` is there and cannot be read.
    pub fn next_numbered(parent: &Path) -> Result<PathBuf> {
        let mut highest = 0u64;
        if parent.exists() {
            let entries = std::fs::read_dir(parent).map_err(|e| Error::io("read", parent, e))?;
            for entry in entries {
                let name = entry.map_err(|e| Error::io("read", parent, e))?.file_name();
                let number = name.to_str().filter(|name| name.bytes().all(|b| b.is_ascii_digit()));
                highest = highest.max(number.and_then(|name| name.parse().ok()).unwrap_or(0));
            }
        }
        Ok(parent.join(format!("{:04}", highest.saturating_add(1))))
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `config.toml`: the settings.
    pub fn config(&self) -> PathBuf {
        self.path.join("config.toml")
    }

    /// `metrics.jsonl`: the log.
    pub fn metrics(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }

    /// What it is trained and validated on, in short, as the log's first line has it; none in logs of earlier builds.
    ///
    /// # Errors
    /// [`Error::Io`] where the log cannot be read.
    pub fn images(&self) -> Result<Option<String>> {
        let path = self.metrics();
        let io = |e| Error::io("read", &path, e);
        let mut line = String::new();
        BufReader::new(File::open(&path).map_err(io)?).read_line(&mut line).map_err(io)?;
        let line: Option<serde_json::Value> = serde_json::from_str(&line).ok();
        Ok(line.and_then(|line| Some(line.get("images")?.as_str()?.to_owned())))
    }

    /// `curves.svg`: loss and accuracy over the run.
    pub fn curves(&self) -> PathBuf {
        self.path.join("curves.svg")
    }

    /// `adapter/`: the best epoch in peft's form.
    pub fn adapter(&self) -> PathBuf {
        self.path.join("adapter")
    }

    /// `last/`: what is needed to resume.
    pub fn last(&self) -> PathBuf {
        self.path.join("last")
    }

    /// The settings in `config.toml`, with `out` this folder.
    ///
    /// # Errors
    /// As [`TrainConfig::read_toml`].
    pub fn read_config(&self) -> Result<TrainConfig> {
        TrainConfig::read_toml(&self.config())
    }

    /// Writes `labels.json`.
    ///
    /// # Errors
    /// [`Error::Io`] naming the file.
    pub fn write_labels(&self, labels: &Labels) -> Result<()> {
        write_labels(&self.path, labels)
    }

    /// Reads `labels.json`.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be read, [`Error::Input`] naming the file where it is no such object.
    pub fn read_labels(&self) -> Result<Labels> {
        read_labels(&self.path.join(LABELS))
    }
}

/// What the outputs of a model stand for, beside it.
pub const LABELS: &str = "labels.json";

/// Writes `labels.json` into a folder.
///
/// # Errors
/// [`Error::Io`] naming the file.
pub fn write_labels(dir: &Path, labels: &Labels) -> Result<()> {
    let text = serde_json::to_string_pretty(labels).map_err(|e| Error::Internal(format!("labels: {e}")))?;
    atomic::write_file(&dir.join(LABELS), format!("{text}\n").as_bytes())
}

/// Reads such a file.
///
/// # Errors
/// [`Error::Io`] where it cannot be read, [`Error::Input`] naming it where it is no such object.
pub fn read_labels(path: &Path) -> Result<Labels> {
    let text = std::fs::read(path).map_err(|e| Error::io("read", path, e))?;
    let bad = |what: String| Error::input(format!("{}: {what}", path.display()));
    let labels: Labels = serde_json::from_slice(&text).map_err(|e| bad(e.to_string()))?;
    labels.fault().map_or(Ok(labels), |fault| Err(bad(fault)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Task;

    #[test]
    fn a_run_is_created_once_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("a/b");
        let config = TrainConfig { out: out.clone(), lr: 0.1 + 0.2, ..TrainConfig::default() };
        let run = RunDir::create(&config).unwrap();
        assert_eq!(run.read_config().unwrap(), config);
        assert_eq!(RunDir::open(&out, "--out").unwrap(), run);
        let labels = Labels::new(Task::Multilabel, &["ä b".into(), "c".into()]);
        run.write_labels(&labels).unwrap();
        assert_eq!(run.read_labels().unwrap(), labels);
        let error = RunDir::create(&config).unwrap_err().to_string();
        assert!(error.contains("--resume"), "{error}");
    }

    #[test]
    fn only_missing_or_empty_folders_are_free() {
        let dir = tempfile::tempdir().unwrap();
        assert!(RunDir::check_free(dir.path()).is_ok());
        assert!(RunDir::check_free(&dir.path().join("missing")).is_ok());
        std::fs::write(dir.path().join("config.toml.tmp"), "").unwrap();
        assert!(RunDir::check_free(dir.path()).is_ok());
        std::fs::write(dir.path().join("notes"), "").unwrap();
        assert!(RunDir::check_free(dir.path()).unwrap_err().to_string().contains("not empty"));
        assert!(RunDir::check_free(&dir.path().join("notes")).unwrap_err().to_string().contains("found a file"));
        assert!(RunDir::open(dir.path(), "--model").unwrap_err().to_string().starts_with("--model "));
    }

    #[test]
    fn numbers_go_on_from_the_highest() {
        let dir = tempfile::tempdir().unwrap();
        let runs = dir.path().join("runs");
        assert_eq!(RunDir::next_numbered(&runs).unwrap(), runs.join("0001"));
        for name in ["0001", "0007", "best", "9x"] {
            std::fs::create_dir_all(runs.join(name)).unwrap();
        }
        assert_eq!(RunDir::next_numbered(&runs).unwrap(), runs.join("0008"));
    }

    #[test]
    fn an_open_run_is_mended() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::create(&TrainConfig { out: dir.path().join("r"), ..TrainConfig::default() }).unwrap();
        std::fs::create_dir(run.path().join("last.old.tmp")).unwrap();
        std::fs::create_dir(run.path().join("adapter.new.tmp")).unwrap();
        RunDir::open(run.path(), "--out").unwrap().recover().unwrap();
        assert!(run.last().is_dir());
        assert!(!run.path().join("adapter.new.tmp").exists());
    }
}
