//! Gradients of linear layers. With one adapter and no dropout y = x E^T + bias, E = g (W + s B A), so dx = dy E is one product; E lives
//! for this operation alone. What sums over tokens is summed per piece of rows, then over the pieces in order.

use super::gemm::{columns, mat, mat_mut, product};
use super::math::{add_assign, axpy, dot, scale, simd};
use super::threads::{Run, add_up, linear_rows, piece_rows, runs, shares};
use super::{Buffer, Cpu};
use crate::autograd::{Adapter, AdapterGrads, LinearBackward, LinearDims, LinearGrads, Sums};

/// Below this |g| z is not divided out of y = g z + bias: the bias would have rounded it away.
const SMALLEST_GAIN: f32 = 1.0 / 16.0;

/// A piece of rows: dx there, and each adapter's d drop(x).
type Piece<'a> = (Run, Option<&'a mut [f32]>, Vec<Option<&'a mut [f32]>>);

/// One piece's part of what sums over tokens.
struct Partial {
    bias: Vec<f32>,
    adapters: Vec<AdapterPartial>,
}

/// An adapter's part.
struct AdapterPartial {
    /// dA \[rank, k\].
    a: Vec<f32>,
    /// t^T dy \[rank, rows\].
    b: Vec<f32>,
    /// The sum of dy (y - bias) without dropout, of dy z with it \[rows\].
    gain: Vec<f32>,
}

/// (g - minus) W + g s B A over an adapter's rows.
fn effective(cpu: &Cpu, out: &mut [f32], k: usize, w: &[f32], adapter: &Adapter<'_, Buffer>, minus: f32) {
    let d = adapter.dims;
    let rows = piece_rows(k);
    let pieces = out.chunks_mut(rows * k).enumerate().collect();
    cpu.threads.each(pieces, |(piece, out): (usize, &mut [f32])| {
        simd(
            #[inline(always)]
            || {
                for (i, out) in out.chunks_exact_mut(k).enumerate() {
                    let j = piece * rows + i;
                    let gain = adapter.gain.map_or(1.0, |gain| gain[j]);
                    out.copy_from_slice(&w[(d.first_row + j) * k..][..k]);
                    scale(out, gain - minus);
                    for (&b, a) in adapter.b[j * d.rank..].iter().zip(adapter.a.chunks_exact(k)) {
                        axpy(out, gain * d.scale as f32 * b, a);
                    }
                }
            },
        );
    });
}

/// See [`crate::autograd::Backend::linear_backward`].
pub(super) fn linear_backward(
    cpu: &Cpu,
    args: &LinearBackward<'_, Buffer>,
    mut sums: Sums<Buffer>,
) -> LinearGrads<Buffer> {
    let LinearDims { m, k, n } = args.dims;
    // What dx and d drop(x) multiply dy by.
    let mut merged = None;
    let mut branches = Vec::new();
    for adapter in &args.adapters {
        let d = adapter.dims;
        let mut branch = None;
        if args.need_x && adapter.dropped.is_none() {
            let out = merged.get_or_insert_with(|| cpu.pool.holding(args.w));
            effective(cpu, &mut out[d.first_row * k..(d.first_row + d.rows) * k], k, args.w, adapter, 0.0);
        } else if args.need_x && adapter.gain.is_some() {
            let out = branch.insert(cpu.pool.dirty(d.rows * k));
            effective(cpu, out, k, args.w, adapter, 1.0);
        }
        branches.push(branch);
    }
    // s g B \[rows, rank\], which makes dt = dy (s g B).
    let scaled_b: Vec<Vec<f32>> = args.adapters.iter().map(|a| scale_rows(a.b, a)).collect();

    let granule = sums.granule(m);
    let runs = runs(m, granule, linear_rows(granule));
    let mut dx = args.need_x.then(|| cpu.pool.dirty(m * k));
    let mut dropped: Vec<Option<Buffer>> =
        args.adapters.iter().map(|a| a.dropped.filter(|_| args.need_x).map(|_| cpu.pool.dirty(m * k))).collect();
    let dx_shares = shares(&runs, k, dx.as_deref_mut());
    let mut dropped_shares: Vec<_> =
        dropped.iter_mut().map(|dropped| shares(&runs, k, dropped.as_deref_mut()).into_iter()).collect();
    let pieces: Vec<Piece<'_>> = runs
        .iter()
        .zip(dx_shares)
        .map(|(run, dx)| (*run, dx, dropped_shares.iter_mut().map(|shares| shares.next().flatten()).collect()))
        .collect();
    let weight = merged.as_ref().map_or(&args.w[..], |merged| merged);
    let partials = cpu.threads.map(pieces, |(Run { first, count, .. }, dx, mut dropped)| {
        let dy = &args.dy[first * n..(first + count) * n];
        if let Some(dx) = dx {
            product(mat_mut(dx, count, k), mat(dy, count, n), mat(weight, n, k), 1.0);
        }
        let bias = if args.need_bias {
            simd(
                #[inline(always)]
                || column_sums(dy, n),
            )
        } else {
            Vec::new()
        };
        let adapters = (0..args.adapters.len())
            .map(|index| {
                let branch = branches[index].as_deref();
                adapter_piece(args, index, first, count, &scaled_b[index], branch, dropped[index].as_deref_mut())
            })
            .collect();
        Partial { bias, adapters }
    });
    drop((merged, branches));
    let w = args.x.filter(|_| args.need_w).map(|x| {
        let dw = cpu.sum_block(&mut sums, 0, n * k);
        super::linear_weight::weight_gradient(cpu, args, x, granule, dw)
    });
    let granules = group(runs, partials);
    let (bias, adapters) = collect(cpu, args, granule, granules, dropped, sums);
    LinearGrads { x: dx, w, bias, adapters }
}

