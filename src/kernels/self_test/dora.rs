//! DoRA's norms, gains and their gradients, and merging.

use super::{BOTH, Bench, Input, named, padded, rounded, sums};
use crate::Result;
use crate::autograd::{AdapterDims, Backend, DoraAdapter, GainBackward, Sums};
use crate::gpu::DType;
use crate::kernels::adapter_pack::padded_rank;
use crate::kernels::dora_dropout::{Columns, add_rescaled, gain_minus_one};
use crate::kernels::dora_norm::{AdapterRows, DoraNormItem, dora_norm, dora_norm_batched};
use crate::kernels::dora_norm_backward::dora_norm_backward;
use crate::kernels::magnitude_rescale::{
    GainGradient, GainGradients, GainSource, magnitude_gradient, magnitude_rescale_backward,
};
use crate::kernels::merge::{MergeAdapter, MergeGain, MergeWeight, merge, merge_batched};
use crate::reference::Reference;

const F32: DType = DType::F32;
/// v of a q, k, v weight of width 128, with rank 8.
const N: usize = 384;
const K: usize = 128;
const DIMS: AdapterDims = AdapterDims { first_row: 256, rows: 128, rank: 8, scale: 1.25 };

fn adapter_rows(dims: AdapterDims) -> AdapterRows {
    let AdapterDims { first_row, rows, rank, scale } = dims;
    AdapterRows { first_row, rows, cols: K, rank, scale: scale as f32 }
}

/// W, A and B of a linear.
fn weights(bench: &mut Bench<'_>, n: usize, dims: AdapterDims) -> Result<[Input; 3]> {
    let bound = (3.0 / K as f64).sqrt();
    let AdapterDims { rows, rank, .. } = dims;
    Ok([bench.draw(F32, n * K, bound)?, bench.draw(F32, rank * K, bound)?, bench.draw(F32, rows * rank, 0.5)?])
}

/// The norms of an adapter's rows, and magnitude / norm.
fn truths(dims: AdapterDims, [w, a, b]: [&Input; 3], magnitude: &Vec<f64>) -> Result<(Vec<f64>, Vec<f64>)> {
    let adapter = DoraAdapter { dims, k: K, w: &w.wide, a: &a.wide, b: &b.wide, magnitude };
    Ok(Reference::<f64>::new().dora_gains(&[adapter])?.swap_remove(0))
}

/// The norms alone.
fn norm_of(dims: AdapterDims, values: [&Input; 3]) -> Result<Vec<f64>> {
    Ok(truths(dims, values, &vec![1.0; dims.rows])?.0)
}

pub(super) fn checks(bench: &mut Bench<'_>) {
    norms(bench);
    gains(bench);
    for dtype in BOTH {
        gain_gradients(bench, dtype);
        dropout(bench, dtype);
        merging(bench, dtype);
    }
}

fn norms(bench: &mut Bench<'_>) {
    let (device, reference) = (bench.device, Reference::<f64>::new());
    bench.check("dora_norm", named("dora_norm", F32), 1e-6, |bench| {
        let [w, a, b] = weights(bench, N, DIMS)?;
        let norm = norm_of(DIMS, [&w, &a, &b])?;
        bench.measure([bench.room(F32, DIMS.rows)?], [norm], |[norm]| {
            dora_norm(device, adapter_rows(DIMS), &w.buf, &a.buf, &b.buf, norm)
        })
    });
    // v's adapter with its gain, and one on the whole weight, of another rank, without.
    bench.check("dora_norm", named("dora_norm_batched", F32), 2e-6, |bench| {
        let whole = AdapterDims { first_row: 0, rows: N, rank: 20, scale: 0.5 };
        let ([w, a, b], [w2, a2, b2]) = (weights(bench, N, DIMS)?, weights(bench, N, whole)?);
        let magnitude = bench.draw_gains(DIMS.rows, true)?;
        let (norm, gain) = truths(DIMS, [&w, &a, &b], &magnitude.wide)?;
        let norm2 = norm_of(whole, [&w2, &a2, &b2])?;
        let rooms = [bench.room(F32, DIMS.rows)?, bench.room(F32, DIMS.rows)?, bench.room(F32, N)?];
        bench.measure(rooms, [norm, gain, norm2], |[norm, gain, norm2]| {
            let gain = Some((&magnitude.buf, gain));
            let (first, second) = (adapter_rows(DIMS), adapter_rows(whole));
            dora_norm_batched(
                device,
                &mut [
                    DoraNormItem { adapter: first, w: &w.buf, a: &a.buf, b: &b.buf, norm, gain },
                    DoraNormItem { adapter: second, w: &w2.buf, a: &a2.buf, b: &b2.buf, norm: norm2, gain: None },
                ],
            )
        })
    });
    bench.check("dora_norm_backward", named("dora_norm_backward", F32), sums(F32), |bench| {
        let [w, a, b] = weights(bench, N, DIMS)?;
        let norm = bench.put(F32, &norm_of(DIMS, [&w, &a, &b])?)?;
        let dnorm = bench.draw(F32, DIMS.rows, 1.0)?;
        let (da, db) = reference.dora_norm_backward(DIMS, K, &w.wide, &a.wide, &b.wide, &norm.wide, &dnorm.wide)?;
        let rooms = [bench.room(F32, da.len())?, bench.room(F32, db.len())?];
        let (w, a, b) = (&w.buf, &a.buf, &b.buf);
        bench.measure(rooms, [da, db], |[da, db]| {
            dora_norm_backward(device, adapter_rows(DIMS), w, a, b, &norm.buf, &dnorm.buf, false, da, db)
        })
    });
}

