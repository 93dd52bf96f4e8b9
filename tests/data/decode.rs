use std::io::Write;

use peftk::data::{MAX_PIXELS, RgbImage, decode_bytes};

use crate::{fixture, mean_difference, picture};

fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(fixture(name)).expect(name)
}

/// Checks a fixture against another: at most `tolerance` levels off in the mean.
#[track_caller]
fn check(name: &str, truth: &str, tolerance: f64) {
    let difference = mean_difference(&picture(name), &picture(truth));
    assert!(difference <= tolerance, "{name}: {difference} levels from {truth}");
}

#[test]
fn lossless_formats_give_the_same_pixels() {
    let base = picture("base.png");
    // Three of its pixels by the formula in make.py: the truth of the other comparisons.
    for (x, y) in [(0, 0), (23, 0), (5, 15)] {
        let at = (y * 24 + x) * 3;
        let expected = [40 + 8 * x, 30 + 12 * y, 220 - 4 * x - 5 * y].map(|v| v as u8);
        assert_eq!(base.pixels[at..at + 3], expected, "{x}, {y}");
    }
    for name in ["base.bmp", "base.tif", "base.webp"] {
        assert_eq!(picture(name), base, "{name}");
    }
}

#[test]
fn exif_orientation_is_applied() {
    for tag in 1..=8 {
        check(&format!("exif_{tag}.jpg"), "base.png", 2.0);
    }
    for name in ["exif_6.png", "exif_6.webp", "exif_6.tif"] {
        assert_eq!(picture(name), picture("base.png"), "{name}");
    }
}

#[test]
fn cmyk_and_ycck_become_rgb_as_pillow_has_them() {
    check("cmyk.jpg", "cmyk.truth.png", 1.0);
    check("ycck.jpg", "ycck.truth.png", 1.0);
}

#[test]
fn grey_palette_alpha_and_16_bits() {
    let base = picture("base.png");
    let grey = picture("grey.png");
    for (rgb, grey) in base.pixels.as_chunks::<3>().0.iter().zip(grey.pixels.as_chunks::<3>().0) {
        let luma = 0.299 * f64::from(rgb[0]) + 0.587 * f64::from(rgb[1]) + 0.114 * f64::from(rgb[2]);
        assert!((luma - f64::from(grey[0])).abs() < 1.0 && grey.iter().all(|v| *v == grey[0]), "{rgb:?} {grey:?}");
    }
    check("grey.jpg", "grey.png", 1.0);
    // Values of 257 times the level, exactly and up to 100 off: nearest, not the high byte.
    check("grey16.png", "grey.png", 0.0);
    check("rgb16.png", "base.png", 0.0);
    check("palette.png", "palette.truth.png", 0.0);
    check("alpha.png", "alpha.truth.png", 0.5);
    check("alpha.webp", "alpha.truth.png", 0.5);
}

#[test]
fn the_content_tells_the_format_not_the_name() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join("really_a_jpeg.png");
    std::fs::copy(fixture("photo.jpg"), &path).expect("copy");
    let read = peftk::data::decode(&peftk::data::Source::File(path)).expect("a JPEG");
    assert_eq!(read, picture("photo.jpg"));
}

#[test]
fn an_end_marker_inside_a_segment_is_not_the_end() {
    assert_eq!(picture("marker_inside.jpg"), picture("photo.jpg"));
    let bytes = bytes("marker_inside.jpg");
    decode_bytes(&bytes[..bytes.len() * 6 / 10]).expect_err("truncated");
}

#[test]
fn bytes_after_the_end_harm_nothing() {
    let mut bytes = bytes("photo.jpg");
    bytes.extend(b"appended by a camera");
    assert_eq!(decode_bytes(&bytes).expect("complete"), picture("photo.jpg"));
}

