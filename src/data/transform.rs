//! From an image of any size to the square that the model sees. All resizes are bicubic (a = -0.5) with antialias, in
//! fixed point on u8, as Pillow's.

use std::cell::RefCell;

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use rand::{Rng, RngExt};

use super::RgbImage;
use crate::config::Resize;
pub use crate::geometry::CropBox;
use crate::{Error, Result};

thread_local! {
    // Keeps its intermediate buffers from image to image.
    static RESIZER: RefCell<Resizer> = RefCell::new(Resizer::new());
}

/// The evaluation transform: `[size, size, 3]` into `out`.
///
/// Squash is the identity on an image that already has the size; crop resizes the short side to 256/224 of the size and
/// takes the centre square.
///
/// # Errors
/// `out` or the image's pixels have the wrong length.
pub fn eval(image: &RgbImage, size: usize, resize: Resize, out: &mut [u8]) -> Result<()> {
    crop_resize_flip(image, eval_crop(image.width, image.height, size, resize), false, size, out)
}

/// The training transform: RandomResizedCrop, then a horizontal flip every other time, `[size, size, 3]` into `out`.
///
/// # Errors
/// As [`eval`].
pub fn train(image: &RgbImage, size: usize, rng: &mut impl Rng, out: &mut [u8]) -> Result<()> {
    let (part, flip) = train_crop(image.width, image.height, rng);
    crop_resize_flip(image, part, flip, size, out)
}

/// The part of a `width` by `height` image that [`eval`] resizes, inside the image.
pub fn eval_crop(width: usize, height: usize, size: usize, resize: Resize) -> CropBox {
    match resize {
        Resize::Squash => CropBox::whole(width, height),
        Resize::Crop => centre_crop(width, height, size).inside(width, height),
    }
}

/// The part of a `width` by `height` image that [`train`] resizes, and whether it then flips.
pub fn train_crop(width: usize, height: usize, rng: &mut impl Rng) -> (CropBox, bool) {
    let part = random_crop(width, height, rng);
    (part, rng.random_bool(0.5))
}

/// Resizes a part of the image to `[size, size, 3]` and mirrors it if asked to.
///
/// # Errors
/// `out` or the image's pixels have the wrong length; a part that is not in the image.
pub fn crop_resize_flip(image: &RgbImage, part: CropBox, flip: bool, size: usize, out: &mut [u8]) -> Result<()> {
    resample(image, part, size, out)?;
    if flip {
        for row in out.chunks_exact_mut(size * 3) {
            flip_row(row);
        }
    }
    Ok(())
}

/// The part of a `width` by `height` image that becomes the centre square: what is left when the image is resized so that
/// its short side is round(size * 256 / 224), the long side rounded down, and cut to the middle, rounded to the top left.
/// Resizing that part alone gives the same pixels, without making those that are cut off.
pub fn centre_crop(width: usize, height: usize, size: usize) -> CropBox {
    let short_side = (size as f64 * 256.0 / 224.0).round();
    let (w, h) = (width as f64, height as f64);
    let long = |long: f64, short: f64| (short_side * long / short).floor();
    let (full_w, full_h) = if width <= height { (short_side, long(h, w)) } else { (long(w, h), short_side) };
    let (scale_x, scale_y) = (w / full_w, h / full_h);
    let size = size as f64;
    CropBox {
        left: ((full_w - size) / 2.0).floor() * scale_x,
        top: ((full_h - size) / 2.0).floor() * scale_y,
        width: size * scale_x,
        height: size * scale_y,
    }
}

/// RandomResizedCrop's part of a `width` by `height` image: 8% to all of the area, aspect 3/4 to 4/3 evenly on a log
/// scale, whole pixels, anywhere. After ten that do not fit, the largest centre part of a permitted aspect.
pub fn random_crop(width: usize, height: usize, rng: &mut impl Rng) -> CropBox {
    const AREA: std::ops::Range<f64> = 0.08..1.0;
    const ASPECT: std::ops::Range<f64> = 3.0 / 4.0..4.0 / 3.0;
    let (w, h) = (width as f64, height as f64);
    for _ in 0..10 {
        let area = w * h * rng.random_range(AREA);
        let aspect = rng.random_range(ASPECT.start.ln()..ASPECT.end.ln()).exp();
        let (crop_w, crop_h) = ((area * aspect).sqrt().round(), (area / aspect).sqrt().round());
        if (1.0..=w).contains(&crop_w) && (1.0..=h).contains(&crop_h) {
            // Drawn as u64 so that the stream does not depend on the machine's word.
            let top = rng.random_range(0..=(h - crop_h) as u64) as f64;
            let left = rng.random_range(0..=(w - crop_w) as u64) as f64;
            return CropBox { left, top, width: crop_w, height: crop_h };
        }
    }
    let crop_w = if w / h > ASPECT.end { (h * ASPECT.end).round().min(w) } else { w };
    let crop_h = if w / h < ASPECT.start { (w / ASPECT.start).round().min(h) } else { h };
    CropBox { left: ((w - crop_w) / 2.0).floor(), top: ((h - crop_h) / 2.0).floor(), width: crop_w, height: crop_h }
}

/// Resizes a part of the image to `[size, size, 3]`.
fn resample(image: &RgbImage, part: CropBox, size: usize, out: &mut [u8]) -> Result<()> {
    if out.len() != size * size * 3 {
        return Err(Error::shape("resize", size * size * 3, out.len()));
    }
    if (image.width, image.height) == (size, size) && part == CropBox::whole(size, size) {
        out.copy_from_slice(&image.pixels);
        return Ok(());
    }
    let failed = |e: &dyn std::fmt::Display| {
        Error::Internal(format!("resize {} x {} {part:?} to {size}: {e}", image.width, image.height))
    };
    // Both sides fit u32: the decoder refuses larger images, and `size` squared fits in memory.
    let (width, height) = (image.width as u32, image.height as u32);
    let from = ImageRef::new(width, height, &image.pixels, PixelType::U8x3).map_err(|e| failed(&e))?;
    let mut to = Image::from_slice_u8(size as u32, size as u32, out, PixelType::U8x3).map_err(|e| failed(&e))?;
    // The resizer refuses a box that ends outside the image.
    let part = part.inside(image.width, image.height);
    let options = ResizeOptions::new()
        .resize_alg(ResizeAlg::Convolution(FilterType::CatmullRom))
        .use_alpha(false)
        .crop(part.left, part.top, part.width, part.height);
    RESIZER.with_borrow_mut(|resizer| resizer.resize(&from, &mut to, &options)).map_err(|e| failed(&e))
}

/// Mirrors one row of RGB pixels.
fn flip_row(row: &mut [u8]) {
    let (pixels, _) = row.as_chunks_mut::<3>();
    pixels.reverse();
}
