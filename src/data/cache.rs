//! Decoded images kept in memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::{RgbImage, Source, decode};
use crate::Result;

/// Decoded images up to a number of bytes; share it in an `Arc`.
///
/// The first that come stay: an epoch touches every image once, so throwing out the oldest would throw out each just
/// before it is wanted again. Images are kept at full size: a smaller copy would change what a crop of it looks like.
pub struct ImageCache {
    max_bytes: usize,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    images: HashMap<Source, Arc<RgbImage>>,
    bytes: usize,
}

impl ImageCache {
    /// A cache of at most this many bytes of pixels; 0 keeps nothing.
    pub fn new(max_bytes: usize) -> Self {
        Self { max_bytes, kept: Mutex::default() }
    }

    /// The decoded image: from the cache, or decoded now and kept if there is room.
    ///
    /// # Errors
    /// As [`decode`].
    pub fn get(&self, source: &Source) -> Result<Arc<RgbImage>> {
        if let Some(image) = self.lock().images.get(source) {
            return Ok(image.clone());
        }
        let image = Arc::new(decode(source)?);
        let mut kept = self.lock();
        let bytes = kept.bytes.saturating_add(image.pixels.len());
        if bytes <= self.max_bytes && !kept.images.contains_key(source) {
            kept.bytes = bytes;
            kept.images.insert(source.clone(), image.clone());
        }
        Ok(image)
    }

    /// Bytes of pixels kept.
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        // Nothing in here can be left half done: a panic elsewhere is no reason to fail.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for ImageCache {
    /// 1 GiB.
    fn default() -> Self {
        Self::new(1 << 30)
    }
}
