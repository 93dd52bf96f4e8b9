//! Between images and sequences: patches, positions, the token sequence, pooling.

use super::real::Real;
use crate::autograd::{IMAGENET_MEAN, IMAGENET_STD, TokenDims};

/// Normalised patches \[batch * (size / patch)^2, 3 * patch^2\], columns ordered channel, row, column.
pub fn patches<T: Real>(images: &[u8], batch: usize, size: usize, patch: usize) -> Vec<T> {
    let grid = size / patch;
    let mut out = Vec::with_capacity(batch * grid * grid * 3 * patch * patch);
    for image in 0..batch {
        for (patch_row, patch_col) in (0..grid * grid).map(|i| (i / grid, i % grid)) {
            for channel in 0..3 {
                for (row, col) in (0..patch * patch).map(|i| (i / patch, i % patch)) {
                    let (y, x) = (patch_row * patch + row, patch_col * patch + col);
                    let value = f64::from(images[((image * size + y) * size + x) * 3 + channel]) / 255.0;
                    out.push(T::from_f64((value - IMAGENET_MEAN[channel]) / IMAGENET_STD[channel]));
                }
            }
        }
    }
    out
}

/// Row 0 stays; rows 1.. become matrix \[to, from\] times them.
pub fn resample_positions<T: Real>(from: usize, to: usize, width: usize, pos: &[T], matrix: &[T]) -> Vec<T> {
    let mut out = vec![T::ZERO; (1 + to) * width];
    out[..width].copy_from_slice(&pos[..width]);
    for i in 0..to {
        for j in 0..from {
            for c in 0..width {
                out[(1 + i) * width + c] += matrix[i * from + j] * pos[(1 + j) * width + c];
            }
        }
    }
    out
}

/// The transpose of [`resample_positions`].
pub fn resample_positions_backward<T: Real>(from: usize, to: usize, width: usize, matrix: &[T], dy: &[T]) -> Vec<T> {
    let mut dpos = vec![T::ZERO; (1 + from) * width];
    dpos[..width].copy_from_slice(&dy[..width]);
    for i in 0..to {
        for j in 0..from {
            for c in 0..width {
                dpos[(1 + j) * width + c] += matrix[i * from + j] * dy[(1 + i) * width + c];
            }
        }
    }
    dpos
}

/// CLS + position 0, registers, patches + their positions, for each image.
pub fn assemble_tokens<T: Real>(
    dims: TokenDims,
    patches: &[T],
    cls: &[T],
    pos: &[T],
    registers: Option<&Vec<T>>,
) -> Vec<T> {
    let width = dims.width;
    let mut out = Vec::with_capacity(dims.batch * dims.tokens() * width);
    for patches in patches.chunks_exact(dims.patches * width) {
        out.extend((0..width).map(|c| cls[c] + pos[c]));
        out.extend(registers.into_iter().flatten());
        out.extend(patches.iter().zip(&pos[width..]).map(|(&patch, &pos)| patch + pos));
    }
    out
}

/// (dpatches, dcls, dpos, dregisters).
#[allow(clippy::type_complexity)]
pub fn assemble_tokens_backward<T: Real>(dims: TokenDims, dy: &[T]) -> (Vec<T>, Vec<T>, Vec<T>, Option<Vec<T>>) {
    let width = dims.width;
    let mut dpatches = Vec::with_capacity(dims.batch * dims.patches * width);
    let mut dcls = vec![T::ZERO; width];
    let mut dpos = vec![T::ZERO; (1 + dims.patches) * width];
    let mut dregisters = vec![T::ZERO; dims.registers * width];
    for dy in dy.chunks_exact(dims.tokens() * width) {
        let (first, rest) = dy.split_at(width);
        let (registers, patches) = rest.split_at(dims.registers * width);
        add(&mut dcls, first);
        add(&mut dpos[..width], first);
        add(&mut dpos[width..], patches);
        add(&mut dregisters, registers);
        dpatches.extend_from_slice(patches);
    }
    (dpatches, dcls, dpos, (dims.registers > 0).then_some(dregisters))
}

/// acc += x.
fn add<T: Real>(acc: &mut [T], x: &[T]) {
    for (acc, &x) in acc.iter_mut().zip(x) {
        *acc += x;
    }
}

/// CLS, or CLS beside the mean of the patches.
pub fn pool<T: Real>(dims: TokenDims, with_mean: bool, x: &[T]) -> Vec<T> {
    let width = dims.width;
    let count = T::from_f64(dims.patches as f64);
    let mut out = Vec::new();
    for x in x.chunks_exact(dims.tokens() * width) {
        out.extend_from_slice(&x[..width]);
        if with_mean {
            let patches = &x[(1 + dims.registers) * width..];
            out.extend((0..width).map(|c| patches.iter().skip(c).step_by(width).copied().sum::<T>() / count));
        }
    }
    out
}

/// dx of [`pool`]: zero for registers, and for patches without the mean.
pub fn pool_backward<T: Real>(dims: TokenDims, with_mean: bool, dy: &[T]) -> Vec<T> {
    let width = dims.width;
    let count = T::from_f64(dims.patches as f64);
    let mut dx = Vec::new();
    for dy in dy.chunks_exact(if with_mean { 2 * width } else { width }) {
        dx.extend_from_slice(&dy[..width]);
        dx.extend(std::iter::repeat_n(T::ZERO, dims.registers * width));
        for _ in 0..dims.patches {
            dx.extend((0..width).map(|c| if with_mean { dy[width + c] / count } else { T::ZERO }));
        }
    }
    dx
}
