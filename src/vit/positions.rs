//! Position embeddings for another grid of patches, by each family's own rule.
//!
//! All are bicubic; they differ in the cubic's coefficient, in antialiasing and in how a target pixel maps to the source: torch's
//! `interpolate` with and without `antialias`, by size or by a scale factor.

use super::{Family, VitConfig};

/// torch's cubic without antialias (Keys 1981, a = -0.75).
const PLAIN: f64 = -0.75;
/// torch's cubic with antialias (a = -0.5, as Pillow's).
const ANTIALIASED: f64 = -0.5;

/// The matrix \[to * to, from * from\], row-major, that resizes a `from` x `from` grid to `to` x `to`; none when nothing changes.
pub fn resampling_matrix(config: &VitConfig, to: usize) -> Option<Vec<f32>> {
    let from = config.stored_grid();
    if from == to {
        return None;
    }
    let antialias = match config.family {
        Family::Transformers | Family::Meta => config.registers > 0,
        Family::Timm => true,
    };
    let line = if antialias {
        antialiased_line(from, to)
    } else {
        // Meta adds 0.1 to the target before it divides, against rounding in the output size; the scale factor it
        // passes is what torch then samples by.
        let offset = if config.family == Family::Meta { 0.1 } else { 0.0 };
        plain_line(from, to, from as f64 / (to as f64 + offset))
    };
    let mut matrix = vec![0.0; to * to * from * from];
    for (y, row) in line.chunks_exact(from).enumerate() {
        for (x, col) in line.chunks_exact(from).enumerate() {
            let out = &mut matrix[(y * to + x) * from * from..][..from * from];
            for (sy, wy) in row.iter().enumerate().filter(|(_, w)| **w != 0.0) {
                for (sx, wx) in col.iter().enumerate() {
                    out[sy * from + sx] = (wy * wx) as f32;
                }
            }
        }
    }
    Some(matrix)
}

/// Keys' cubic convolution kernel.
fn cubic(x: f64, a: f64) -> f64 {
    let x = x.abs();
    if x < 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a
    } else {
        0.0
    }
}

/// Weights \[to, from\] of four taps, indices clamped to the border; half-pixel centres.
fn plain_line(from: usize, to: usize, scale: f64) -> Vec<f64> {
    let mut line = vec![0.0; to * from];
    for (i, row) in line.chunks_exact_mut(from).enumerate() {
        let centre = (i as f64 + 0.5) * scale - 0.5;
        let base = centre.floor();
        for tap in -1..=2 {
            let at = base as isize + tap;
            row[at.clamp(0, from as isize - 1) as usize] += cubic(centre - at as f64, PLAIN);
        }
    }
    line
}

/// Weights \[to, from\] of a kernel widened by the reduction, normalised over the taps inside the image.
fn antialiased_line(from: usize, to: usize) -> Vec<f64> {
    let scale = from as f64 / to as f64;
    let widen = scale.max(1.0);
    let support = 2.0 * widen;
    let mut line = vec![0.0; to * from];
    for (i, row) in line.chunks_exact_mut(from).enumerate() {
        let centre = (i as f64 + 0.5) * scale;
        let first = (centre - support + 0.5).floor().max(0.0) as usize;
        let end = ((centre + support + 0.5).floor() as usize).min(from);
        let mut total = 0.0;
        for (j, w) in row.iter_mut().enumerate().take(end).skip(first) {
            *w = cubic((j as f64 - centre + 0.5) / widen, ANTIALIASED);
            total += *w;
        }
        row[first..end].iter_mut().for_each(|w| *w /= total);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_keeps_a_constant() {
        for family in [Family::Transformers, Family::Meta, Family::Timm] {
            for name in ["small", "small-reg"] {
                let config = VitConfig { family, ..VitConfig::named(name).unwrap() };
                for to in [4, 16, 36, 50] {
                    let matrix = resampling_matrix(&config, to).unwrap();
                    for row in matrix.chunks_exact(37 * 37) {
                        let sum: f64 = row.iter().map(|&w| f64::from(w)).sum();
                        assert!((sum - 1.0).abs() < 1e-5, "{family:?} {name} {to}: {sum}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_same_grid_needs_no_matrix() {
        assert!(resampling_matrix(&VitConfig::named("small").unwrap(), 37).is_none());
    }
}
