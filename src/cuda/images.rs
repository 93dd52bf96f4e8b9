//! From images on the host to normalised patches on the GPU.

use super::{Cuda, CudaBuffer};
use crate::autograd::{Crop, Images};
use crate::geometry::CropBox;
use crate::gpu::{Buf, DType};
use crate::kernels::augment::{self, AugmentImage, ENTRY_BYTES, augment, scratch_len};
use crate::kernels::tokens;
use crate::{Error, Result};

/// Device memory that source images pass through, in bytes: fixed, so that the plan knows it whatever the images are.
const STAGING_BYTES: usize = 32 << 20;
/// Words of weights for the images that are in it.
const SCRATCH_WORDS: usize = 1 << 20;
/// Where an image begins in it, in bytes: a multiple of this.
const ALIGNMENT: usize = 16;

impl Cuda {
    /// u8 squares \[batch, size, size, 3\] on the host to patches.
    pub(super) fn patches_of_squares(
        &self,
        squares: &[u8],
        batch: usize,
        size: usize,
        patch: usize,
    ) -> Result<CudaBuffer> {
        let squares = Buf::from_slice(&self.device, squares, DType::U8)?;
        self.patches_on_device(&squares, batch, size, patch)
    }

    /// Crops of any images to patches.
    pub(super) fn patches_of_crops(&self, crops: &[Crop<'_>], size: usize, patch: usize) -> Result<CudaBuffer> {
        let mut squares = self.buf(DType::U8, crops.len() * size * size * 3)?;
        self.squares_of_crops(crops, size, &mut squares)?;
        self.patches_on_device(&squares, crops.len(), size, patch)
    }

    /// Crops of any images to squares: the images pass through a fixed block, as many at a time as fit.
    fn squares_of_crops(&self, crops: &[Crop<'_>], size: usize, squares: &mut Buf) -> Result<()> {
        let batch = crops.len();
        let square = size * size * 3;
        let mut staging = self.buf(DType::U8, STAGING_BYTES)?;
        let mut scratch = self.buf(DType::I32, SCRATCH_WORDS)?;
        let mut entries = self.buf(DType::U8, batch * ENTRY_BYTES)?;
        let mut made = self.buf(DType::U8, batch * square)?;
        let mut first = 0;
        while first < batch {
            let (images, pixels) = pack(&crops[first..], size)?;
            let mut table = augment::table(&images)?;
            table.resize(batch * ENTRY_BYTES, 0);
            staging.write_prefix(&pixels)?;
            entries.write(&table)?;
            augment(&self.device, &staging, &entries, images.len(), size, &mut scratch, &mut made)?;
            squares.copy_range(first * square, &made, images.len() * square)?;
            first += images.len();
        }
        Ok(())
    }

    /// Images to squares in `to`, which is made where it is not there or of another length.
    pub(super) fn stage_squares(
        &self,
        images: &Images<'_, Self>,
        size: usize,
        to: &mut Option<CudaBuffer>,
    ) -> Result<()> {
        // Finished squares travel to a second half of the block; those that are made here are written where they stay.
        let bytes = match images {
            Images::Squares(squares) => squares.len(),
            Images::Crops(crops) => crops.len() * size * size * 3,
            Images::Staged(_) => return Err(Error::Internal("staged images are staged".into())),
        };
        let room = if matches!(images, Images::Squares(_)) { 2 * bytes } else { bytes };
        let is_new = to.as_ref().is_none_or(|to| to.data.len() != room);
        if is_new {
            *to = None;
            *to = Some(CudaBuffer::padded(self.buf(DType::U8, room)?, bytes));
        }
        let Some(to) = to else { return Ok(()) };
        match images {
            Images::Squares(squares) => to.data.write_first_half_beside(squares, is_new),
            Images::Crops(crops) => self.squares_of_crops(crops, size, &mut to.data),
            Images::Staged(_) => Ok(()),
        }
    }

    pub(super) fn patches_on_device(
        &self,
        squares: &Buf,
        batch: usize,
        size: usize,
        patch: usize,
    ) -> Result<CudaBuffer> {
        let (rows, cols) = (batch * (size / patch).pow(2), 3 * patch * patch);
        let stride = tokens::patches_ld(patch, self.activations);
        let mut out = self.activation(rows * stride)?;
        tokens::patches_u8(&self.device, batch, size, patch, squares, &mut out)?;
        Ok(CudaBuffer::padded(out, rows * cols))
    }
}

/// The first of these crops that fit the staging block together, and their pixels one after the other.
fn pack(crops: &[Crop<'_>], size: usize) -> Result<(Vec<AugmentImage>, Vec<u8>)> {
    let (mut images, mut pixels): (Vec<AugmentImage>, Vec<u8>) = (Vec::new(), Vec::new());
    for crop in crops {
        let (left, top, width, height) = crop.part;
        let image = AugmentImage {
            offset: pixels.len() as u64,
            width: crop.width,
            height: crop.height,
            part: CropBox { left, top, width, height },
            flip: crop.flip,
        };
        images.push(image);
        let end = (pixels.len() + crop.pixels.len()).next_multiple_of(ALIGNMENT);
        if end > STAGING_BYTES || scratch_len(&images, size) > SCRATCH_WORDS {
            images.pop();
            break;
        }
        pixels.extend_from_slice(crop.pixels);
        pixels.resize(end, 0);
    }
    if images.is_empty() {
        let (width, height) = crops.first().map_or((0, 0), |crop| (crop.width, crop.height));
        return Err(Error::Internal(format!(
            "an image of {width} x {height} is too large to be cropped on the device"
        )));
    }
    Ok((images, pixels))
}