#[test]
fn a_truncated_file_is_an_error_wherever_it_is_cut() {
    let names = ["photo.jpg", "progressive.jpg", "base.bmp", "base.webp", "squash_37x53.truth.png", "alpha.webp"];
    for name in names {
        let whole = bytes(name);
        for percent in [0, 1, 10, 30, 60, 80, 95] {
            let cut = whole.len() * percent / 100;
            assert!(decode_bytes(&whole[..cut]).is_err(), "{name} cut to {percent}% is accepted");
        }
    }
    for name in ["photo.jpg", "progressive.jpg"] {
        let whole = bytes(name);
        let reason = decode_bytes(&whole[..whole.len() - 1]).expect_err("no end marker");
        assert!(reason.contains("truncated"), "{reason}");
    }
}

/// What a download that broke off leaves in a file of the right length.
#[test]
fn a_tail_of_zeros_is_an_error() {
    for name in ["photo.jpg", "progressive.jpg", "base.webp", "squash_37x53.truth.png"] {
        let mut whole = bytes(name);
        let half = whole.len() / 2;
        whole[half..].fill(0);
        decode_bytes(&whole).expect_err(name);
    }
}

#[test]
fn what_is_no_image_says_so() {
    assert_eq!(decode_bytes(b"").unwrap_err(), "is empty (0 bytes)");
    assert_eq!(decode_bytes(b"just text\n").unwrap_err(), "is not a JPEG, PNG, WebP, BMP or TIFF image");
    assert!(decode_bytes(b"GIF89a\x01\0\x01\0\0\0\0;").unwrap_err().contains("convert it to PNG or JPEG"));
}

#[test]
fn huge_dimensions_are_refused_before_anything_is_allocated() {
    // Headers alone: were pixels allocated or read first, the error would be another.
    let mut png = bytes("base.png");
    png[16..24].copy_from_slice(&[0, 0, 0x75, 0x30, 0, 0, 0x75, 0x30]); // 30,000 x 30,000
    let crc = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC).checksum(&png[12..29]);
    png[29..33].copy_from_slice(&crc.to_be_bytes());
    let mut jpeg = bytes("photo.jpg");
    let frame = jpeg.windows(2).position(|w| w == [0xFF, 0xC0]).expect("baseline frame");
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0x75, 0x30, 0x75, 0x30]);
    let mut bmp = bytes("base.bmp");
    bmp[18..26].copy_from_slice(&[0x30, 0x75, 0, 0, 0x30, 0x75, 0, 0]);
    for (kind, file) in [("png", png), ("jpeg", jpeg), ("bmp", bmp)] {
        let reason = decode_bytes(&file).expect_err(kind);
        assert!(reason.contains("30000 x 30000") && reason.contains("100 megapixels"), "{kind}: {reason}");
    }
    assert_eq!(MAX_PIXELS, 100_000_000);
}

/// Of a damaged file that a decoder panics at; if this one is read one day, or refused in words, another has to take its place.
#[test]
fn a_panic_of_a_decoder_is_an_error() {
    let reason = decode_bytes(&bytes("frame_size.webp")).unwrap_err();
    assert_eq!(reason, "is damaged or of a rare kind: the decoder gave up");
}

/// A TIFF's directory of tags and 4-byte values, or the offsets of what follows it.
fn tiff(tags: &[(u16, u16, u32, u32)], after: &[u8]) -> Vec<u8> {
    let mut file = b"II*\0\x08\0\0\0".to_vec();
    file.extend((tags.len() as u16).to_le_bytes());
    for &(tag, kind, count, value) in tags {
        file.extend([tag.to_le_bytes(), kind.to_le_bytes()].concat());
        file.extend([count.to_le_bytes(), value.to_le_bytes()].concat());
    }
    [&file[..], &[0; 4], after].concat()
}

