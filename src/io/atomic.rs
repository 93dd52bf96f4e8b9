//! Writing files and folders so that a crash, a kill or a full disk leaves the old one or the new one, never half.
//!
//! A file goes to `NAME.tmp` beside it and is renamed over it. A folder is built as `NAME.new.tmp`; the old one steps aside
//! as `NAME.old.tmp` before the new one takes its name. A kill between those two renames leaves only the old one under
//! its aside name, which [`recover_dir`] puts back.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// Writes `bytes` to `path`: to a temporary name in the same folder, flushed to the disk, then renamed.
///
/// # Errors
/// [`Error::Io`] naming `path`; what was there before is untouched and the temporary file is gone.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = beside(path, ".tmp");
    let write = || -> io::Result<()> {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        sync_dir(parent(path))
    };
    write().map_err(|e| {
        let _ = fs::remove_file(&temporary);
        Error::io("write", path, e)
    })
}

/// Replaces the folder `target` by what `build` puts into the temporary folder that it is given. `target` may be missing.
///
/// # Errors
/// What `build` returned, or [`Error::Io`] naming `target`; the old folder is then in place as it was.
pub fn replace_dir(target: &Path, build: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    recover_dir(target)?;
    let fresh = beside(target, ".new.tmp");
    let aside = beside(target, ".old.tmp");
    fs::create_dir(&fresh).map_err(|e| Error::io("create", target, e))?;
    let built = build(&fresh).and_then(|()| sync_tree(&fresh).map_err(|e| Error::io("write", target, e)));
    let swapped = built.and_then(|()| swap(&fresh, target, &aside).map_err(|e| Error::io("write", target, e)));
    if swapped.is_err() {
        let _ = fs::remove_dir_all(&fresh);
    }
    swapped
}

/// Where to read what `target` holds: `target`, or the old folder that stepped aside while a new one takes its place. Changes nothing, so that a
/// reader never disturbs a run that goes on.
pub fn readable_dir(target: &Path) -> PathBuf {
    let aside = beside(target, ".old.tmp");
    if !target.exists() && aside.exists() { aside } else { target.to_owned() }
}

/// Mends what a killed [`replace_dir`] left: puts an old folder that had stepped aside back into place and removes half
/// built ones. Call it before `target` is read.
///
/// # Errors
/// [`Error::Io`] naming `target`.
pub fn recover_dir(target: &Path) -> Result<()> {
    let recover = || -> io::Result<()> {
        let aside = beside(target, ".old.tmp");
        if aside.exists() && !target.exists() {
            fs::rename(&aside, target)?;
        }
        remove_if_there(&aside)?;
        remove_if_there(&beside(target, ".new.tmp"))
    };
    recover().map_err(|e| Error::io("write", target, e))
}

/// `fresh` takes the place of `target`, whose old content is removed once the new one is in place.
fn swap(fresh: &Path, target: &Path, aside: &Path) -> io::Result<()> {
    let had_old = target.exists();
    if had_old {
        fs::rename(target, aside)?;
    }
    if let Err(error) = fs::rename(fresh, target) {
        if had_old {
            fs::rename(aside, target)?;
        }
        return Err(error);
    }
    // The new folder is in place: what is left of the old one is no failure, and the next start removes it.
    let _ = fs::remove_dir_all(aside);
    sync_dir(parent(target))
}

/// Flushes every file below `dir`, then the folders that name them.
fn sync_tree(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_tree(&entry.path())?;
        } else {
            File::open(entry.path())?.sync_all()?;
        }
    }
    sync_dir(dir)
}

/// Flushes the names in `dir`, without which a rename may be lost when the power goes.
fn sync_dir(dir: &Path) -> io::Result<()> {
    // Elsewhere than on Unix a folder cannot be opened as a file, and needs no flush.
    if cfg!(unix) { File::open(dir)?.sync_all() } else { Ok(()) }
}

