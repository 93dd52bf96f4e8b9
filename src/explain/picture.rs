//! A map drawn over its image.

use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};

use crate::data::{RgbImage, transform};
use crate::{Error, Result};

/// A picture's side is at least this many pixels.
const LEAST_SIDE: usize = 448;
/// How much of a pixel is colour where the map is lowest, and how much more where it is highest: the image shows through everywhere.
const OPACITY: (f64, f64) = (0.3, 0.35);
/// From dark violet over green to yellow, in even steps of lightness, as matplotlib's viridis; straight lines between.
const COLOURS: [[f64; 3]; 9] = [
    [68.0, 1.0, 84.0],
    [71.0, 45.0, 123.0],
    [59.0, 82.0, 139.0],
    [44.0, 114.0, 142.0],
    [33.0, 145.0, 140.0],
    [40.0, 174.0, 128.0],
    [94.0, 201.0, 98.0],
    [173.0, 220.0, 48.0],
    [253.0, 231.0, 37.0],
];

/// A PNG of the square that the model saw (u8 \[size, size, 3\]) with the map \[grid, grid\] over it, its lowest number dark, its highest
/// yellow, bilinear between the centres of patches. The side is a multiple of `size` of at least 448 pixels. Of a map whose numbers are all
/// the same the image alone is drawn; the second result says whether it is such a map.
///
/// # Errors
/// Lengths that do not fit.
pub fn overlay(square: &[u8], size: usize, map: &[f64], grid: usize) -> Result<(Vec<u8>, bool)> {
    if grid == 0 || map.len() != grid * grid || square.len() != size * size * 3 || size == 0 {
        let found = (square.len(), map.len());
        return Err(Error::shape("a square and its map", (size * size * 3, grid * grid), found));
    }
    let side = size * LEAST_SIDE.div_ceil(size);
    let image = RgbImage { width: size, height: size, pixels: square.to_vec() };
    let mut pixels = vec![0; side * side * 3];
    transform::crop_resize_flip(&image, transform::CropBox::whole(size, size), false, side, &mut pixels)?;
    let heat = normalised(map);
    if let Some(heat) = &heat {
        let places: Vec<(usize, usize, f64)> = (0..side).map(|pixel| between(pixel, side, grid)).collect();
        for (y, line) in pixels.chunks_exact_mut(side * 3).enumerate() {
            for (x, pixel) in line.chunks_exact_mut(3).enumerate() {
                let ((left, right, across), (above, below, down)) = (places[x], places[y]);
                let on_line =
                    |line: usize| heat[line * grid + left] * (1.0 - across) + heat[line * grid + right] * across;
                blend(pixel, on_line(above) * (1.0 - down) + on_line(below) * down);
            }
        }
    }
    let mut png = Vec::new();
    PngEncoder::new(&mut png)
        .write_image(&pixels, side as u32, side as u32, ExtendedColorType::Rgb8)
        .map_err(|e| Error::Internal(format!("the picture is no PNG: {e}")))?;
    Ok((png, heat.is_none()))
}

/// From 0 at the lowest to 1 at the highest; none where there is no difference that f32 arithmetic could tell from rounding.
fn normalised(map: &[f64]) -> Option<Vec<f64>> {
    let low = map.iter().copied().fold(f64::INFINITY, f64::min);
    let high = map.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let spread = high - low;
    let is_map = spread.is_finite() && spread > 1e-9 * high.abs().max(low.abs());
    is_map.then(|| map.iter().map(|x| (x - low) / spread).collect())
}

/// The patches on both sides of a pixel's centre, and how far it is from the first to the second.
fn between(pixel: usize, side: usize, grid: usize) -> (usize, usize, f64) {
    let place = ((pixel as f64 + 0.5) * grid as f64 / side as f64 - 0.5).clamp(0.0, (grid - 1) as f64);
    let first = place.floor() as usize;
    (first, (first + 1).min(grid - 1), place - place.floor())
}

/// Lays the colour of a heat from 0 to 1 over a pixel.
fn blend(pixel: &mut [u8], heat: f64) {
    let place = heat.clamp(0.0, 1.0) * (COLOURS.len() - 1) as f64;
    let first = (place.floor() as usize).min(COLOURS.len() - 2);
    let along = place - first as f64;
    let opacity = OPACITY.0 + OPACITY.1 * heat;
    for (channel, value) in pixel.iter_mut().enumerate() {
        let colour = COLOURS[first][channel] * (1.0 - along) + COLOURS[first + 1][channel] * along;
        *value = (f64::from(*value) * (1.0 - opacity) + colour * opacity).round() as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hottest_patch_is_the_yellowest_place() {
        let size = 42;
        let mut map = vec![1.0; 9];
        map[5] = 3.0;
        let (png, flat) = overlay(&vec![128; size * size * 3], size, &map, 3).unwrap();
        let picture = image::load_from_memory(&png).unwrap().into_rgb8();
        assert_eq!((picture.dimensions(), flat), ((462, 462), false));
        // The centre of the second line's last patch, and the first patch's; no pixel's centre lies on a patch's.
        let near = |(x, y), colour: [u8; 3]| {
            let found = picture.get_pixel(x, y).0;
            assert!(found.iter().zip(colour).all(|(a, b)| a.abs_diff(b) <= 1), "{found:?} for {colour:?}");
        };
        near((385, 231), [209, 195, 69]);
        near((77, 77), [110, 90, 115]);
        // Half way between two centres, half the heat; beyond the last centre it stays.
        let heat_at = |x: usize| between(x, 462, 3);
        assert_eq!(heat_at(461), (2, 2, 0.0));
        assert!((heat_at(308).2 - 0.5).abs() < 0.01 && heat_at(308).0 == 1);
    }

    #[test]
    fn a_flat_map_leaves_the_image() {
        for map in [[0.0; 4], [0.25; 4], [1.0, 1.0, 1.0, 1.0 + 1e-12], [f64::NAN; 4]] {
            let (png, flat) = overlay(&[77; 28 * 28 * 3], 28, &map, 2).unwrap();
            assert!(flat);
            let picture = image::load_from_memory(&png).unwrap().into_rgb8();
            assert!(picture.dimensions() == (448, 448) && picture.as_raw().iter().all(|&level| level == 77));
        }
        let large = overlay(&vec![0; 518 * 518 * 3], 518, &[0.0, 1.0, 2.0, 3.0], 2).unwrap().0;
        assert_eq!(image::load_from_memory(&large).unwrap().width(), 518);
        assert!(overlay(&[0; 12], 2, &[0.0; 3], 2).is_err());
    }
}
