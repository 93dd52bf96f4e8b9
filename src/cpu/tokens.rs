//! Between images and sequences: patches, positions, the token sequence, pooling.

use super::gemm::{mat, mat_mut, product};
use super::math::{add_assign, axpy, scale, simd};
use super::threads::{add_up, linear_rows};
use super::{Buffer, Cpu};
use crate::autograd::{IMAGENET_MEAN, IMAGENET_STD, Sums, TokenDims};

/// See [`crate::autograd::Backend::patches`].
pub(super) fn patches(cpu: &Cpu, images: &[u8], batch: usize, size: usize, patch: usize) -> Buffer {
    let (grid, width) = (size / patch, 3 * patch * patch);
    // What each of the 256 values becomes in each channel.
    let table: Vec<[f32; 256]> = IMAGENET_MEAN
        .iter()
        .zip(IMAGENET_STD)
        .map(|(mean, std)| std::array::from_fn(|value| ((value as f64 / 255.0 - mean) / std) as f32))
        .collect();
    let mut out = cpu.pool.dirty(batch * grid * grid * width);
    // A piece is one row of patches.
    cpu.threads.each(out.chunks_mut(grid * width).enumerate().collect(), |(piece, out): (usize, &mut [f32])| {
        let top = (piece / grid * size + piece % grid * patch) * size * 3;
        for (i, out) in out.chunks_exact_mut(width).enumerate() {
            for (line, out) in out.chunks_exact_mut(patch).enumerate() {
                let (channel, row) = (line / patch, line % patch);
                let start = top + (row * size + i * patch) * 3;
                let pixels = images[start..start + 3 * patch].chunks_exact(3);
                for (out, pixel) in out.iter_mut().zip(pixels) {
                    *out = table[channel][usize::from(pixel[channel])];
                }
            }
        }
    });
    out
}

/// See [`crate::autograd::Backend::resample_positions`].
pub(super) fn resample_positions(
    cpu: &Cpu,
    (from, to): (usize, usize),
    width: usize,
    pos: &[f32],
    matrix: &[f32],
) -> Buffer {
    let mut out = cpu.pool.dirty((1 + to) * width);
    let (first, rest) = out.split_at_mut(width);
    first.copy_from_slice(&pos[..width]);
    let rows = linear_rows(to);
    let pieces = rest.chunks_mut(rows * width).zip(matrix.chunks(rows * from)).collect();
    cpu.threads.each(pieces, |(out, matrix): (&mut [f32], &[f32])| {
        let count = out.len() / width;
        product(mat_mut(out, count, width), mat(matrix, count, from), mat(&pos[width..], from, width), 1.0);
    });
    out
}

/// See [`crate::autograd::Backend::resample_positions_backward`].
pub(super) fn resample_positions_backward(
    cpu: &Cpu,
    (from, to): (usize, usize),
    width: usize,
    matrix: &[f32],
    dy: &[f32],
) -> Buffer {
    let mut dpos = cpu.pool.dirty((1 + from) * width);
    let (first, rest) = dpos.split_at_mut(width);
    first.copy_from_slice(&dy[..width]);
    let rows = linear_rows(from);
    cpu.threads.each(rest.chunks_mut(rows * width).enumerate().collect(), |(piece, out): (usize, &mut [f32])| {
        let count = out.len() / width;
        let columns = super::gemm::columns(matrix, to, from, piece * rows, count);
        product(mat_mut(out, count, width), columns.transpose(), mat(&dy[width..], to, width), 1.0);
    });
    dpos
}

/// See [`crate::autograd::Backend::assemble_tokens`].
pub(super) fn assemble_tokens(
    cpu: &Cpu,
    dims: TokenDims,
    patches: &[f32],
    cls: &[f32],
    pos: &[f32],
    registers: Option<&[f32]>,
) -> Buffer {
    let width = dims.width;
    let mut out = cpu.pool.dirty(dims.batch * dims.tokens() * width);
    let pieces = out.chunks_mut(dims.tokens() * width).zip(patches.chunks(dims.patches * width)).collect();
    cpu.threads.each(pieces, |(out, patches): (&mut [f32], &[f32])| {
        let (first, rest) = out.split_at_mut(width);
        let (own_registers, rest) = rest.split_at_mut(dims.registers * width);
        first.copy_from_slice(cls);
        own_registers.copy_from_slice(registers.unwrap_or(&[]));
        rest.copy_from_slice(patches);
        simd(
            #[inline(always)]
            || {
                add_assign(first, &pos[..width]);
                add_assign(rest, &pos[width..]);
            },
        );
    });
    out
}

