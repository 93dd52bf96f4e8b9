use peftk::config::Resize;
use peftk::data::RgbImage;
use peftk::data::transform::{centre_crop, eval, random_crop, train};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::{mean_difference, picture};

/// The picture that `make.py` computes too.
fn pattern(width: usize, height: usize) -> RgbImage {
    let mut pixels = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        for x in 0..width {
            pixels.extend((0..3).map(|c| (x * 7 + y * 13 + c * 50 + x * y / 5) as u8));
        }
    }
    RgbImage { width, height, pixels }
}

fn transformed(image: &RgbImage, size: usize, resize: Resize) -> RgbImage {
    let mut pixels = vec![0; size * size * 3];
    eval(image, size, resize, &mut pixels).expect("resize");
    RgbImage { width: size, height: size, pixels }
}

#[test]
fn resizes_are_pillows() {
    for (width, height) in [(37, 53), (200, 150)] {
        for (resize, name) in [(Resize::Squash, "squash"), (Resize::Crop, "crop")] {
            let name = format!("{name}_{width}x{height}.truth.png");
            let difference = mean_difference(&transformed(&pattern(width, height), 56, resize), &picture(&name));
            assert!(difference < 0.5, "{name}: {difference} levels");
        }
    }
}

#[test]
fn squash_leaves_an_image_of_the_size_as_it_is() {
    let image = pattern(56, 56);
    assert_eq!(transformed(&image, 56, Resize::Squash), image);
    assert_ne!(transformed(&image, 56, Resize::Crop), image);
}

#[test]
fn any_shape_becomes_a_square() {
    for (width, height) in [(1, 1), (1, 5000), (5000, 1), (3, 2), (64, 63), (255, 257)] {
        let image = pattern(width, height);
        for size in [14, 56] {
            transformed(&image, size, Resize::Squash);
            transformed(&image, size, Resize::Crop);
            let mut out = vec![0; size * size * 3];
            for seed in 0..20 {
                train(&image, size, &mut ChaCha8Rng::seed_from_u64(seed), &mut out).expect("crop");
            }
        }
    }
    let mut short = vec![0; 5];
    eval(&pattern(4, 4), 56, Resize::Squash, &mut short).expect_err("wrong length");
}

#[test]
fn the_centre_crop_is_central_and_square() {
    let part = centre_crop(640, 480, 224);
    // 480 becomes 256, 640 becomes 341; 16 of 256 and 58 of 341 are cut in front.
    assert!((part.top - 16.0 * 480.0 / 256.0).abs() < 1e-9 && (part.left - 58.0 * 640.0 / 341.0).abs() < 1e-9);
    assert!((part.height - 224.0 * 480.0 / 256.0).abs() < 1e-9 && (part.width - 224.0 * 640.0 / 341.0).abs() < 1e-9);
}

#[test]
fn random_crops_keep_to_area_and_aspect() {
    let (width, height) = (640.0, 480.0);
    let (mut smallest, mut largest, mut wide) = (1.0_f64, 0.0_f64, 0);
    for seed in 0..2000 {
        let part = random_crop(640, 480, &mut ChaCha8Rng::seed_from_u64(seed));
        assert!(part.left >= 0.0 && part.top >= 0.0, "{part:?}");
        assert!(part.left + part.width <= width && part.top + part.height <= height, "{part:?}");
        let (area, aspect) = (part.width * part.height / (width * height), part.width / part.height);
        assert!((0.079..=1.0).contains(&area) && (0.74..1.35).contains(&aspect), "{part:?}");
        (smallest, largest) = (smallest.min(area), largest.max(area));
        wide += usize::from(aspect > 1.0);
    }
    assert!(smallest < 0.1 && largest > 0.9, "{smallest} {largest}");
    // On a log scale, wide and tall are as likely; large tall ones do not fit and are drawn again.
    assert!((900..1300).contains(&wide), "{wide}");
}

#[test]
fn where_nothing_fits_the_crop_is_central() {
    for (width, height, crop) in [(1000, 10, (13.0, 10.0)), (10, 1000, (10.0, 13.0))] {
        let central = (0..50)
            .map(|seed| random_crop(width, height, &mut ChaCha8Rng::seed_from_u64(seed)))
            .filter(|p| (p.width, p.height) == crop)
            .filter(|p| {
                p.left == ((width as f64 - crop.0) / 2.0).floor() && p.top == ((height as f64 - crop.1) / 2.0).floor()
            });
        assert_eq!(central.count(), 50, "{width} x {height}");
    }
}

#[test]
fn half_of_the_images_are_flipped() {
    // Brighter to the right: the first pixel against the last tells a flip, whatever the crop.
    let pixels = (0..64 * 64).flat_map(|i| [(i % 64 * 4) as u8; 3]).collect();
    let image = RgbImage { width: 64, height: 64, pixels };
    let flipped = (0..400)
        .filter(|&seed| {
            let mut out = vec![0; 8 * 8 * 3];
            train(&image, 8, &mut ChaCha8Rng::seed_from_u64(seed), &mut out).expect("crop");
            assert_ne!(out[0], out[21], "a gradient has different ends");
            out[0] > out[21]
        })
        .count();
    assert!((160..240).contains(&flipped), "{flipped} of 400");
}
