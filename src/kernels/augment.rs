//! Launches kernels/augment.cu: crop, bicubic resize and flip of a batch of packed u8 images, to the bits of the CPU's transform.

use super::check::{dimension, length};
use super::function;
use super::params::{PeftkAugmentImage, PeftkAugmentParams};
use crate::geometry::{CropBox, MAX_SOURCE_SIDE};
use crate::gpu::{Buf, DType, Device, Grid};
use crate::{Error, Result};

const OP: &str = "augment";

// As in kernels/augment.cu.
const THREADS: u32 = 256;
const TILE_X: usize = 32;
const TILE_Y: usize = 16;

/// Bytes of one image's entry in the table.
pub const ENTRY_BYTES: usize = size_of::<PeftkAugmentImage>();

/// One image among the packed pixels and what to make of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AugmentImage {
    /// Its first byte.
    pub offset: u64,
    /// Pixels across.
    pub width: usize,
    /// Pixels down.
    pub height: usize,
    /// The part that becomes the square, inside the image.
    pub part: CropBox,
    /// Whether the square is then mirrored left to right.
    pub flip: bool,
}

impl AugmentImage {
    /// Scratch words that the weights of one of its axes take at most.
    fn axis_words(&self, size: usize) -> usize {
        let axis = |extent: f64, pixels: usize| {
            let radius = (2.0 * (extent / size as f64).max(1.0)).ceil();
            // A pair of taps a word: no more taps than pixels, whatever the extent.
            (radius.min(pixels as f64) as usize + 1).min(pixels.div_ceil(2))
        };
        let CropBox { left, top, width, height } = self.part;
        // The extents as the kernel has them: edges are rounded, then subtracted.
        let across = axis((left + width) - left, self.width);
        let down = axis((top + height) - top, self.height);
        1 + size * (2 + across.max(down))
    }
}

/// The table that [`augment`] reads, [`ENTRY_BYTES`] an image.
///
/// # Errors
/// [`Error::Shape`] for an image without pixels or longer than [`MAX_SOURCE_SIDE`], and for a part that is not inside it.
pub fn table(images: &[AugmentImage]) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(images.len() * ENTRY_BYTES);
    for image in images {
        let side = |name: &str, side: usize| match u32::try_from(side) {
            Ok(small) if (1..=MAX_SOURCE_SIDE).contains(&side) => Ok(small),
            _ => Err(Error::shape(format!("{OP} {name}"), format!("1 to {MAX_SOURCE_SIDE}"), side)),
        };
        let (width, height) = (side("width", image.width)?, side("height", image.height)?);
        let CropBox { left, top, width: part_width, height: part_height } = image.part;
        let inside = |first: f64, extent: f64, side: u32| first >= 0.0 && extent > 0.0 && first + extent <= side.into();
        if !inside(left, part_width, width) || !inside(top, part_height, height) {
            return Err(Error::shape(format!("{OP} crop"), format!("inside {width} x {height}"), image.part));
        }
        bytes.extend_from_slice(bytemuck::bytes_of(&PeftkAugmentImage {
            offset: image.offset,
            left,
            right: left + part_width,
            top,
            bottom: top + part_height,
            width,
            height,
            flip: image.flip.into(),
            padding: 0,
        }));
    }
    Ok(bytes)
}

/// I32 values of scratch that these images take; more does no harm.
pub fn scratch_len(images: &[AugmentImage], size: usize) -> usize {
    let axis = images.iter().map(|image| image.axis_words(size)).max().unwrap_or(0);
    images.len() * (1 + 2 * axis)
}

/// I32 values of scratch that are enough for any `images` images with sides of at most `side` pixels.
pub fn most_scratch_len(images: usize, side: usize, size: usize) -> usize {
    let whole = AugmentImage { offset: 0, width: side, height: side, part: CropBox::whole(side, side), flip: false };
    images * (1 + 2 * whole.axis_words(size))
}

