//! Adapters' operands and their gradients.

use super::{BOTH, Bench, Measured, named, padded, rounded, sums};
use crate::autograd::{Adapter, AdapterDims, Backend, LinearBackward, LinearDims, Sums};
use crate::gpu::{Buf, DType};
use crate::kernels::adapter_pack::{
    AdapterPack, RescaleTable, RowGain, WeightRescale, adapter_pack, padded_rank, weight_rescale,
    weight_rescale_batched,
};
use crate::kernels::lora_gradients::{AdapterGradients, GainFromOutput, LoraGradients, lora_gradients, lora_project};
use crate::reference::Reference;

const F32: DType = DType::F32;
const SCALE: f64 = 1.25;

pub(super) fn checks(bench: &mut Bench<'_>) {
    for dtype in BOTH {
        pack(bench, dtype);
        let file = if dtype == F32 { "lora_gradients_f32" } else { "lora_gradients" };
        // v of q, k and v; a fused MLP's rows; more rows than one block sums; Q alone.
        for (detail, place) in [("", (128, 128, 8)), (", 512 rows", (0, 512, 20)), (", 1600 rows", (0, 1600, 40))] {
            bench.check(file, named("lora_gradients", dtype) + detail, sums(dtype), |bench| {
                gradients(bench, dtype, place, false)
            });
            bench.check(file, named("lora_gradients", dtype) + detail + ", with dg", sums(dtype), |bench| {
                with_gain(bench, dtype, place)
            });
        }
        bench.check(file, named("lora_project", dtype), sums(dtype), |bench| {
            gradients(bench, dtype, (128, 128, 8), true)
        });
    }
    for (from, to) in [(F32, F32), (F32, DType::Bf16), (DType::Bf16, DType::Bf16)] {
        rescale(bench, from, to);
    }
}

fn pack(bench: &mut Bench<'_>, dtype: DType) {
    let (device, rows, k, rank) = (bench.device, 384, 128, 8);
    let columns = padded_rank(rank);
    bench.check("adapter_pack", named("adapter_pack", dtype), rounded(dtype), |bench| {
        let (a, b) = (bench.draw(F32, rank * k, 1.0)?, bench.draw(F32, rows * rank, 1.0)?);
        let gain = bench.draw_gains(rows, false)?;
        let mut a_packed = a.wide.clone();
        a_packed.resize(columns * k, 0.0);
        let bg: Vec<f64> = b.wide.iter().enumerate().map(|(at, b)| SCALE * gain.wide[at / rank] * b).collect();
        let truths = [a_packed.clone(), padded(&b.wide, rank, columns), padded(&bg, rank, columns), a_packed];
        let room = |len| bench.room(dtype, len);
        let rooms = [room(columns * k)?, room(rows * columns)?, room(rows * columns)?, room(columns * k)?];
        bench.measure(rooms, truths, |[a_packed, b_packed, bg_packed, joined]| {
            let item = AdapterPack {
                rows,
                rank,
                scale: SCALE as f32,
                a: &a.buf,
                b: &b.buf,
                gain: Some(&gain.buf),
                a_packed: Some(a_packed),
                b_packed: Some(b_packed),
                bg_packed: Some(bg_packed),
            };
            adapter_pack(device, dtype, k, &mut [item], Some(joined))
        })
    });
}

