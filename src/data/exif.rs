//! The EXIF value that matters here: which way up the image is; it may stand in XMP too, or in a PNG's text. And tags of a TIFF file itself.

use std::io::Read;

use flate2::read::ZlibDecoder;
use image::metadata::Orientation;

use super::png;

const ORIENTATION: u16 = 0x0112;
/// What a PNG's text of an EXIF block may unpack to.
const MOST_TEXT: u64 = 1 << 20;

/// The orientation of EXIF, else of XMP: EXIF goes first where it says one.
pub(super) fn orientation_of(exif: Option<&[u8]>, xmp: Option<&[u8]>) -> Orientation {
    let from = |value: Option<u8>| value.and_then(Orientation::from_exif);
    from(exif.and_then(|block| tag(block, ORIENTATION)))
        .or_else(|| from(xmp.and_then(in_xmp)))
        .unwrap_or(Orientation::NoTransforms)
}

/// `tiff:Orientation` in a packet of XMP, as an attribute or an element.
fn in_xmp(packet: &[u8]) -> Option<u8> {
    const NAME: &str = "tiff:Orientation";
    let text = std::str::from_utf8(packet).ok()?;
    let rest = text.get(text.find(NAME)? + NAME.len()..)?;
    let value = rest.trim_start_matches(|c: char| c.is_ascii_whitespace() || matches!(c, '=' | '"' | '\'' | '>'));
    value.chars().next()?.to_digit(10).and_then(|digit| u8::try_from(digit).ok())
}

/// The EXIF block that ImageMagick writes as text into a PNG: `Raw profile type exif`, in hexadecimal.
pub(super) fn in_png_text(png: &[u8]) -> Option<Vec<u8>> {
    for (kind, data) in png::chunks(png) {
        let text = match (kind, data.strip_prefix(b"Raw profile type exif\0")) {
            (b"tEXt", Some(text)) => text.to_vec(),
            (b"zTXt", Some(packed)) => {
                let mut text = Vec::new();
                ZlibDecoder::new(packed.get(1..)?).take(MOST_TEXT).read_to_end(&mut text).ok()?;
                text
            }
            _ => continue,
        };
        // A line break, the name, the number of bytes, then the bytes.
        let text = String::from_utf8(text).ok()?;
        let digits: Vec<u8> = text.split_whitespace().skip(2).flat_map(str::bytes).collect();
        let digit = |c: u8| (c as char).to_digit(16);
        let byte = |pair: &[u8]| Some((digit(pair[0])? * 16 + digit(pair[1])?) as u8);
        return digits.chunks_exact(2).map(byte).collect();
    }
    None
}

/// The orientation an EXIF block asks for; none where the block is absent, broken or says nothing.
///
/// Reads what the `image` crate's own parser does not: blocks with the `Exif\0\0` prefix that some WebP files keep, and
/// values stored as another integer type than the standard's, as some cameras write them.
pub(super) fn orientation(block: Option<&[u8]>) -> Orientation {
    orientation_of(block, None)
}

/// A small integer in the first directory of an EXIF block, or of a TIFF file.
pub(super) fn tag(block: &[u8], wanted: u16) -> Option<u8> {
    number(block, wanted).and_then(|value| u8::try_from(value).ok())
}

