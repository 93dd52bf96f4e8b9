//! Linear layers forward: a product per piece of rows, then adapters, gain and bias while the piece is in cache.

use super::gemm::{mat, mat_mut, product};
use super::math::{add_assign, axpy, mul_assign, simd};
use super::threads::linear_rows;
use super::{Buffer, Cpu};
use crate::autograd::{Adapter, LinearDims, LinearOutput};

/// A piece of the rows.
struct Piece<'a> {
    /// Its first row.
    first: usize,
    y: &'a mut [f32],
    t: Vec<&'a mut [f32]>,
    z: Vec<Option<&'a mut [f32]>>,
}

/// s B^T \[rank, rows\]: one contiguous row for each column of t.
fn scaled_transpose(adapter: &Adapter<'_, Buffer>) -> Vec<f32> {
    let d = adapter.dims;
    let s = d.scale as f32;
    (0..d.rank).flat_map(|r| (0..d.rows).map(move |j| s * adapter.b[j * d.rank + r])).collect()
}

/// y = x W^T of one row. As a product of two, since faer sums a single row's in another order: so an image's features are the same bits in
/// any batch, which keeping them rests on.
fn lone_row(y: &mut [f32], x: &[f32], w: &[f32]) {
    let (k, n) = (x.len(), y.len());
    let mut both = vec![0.0; 2 * n];
    product(mat_mut(&mut both, 2, n), mat(&[x, x].concat(), 2, k), mat(w, n, k).transpose(), 1.0);
    y.copy_from_slice(&both[..n]);
}

/// See [`crate::autograd::Backend::linear`].
pub(super) fn linear(
    cpu: &Cpu,
    dims: LinearDims,
    x: &[f32],
    w: &[f32],
    bias: Option<&[f32]>,
    adapters: &[Adapter<'_, Buffer>],
) -> LinearOutput<Buffer> {
    let LinearDims { m, k, n } = dims;
    let rows = linear_rows(m);
    let mut y = cpu.pool.dirty(m * n);
    let mut t: Vec<Buffer> = adapters.iter().map(|adapter| cpu.pool.dirty(m * adapter.dims.rank)).collect();
    let mut z: Vec<Option<Buffer>> = adapters
        .iter()
        .map(|adapter| adapter.gain.and(adapter.dropped).map(|_| cpu.pool.dirty(m * adapter.dims.rows)))
        .collect();
    let low_rank: Vec<Vec<f32>> = adapters.iter().map(scaled_transpose).collect();

    let mut t_pieces: Vec<_> = t.iter_mut().zip(adapters).map(|(t, a)| t.chunks_mut(rows * a.dims.rank)).collect();
    let mut z_pieces: Vec<_> =
        z.iter_mut().zip(adapters).map(|(z, a)| z.as_mut().map(|z| z.chunks_mut(rows * a.dims.rows))).collect();
    let pieces = y.chunks_mut(rows * n).enumerate().map(|(i, y)| Piece {
        first: i * rows,
        y,
        t: t_pieces.iter_mut().filter_map(Iterator::next).collect(),
        z: z_pieces.iter_mut().map(|z| z.as_mut().and_then(Iterator::next)).collect(),
    });
    cpu.threads.each(pieces.collect(), |mut piece| {
        let count = piece.y.len() / n;
        let x = &x[piece.first * k..];
        if count == 1 {
            lone_row(piece.y, &x[..k], w);
        } else {
            product(mat_mut(piece.y, count, n), mat(x, count, k), mat(w, n, k).transpose(), 1.0);
        }
        for (index, adapter) in adapters.iter().enumerate() {
            let d = adapter.dims;
            let xd = adapter.dropped.map_or(x, |dropped| &dropped[piece.first * k..]);
            product(
                mat_mut(piece.t[index], count, d.rank),
                mat(xd, count, k),
                mat(adapter.a, d.rank, k).transpose(),
                1.0,
            );
            if let Some(z) = &mut piece.z[index] {
                let w = mat(&w[d.first_row * k..], d.rows, k);
                product(mat_mut(z, count, d.rows), mat(xd, count, k), w.transpose(), 1.0);
            }
        }
        simd(
            #[inline(always)]
            || finish(&mut piece, n, bias, adapters, &low_rank),
        );
    });
    LinearOutput { y, t, z }
}

/// What each adapter adds, its gain, and the bias.
#[inline(always)]
fn finish(
    piece: &mut Piece<'_>,
    n: usize,
    bias: Option<&[f32]>,
    adapters: &[Adapter<'_, Buffer>],
    low_rank: &[Vec<f32>],
) {
    for (i, y) in piece.y.chunks_exact_mut(n).enumerate() {
        for (index, adapter) in adapters.iter().enumerate() {
            let d = adapter.dims;
            let y = &mut y[d.first_row..d.first_row + d.rows];
            let t = &piece.t[index][i * d.rank..(i + 1) * d.rank];
            for (&t, b) in t.iter().zip(low_rank[index].chunks_exact(d.rows)) {
                axpy(y, t, b);
            }
            let Some(gain) = adapter.gain else { continue };
            match &mut piece.z[index] {
                None => mul_assign(y, gain),
                Some(z) => {
                    let z = &mut z[i * d.rows..(i + 1) * d.rows];
                    for (&t, b) in t.iter().zip(low_rank[index].chunks_exact(d.rows)) {
                        axpy(z, t, b);
                    }
                    for ((y, &z), &gain) in y.iter_mut().zip(&*z).zip(&gain[..]) {
                        *y += (gain - 1.0) * z;
                    }
                }
            }
        }
        if let Some(bias) = bias {
            add_assign(y, bias);
        }
    }
}
