//! The one EXIF value that matters here: which way up the image is.

use image::metadata::Orientation;

const ORIENTATION: u16 = 0x0112;

/// The orientation an EXIF block asks for; none where the block is absent, broken or says nothing.
///
/// Reads what the `image` crate's own parser does not: blocks with the `Exif\0\0` prefix that some WebP files keep, and
/// values stored as another integer type than the standard's, as some cameras write them.
pub(super) fn orientation(block: Option<&[u8]>) -> Orientation {
    block.and_then(value).and_then(Orientation::from_exif).unwrap_or(Orientation::NoTransforms)
}

/// The orientation's value in the first directory of the block.
fn value(block: &[u8]) -> Option<u8> {
    let tiff = block.strip_prefix(b"Exif\0\0").unwrap_or(block);
    let big_endian = match tiff.get(..4)? {
        b"II*\0" => false,
        b"MM\0*" => true,
        _ => return None,
    };
    let number = |at: usize, width: usize| -> Option<u32> {
        let bytes = tiff.get(at..at.checked_add(width)?)?;
        let join = |sum: u32, &b: &u8| sum << 8 | u32::from(b);
        Some(if big_endian { bytes.iter().fold(0, join) } else { bytes.iter().rev().fold(0, join) })
    };
    let directory = number(4, 4)? as usize;
    let entries = number(directory, 2)? as usize;
    for entry in 0..entries {
        // Twelve bytes each: tag, type, count, value.
        let at = directory.checked_add(2 + entry * 12)?;
        if number(at, 2)? == u32::from(ORIENTATION) {
            let width = match number(at + 2, 2)? {
                1 | 6 => 1, // BYTE, SBYTE
                3 | 8 => 2, // SHORT, SSHORT
                4 | 9 => 4, // LONG, SLONG
                _ => return None,
            };
            return u8::try_from(number(at + 8, width)?).ok();
        }
    }
    None
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
