//! Encoded images that lie inside a larger file: read from where they are, or from a copy of their bytes where that file compresses them.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::nameless;
use crate::{Error, Result};

/// Where an image's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In the file itself, as they are.
    Inside(Span),
    /// In the copy.
    Copied(Span),
}

/// Bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub offset: u64,
    pub length: u32,
}

/// Encoded images that one file holds. None of them is in memory.
pub struct PackedImages {
    path: PathBuf,
    /// By row; none where the row is no image of this file's.
    places: Vec<Option<Place>>,
    copy: Option<Arc<File>>,
}

impl PackedImages {
    pub(super) fn new(path: PathBuf, places: Vec<Option<Place>>, copy: Option<Arc<File>>) -> Self {
        Self { path, places, copy }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The encoded image of a row, counted from 0, or why there is none.
    pub(super) fn read(&self, row: usize) -> std::result::Result<Vec<u8>, String> {
        let place = self.places.get(row).copied().flatten().ok_or("there is no such image")?;
        let read = match (place, &self.copy) {
            // Opened anew: a set may have more files than a process may hold open.
            (Place::Inside(span), _) => File::open(&self.path).and_then(|file| read_at(&file, span)),
            (Place::Copied(span), Some(copy)) => read_at(copy, span),
            (Place::Copied(_), None) => return Err("there is no copy of it".into()),
        };
        read.map_err(|e| format!("cannot be read: {e}"))
    }
}

fn read_at(file: &File, span: Span) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; span.length as usize];
    nameless::read_at(file, &mut bytes, span.offset)?;
    Ok(bytes)
}

/// One temporary file, made when the first bytes come, that has no name: it is gone with the last that reads it, however the process ends.
pub(super) struct Copies {
    dir: PathBuf,
    file: Option<BufWriter<File>>,
    written: u64,
}

impl Copies {
    /// A file in this folder.
    pub(super) fn inside(dir: PathBuf) -> Self {
        Self { dir, file: None, written: 0 }
    }

    /// Appends an image's bytes.
    ///
    /// # Errors
    /// One line that names the folder and says the mend: no room, no such folder, no permission.
    pub(super) fn add(&mut self, bytes: &[u8]) -> Result<Place> {
        let length = u32::try_from(bytes.len()).map_err(|_| Error::input("an image of over 4 GiB"))?;
        let span = Span { offset: self.written, length };
        self.write(bytes).map_err(|e| self.failed(&e))?;
        self.written += u64::from(length);
        Ok(Place::Copied(span))
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        if self.file.is_none() {
            self.file = Some(BufWriter::with_capacity(1 << 20, nameless::create(&self.dir)?));
        }
        self.file.as_mut().map_or(Ok(()), |file| file.write_all(bytes))
    }

    /// What was written, to read from; none if nothing was.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub(super) fn finish(mut self) -> Result<Option<Arc<File>>> {
        let Some(mut file) = self.file.take() else { return Ok(None) };
        file.flush().map_err(|e| self.failed(&e))?;
        file.into_inner().map(|file| Some(Arc::new(file))).map_err(|e| self.failed(e.error()))
    }

    fn failed(&self, error: &std::io::Error) -> Error {
        Error::input(format!(
            "cannot copy compressed images to a temporary file in {}: {error}, after {} MiB; set TMPDIR to a folder of a disk with more room",
            self.dir.display(),
            self.written >> 20
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_read_by_position_and_leave_no_name() {
        let dir = tempfile::tempdir().unwrap();
        let mut copies = Copies::inside(dir.path().to_owned());
        let places: Vec<_> =
            [&b"one"[..], b"", b"three"].iter().map(|bytes| Some(copies.add(bytes).unwrap())).collect();
        let images = PackedImages::new("x".into(), [places, vec![None]].concat(), copies.finish().unwrap());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert_eq!([0, 1, 2].map(|row| images.read(row).unwrap()), [b"one".to_vec(), Vec::new(), b"three".to_vec()]);
        assert!(images.read(3).is_err() && images.read(4).is_err());
        assert!(Copies::inside(dir.path().to_owned()).finish().unwrap().is_none(), "made only where it is needed");
    }

    #[test]
    fn a_full_disk_is_one_line() {
        let mut copies = Copies::inside("/temporary".into());
        copies.file = Some(BufWriter::with_capacity(4, File::options().write(true).open("/dev/full").unwrap()));
        copies.written = 5 << 20;
        let text = copies.add(b"too much").unwrap_err().to_string();
        let expected = "cannot copy compressed images to a temporary file in /temporary: No space left on device (os error 28), after 5 MiB; \
                        set TMPDIR to a folder of a disk with more room";
        assert_eq!(text, expected);
        copies.file = Some(BufWriter::new(File::options().write(true).open("/dev/full").unwrap()));
        copies.add(b"kept back").unwrap();
        assert_eq!(copies.finish().unwrap_err().to_string(), expected);
        let gone = Copies::inside("/no such folder".into()).add(b"x").unwrap_err().to_string();
        assert!(gone.contains("/no such folder: No such file"), "{gone}");
    }
}