/// Queues the squares of a batch: `out` becomes `[images, size, size, 3]` u8.
///
/// `pixels` is u8 with every image somewhere in it, its length a multiple of 4; `table` is u8, what [`table`] made; `scratch` is
/// i32, at least [`scratch_len`] long, and is overwritten. A table that does not fit the pixels or the scratch makes black
/// squares.
///
/// # Errors
/// [`Error::Shape`] for a size of 0, one beyond 32 bits, a buffer of another type, too short or on another device.
pub fn augment(
    device: &Device,
    pixels: &Buf,
    table: &Buf,
    images: usize,
    size: usize,
    scratch: &mut Buf,
    out: &mut Buf,
) -> Result<()> {
    let (count, side) = (dimension(OP, "images", images)?, dimension(OP, "size", size)?);
    let tiles = size.div_ceil(TILE_X) * size.div_ceil(TILE_Y);
    let blocks = dimension(OP, "images times tiles", images.saturating_mul(tiles))?;
    let axes = dimension(OP, "images", images.saturating_mul(2))?;
    length(OP, "pixels", pixels, device, DType::U8, 4)?;
    length(OP, "table", table, device, DType::U8, images * ENTRY_BYTES)?;
    length(OP, "scratch", scratch, device, DType::I32, images)?;
    length(OP, "out", out, device, DType::U8, images * size * size * 3)?;
    let axis_words = (scratch.len() - images) / axes as usize;
    let params = PeftkAugmentParams {
        pixels: pixels.address(),
        table: table.address(),
        scratch: scratch.address(),
        out: out.address(),
        // An image's last pixels are read as a whole word.
        pixel_bytes: (pixels.len() / 4 * 4) as u64,
        images: count,
        size: side,
        axis_words: u32::try_from(axis_words).unwrap_or(u32::MAX),
        padding: 0,
    };
    let grid = |blocks: u32| Grid { blocks: (blocks, 1, 1), threads: THREADS, shared_bytes: 0 };
    let weights = function(device, "augment", "augment_weights_i16")?;
    let squares = function(device, "augment", "augment_u8")?;
    // SAFETY: both entries take a PeftkAugmentParams. The buffers are on the device, `table` and `out` as long as the number of
    // images says; of `pixels` and `scratch` the kernels check each entry against the lengths given here before they use it.
    // `scratch` and `out` are borrowed mutably, and the second launch, which reads `scratch`, runs after the first.
    unsafe {
        weights.launch(grid(axes), &params)?;
        squares.launch(grid(blocks), &params)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(width: usize, height: usize, part: CropBox) -> AugmentImage {
        AugmentImage { offset: 0, width, height, part, flip: false }
    }

    #[test]
    fn scratch_grows_with_the_scale_and_ends_at_the_image() {
        let whole = |side: usize| image(side, side, CropBox::whole(side, side));
        // Scale 1 and below: radius 2, five taps at most in three pairs.
        assert_eq!(scratch_len(&[whole(224), whole(100)], 224), 2 * (1 + 2 * (1 + 224 * 5)));
        assert_eq!(scratch_len(&[whole(448)], 224), 1 + 2 * (1 + 224 * 7));
        assert_eq!(scratch_len(&[whole(1)], 224), 1 + 2 * (1 + 224 * 3));
        assert_eq!(most_scratch_len(2, 448, 224), scratch_len(&[whole(448), whole(448)], 224));
    }

    #[test]
    fn a_table_is_made_of_crops_that_are_inside() {
        let good = image(4, 3, CropBox { left: 1.5, top: 0.0, width: 2.5, height: 3.0 });
        assert_eq!(table(&[good; 3]).unwrap().len(), 3 * ENTRY_BYTES);
        let outside = CropBox { left: 1.5, top: 0.0, width: 2.6, height: 3.0 };
        let empty = CropBox { left: 1.5, top: 0.0, width: 0.0, height: 3.0 };
        let nowhere = CropBox { left: f64::NAN, ..outside };
        for part in [outside, empty, nowhere] {
            table(&[good, image(4, 3, part)]).expect_err("not inside");
        }
        table(&[image(MAX_SOURCE_SIDE + 1, 1, CropBox::whole(1, 1))]).expect_err("too long");
        table(&[image(0, 1, CropBox::whole(1, 1))]).expect_err("no pixels");
    }
}
