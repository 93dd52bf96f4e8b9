//! Decoded images kept in memory, and beyond that in a file.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::cache_file::{CacheFile, Entry};
use super::{RgbImage, Source, decode, plural};
use crate::Result;
use crate::config::Cache;

/// Decoded images up to a number of bytes; share it in an `Arc`.
///
/// The first that come stay: an epoch touches every image once, so throwing out the oldest would throw out each just
/// before it is wanted again. Images are kept at full size: a smaller copy would change what a crop of it looks like.
/// What comes back is what was decoded, whichever place it was kept in.
pub struct ImageCache {
    max_bytes: usize,
    file: Option<CacheFile>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    places: HashMap<Source, Place>,
    /// In memory.
    images: usize,
    bytes: usize,
    /// In the file.
    file_images: usize,
    file_bytes: u64,
    /// Why nothing more is written to the file.
    file_failed: Option<String>,
}

enum Place {
    Memory(Arc<RgbImage>),
    File(Entry),
    /// On its way into the file: who wants it meanwhile decodes it.
    Writing,
}

impl ImageCache {
    /// A cache in memory, of at most this many bytes of pixels; 0 keeps nothing.
    pub fn new(max_bytes: usize) -> Self {
        Self { max_bytes, file: None, kept: Mutex::default() }
    }

    /// The cache that settings ask for; its file is made now.
    ///
    /// # Errors
    /// [`crate::Error::Input`] naming `--cache` where the folder is not there or takes no file.
    pub fn open(settings: &Cache) -> Result<Self> {
        let max_bytes = usize::try_from(settings.memory).unwrap_or(usize::MAX);
        let file =
            (settings.disk > 0).then(|| CacheFile::create(settings.dir.as_deref(), settings.disk)).transpose()?;
        Ok(Self { file, ..Self::new(max_bytes) })
    }

    /// The decoded image: from the cache, or decoded now and kept if there is room.
    ///
    /// # Errors
    /// As [`decode`]. Trouble with the file is none: the image is decoded.
    pub fn get(&self, source: &Source) -> Result<Arc<RgbImage>> {
        let entry = match self.lock().places.get(source) {
            Some(Place::Memory(image)) => return Ok(image.clone()),
            Some(Place::File(entry)) => Some(*entry),
            Some(Place::Writing) | None => None,
        };
        if let (Some(entry), Some(file)) = (entry, &self.file)
            && let Ok(image) = file.read(entry)
        {
            return Ok(Arc::new(image));
        }
        let image = Arc::new(decode(source)?);
        self.keep(source, &image);
        Ok(image)
    }

    /// Puts an image where there is room, unless it is somewhere already.
    fn keep(&self, source: &Source, image: &Arc<RgbImage>) {
        let mut kept = self.lock();
        if kept.places.contains_key(source) {
            return;
        }
        let bytes = kept.bytes.saturating_add(image.pixels.len());
        if bytes <= self.max_bytes {
            (kept.bytes, kept.images) = (bytes, kept.images + 1);
            kept.places.insert(source.clone(), Place::Memory(image.clone()));
            return;
        }
        let Some(file) = self.file.as_ref().filter(|_| kept.file_failed.is_none()) else { return };
        let Some(entry) = file.place_after(kept.file_bytes, image) else { return };
        kept.file_bytes = entry.end();
        kept.places.insert(source.clone(), Place::Writing);
        drop(kept);
        let written = file.write(entry, image);
        let mut kept = self.lock();
        match written {
            Ok(()) => {
                kept.file_images += 1;
                kept.places.insert(source.clone(), Place::File(entry));
            }
            Err(error) => {
                // A full disk stays full for the next image too.
                kept.file_failed.get_or_insert(error.to_string());
                // Nothing is placed behind it any more: this is the count alone.
                kept.file_bytes -= entry.len();
                kept.places.remove(source);
            }
        }
    }

    /// Bytes of pixels kept in memory.
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// Images kept in memory and in the file.
    pub fn images(&self) -> (usize, usize) {
        let kept = self.lock();
        (kept.images, kept.file_images)
    }

    /// In one line, what of `total` images is kept where, and what becomes of the others.
    pub fn words(&self, total: usize) -> String {
        let kept = self.lock();
        let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / (1 << 20) as f64);
        let of = |bytes: u64, most: u64| format!("{} of {}", mib(bytes), mib(most));
        let mut text = "cache: ".to_owned();
        if self.max_bytes > 0 {
            let room = of(kept.bytes as u64, self.max_bytes as u64);
            text += &format!("{} of {total} decoded images in memory ({room})", kept.images);
        }
        if let Some(file) = &self.file {
            let (comma, dir) = (if self.max_bytes > 0 { ", " } else { "" }, file.dir().display());
            let room = of(kept.file_bytes, file.max_bytes());
            text += &format!("{comma}{} in a file in {dir} ({room})", plural(kept.file_images, "image"));
        }
        if self.max_bytes == 0 && self.file.is_none() {
            text += "none";
        }
        if let (Some(file), Some(reason)) = (&self.file, &kept.file_failed) {
            text += &format!("; {} takes no more: {reason}", file.dir().display());
        }
        match total.saturating_sub(kept.images + kept.file_images) {
            0 => text,
            left => text + &format!("; {} decoded anew each time: --cache says how many are kept", images_are(left)),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        // Nothing in here can be left half done: a panic elsewhere is no reason to fail.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn images_are(count: usize) -> String {
    if count == 1 { "1 image is".to_owned() } else { format!("{count} images are") }
}

impl Default for ImageCache {
    /// 1 GiB of memory.
    fn default() -> Self {
        Self::new(1 << 30)
    }
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