/// An integer in the first directory of an EXIF block, or of a TIFF file, one with 64-bit offsets too; the last one where there are several,
/// as the decoder takes it.
pub(super) fn number(block: &[u8], wanted: u16) -> Option<u64> {
    let tiff = block.strip_prefix(b"Exif\0\0").unwrap_or(block);
    let (big_endian, wide) = match tiff.get(..4)? {
        b"II*\0" => (false, false),
        b"MM\0*" => (true, false),
        b"II+\0" => (false, true),
        b"MM\0+" => (true, true),
        _ => return None,
    };
    let number = |at: usize, width: usize| -> Option<u64> {
        let bytes = tiff.get(at..at.checked_add(width)?)?;
        let join = |sum: u64, &b: &u8| sum << 8 | u64::from(b);
        Some(if big_endian { bytes.iter().fold(0, join) } else { bytes.iter().rev().fold(0, join) })
    };
    // An entry is a tag, a type, a count and a value; the last two, and where the directory is, are as wide as an offset.
    let offset = if wide { 8 } else { 4 };
    let count = if wide { 8 } else { 2 };
    let directory = usize::try_from(number(offset, offset)?).ok()?;
    let entries = number(directory, count)?;
    let mut found = None;
    let mut at = directory.checked_add(count)?;
    for _ in 0..entries {
        let Some(tag) = number(at, 2) else { break };
        if tag == u64::from(wanted) {
            let width = match number(at + 2, 2)? {
                1 | 6 => 1, // BYTE, SBYTE
                3 | 8 => 2, // SHORT, SSHORT
                4 | 9 => 4, // LONG, SLONG
                16 if wide => 8,
                _ => return None,
            };
            found = number(at + 4 + offset, width);
        }
        at = at.checked_add(4 + 2 * offset)?;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A block whose only entry is the orientation.
    fn block(prefix: &[u8], big_endian: bool, kind: u16, value: u8) -> Vec<u8> {
        let mut bytes = prefix.to_vec();
        let two = |n: u16| if big_endian { n.to_be_bytes() } else { n.to_le_bytes() };
        let four = |n: u32| if big_endian { n.to_be_bytes() } else { n.to_le_bytes() };
        bytes.extend(if big_endian { b"MM\0*" } else { b"II*\0" });
        bytes.extend(four(8));
        bytes.extend(two(1));
        bytes.extend(two(ORIENTATION));
        bytes.extend(two(kind));
        bytes.extend(four(1));
        let mut stored = match kind {
            3 => two(u16::from(value)).to_vec(),
            _ => four(u32::from(value)).to_vec(),
        };
        stored.resize(4, 0);
        bytes.extend(stored);
        bytes
    }

    #[test]
    fn both_byte_orders_prefixes_and_integer_types() {
        for prefix in [&b""[..], b"Exif\0\0"] {
            for big_endian in [false, true] {
                for kind in [3, 4, 9] {
                    let block = block(prefix, big_endian, kind, 6);
                    assert_eq!(orientation(Some(&block)), Orientation::Rotate90, "{prefix:?} {big_endian} {kind}");
                }
            }
        }
    }

    #[test]
    fn xmp_and_text_of_a_png() {
        for packet in
            [r#"<x tiff:Orientation="3"/>"#, "<x tiff:Orientation = '3'/>", "<tiff:Orientation>3</tiff:Orientation>"]
        {
            assert_eq!(orientation_of(None, Some(packet.as_bytes())), Orientation::Rotate180, "{packet}");
        }
        let says_6 = block(b"", false, 3, 6);
        assert_eq!(orientation_of(Some(&says_6), Some(b"tiff:Orientation=\"3\"")), Orientation::Rotate90, "EXIF first");
        for nothing in [&b"tiff:Orientation"[..], b"tiff:Orientation=\"x\"", b"\xff", b"none"] {
            assert_eq!(orientation_of(None, Some(nothing)), Orientation::NoTransforms);
        }
        let exif = block(b"Exif\0\0", true, 3, 3);
        let hex: String = exif.iter().map(|byte| format!("{byte:02x}")).collect();
        let text = format!("Raw profile type exif\0\nexif\n      {}\n{}\n{}\n", exif.len(), &hex[..20], &hex[20..]);
        let chunk = |kind: &[u8], data: &[u8]| [&(data.len() as u32).to_be_bytes(), kind, data, &[0; 4]].concat();
        let png =
            |text: &[u8]| [&b"\x89PNG\r\n\x1a\n"[..], &chunk(b"IHDR", &[0; 13]), text, &chunk(b"IEND", b"")].concat();
        let whole = png(&chunk(b"tEXt", text.as_bytes()));
        assert_eq!(in_png_text(&whole), Some(exif));
        for cut in 0..whole.len() {
            let _ = in_png_text(&whole[..cut]);
        }
        assert_eq!(in_png_text(&png(&chunk(b"tEXt", b"Title\0x"))), None);
        assert_eq!(in_png_text(&png(&chunk(b"zTXt", b"Raw profile type exif\0\0damaged"))), None);
    }

    #[test]
    fn numbers_of_a_tiff_with_64_bit_offsets() {
        let entry = |value: u64| {
            [&0x0103_u16.to_le_bytes()[..], &16_u16.to_le_bytes(), &1_u64.to_le_bytes(), &value.to_le_bytes()].concat()
        };
        let head = [&b"II+\0\x08\0\0\0"[..], &16_u64.to_le_bytes(), &2_u64.to_le_bytes()].concat();
        let whole = [head, entry(1), entry(70_000)].concat();
        assert_eq!(number(&whole, 0x0103), Some(70_000), "the last of two");
        assert_eq!((number(&whole, 0x0104), tag(&whole, 0x0103)), (None, None));
        for cut in 0..whole.len() {
            let _ = number(&whole[..cut], 0x0103);
        }
    }

    #[test]
    fn anything_broken_turns_nothing() {
        let good = block(b"", false, 3, 6);
        for cut in 0..good.len() - 3 {
            assert_eq!(orientation(Some(&good[..cut])), Orientation::NoTransforms, "cut at {cut}");
        }
        let mut far = good.clone();
        far[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(orientation(Some(&far)), Orientation::NoTransforms);
        assert_eq!(orientation(Some(&block(b"", true, 3, 9))), Orientation::NoTransforms);
        assert_eq!(orientation(None), Orientation::NoTransforms);
    }
}
