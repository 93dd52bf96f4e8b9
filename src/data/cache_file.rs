//! The cache's file: pixels one image after another, read and written at their places by any thread.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::RgbImage;
use crate::{Error, Result};

/// A file without a name: it goes with the process, however that ends.
pub(super) struct CacheFile {
    file: File,
    dir: PathBuf,
    max_bytes: u64,
}

/// Where an image lies in the file.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    start: u64,
    width: usize,
    height: usize,
}

impl Entry {
    /// Bytes of its pixels.
    pub(super) fn len(self) -> u64 {
        (self.width * self.height * 3) as u64
    }

    /// Where the next may start.
    pub(super) fn end(self) -> u64 {
        self.start + self.len()
    }
}

impl CacheFile {
    /// In `dir`, or where temporary files that may be large belong: /tmp is memory on many systems.
    pub(super) fn create(dir: Option<&Path>, max_bytes: u64) -> Result<Self> {
        let temporary = || {
            let large = Path::new("/var/tmp");
            let use_large = std::env::var_os("TMPDIR").is_none() && large.is_dir();
            if use_large { large.to_owned() } else { std::env::temp_dir() }
        };
        let dir = dir.map_or_else(temporary, Path::to_owned);
        let file = unnamed(&dir).map_err(|e| {
            Error::input(format!("--cache: no file can be made in {}: {e}; name another folder", dir.display()))
        })?;
        Ok(Self { file, dir, max_bytes })
    }

    /// Over a file that is open.
    #[cfg(test)]
    pub(super) fn over(file: File, max_bytes: u64) -> Self {
        Self { file, dir: "DIR".into(), max_bytes }
    }

    /// The place of an image behind the first `taken` bytes, if it has room there.
    pub(super) fn place_after(&self, taken: u64, image: &RgbImage) -> Option<Entry> {
        let entry = Entry { start: taken, width: image.width, height: image.height };
        (entry.end() <= self.max_bytes).then_some(entry)
    }

    pub(super) fn write(&self, entry: Entry, image: &RgbImage) -> io::Result<()> {
        self.file.write_all_at(&image.pixels, entry.start)
    }

    pub(super) fn read(&self, entry: Entry) -> io::Result<RgbImage> {
        let Entry { start, width, height } = entry;
        let mut pixels = vec![0; width * height * 3];
        self.file.read_exact_at(&mut pixels, start)?;
        Ok(RgbImage { width, height, pixels })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn max_bytes(&self) -> u64 {
        self.max_bytes
    }
}

/// A new file for this user alone whose name is taken away at once.
fn unnamed(dir: &Path) -> io::Result<File> {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    loop {
        let name = format!(".peftk-cache-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = dir.join(name);
        match OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path) {
            // Another process's of the same number, on another machine or of an earlier day.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
            Ok(file) => {
                std::fs::remove_file(&path)?;
                return Ok(file);
            }
        }
    }
}
