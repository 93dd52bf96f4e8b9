//! A batch before its transform: the decoded images and what to make of each, for a device that resizes by itself.

use std::sync::Arc;

use rayon::prelude::*;

use super::transform::{self, CropBox};
use super::{Batch, RgbImage};
pub use crate::geometry::MAX_SOURCE_SIDE;
use crate::{Error, Result};

/// The most bytes of an image that is left to the device: several pass through its staging block together.
pub const MAX_SOURCE_BYTES: usize = 24 << 20;

/// Where an image begins among the packed pixels, in bytes: a multiple of this.
const ALIGNMENT: usize = 16;

/// B decoded images of any sizes, with the crop and flip of each; [`Sources::squares`] is what they stand for.
#[derive(Clone, Debug, PartialEq)]
pub struct Sources {
    /// The images, `[B]`, shared with the cache.
    pub images: Vec<Arc<RgbImage>>,
    /// The part of each that becomes its square, inside the image, `[B]`.
    pub boxes: Vec<CropBox>,
    /// Whether each is then mirrored left to right, `[B]`.
    pub flips: Vec<bool>,
}

impl Sources {
    /// Crops, resizes and flips on the CPU: `[B, size, size, 3]`.
    ///
    /// # Errors
    /// A crop that is not in its image.
    pub fn squares(&self, size: usize) -> Result<Vec<u8>> {
        let bytes = size * size * 3;
        let mut squares = vec![0; self.images.len() * bytes];
        if bytes > 0 {
            squares.par_chunks_exact_mut(bytes).enumerate().try_for_each(|(i, out)| {
                transform::crop_resize_flip(&self.images[i], self.boxes[i], self.flips[i], size, out)
            })?;
        }
        Ok(squares)
    }

    /// Where each image begins when all are packed into one block, in bytes, and the block's length.
    pub fn layout(&self) -> (Vec<u64>, usize) {
        let mut end = 0;
        let begin = |image: &Arc<RgbImage>| {
            let begin = end;
            end += image.pixels.len().next_multiple_of(ALIGNMENT);
            begin as u64
        };
        let offsets = self.images.iter().map(begin).collect();
        (offsets, end)
    }

    /// Copies all images to where [`Sources::layout`] puts them; gaps are left as they are.
    ///
    /// # Errors
    /// `packed` is shorter than the layout.
    pub fn pack(&self, packed: &mut [u8]) -> Result<()> {
        let (_, length) = self.layout();
        let found = packed.len();
        let mut rest = packed.get_mut(..length).ok_or_else(|| Error::shape("pack images", length, found))?;
        let mut places = Vec::with_capacity(self.images.len());
        for image in &self.images {
            let (place, after) = rest.split_at_mut(image.pixels.len().next_multiple_of(ALIGNMENT));
            places.push(place);
            rest = after;
        }
        places.into_par_iter().zip(&self.images).for_each(|(place, image)| {
            place[..image.pixels.len()].copy_from_slice(&image.pixels);
        });
        Ok(())
    }
}

impl Batch {
    /// The batch with finished squares of a side: itself, unless it has [`Sources`].
    ///
    /// # Errors
    /// As [`Sources::squares`].
    pub fn finished(mut self, size: usize) -> Result<Self> {
        if let Some(sources) = self.sources.take() {
            self.images = sources.squares(size)?;
        }
        Ok(self)
    }
}