fn remove_if_there(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// `path` with `suffix` after its last name. `components` drops a trailing slash, which would make it a name inside.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path.components().as_path());
    name.push(suffix);
    PathBuf::from(name)
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        write_file(&path, b"one").unwrap();
        write_file(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(names(dir.path()), ["a.json"]);
    }

    #[test]
    fn a_failed_write_names_the_file_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("taken");
        // A folder cannot be renamed over by a file: the write fails at its last step.
        fs::create_dir(&path).unwrap();
        let error = write_file(&path, b"x").unwrap_err();
        assert!(matches!(&error, Error::Io { path: named, .. } if *named == path), "{error}");
        assert_eq!(error.exit_code(), 2);
        assert_eq!(names(dir.path()), ["taken"]);
        assert!(write_file(&dir.path().join("missing/file"), b"x").is_err());
    }

    #[test]
    fn a_folder_is_swapped_whole() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("last/");
        for text in ["one", "two"] {
            replace_dir(&target, |tmp| write_file(&tmp.join(text), text.as_bytes())).unwrap();
            assert_eq!(names(&target), [text]);
            assert_eq!(names(dir.path()), ["last"]);
        }
    }

    #[test]
    fn a_failed_build_keeps_the_old_folder() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("last");
        replace_dir(&target, |tmp| write_file(&tmp.join("good"), b"1")).unwrap();
        let failed = replace_dir(&target, |tmp| {
            write_file(&tmp.join("half"), b"2")?;
            Err(Error::input("the disk is full"))
        });
        assert!(failed.is_err());
        assert_eq!(names(&target), ["good"]);
        assert_eq!(names(dir.path()), ["last"]);
    }

    /// `/dev/full` answers every write as a full disk does; a link to it under the temporary name stands in for one.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_loses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        write_file(&path, b"old").unwrap();
        std::os::unix::fs::symlink("/dev/full", dir.path().join("a.json.tmp")).unwrap();
        let error = write_file(&path, b"new").unwrap_err();
        assert!(matches!(&error, Error::Io { path: named, source, .. }
            if *named == path && source.kind() == io::ErrorKind::StorageFull));
        assert_eq!((fs::read(&path).unwrap(), names(dir.path())), (b"old".to_vec(), vec!["a.json".to_owned()]));

        let target = dir.path().join("last");
        replace_dir(&target, |tmp| write_file(&tmp.join("good"), b"1")).unwrap();
        let failed = replace_dir(&target, |tmp| {
            std::os::unix::fs::symlink("/dev/full", tmp.join("good.tmp")).unwrap();
            write_file(&tmp.join("good"), b"2")
        });
        assert!(failed.is_err());
        assert_eq!(fs::read(target.join("good")).unwrap(), b"1");
        assert_eq!(names(dir.path()), ["a.json", "last"]);
    }

    #[test]
    fn a_kill_at_any_point_is_mended() {
        let dir = tempfile::tempdir().unwrap();
        let (target, fresh, aside) =
            (dir.path().join("last"), dir.path().join("last.new.tmp"), dir.path().join("last.old.tmp"));
        // While building: the old one is in place, half of the new one beside it.
        fs::create_dir_all(&target).unwrap();
        fs::write(target.join("good"), "1").unwrap();
        fs::create_dir_all(&fresh).unwrap();
        recover_dir(&target).unwrap();
        assert_eq!((names(dir.path()), names(&target)), (vec!["last".to_owned()], vec!["good".to_owned()]));
        // Between the two renames: only the old one, under its aside name.
        fs::rename(&target, &aside).unwrap();
        recover_dir(&target).unwrap();
        assert_eq!((names(dir.path()), names(&target)), (vec!["last".to_owned()], vec!["good".to_owned()]));
        // Before the old one is removed: both; the new one counts.
        fs::create_dir_all(&aside).unwrap();
        fs::write(aside.join("older"), "0").unwrap();
        recover_dir(&target).unwrap();
        assert_eq!((names(dir.path()), names(&target)), (vec!["last".to_owned()], vec!["good".to_owned()]));
    }
}
