//! From an encoded image, whatever its format, to 8-bit RGB as it should be seen.

use std::io::Cursor;
use std::path::Path;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};

use super::{GreyImages, Source, exif, jpeg, png};
use crate::{Error, Result};

/// Images of more pixels are refused before anything is allocated for them.
pub const MAX_PIXELS: u64 = 100_000_000;

/// What the decoder may unpack an image to: [`MAX_PIXELS`] of four channels of 16 bits. TIFF holds it twice for a moment, so a file can take
/// 1.7 GB at most; with 32 bits a channel there are fewer pixels.
const MAX_UNPACKED: u64 = MAX_PIXELS * 8;

/// File name endings that are taken for images; the format itself is told by the content.
pub(super) const EXTENSIONS: [&str; 10] = ["jpg", "jpeg", "jpe", "jfif", "png", "webp", "bmp", "dib", "tif", "tiff"];

/// A decoded image: 8-bit RGB, upright, on white where it was transparent.
#[derive(Clone, PartialEq, Eq)]
pub struct RgbImage {
    /// Pixels across.
    pub width: usize,
    /// Pixels down.
    pub height: usize,
    /// `[height, width, 3]`, interleaved.
    pub pixels: Vec<u8>,
}

// Its size alone: the pixels would fill screens.
impl std::fmt::Debug for RgbImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RgbImage {} x {}", self.width, self.height)
    }
}

/// Whether a file's name ends as an image's does.
pub fn has_image_extension(path: &Path) -> bool {
    path.extension().and_then(|e| e.to_str()).is_some_and(|e| EXTENSIONS.iter().any(|x| e.eq_ignore_ascii_case(x)))
}

/// Decodes an image.
///
/// Grey becomes three equal channels, a palette its colours, 16 bits become 8 by the nearest of value / 257, CMYK becomes
/// RGB as Pillow converts it, transparency is composited on white, and the EXIF orientation is applied.
///
/// # Errors
/// One line that names the file and says what is wrong: missing, a folder, empty, of no known format, truncated, corrupt,
/// of more than [`MAX_PIXELS`] pixels.
pub fn decode(source: &Source) -> Result<RgbImage> {
    let image = match source {
        Source::Memory { bytes, .. } => decode_bytes(bytes),
        Source::File(path) => read(path).and_then(|bytes| decode_bytes(&bytes)),
        Source::Grey { images, index } => grey(images, *index),
        Source::Packed { images, row } => images.read(*row).and_then(|bytes| decode_bytes(&bytes)),
    };
    image.map_err(|reason| Error::input(format!("{source}: {reason}")))
}

/// One of many grey images, in three equal channels.
fn grey(images: &GreyImages, index: usize) -> std::result::Result<RgbImage, String> {
    let (width, height) = (images.width, images.height);
    let pixels = index.checked_mul(width * height).and_then(|start| images.pixels.get(start..start + width * height));
    let pixels = pixels.filter(|pixels| !pixels.is_empty()).ok_or("there are not so many images")?;
    Ok(RgbImage { width, height, pixels: pixels.iter().flat_map(|&level| [level; 3]).collect() })
}

/// The file's bytes, or why there are none.
fn read(path: &Path) -> std::result::Result<Vec<u8>, String> {
    if path.is_dir() {
        return Err("is a folder, not an image file".into());
    }
    std::fs::read(path).map_err(|e| format!("cannot be read: {e}"))
}