fn rescale(bench: &mut Bench<'_>, from: DType, to: DType) {
    let (device, n, k, first_row, rows) = (bench.device, 384, 128, 256, 128);
    let name = named("weight_rescale", from) + if to == DType::Bf16 { " to bf16" } else { " to f32" };
    bench.check("adapter_pack", name, rounded(to), |bench| {
        let (w, gain) = (bench.draw(from, n * k, 1.0)?, bench.draw_gains(rows, false)?);
        let mut truth = w.wide;
        let under = truth[first_row * k..].chunks_exact_mut(k).zip(&gain.wide);
        under.for_each(|(row, gain)| row.iter_mut().for_each(|w| *w *= gain));
        let gains = vec![RowGain { first_row, rows, gain: &gain.buf }];
        bench.measure([bench.room(to, n * k)?], [truth], |[out]| {
            weight_rescale(device, &mut WeightRescale { n, k, w: &w.buf, gains: gains.clone(), out })
        })
    });
    // That weight and one without a gain.
    let name = named("weight_rescale_batched", from) + if to == DType::Bf16 { " to bf16" } else { " to f32" };
    bench.check("adapter_pack", name, rounded(to), |bench| {
        let (w, w2, gain) = (bench.draw(from, n * k, 1.0)?, bench.draw(from, 5 * k, 1.0)?, bench.draw_gains(n, false)?);
        let truth = w.wide.chunks_exact(k).zip(&gain.wide).flat_map(|(row, gain)| row.iter().map(move |w| w * gain));
        let mut table = RescaleTable::default();
        bench.measure([bench.room(to, n * k)?, bench.room(to, 5 * k)?], [truth.collect(), w2.wide], |[out, out2]| {
            let gains = vec![RowGain { first_row: 0, rows: n, gain: &gain.buf }];
            let first = WeightRescale { n, k, w: &w.buf, gains, out };
            let second = WeightRescale { n: 5, k, w: &w2.buf, gains: vec![], out: out2 };
            weight_rescale_batched(device, &mut [first, second], &mut table)
        })
    });
}

/// Q = dy (s g B), and unless it is asked for alone dA = Q^T x and dB = s g dy^T t.
fn gradients(bench: &mut Bench<'_>, dtype: DType, place: (usize, usize, usize), alone: bool) -> Measured {
    let (first_row, rows, rank) = place;
    let (device, m, k) = (bench.device, 257, 128);
    let (n, columns) = ((first_row + rows).max(384), padded_rank(rank));
    let (x, dy) = (bench.draw(dtype, m * k, 1.0)?, bench.draw(dtype, m * n, 1.0)?);
    let (t, bg) = (bench.draw(dtype, m * rank, 1.0)?, bench.draw(dtype, rows * rank, 1.0)?);
    let gain = bench.draw_gains(rows, false)?;

    let dy_at = |i: usize, j: usize| dy.wide[i * n + first_row + j];
    let column = |i: usize, r: usize| (0..rows).map(|j| dy_at(i, j) * bg.wide[j * rank + r]).sum::<f64>();
    let q: Vec<f64> = (0..m * rank).map(|at| column(at / rank, at % rank)).collect();
    // With s g B as B, s = 1 and no gain the reference's dA is this one, and its dB lacks s g.
    let (a, dims) = (Vec::new(), AdapterDims { first_row, rows, rank, scale: 1.0 });
    let grads = Reference::<f64>::new().linear_backward(
        LinearBackward {
            dims: LinearDims { m, k, n },
            x: Some(&x.wide),
            w: &a,
            bias: None,
            y: None,
            adapters: vec![Adapter { dims, a: &a, b: &bg.wide, gain: None, dropped: None }],
            t: vec![&t.wide],
            z: vec![None],
            dy: &dy.wide,
            need_x: false,
            need_w: false,
            need_bias: false,
            need_adapter: true,
        },
        Sums::fresh(),
    )?;
    let (mut da, mut db) = (Vec::new(), Vec::new());
    for adapter in grads.adapters {
        (da, db) = (adapter.a.unwrap_or_default(), adapter.b.unwrap_or_default());
    }
    db.iter_mut().enumerate().for_each(|(at, db)| *db *= SCALE * gain.wide[at / rank]);

    let (t, bg) = (padded(&t.wide, rank, columns), padded(&bg.wide, rank, columns));
    let (t, bg) = (bench.put(dtype, &t)?, bench.put(dtype, &bg)?);
    let truths = [padded(&q, rank, columns), da, db];
    let q_room = bench.room(dtype, m * columns)?;
    let [da_room, db_room] = [bench.room(F32, rank * k)?, bench.room(F32, rows * rank)?];
    let launch = |q: &mut Buf, da: &mut Buf, db: &mut Buf| {
        let (t, bg, gain) = (&t.buf, &bg.buf, Some(&gain.buf));
        let (scale, add, dgain) = (SCALE as f32, (false, false), None);
        let adapter = AdapterGradients { first_row, rows, rank, scale, t, bg, gain, da, db, add, dgain };
        let mut args = LoraGradients { m, k, n, x: &x.buf, dy: &dy.buf, granule: m, adapters: vec![adapter] };
        if alone { lora_project(device, &mut args, q) } else { lora_gradients(device, &mut args, q) }
    };
    if alone {
        let [q, ..] = truths;
        let (mut da, mut db) = (da_room, db_room);
        return bench.measure([q_room], [q], |[q]| launch(q, &mut da, &mut db));
    }
    bench.measure([q_room, da_room, db_room], truths, |[q, da, db]| launch(q, da, db))
}