/// s g_j times row j of a matrix \[rows, rank\].
fn scale_rows(b: &[f32], adapter: &Adapter<'_, Buffer>) -> Vec<f32> {
    let (s, rank) = (adapter.dims.scale as f32, adapter.dims.rank);
    b.iter().enumerate().map(|(i, &b)| s * adapter.gain.map_or(1.0, |gain| gain[i / rank]) * b).collect()
}

/// The sum of the rows.
#[inline(always)]
fn column_sums(x: &[f32], cols: usize) -> Vec<f32> {
    let mut sums = vec![0.0; cols];
    for x in x.chunks_exact(cols) {
        add_assign(&mut sums, x);
    }
    sums
}

/// One adapter on rows `first .. first + count`: its partial sums, and d drop(x).
fn adapter_piece(
    args: &LinearBackward<'_, Buffer>,
    index: usize,
    first: usize,
    count: usize,
    scaled_b: &[f32],
    branch: Option<&[f32]>,
    dropped: Option<&mut [f32]>,
) -> AdapterPartial {
    let LinearDims { k, n, .. } = args.dims;
    let adapter = &args.adapters[index];
    let d = adapter.dims;
    let dy_rows = &args.dy[first * n..];
    let dy = columns(dy_rows, count, n, d.first_row, d.rows);
    let mut partial = AdapterPartial { a: Vec::new(), b: Vec::new(), gain: Vec::new() };
    if !args.need_adapter && dropped.is_none() {
        return partial;
    }
    let mut dt = vec![0.0; count * d.rank];
    product(mat_mut(&mut dt, count, d.rank), dy, mat(scaled_b, d.rows, d.rank), 1.0);
    if let Some(dropped) = dropped {
        match branch {
            Some(branch) => product(mat_mut(dropped, count, k), dy, mat(branch, d.rows, k), 1.0),
            None => product(mat_mut(dropped, count, k), mat(&dt, count, d.rank), mat(adapter.a, d.rank, k), 1.0),
        }
    }
    if !args.need_adapter {
        return partial;
    }
    if let Some(xd) = adapter.dropped.or(args.x) {
        partial.a = vec![0.0; d.rank * k];
        let dt = mat(&dt, count, d.rank).transpose();
        product(mat_mut(&mut partial.a, d.rank, k), dt, mat(&xd[first * k..], count, k), 1.0);
    }
    partial.b = vec![0.0; d.rank * d.rows];
    let t = mat(&args.t[index][first * d.rank..], count, d.rank);
    product(mat_mut(&mut partial.b, d.rank, d.rows), t.transpose(), dy, 1.0);
    if adapter.gain.is_some() {
        partial.gain = vec![0.0; d.rows];
        simd(
            #[inline(always)]
            || {
                for i in 0..count {
                    let place = (first + i) * n + d.first_row;
                    let dy = &args.dy[place..place + d.rows];
                    if let Some(z) = args.z[index] {
                        let z = &z[(first + i) * d.rows..][..d.rows];
                        partial.gain.iter_mut().zip(dy).zip(z).for_each(|((sum, &dy), &z)| *sum += dy * z);
                    } else if let Some(y) = args.y {
                        let y = &y[place..place + d.rows];
                        match args.bias {
                            Some(bias) => {
                                let bias = &bias[d.first_row..d.first_row + d.rows];
                                for (((sum, &dy), &y), &bias) in partial.gain.iter_mut().zip(dy).zip(y).zip(bias) {
                                    *sum += dy * (y - bias);
                                }
                            }
                            None => partial.gain.iter_mut().zip(dy).zip(y).for_each(|((sum, &dy), &y)| *sum += dy * y),
                        }
                    }
                }
            },
        );
    }
    partial
}

