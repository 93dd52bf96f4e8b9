//! JPEG by zune-jpeg, with the check for a complete file that it lacks.

use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::decode::{RgbImage, check_size, upright};
use super::exif;

/// The largest side that the format itself can express; the number of pixels is limited separately.
const MAX_SIDE: usize = 65_535;

/// Decodes a JPEG to RGB and applies its EXIF orientation.
///
/// Four-channel files are taken to hold inverted CMYK or YCCK, as Adobe writes them and as Pillow reads them all.
pub(super) fn decode(bytes: &[u8]) -> Result<RgbImage, String> {
    if !is_complete(bytes) {
        return Err("is a truncated JPEG (no end-of-image marker)".into());
    }
    match decode_with(bytes, true) {
        // Stray bytes before a marker harm nothing, and other readers accept them.
        Err(reason) if reason.contains("Extra bytes between headers") => decode_with(bytes, false),
        decoded => decoded,
    }
}

/// Decodes with zune-jpeg; `strict` makes damage inside the scan an error rather than a grey area.
fn decode_with(bytes: &[u8], strict: bool) -> Result<RgbImage, String> {
    let options = DecoderOptions::default()
        .set_strict_mode(strict)
        .set_max_width(MAX_SIDE)
        .set_max_height(MAX_SIDE)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    let explain = |e| format!("cannot be decoded as JPEG: {e}");
    decoder.decode_headers().map_err(explain)?;
    let info = decoder.info().ok_or("cannot be decoded as JPEG: no frame")?;
    check_size(u64::from(info.width), u64::from(info.height))?;
    if !matches!(info.components, 1 | 3 | 4) {
        return Err(format!("is a JPEG of {} channels; 1, 3 and 4 are read", info.components));
    }
    let pixels = decoder.decode().map_err(explain)?;
    let orientation = exif::orientation(decoder.exif().map(Vec::as_slice));
    let image = image::RgbImage::from_raw(u32::from(info.width), u32::from(info.height), pixels)
        .ok_or("cannot be decoded as JPEG: fewer pixels than its header says")?;
    Ok(upright(image, orientation))
}

/// The most pixels that a frame header anywhere in a file tells: of the JPEGs inside of a TIFF.
pub(super) fn largest_frame(bytes: &[u8]) -> u64 {
    let frames = bytes.windows(9).filter_map(|window| match *window {
        // Baseline, extended, progressive; the header's length; 8 bits; height and width.
        [0xFF, 0xC0..=0xC2, _, _, 8, h1, h0, w1, w0] => {
            Some(u64::from(u16::from_be_bytes([h1, h0])) * u64::from(u16::from_be_bytes([w1, w0])))
        }
        _ => None,
    });
    frames.max().unwrap_or(0)
}

/// Whether the file goes on to an end-of-image marker after its last scan.
///
/// Segments are stepped over by their lengths, so that the thumbnail inside an EXIF block, a whole JPEG of its own with an
/// end marker, is not mistaken for the end.
fn is_complete(bytes: &[u8]) -> bool {
    const EOI: u8 = 0xD9;
    const SOS: u8 = 0xDA;
    let mut scanned = false;
    let mut at = 2; // past the start-of-image marker
    while let Some(marker_at) = next_marker(bytes, at) {
        let marker = bytes[marker_at];
        at = marker_at + 1;
        match marker {
            EOI => return scanned,
            // Markers without a length: TEM, restarts, start of image.
            0x01 | 0xD0..=0xD8 => {}
            _ => {
                let Some(&[high, low]) = bytes.get(at..at + 2) else { return false };
                at += usize::from(u16::from_be_bytes([high, low])).max(2);
                scanned |= marker == SOS;
            }
        }
    }
    false
}

/// Where the next marker's code byte is: after 0xFF, neither the zero that stuffs entropy-coded data nor fill.
fn next_marker(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        at += bytes.get(at..)?.iter().position(|&b| b == 0xFF)? + 1;
        match *bytes.get(at)? {
            0x00 => at += 1,
            0xFF => {}
            _ => return Some(at),
        }
    }
}
