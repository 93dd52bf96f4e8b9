//! A PNG's chunks, for what the decoder does not look at.

use std::io::{Read, copy, sink};

use flate2::read::ZlibDecoder;

/// What the colour profile may unpack to: those of printers take 3 MB. The decoder unpacks it, though nothing here uses it, and would let one
/// of a megabyte fill gigabytes.
const MOST_PROFILE: u64 = 16 << 20;

/// The kind and data of each chunk up to the end, or to where the file is cut off.
pub(super) fn chunks(png: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = png.get(8..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (length, after) = rest.split_first_chunk()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let (kind, data) = (after.get(..4)?, after.get(4..4_usize.checked_add(length)?)?);
        // Behind the data are 4 bytes of its checksum.
        rest = after.get(length + 8..).unwrap_or_default();
        (kind != b"IEND").then_some((kind, data))
    })
}

/// Refuses a file whose colour profile unpacks to absurdly much.
pub(super) fn check_profile(png: &[u8]) -> Result<(), String> {
    // One bound for all that there are: the decoder takes the first whose checksum is right.
    let mut left = MOST_PROFILE;
    for (_, data) in chunks(png).filter(|(kind, _)| kind == b"iCCP") {
        // A name, a zero, the method. Damage is the decoder's to tell.
        let Some(end) = data.iter().position(|&byte| byte == 0) else { continue };
        let packed = data.get(end + 2..).unwrap_or_default();
        let mut unpacked = ZlibDecoder::new(packed).take(left + 1);
        let _ = copy(&mut unpacked, &mut sink());
        left = unpacked.limit().checked_sub(1).ok_or_else(|| {
            format!("has a colour profile of over {} MiB: save it without the profile", MOST_PROFILE >> 20)
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn chunk(kind: &[u8], data: &[u8]) -> Vec<u8> {
        [&(data.len() as u32).to_be_bytes(), kind, data, &[0; 4]].concat()
    }

    fn profile(size: usize) -> Vec<u8> {
        let mut packed = flate2::write::ZlibEncoder::new(b"name\0\0".to_vec(), flate2::Compression::fast());
        packed.write_all(&vec![0; size]).expect("memory takes it");
        chunk(b"iCCP", &packed.finish().expect("memory takes it"))
    }

    #[test]
    fn a_profile_is_bounded_and_damage_is_not_judged() {
        let png = |chunks: &[&[u8]]| [&b"\x89PNG\r\n\x1a\n"[..], &chunks.concat(), &chunk(b"IEND", b"")].concat();
        let most = MOST_PROFILE as usize;
        let whole = png(&[&chunk(b"IHDR", &[0; 13]), &profile(3000), &chunk(b"IDAT", b"x")]);
        assert_eq!(chunks(&whole).map(|(kind, _)| kind).collect::<Vec<_>>(), [b"IHDR", b"iCCP", b"IDAT"]);
        for cut in 0..whole.len() {
            assert_eq!(check_profile(&whole[..cut]), Ok(()), "cut at {cut}");
        }
        assert_eq!(check_profile(&png(&[&profile(most)])), Ok(()));
        let reason = check_profile(&png(&[&profile(most + 1)])).unwrap_err();
        assert!(reason.contains("16 MiB"), "{reason}");
        assert!(check_profile(&png(&[&profile(most / 2), &profile(most / 2 + 1)])).is_err(), "two that go together");
        for damaged in [&b""[..], b"name", b"name\0", b"name\0\0", b"name\0\0damaged"] {
            assert_eq!(check_profile(&png(&[&chunk(b"iCCP", damaged)])), Ok(()));
        }
        assert_eq!(chunks(&[0xff; 20]).count(), 0);
    }
}