#[test]
fn pixels_of_32_bits_a_channel_are_bounded_by_their_bytes() {
    // Four channels of floats, whose bits and formats lie behind the directory's 11 entries.
    let of = |side| {
        let tags = [
            (256, 4, 1, side),
            (257, 4, 1, side),
            (258, 3, 4, 146),
            (259, 3, 1, 1),
            (262, 3, 1, 2),
            (273, 4, 1, 162),
            (277, 3, 1, 4),
            (278, 4, 1, side),
            (279, 4, 1, side * side * 16),
            (338, 3, 1, 2),
            (339, 3, 4, 154),
        ];
        let values = [32_u16, 32, 32, 32, 3, 3, 3, 3].map(u16::to_le_bytes).concat();
        tiff(&tags, &[values, vec![0; 64]].concat())
    };
    assert!(decode_bytes(&of(2)).is_ok());
    let reason = decode_bytes(&of(8000)).unwrap_err();
    assert!(reason.contains("8000 x 8000 of 128 bits") && reason.contains("800 MB"), "{reason}");
}

/// The decoder unpacks the whole of a JPEG for each strip.
#[test]
fn a_jpeg_in_a_tiff_is_no_larger_than_its_part() {
    let mut jpeg = bytes("photo.jpg");
    let tags = |length| {
        [
            (256, 4, 1, 16),
            (257, 4, 1, 16),
            (258, 3, 3, 122),
            (259, 3, 1, 7),
            (262, 3, 1, 2),
            (273, 4, 1, 128),
            (277, 3, 1, 3),
            (278, 4, 1, 16),
            (279, 4, 1, length),
        ]
    };
    let mut of = |height: [u8; 2]| {
        let frame = jpeg.windows(2).position(|w| w == [0xFF, 0xC0]).expect("baseline frame");
        jpeg[frame + 5..frame + 7].copy_from_slice(&height);
        decode_bytes(&tiff(&tags(jpeg.len() as u32), &[&[8, 0, 8, 0, 8, 0], &jpeg[..]].concat()))
    };
    let reason = of([0xF0, 0]).unwrap_err();
    assert!(reason.contains("for a part of 16 x 16"), "{reason}");
    // A larger one than its part, but not by far, is for the decoder to judge.
    assert!(of([0, 64]).is_ok());
}

/// The decoder unpacks a colour profile that nothing uses.
#[test]
fn a_png_of_one_pixel_cannot_unpack_to_gigabytes() {
    let mut packed = flate2::write::ZlibEncoder::new(b"name\0\0".to_vec(), flate2::Compression::fast());
    packed.write_all(&vec![0; 17 << 20]).expect("memory takes it");
    let profile = [b"iCCP".to_vec(), packed.finish().expect("memory takes it")].concat();
    let crc = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC).checksum(&profile);
    let chunk = [&(profile.len() as u32 - 4).to_be_bytes()[..], &profile, &crc.to_be_bytes()].concat();
    let png = bytes("base.png");
    let with_profile = [&png[..33], &chunk, &png[33..]].concat();
    let reason = decode_bytes(&with_profile).unwrap_err();
    assert!(reason.contains("colour profile of over 16 MiB"), "{reason}");
}

/// Damaged files give an image or an error, in one line, and nothing else.
#[test]
fn damaged_bytes_never_panic() {
    let names = ["photo.jpg", "progressive.jpg", "ycck.jpg", "exif_6.jpg", "palette.png", "rgb16.png", "alpha.webp"];
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    for name in names.into_iter().chain(["exif_6.webp", "base.bmp", "base.tif", "exif_6.tif"]) {
        let whole = bytes(name);
        for _ in 0..150 {
            let mut damaged = whole.clone();
            for _ in 0..=random(4) {
                let at = random(damaged.len());
                damaged[at] = random(256) as u8;
            }
            match decode_bytes(&damaged) {
                Ok(RgbImage { width, height, pixels }) => assert_eq!(pixels.len(), width * height * 3, "{name}"),
                Err(reason) => assert!(!reason.is_empty() && !reason.contains('\n'), "{name}: {reason:?}"),
            }
        }
    }
}