/// The runs' parts by granule.
fn group(runs: Vec<Run>, partials: Vec<Partial>) -> Vec<Vec<Partial>> {
    let mut granules: Vec<Vec<Partial>> = Vec::new();
    for (run, partial) in runs.into_iter().zip(partials) {
        granules.resize_with(granules.len().max(run.granule + 1), Vec::new);
        granules[run.granule].push(partial);
    }
    granules
}

/// The granules' sums, and each adapter's gradients from them.
fn collect(
    cpu: &Cpu,
    args: &LinearBackward<'_, Buffer>,
    granule: usize,
    granules: Vec<Vec<Partial>>,
    dropped: Vec<Option<Buffer>>,
    mut sums: Sums<Buffer>,
) -> (Option<Buffer>, Vec<AdapterGrads<Buffer>>) {
    let LinearDims { m, k, n } = args.dims;
    let mut bias = args.need_bias.then(|| cpu.sum_block(&mut sums, 1, n));
    let mut grads: Vec<AdapterGrads<Buffer>> = Vec::new();
    for (index, (adapter, dropped)) in args.adapters.iter().zip(dropped).enumerate() {
        let d = adapter.dims;
        let mut block = |offset, len| args.need_adapter.then(|| cpu.sum_block(&mut sums, 2 + 3 * index + offset, len));
        let a = adapter.dropped.or(args.x).and_then(|_| block(0, d.rank * k));
        let b = block(1, d.rows * d.rank);
        let gain = adapter.gain.and_then(|_| block(2, d.rows));
        grads.push(AdapterGrads { a, b, gain, dropped });
    }
    for (number, partials) in granules.into_iter().enumerate() {
        let rows = (number * granule, granule.min(m - number * granule));
        let mut bias_sum = vec![0.0; bias.as_ref().map_or(0, |bias| bias.len())];
        let zeros = |adapter: &Adapter<'_, Buffer>| {
            let d = adapter.dims;
            AdapterPartial { a: vec![0.0; d.rank * k], b: vec![0.0; d.rank * d.rows], gain: vec![0.0; d.rows] }
        };
        let mut own: Vec<AdapterPartial> = args.adapters.iter().map(zeros).collect();
        for partial in partials {
            if bias.is_some() {
                add_up(&mut bias_sum, [partial.bias]);
            }
            for (sums, partial) in own.iter_mut().zip(partial.adapters) {
                add_up(&mut sums.a, [partial.a]);
                add_up(&mut sums.b, [partial.b]);
                add_up(&mut sums.gain, [partial.gain]);
            }
        }
        if let Some(bias) = &mut bias {
            add_assign(bias, &bias_sum);
        }
        for (index, (grads, sums)) in grads.iter_mut().zip(own).enumerate() {
            let adapter = &args.adapters[index];
            let d = adapter.dims;
            if let Some(a) = &mut grads.a {
                add_assign(a, &sums.a);
            }
            if let Some(b) = &mut grads.b {
                let by_row: Vec<f32> =
                    (0..d.rows).flat_map(|j| sums.b.iter().skip(j).step_by(d.rows).copied()).collect();
                add_assign(b, &scale_rows(&by_row, adapter));
            }
            if let (Some(dgain), Some(gain)) = (&mut grads.gain, adapter.gain) {
                add_assign(dgain, &gain_gradient(cpu, args, index, gain, sums.gain, rows));
            }
        }
    }
    (bias, grads)
}

/// A granule's dg from its sums: they are it with dropout, else they hold g too much.
fn gain_gradient(
    cpu: &Cpu,
    args: &LinearBackward<'_, Buffer>,
    index: usize,
    gain: &[f32],
    sums: Vec<f32>,
    (first, count): (usize, usize),
) -> Vec<f32> {
    if args.z[index].is_some() {
        return sums;
    }
    let LinearDims { k, n, .. } = args.dims;
    let adapter = &args.adapters[index];
    let d = adapter.dims;
    cpu.threads.map((0..d.rows).collect(), |j: usize| {
        // Written so that a NaN gain is divided by, and shows.
        let small = gain[j].abs() < SMALLEST_GAIN;
        let Some(x) = args.x.filter(|_| small) else { return sums[j] / gain[j] };
        simd(
            #[inline(always)]
            || {
                let w = &args.w[(d.first_row + j) * k..][..k];
                let b = &adapter.b[j * d.rank..][..d.rank];
                let z = |i: usize| {
                    dot(&x[i * k..][..k], w) + d.scale as f32 * dot(&args.t[index][i * d.rank..][..d.rank], b)
                };
                (first..first + count).map(|i| args.dy[i * n + d.first_row + j] * z(i)).sum()
            },
        )
    })
}