fn gains(bench: &mut Bench<'_>) {
    let (device, reference, count) = (bench.device, Reference::<f64>::new(), 1536);
    // One whose norm is trained through, one whose is not.
    bench.check("magnitude_rescale", named("magnitude_rescale_backward", F32), rounded(F32), |bench| {
        let (m, n) = (bench.draw_gains(count, false)?, bench.draw_gains(count, true)?);
        let dg = bench.draw(F32, count, 1.0)?;
        let gain = GainBackward { magnitude: &m.wide, norm: &n.wide, dgain: &dg.wide, need_norm: true };
        let (dm, dn) = reference.dora_gains_backward(&[gain], Sums::fresh())?.swap_remove(0);
        let truths = [dm.clone(), dn.unwrap_or_default(), dm[..7].to_vec()];
        let rooms = [bench.room(F32, count)?, bench.room(F32, count)?, bench.room(F32, 7)?];
        bench.measure(rooms, truths, |[dm, dn, dm2]| {
            let (magnitude, norm, dgain) = (&m.buf, &n.buf, &dg.buf);
            let gain = |count, dmagnitude, dnorm| GainGradients {
                count,
                magnitude,
                norm,
                dgain,
                dmagnitude,
                add: false,
                dnorm,
            };
            magnitude_rescale_backward(device, &mut [gain(count, dm, Some(dn)), gain(7, dm2, None)])
        })
    });
    bench.check("dora_dropout", named("gain_minus_one", F32), rounded(F32), |bench| {
        let gain = bench.draw_gains(count, false)?;
        let truth = gain.wide.iter().map(|gain| gain - 1.0).collect();
        bench.measure([bench.room(F32, count)?], [truth], |[out]| gain_minus_one(device, &gain.buf, out))
    });
}

/// dgain_j = sum over tokens of dy z: z = (y - bias) / g, where g is 0 x W^T + s t B^T; then z itself.
fn gain_gradients(bench: &mut Bench<'_>, dtype: DType) {
    let AdapterDims { first_row, rows, rank, scale } = DIMS;
    let (device, m, columns) = (bench.device, 257, padded_rank(rank));
    let sizes = GainGradient { m, k: K, n: N, first_row, rows, rank, scale: scale as f32, granule: m, add: false };
    let sum = |term: &dyn Fn(usize, usize) -> f64| -> Vec<f64> {
        (0..rows).map(|j| (0..m).map(|i| term(i, j)).sum()).collect()
    };
    // f32 holds bf16, so its sums are as good.
    bench.check("magnitude_rescale", named("magnitude_gradient", dtype), sums(F32), |bench| {
        let (dy, y) = (bench.draw(dtype, m * N, 1.0)?, bench.draw(dtype, m * N, 2.0)?);
        let (x, w) = (bench.draw(dtype, m * K, 1.7)?, bench.draw(dtype, N * K, 0.15)?);
        let (t, b) = (bench.draw(dtype, m * rank, 1.0)?, bench.draw(dtype, rows * rank, 0.5)?);
        let mut factors = bench.draw_gains(rows, false)?.wide;
        factors[5] = 0.0;
        let (gain, bias) = (bench.put(F32, &factors)?, bench.draw(F32, N, 1.0)?);
        let truth = sum(&|i, j| {
            let at = i * N + first_row + j;
            let z = if factors[j] == 0.0 {
                let base: f64 = (0..K).map(|c| x.wide[i * K + c] * w.wide[(first_row + j) * K + c]).sum();
                base + scale * (0..rank).map(|r| t.wide[i * rank + r] * b.wide[j * rank + r]).sum::<f64>()
            } else {
                (y.wide[at] - bias.wide[first_row + j]) / gain.wide[j]
            };
            dy.wide[at] * z
        });
        let t = bench.put(dtype, &padded(&t.wide, rank, columns))?;
        let b = bench.put(dtype, &padded(&b.wide, rank, columns))?;
        bench.measure([bench.room(F32, rows)?], [truth], |[dgain]| {
            let (y, bias, gain) = (&y.buf, Some(&bias.buf), &gain.buf);
            let from = GainSource::Output { y, bias, gain, x: &x.buf, w: &w.buf, w_stride: K, t: &t.buf, b: &b.buf };
            magnitude_gradient(device, sizes, &dy.buf, from, dgain)
        })
    });
    bench.check("magnitude_rescale", named("magnitude_gradient", dtype) + ", from z", sums(F32), |bench| {
        let (dy, z) = (bench.draw(dtype, m * N, 1.0)?, bench.draw(dtype, m * rows, 2.0)?);
        let truth = sum(&|i, j| dy.wide[i * N + first_row + j] * z.wide[i * rows + j]);
        bench.measure([bench.room(F32, rows)?], [truth], |[dgain]| {
            magnitude_gradient(device, sizes, &dy.buf, GainSource::Z(&z.buf), dgain)
        })
    });
}