/// dg_j = sum over tokens of dy (y - bias) / g, where g is 0 of dy (x W^T + s t B^T), in the launches that make Q, dA and dB.
fn with_gain(bench: &mut Bench<'_>, dtype: DType, (first_row, rows, rank): (usize, usize, usize)) -> Measured {
    let (device, m, k) = (bench.device, 257, 128);
    let (n, columns) = ((first_row + rows).max(384), padded_rank(rank));
    let (x, w) = (bench.draw(dtype, m * k, 1.7)?, bench.draw(dtype, n * k, 0.15)?);
    let (dy, y, bias) = (bench.draw(dtype, m * n, 1.0)?, bench.draw(dtype, m * n, 2.0)?, bench.draw(F32, n, 1.0)?);
    let (t, b) = (bench.draw(dtype, m * rank, 1.0)?, bench.draw(dtype, rows * rank, 0.5)?);
    let mut factors = bench.draw_gains(rows, false)?.wide;
    factors[5] = 0.0;
    let gain = bench.put(F32, &factors)?;
    let z = |i: usize, j: usize| {
        if factors[j] != 0.0 {
            return (y.wide[i * n + first_row + j] - bias.wide[first_row + j]) / gain.wide[j];
        }
        let base: f64 = (0..k).map(|c| x.wide[i * k + c] * w.wide[(first_row + j) * k + c]).sum();
        base + SCALE * (0..rank).map(|r| t.wide[i * rank + r] * b.wide[j * rank + r]).sum::<f64>()
    };
    let sum = |j: usize| (0..m).map(|i| dy.wide[i * n + first_row + j] * z(i, j)).sum::<f64>();
    let truth: Vec<f64> = (0..rows).map(sum).collect();
    let t = bench.put(dtype, &padded(&t.wide, rank, columns))?;
    let b = bench.put(dtype, &padded(&b.wide, rank, columns))?;
    let (mut q, mut da, mut db) =
        (bench.room(dtype, m * columns)?, bench.room(F32, rank * k)?, bench.room(F32, rows * rank)?);
    bench.measure([bench.room(F32, rows)?], [truth], |[dgain]| {
        let (y, bias, w, b) = (&y.buf, Some(&bias.buf), &w.buf, &b.buf);
        let dgain = Some(GainFromOutput { y, bias, w, w_stride: k, b, dgain, add: false });
        let (t, bg, gain, scale, add) = (&t.buf, b, Some(&gain.buf), SCALE as f32, (false, false));
        let (da, db) = (&mut da, &mut db);
        let adapter = AdapterGradients { first_row, rows, rank, scale, t, bg, gain, da, db, add, dgain };
        let mut args = LoraGradients { m, k, n, x: &x.buf, dy: &dy.buf, granule: m, adapters: vec![adapter] };
        lora_gradients(device, &mut args, &mut q)
    })
}