/// See [`crate::autograd::Backend::assemble_tokens_backward`].
pub(super) fn assemble_tokens_backward(
    cpu: &Cpu,
    dims: TokenDims,
    dy: &[f32],
    mut sums: Sums<Buffer>,
) -> (Buffer, Buffer, Buffer, Option<Buffer>) {
    let (width, tokens) = (dims.width, dims.tokens());
    let mut dpatches = cpu.pool.dirty(dims.batch * dims.patches * width);
    let own_patches = |dy: &[f32], out: &mut [f32]| out.copy_from_slice(&dy[(1 + dims.registers) * width..]);
    let pieces = dy.chunks(tokens * width).zip(dpatches.chunks_mut(dims.patches * width)).collect();
    cpu.threads.each(pieces, |(dy, out): (&[f32], &mut [f32])| own_patches(dy, out));
    // The sum over images, one after the other, a range of tokens at a time.
    let (mut dcls, mut dpos) =
        (cpu.sum_block(&mut sums, 0, width), cpu.sum_block(&mut sums, 1, (1 + dims.patches) * width));
    let mut dregisters = (dims.registers > 0).then(|| cpu.sum_block(&mut sums, 2, dims.registers * width));
    let mut total = cpu.pool.zeros(tokens * width);
    let (first, rest) = total.split_at_mut(width);
    first.copy_from_slice(&dpos[..width]);
    rest[dims.registers * width..].copy_from_slice(&dpos[width..]);
    if let Some(dregisters) = &dregisters {
        rest[..dims.registers * width].copy_from_slice(dregisters);
    }
    simd(
        #[inline(always)]
        || dy.chunks_exact(tokens * width).for_each(|dy| add_assign(&mut dcls, &dy[..width])),
    );
    let len = super::threads::PIECE;
    cpu.threads.each(total.chunks_mut(len).enumerate().collect(), |(piece, total): (usize, &mut [f32])| {
        simd(
            #[inline(always)]
            || dy.chunks_exact(tokens * width).for_each(|dy| add_assign(total, &dy[piece * len..])),
        );
    });
    let (first, rest) = total.split_at(width);
    let (registers, patches) = rest.split_at(dims.registers * width);
    dpos[..width].copy_from_slice(first);
    dpos[width..].copy_from_slice(patches);
    if let Some(dregisters) = &mut dregisters {
        dregisters.copy_from_slice(registers);
    }
    (dpatches, dcls, dpos, dregisters)
}

/// See [`crate::autograd::Backend::pool`].
pub(super) fn pool(cpu: &Cpu, dims: TokenDims, with_mean: bool, x: &[f32]) -> Buffer {
    let width = dims.width;
    let out_width = if with_mean { 2 * width } else { width };
    let mut out = cpu.pool.zeros(dims.batch * out_width);
    let pieces = x.chunks(dims.tokens() * width).zip(out.chunks_mut(out_width)).collect();
    cpu.threads.each(pieces, |(x, out): (&[f32], &mut [f32])| {
        let (cls, mean) = out.split_at_mut(width);
        cls.copy_from_slice(&x[..width]);
        if with_mean {
            simd(
                #[inline(always)]
                || {
                    // Two levels of sums keep the rounding of a sum over a thousand patches small.
                    for group in x[(1 + dims.registers) * width..].chunks(32 * width) {
                        let mut sums = vec![0.0; width];
                        group.chunks_exact(width).for_each(|patch| add_assign(&mut sums, patch));
                        add_up(mean, [sums]);
                    }
                    scale(mean, 1.0 / dims.patches as f32);
                },
            );
        }
    });
    out
}

/// See [`crate::autograd::Backend::pool_backward`].
pub(super) fn pool_backward(cpu: &Cpu, dims: TokenDims, with_mean: bool, dy: &[f32]) -> Buffer {
    let width = dims.width;
    let dy_width = if with_mean { 2 * width } else { width };
    let mut dx = cpu.pool.zeros(dims.batch * dims.tokens() * width);
    let pieces = dx.chunks_mut(dims.tokens() * width).zip(dy.chunks(dy_width)).collect();
    cpu.threads.each(pieces, |(dx, dy): (&mut [f32], &[f32])| {
        dx[..width].copy_from_slice(&dy[..width]);
        if with_mean {
            for dx in dx[(1 + dims.registers) * width..].chunks_exact_mut(width) {
                axpy(dx, 1.0 / dims.patches as f32, &dy[width..]);
            }
        }
    });
    dx
}