fn dropout(bench: &mut Bench<'_>, dtype: DType) {
    let AdapterDims { first_row: first, rows, .. } = DIMS;
    let (device, m) = (bench.device, 257);
    bench.check("dora_dropout", named("dora_dropout", dtype), rounded(dtype), |bench| {
        let (y, gain) = (bench.draw(dtype, m * N, 2.0)?, bench.draw_gains(rows, false)?);
        let (z, u) = (bench.draw(dtype, m * rows, 2.0)?, bench.draw(dtype, m * rows, 2.0)?);
        let mut truth = y.wide;
        for at in 0..m * rows {
            let (i, j) = (at / rows, at % rows);
            truth[i * N + first + j] += gain.wide[j] * z.wide[at] - u.wide[at];
        }
        bench.measure([y.buf], [truth], |[y]| {
            add_rescaled(device, Columns { m, n: N, first, rows }, &gain.buf, &z.buf, &u.buf, y)
        })
    });
}

/// In place in f32; to f32 or bf16 with a gain that is given or made from the magnitude.
fn merging(bench: &mut Bench<'_>, dtype: DType) {
    let (device, reference) = (bench.device, Reference::<f64>::new());
    if dtype == F32 {
        bench.check("merge", named("merge", F32), sums(F32), |bench| {
            let ([w, a, b], gain) = (weights(bench, N, DIMS)?, bench.draw_gains(DIMS.rows, false)?);
            let mut truth = w.wide;
            reference.merge(DIMS, K, &mut truth, &a.wide, &b.wide, Some(&gain.wide))?;
            bench.measure([w.buf], [truth], |[w]| merge(device, adapter_rows(DIMS), w, &a.buf, &b.buf, Some(&gain.buf)))
        });
    }
    for made in [false, true] {
        let name = named("merge_batched", dtype) + if made { ", from magnitude" } else { ", from gain" };
        let tolerance = if dtype == F32 { sums(F32) } else { rounded(dtype) };
        bench.check("merge", name, tolerance, |bench| {
            // Rows without an adapter are not written: this one has them all.
            let whole = AdapterDims { first_row: 0, rows: N, ..DIMS };
            let ([w, a, b], factor) = (weights(bench, N, whole)?, bench.draw_gains(N, true)?);
            let mut truth = w.wide.clone();
            let (_, gain) = truths(whole, [&w, &a, &b], &factor.wide)?;
            let gain = if made { gain } else { factor.wide };
            reference.merge(whole, K, &mut truth, &a.wide, &b.wide, Some(&gain))?;
            bench.measure([bench.room(dtype, N * K)?], [truth], |[out]| {
                let gain = if made { MergeGain::Magnitude(&factor.buf) } else { MergeGain::Given(&factor.buf) };
                let adapters = vec![MergeAdapter { rows: adapter_rows(whole), a: &a.buf, b: &b.buf, gain }];
                let (out_f32, out_bf16) = if dtype == F32 { (Some(out), None) } else { (None, Some(out)) };
                merge_batched(device, &mut [MergeWeight { w: &w.buf, adapters, out_f32, out_bf16 }])
            })
        });
    }
}
