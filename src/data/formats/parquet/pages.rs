//! The pages of a Parquet file, within bounds, and where in the file a value of one lies.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};
use parquet::file::reader::{ChunkReader, Length};

use crate::data::nameless::read_at;

/// Values that one page may say it has: what is read of it is allocated before it is found to be less.
const MOST_VALUES: u32 = 1 << 24;

/// An open file.
#[derive(Clone)]
pub(super) struct Chunks {
    inner: Arc<Inner>,
}

struct Inner {
    file: File,
    length: u64,
    /// What was read last, where a value's place is wanted. Held, so that nothing else can lie at the same address.
    kept: Mutex<Option<Vec<(u64, Bytes)>>>,
}

impl Chunks {
    pub(super) fn open(path: &Path) -> std::io::Result<Self> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        Ok(Self { inner: Arc::new(Inner { file, length, kept: Mutex::new(None) }) })
    }

    /// The first and the last bytes.
    pub(super) fn ends(&self) -> std::io::Result<(Vec<u8>, [u8; 4])> {
        let mut first = vec![0; 24.min(self.inner.length as usize)];
        read_at(&self.inner.file, &mut first, 0)?;
        let mut last = [0; 4];
        if self.inner.length >= 4 {
            read_at(&self.inner.file, &mut last, self.inner.length - 4)?;
        }
        Ok((first, last))
    }

    /// From now on [`Self::offset_of`] finds values, or no longer.
    pub(super) fn keep(&self, wanted: bool) {
        *self.kept() = wanted.then(Vec::new);
    }

    /// Lets go of what no later value can be in: all but the dictionary, which comes first, and the page that is being read.
    pub(super) fn trim(&self) {
        if let Some(kept) = self.kept().as_mut()
            && kept.len() > 2
        {
            kept.drain(1..kept.len() - 1);
        }
    }

    /// Where in the file these very bytes were read from; none if they were made of others.
    pub(super) fn offset_of(&self, value: &[u8]) -> Option<u64> {
        let value = value.as_ptr_range();
        self.kept().as_ref()?.iter().rev().find_map(|(offset, bytes)| {
            let all = bytes.as_ptr_range();
            let inside = all.start <= value.start && value.end <= all.end;
            inside.then(|| offset + (value.start.addr() - all.start.addr()) as u64)
        })
    }

    fn kept(&self) -> MutexGuard<'_, Option<Vec<(u64, Bytes)>>> {
        // A list of what was read is whole at any time.
        self.inner.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Length for Chunks {
    fn len(&self) -> u64 {
        self.inner.length
    }
}

impl ChunkReader for Chunks {
    type T = BufReader<From>;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        Ok(BufReader::with_capacity(1 << 12, From { inner: self.inner.clone(), offset: start }))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        if start.checked_add(length as u64).is_none_or(|end| end > self.inner.length) {
            return Err(ParquetError::EOF(format!("{length} bytes from {start} on, of {}", self.inner.length)));
        }
        let mut bytes = vec![0; length];
        read_at(&self.inner.file, &mut bytes, start)?;
        let bytes = Bytes::from(bytes);
        if let Some(kept) = self.kept().as_mut() {
            kept.push((start, bytes.clone()));
        }
        Ok(bytes)
    }
}

/// A file from some place on.
pub(super) struct From {
    inner: Arc<Inner>,
    offset: u64,
}

impl Read for From {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let left = self.inner.length.saturating_sub(self.offset);
        let read = usize::try_from(left).unwrap_or(usize::MAX).min(into.len());
        read_at(&self.inner.file, &mut into[..read], self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

/// Pages whose headers do not claim what would take the memory away.
pub(super) struct Bounded(pub Box<dyn PageReader>);

impl PageReader for Bounded {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        let page = self.0.get_next_page()?;
        if let Some(page) = &page {
            let values = page.num_values();
            let most = if page.is_dictionary_page() { page.buffer().len() } else { MOST_VALUES as usize };
            if values as usize > most.min(MOST_VALUES as usize) {
                return Err(ParquetError::General(format!("a page that claims {values} values")));
            }
        }
        Ok(page)
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.0.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.0.skip_next_page()
    }

    fn at_record_boundary(&mut self) -> Result<bool> {
        self.0.at_record_boundary()
    }
}

impl Iterator for Bounded {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}
