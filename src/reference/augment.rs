//! Crop, bicubic resize and flip of one image, in fixed point as the CPU's transform and the kernel do it.

use crate::data::RgbImage;
use crate::data::transform::CropBox;

/// One axis: for every output the first of its pixels and their weights, in units of 2^-bits.
struct Axis {
    bits: u32,
    taps: Vec<(usize, Vec<i32>)>,
}

/// The `size` by `size` square of a part of an image: first down, rounded to u8, then across, then mirrored if asked to.
///
/// # Panics
/// When the part is not inside the image, or the pixels are not as many as its sides say.
pub fn augment(image: &RgbImage, part: CropBox, flip: bool, size: usize) -> Vec<u8> {
    let RgbImage { width, height, pixels } = image;
    assert_eq!(pixels.len(), width * height * 3, "pixels");
    let down = Axis::new(*height, part.top, part.top + part.height, size);
    let across = Axis::new(*width, part.left, part.left + part.width, size);
    let mut out = vec![0; size * size * 3];
    for (y, taps) in down.taps.iter().enumerate() {
        let column = |x: usize, c: usize| down.sum(taps, |row| pixels[(row * width + x) * 3 + c]);
        let between: Vec<u8> = (0..width * 3).map(|i| column(i / 3, i % 3)).collect();
        for (x, taps) in across.taps.iter().enumerate() {
            let place = y * size + if flip { size - 1 - x } else { x };
            for c in 0..3 {
                out[place * 3 + c] = across.sum(taps, |x| between[x * 3 + c]);
            }
        }
    }
    out
}

impl Axis {
    /// The weights that make `size` outputs of the pixels between `first` and `last`.
    fn new(pixels: usize, first: f64, last: f64, size: usize) -> Self {
        let scale = (last - first) / size as f64;
        // Where the image shrinks, the filter grows with it: no pixel is passed over.
        let widened = scale.max(1.0);
        let radius = 2.0 * widened;
        let weights = |output: usize| {
            let centre = first + (output as f64 + 0.5) * scale;
            let begin = (centre - radius).floor().max(0.0) as usize;
            let end = (centre + radius).ceil().min(pixels as f64) as usize;
            let mut weights: Vec<f64> =
                (begin..end).map(|i| cubic((i as f64 - (centre - 0.5)) * (1.0 / widened))).collect();
            let sum: f64 = weights.iter().sum();
            weights.iter_mut().for_each(|weight| *weight /= sum);
            (begin, weights)
        };
        let exact: Vec<(usize, Vec<f64>)> = (0..size).map(weights).collect();
        // As many fraction bits as let every weight be 16 bits, and every sum of weight and pixel 32.
        let largest = exact.iter().flat_map(|(_, weights)| weights).fold(0.0, |most: f64, &weight| most.max(weight));
        let fixed = |weight: f64, bits: u32| (weight * f64::from(1_u32 << bits)).round();
        let bits = (1..22).take_while(|&bits| fixed(largest, bits) < 32768.0).last().unwrap_or(0);
        let taps =
            exact.iter().map(|(begin, weights)| (*begin, weights.iter().map(|&w| fixed(w, bits) as i32).collect()));
        Self { bits, taps: taps.collect() }
    }

    /// One output's weighted sum, rounded.
    fn sum(&self, (begin, weights): &(usize, Vec<i32>), pixel: impl Fn(usize) -> u8) -> u8 {
        let half = 1 << self.bits >> 1;
        let sum: i32 = weights.iter().enumerate().map(|(i, weight)| weight * i32::from(pixel(begin + i))).sum();
        ((sum + half) >> self.bits).clamp(0, 255) as u8
    }
}

/// Keys' cubic with a = -1/2.
fn cubic(x: f64) -> f64 {
    let x = x.abs();
    if x < 1.0 {
        (1.5 * x - 2.5) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::data::transform::{centre_crop, crop_resize_flip, train_crop};

    #[test]
    fn by_hand() {
        // Two rows become four: outputs lie a quarter beside a pixel, with weights 0.867 and 0.227 of 1.094 between the two,
        // 0.867 and -0.070 of 0.797 outside.
        let image = RgbImage { width: 1, height: 2, pixels: vec![0, 100, 200, 255, 100, 0] };
        let square = augment(&image, CropBox::whole(1, 2), false, 4);
        for (row, expected) in square.chunks(12).zip([[0, 100, 218], [53, 100, 159], [202, 100, 41], [255, 100, 0]]) {
            assert_eq!(row, expected.repeat(4));
        }
    }

    #[test]
    fn a_flip_mirrors_and_scale_one_copies() {
        let pixels: Vec<u8> = (0..36).collect();
        let image = RgbImage { width: 4, height: 3, pixels: pixels.clone() };
        let part = CropBox { left: 1.0, top: 0.0, width: 3.0, height: 3.0 };
        let rows: Vec<u8> = pixels.chunks(12).flat_map(|row| &row[3..]).copied().collect();
        assert_eq!(augment(&image, part, false, 3), rows);
        let mirrored: Vec<u8> = rows.chunks(9).flat_map(|row| row.chunks(3).rev().flatten()).copied().collect();
        assert_eq!(augment(&image, part, true, 3), mirrored);
    }

    #[test]
    fn the_transform_gives_the_same_bits() {
        let mut random = ChaCha8Rng::seed_from_u64(0);
        for (width, height) in [(1, 1), (1, 90), (90, 1), (3, 2), (37, 53), (64, 63), (255, 257), (500, 40)] {
            let pixels = (0..width * height * 3).map(|i| if i / 50 % 3 == 0 { 255 } else { random.random() }).collect();
            let image = RgbImage { width, height, pixels };
            for size in [1, 3, 14, 56] {
                let mut cases = vec![
                    (CropBox::whole(width, height), false),
                    (centre_crop(width, height, size).inside(width, height), true),
                ];
                cases.extend((0..4).map(|_| train_crop(width, height, &mut random)));
                let (left, top) = (random.random_range(0.0..width as f64), random.random_range(0.0..height as f64));
                cases.push((CropBox { left, top, width: 9.3, height: 0.7 }.inside(width, height), false));
                for (part, flip) in cases {
                    let mut fast = vec![0; size * size * 3];
                    crop_resize_flip(&image, part, flip, size, &mut fast).expect("the part is inside");
                    assert!(augment(&image, part, flip, size) == fast, "{width}x{height} {part:?} {flip} to {size}");
                }
            }
        }
    }
}
