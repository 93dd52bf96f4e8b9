//! The cache's file: pixels one image after another, read and written at their places by any thread.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::{RgbImage, nameless};
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
    /// In `dir`, or where temporary files that may be large belong.
    pub(super) fn create(dir: Option<&Path>, max_bytes: u64) -> Result<Self> {
        let dir = dir.map_or_else(nameless::folder, Path::to_owned);
        let file = nameless::create(&dir).map_err(|e| {
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
        nameless::write_at(&self.file, &image.pixels, entry.start)
    }

    pub(super) fn read(&self, entry: Entry) -> io::Result<RgbImage> {
        let Entry { start, width, height } = entry;
        let mut pixels = vec![0; width * height * 3];
        nameless::read_at(&self.file, &mut pixels, start)?;
        Ok(RgbImage { width, height, pixels })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn max_bytes(&self) -> u64 {
        self.max_bytes
    }
}