/// Decodes an image's bytes as [`decode`] does; the error is the reason alone, in one line.
pub fn decode_bytes(bytes: &[u8]) -> std::result::Result<RgbImage, String> {
    if bytes.is_empty() {
        return Err("is empty (0 bytes)".into());
    }
    // Decoders still have panics that damaged or rare files reach (zune-jpeg's issue 331; tiff 0.11 on tiles of separate
    // planes): one image's must not end a run.
    let decoded = std::panic::catch_unwind(|| match sniff(bytes) {
        Some(ImageFormat::Jpeg) => jpeg::decode(bytes),
        Some(format @ (ImageFormat::Png | ImageFormat::WebP | ImageFormat::Bmp | ImageFormat::Tiff)) => {
            other(bytes, format)
        }
        Some(format) => Err(format!("is {format:?}, which is not read here: convert it to PNG or JPEG")),
        None => Err("is not a JPEG, PNG, WebP, BMP or TIFF image".into()),
    });
    let decoded = decoded.unwrap_or_else(|_| Err("is damaged or of a rare kind: the decoder gave up".into()));
    // The reason goes into a one-line message.
    decoded.map_err(|reason| reason.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// The format that the first bytes tell.
fn sniff(bytes: &[u8]) -> Option<ImageFormat> {
    // Not known to `guess_format`: TIFF with 64-bit offsets.
    let is_big_tiff = bytes.starts_with(b"II+\0") || bytes.starts_with(b"MM\0+");
    if is_big_tiff { Some(ImageFormat::Tiff) } else { image::guess_format(bytes).ok() }
}

/// PNG, WebP, BMP and TIFF, by the `image` crate.
fn other(bytes: &[u8], format: ImageFormat) -> std::result::Result<RgbImage, String> {
    let explain = |e: image::ImageError| format!("cannot be decoded as {format:?}: {e}");
    if format == ImageFormat::Png {
        png::check_profile(bytes)?;
    }
    let mut limits = Limits::default();
    // The image, and beside it a tile of a TIFF, or a row and the texts of a PNG.
    limits.max_alloc = Some(MAX_UNPACKED + MAX_PIXELS);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(explain)?;
    let (width, height) = decoder.dimensions();
    check_size(u64::from(width), u64::from(height))?;
    if decoder.total_bytes() > MAX_UNPACKED {
        let (bits, limit) = (decoder.color_type().bits_per_pixel(), MAX_UNPACKED / 1_000_000);
        return Err(format!(
            "is {width} x {height} of {bits} bits a pixel, over the limit of {limit} MB unpacked: make it smaller, or \
             save it in 16 bits a channel"
        ));
    }
    let orientation = if format == ImageFormat::Tiff {
        decoder.orientation().unwrap_or(Orientation::NoTransforms) // a tag of the file itself
    } else {
        let exif = decoder.exif_metadata().ok().flatten();
        let exif = exif.or_else(|| if format == ImageFormat::Png { exif::in_png_text(bytes) } else { None });
        let xmp = if format == ImageFormat::Png { decoder.xmp_metadata().ok().flatten() } else { None };
        exif::orientation_of(exif.as_deref(), xmp.as_deref())
    };
    let of_tiff = |tag| if format == ImageFormat::Tiff { exif::tag(bytes, tag) } else { None };
    if of_tiff(FILL_ORDER) == Some(2) {
        return Err(
            "is a TIFF with the bits of each byte in reverse order (FillOrder 2), which is not read here".into()
        );
    }
    if format == ImageFormat::Tiff {
        check_jpegs(bytes, u64::from(width), u64::from(height))?;
    }
    let associated = of_tiff(EXTRA_SAMPLES) == Some(1);
    let image = DynamicImage::from_decoder(decoder).map_err(explain)?;
    Ok(upright(on_white(image, associated), orientation))
}

/// Refuses an image without pixels or of too many.
pub(super) fn check_size(width: u64, height: u64) -> std::result::Result<(), String> {
    if width == 0 || height == 0 {
        return Err(format!("has no pixels ({width} x {height})"));
    }
    if width.saturating_mul(height) > MAX_PIXELS {
        let limit = MAX_PIXELS / 1_000_000;
        return Err(format!("is {width} x {height}, over the limit of {limit} megapixels: make it smaller"));
    }
    Ok(())
}

/// Refuses a TIFF with a JPEG inside that is far larger than the strip or tile it is for: the decoder would unpack it whole, and once for each.
fn check_jpegs(tiff: &[u8], width: u64, height: u64) -> std::result::Result<(), String> {
    const JPEG: u64 = 7;
    if exif::number(tiff, COMPRESSION) != Some(JPEG) {
        return Ok(());
    }
    let rows = exif::number(tiff, ROWS_PER_STRIP).map_or(height, |rows| rows.min(height));
    let (across, down) = match (exif::number(tiff, TILE_WIDTH), exif::number(tiff, TILE_LENGTH)) {
        (Some(across), Some(down)) => (across, down),
        _ => (width, rows),
    };
    // Twice and 256 x 256 more: some writers pad.
    let most = across.saturating_mul(down).min(MAX_PIXELS).saturating_mul(2).saturating_add(1 << 16);
    let found = jpeg::largest_frame(tiff);
    if found > most {
        return Err(format!("is a damaged TIFF: a JPEG of {found} pixels for a part of {across} x {down}"));
    }
    Ok(())
}

/// TIFF's tags of how bits lie in a byte, and of what is beside the colours: 1 is an alpha that they are multiplied by already.
const FILL_ORDER: u16 = 0x010a;
const EXTRA_SAMPLES: u16 = 0x0152;
/// And of its parts.
const COMPRESSION: u16 = 0x0103;
const ROWS_PER_STRIP: u16 = 0x0116;
const TILE_WIDTH: u16 = 0x0142;
const TILE_LENGTH: u16 = 0x0143;

/// 8-bit RGB; what is transparent shows white. `associated`: the colours are multiplied by alpha already.
fn on_white(image: DynamicImage, associated: bool) -> image::RgbImage {
    if !image.color().has_alpha() {
        return image.into_rgb8();
    }
    let rgba = image.into_rgba8();
    let mut rgb = image::RgbImage::new(rgba.width(), rgba.height());
    // Pixels as arrays: no bounds are checked in the loops.
    let (to, from) = (rgb.as_chunks_mut::<3>().0, rgba.as_raw().as_chunks::<4>().0);
    if associated {
        for (to, &[r, g, b, alpha]) in to.iter_mut().zip(from) {
            *to = [r, g, b].map(|c| c.saturating_add(255 - alpha));
        }
    } else {
        for (to, &[r, g, b, alpha]) in to.iter_mut().zip(from) {
            let (alpha, white) = (u32::from(alpha), 255 * (255 - u32::from(alpha)));
            // At most 255: a weighted mean of two bytes.
            *to = [r, g, b].map(|c| ((u32::from(c) * alpha + white + 127) / 255) as u8);
        }
    }
    rgb
}

/// Turns and mirrors the stored pixels as the orientation says.
pub(super) fn upright(image: image::RgbImage, orientation: Orientation) -> RgbImage {
    let mut image = DynamicImage::ImageRgb8(image);
    image.apply_orientation(orientation);
    let (width, height) = (image.width() as usize, image.height() as usize);
    RgbImage { width, height, pixels: image.into_rgb8().into_raw() }
}
