//! What adapters take besides their products: gradients, norms, gains, packing, merging.

use peftk::gpu::{Buf, DType};
use peftk::kernels::adapter_pack::{
    AdapterPack, RescaleTable, RowGain, WeightRescale, adapter_pack, padded_rank, weight_rescale,
    weight_rescale_batched,
};
use peftk::kernels::dora_dropout::{Columns, add_rescaled, gain_minus_one};
use peftk::kernels::dora_norm::{AdapterRows, DoraNormItem, dora_norm, dora_norm_batched};
use peftk::kernels::dora_norm_backward::dora_norm_backward;
use peftk::kernels::lora_gradients::{AdapterGradients, GainFromOutput, LoraGradients, lora_gradients, lora_project};
use peftk::kernels::magnitude_rescale::{
    GainGradient, GainGradients, GainSource, magnitude_gradient, magnitude_rescale_backward,
};
use peftk::kernels::merge::{MergeAdapter, MergeGain, MergeWeight, merge, merge_batched};

use super::{Case, Gpu, ROWS, WIDTH, Work, bytes, case};

const BF16: DType = DType::Bf16;
const F32: DType = DType::F32;

/// The adapters of a linear \[n, k\]: (first row, rows).
type Ranges = &'static [(usize, usize)];
const QV: Ranges = &[(0, 384), (768, 384)];
const QKV: Ranges = &[(0, 384), (384, 384), (768, 384)];

struct Gradients {
    x: Buf,
    dy: Buf,
    y: Buf,
    w: Buf,
    bias: Buf,
    q: Buf,
    /// t, s g B, g, dA, dB, dg.
    adapters: Vec<[Buf; 6]>,
}

fn gradients(name: &str, (m, k, n): (usize, usize, usize), ranges: Ranges, rank: usize, dora: bool, all: bool) -> Case {
    let padded = padded_rank(rank);
    let rows: usize = ranges.iter().map(|(_, rows)| rows).sum();
    let width = padded * ranges.len();
    // x, the adapters' columns of dy and for dg of y, t, Q.
    let read = if all { m * (k + rows * if dora { 2 } else { 1 } + width) } else { m * rows };
    let products = if all { 2 * rows + k * ranges.len() } else { rows };
    let work = Work { bytes: 2 * (read + m * width) as u64, flops: (2 * m * padded * products) as u64 };
    let make = move |gpu: &Gpu| {
        let adapters = ranges.iter().map(|&(_, rows)| {
            Ok([
                gpu.random(BF16, m * padded)?,
                gpu.random(BF16, rows * padded)?,
                gpu.positive(rows)?,
                gpu.out(F32, rank * k)?,
                gpu.out(F32, rows * rank)?,
                gpu.out(F32, rows)?,
            ])
        });
        Ok(Gradients {
            x: gpu.random(BF16, m * k)?,
            dy: gpu.random(BF16, m * n)?,
            y: gpu.random(BF16, m * n)?,
            w: gpu.random(BF16, n * k)?,
            bias: gpu.random(F32, n)?,
            q: gpu.out(BF16, m * width)?,
            adapters: adapters.collect::<peftk::Result<_>>()?,
        })
    };
    case(name, work, make, move |device, buffers| {
        let Gradients { x, dy, y, w, bias, q, adapters } = buffers;
        let adapters = ranges.iter().zip(adapters).map(|(&(first_row, rows), [t, bg, gain, da, db, dgain])| {
            // s g B stands for B as well, which is read for small gains alone.
            let from = GainFromOutput { y, bias: Some(&*bias), w, w_stride: k, b: bg, dgain, add: false };
            AdapterGradients {
                first_row,
                rows,
                rank,
                scale: 1.0,
                t,
                bg,
                gain: dora.then_some(&*gain),
                da,
                db,
                add: (false, false),
                dgain: dora.then_some(from),
            }
        });
        let mut args = LoraGradients { m, k, n, x, dy, granule: m, adapters: adapters.collect() };
        if all { lora_gradients(device, &mut args, q) } else { lora_project(device, &mut args, q) }
    })
}

/// Adapters of one rank on every linear of ViT-S's 12 blocks, or on q and v alone: rows and columns of each.
fn sites(all_linear: bool) -> Vec<(usize, usize)> {
    let block: &[(usize, usize)] = if all_linear {
        &[(384, 384), (384, 384), (384, 384), (384, 384), (1536, 384), (384, 1536)]
    } else {
        &[(384, 384), (384, 384)]
    };
    block.repeat(12)
}

struct Adapted {
    w: Buf,
    a: Buf,
    b: Buf,
    magnitude: Buf,
    norm: Buf,
    gain: Buf,
    merged: Buf,
    place: AdapterRows,
}

fn adapted(gpu: &Gpu, (rows, cols): (usize, usize), rank: usize) -> peftk::Result<Adapted> {
    Ok(Adapted {
        w: gpu.random(F32, rows * cols)?,
        a: gpu.random(F32, rank * cols)?,
        b: gpu.random(F32, rows * rank)?,
        magnitude: gpu.positive(rows)?,
        norm: gpu.positive(rows)?,
        gain: gpu.positive(rows)?,
        merged: gpu.out(BF16, rows * cols)?,
        // A small scale: W stays what it is when it is merged again and again.
        place: AdapterRows { first_row: 0, rows, cols, rank, scale: 1e-4 },
    })
}

fn all_adapted(all_linear: bool, rank: usize) -> impl Fn(&Gpu) -> peftk::Result<Vec<Adapted>> {
    move |gpu| sites(all_linear).into_iter().map(|site| adapted(gpu, site, rank)).collect()
}

/// Bytes of W, A and B of these sites in f32, and operations of their B A.
fn masters(sites: &[(usize, usize)], rank: usize) -> Work {
    let each = sites.iter().map(|&(rows, cols)| rows * cols + rank * (rows + cols));
    let flops = sites.iter().map(|&(rows, cols)| 2 * rows * cols * rank);
    Work { bytes: 4 * each.sum::<usize>() as u64, flops: flops.sum::<usize>() as u64 }
}

fn norms(name: &str, all_linear: bool, rank: usize) -> Case {
    let work = masters(&sites(all_linear), rank);
    case(name, work, all_adapted(all_linear, rank), |device, list| {
        let items = list.iter_mut().map(|Adapted { w, a, b, magnitude, norm, gain, place, .. }| DoraNormItem {
            adapter: *place,
            w,
            a,
            b,
            norm,
            gain: Some((magnitude, gain)),
        });
        dora_norm_batched(device, &mut items.collect::<Vec<_>>())
    })
}

fn merges(name: &str, all_linear: bool, rank: usize, dora: bool) -> Case {
    let list = sites(all_linear);
    let mut work = masters(&list, rank);
    work.bytes += list.iter().map(|(rows, cols)| 2 * rows * cols).sum::<usize>() as u64;
    case(name, work, all_adapted(all_linear, rank), move |device, list| {
        let weights = list.iter_mut().map(|Adapted { w, a, b, magnitude, merged, place, .. }| MergeWeight {
            w,
            adapters: vec![MergeAdapter {
                rows: *place,
                a,
                b,
                gain: if dora { MergeGain::Magnitude(magnitude) } else { MergeGain::One },
            }],
            out_f32: None,
            out_bf16: Some(merged),
        });
        merge_batched(device, &mut weights.collect::<Vec<_>>())
    })
}

/// The packing of q's and v's masters, as the forward pass asks for it.
fn packing(rank: usize) -> Case {
    let padded = padded_rank(rank);
    let work = bytes(2 * (WIDTH + WIDTH) * (4 * rank + 2 * padded));
    let make = move |gpu: &Gpu| {
        let one = |_| {
            Ok((
                gpu.random(F32, rank * WIDTH)?,
                gpu.random(F32, rank * WIDTH)?,
                gpu.out(BF16, padded * WIDTH)?,
                gpu.out(BF16, padded * WIDTH)?,
            ))
        };
        (0..2).map(one).collect::<peftk::Result<Vec<_>>>()
    };
    case(format!("adapter_pack q,v r{rank}"), work, make, move |device, list| {
        let items = list.iter_mut().map(|(a, b, a_packed, b_packed)| AdapterPack {
            rows: WIDTH,
            rank,
            scale: 1.0,
            a,
            b,
            gain: None,
            a_packed: Some(a_packed),
            b_packed: Some(b_packed),
            bg_packed: None,
        });
        adapter_pack(device, BF16, WIDTH, &mut items.collect::<Vec<_>>(), None)
    })
}

fn gain_gradient() -> Case {
    let (m, k, n, rows, rank) = (ROWS, WIDTH, 3 * WIDTH, WIDTH, 8);
    let padded = padded_rank(rank);
    let make = move |gpu: &Gpu| {
        Ok([
            gpu.random(BF16, m * n)?,
            gpu.random(BF16, m * n)?,
            gpu.random(F32, n)?,
            gpu.positive(rows)?,
            gpu.random(BF16, m * k)?,
            gpu.random(BF16, n * k)?,
            gpu.random(BF16, m * padded)?,
            gpu.random(BF16, rows * padded)?,
            gpu.out(F32, rows)?,
        ])
    };
    case("magnitude_gradient q of qkv", bytes(2 * 2 * m * rows), make, move |device, buffers| {
        let [dy, y, bias, gain, x, w, t, b, dgain] = buffers;
        let sizes = GainGradient { m, k, n, first_row: 0, rows, rank, scale: 1.0, granule: m, add: false };
        let source = GainSource::Output { y, bias: Some(bias), gain, x, w, w_stride: k, t, b };
        magnitude_gradient(device, sizes, dy, source, dgain)
    })
}

pub fn cases() -> Vec<Case> {
    let (d, f, small) = (WIDTH, 4 * WIDTH, ROWS / 8);
    let mut cases = vec![
        gradients("lora_gradients b256 qkv q,v r8", (ROWS, d, 3 * d), QV, 8, false, true),
        gradients("lora_gradients b256 qkv q,v r8 dora", (ROWS, d, 3 * d), QV, 8, true, true),
        gradients("lora_gradients b256 fc2 r16 dora", (ROWS, f, d), &[(0, 384)], 16, true, true),
        gradients("lora_gradients b32 qkv q,v r8 dora", (small, d, 3 * d), QV, 8, true, true),
        gradients("lora_gradients b32 qkv q,v r8", (small, d, 3 * d), QV, 8, false, true),
        gradients("lora_gradients b256 qkv q,k,v r16", (ROWS, d, 3 * d), QKV, 16, false, true),
        gradients("lora_gradients b256 proj r16", (ROWS, d, d), &[(0, 384)], 16, false, true),
        gradients("lora_gradients b256 fc1 r16", (ROWS, d, f), &[(0, 1536)], 16, false, true),
        gradients("lora_gradients b256 fc2 r16", (ROWS, f, d), &[(0, 384)], 16, false, true),
        gradients("lora_project b256 qkv q,v r8", (ROWS, d, 3 * d), QV, 8, false, false),
        gain_gradient(),
        packing(8),
        packing(16),
        norms("dora_norm_batched q,v r8, 24 adapters", false, 8),
        norms("dora_norm_batched all linears r16, 72 adapters", true, 16),
        merges("merge_batched dora q,v r8", false, 8, true),
        merges("merge_batched lora all linears r16", true, 16, false),
        merges("merge_batched dora all linears r16", true, 16, true),
    ];
    let (site, work) = ((d, d), masters(&[(d, d)], 8));
    cases.extend([
        case(
            "dora_norm q r8",
            work,
            move |gpu| adapted(gpu, site, 8),
            |device, one| {
                let Adapted { w, a, b, norm, place, .. } = one;
                dora_norm(device, *place, w, a, b, norm)
            },
        ),
        case(
            "merge q r8",
            Work { bytes: work.bytes + 4 * (d * d) as u64, ..work },
            move |gpu| adapted(gpu, site, 8),
            |device, one| {
                let Adapted { w, a, b, place, .. } = one;
                merge(device, *place, w, a, b, None)
            },
        ),
        case(
            "dora_norm_backward q r8",
            work,
            move |gpu| Ok((adapted(gpu, site, 8)?, gpu.random(F32, d)?, gpu.out(F32, 8 * d)?, gpu.out(F32, 8 * d)?)),
            |device, (one, dnorm, da, db)| {
                let Adapted { w, a, b, norm, place, .. } = one;
                dora_norm_backward(device, *place, w, a, b, norm, dnorm, false, da, db)
            },
        ),
        case(
            "weight_rescale qkv, q and v, f32 to bf16",
            bytes(6 * 3 * d * d),
            move |gpu| Ok((gpu.random(F32, 3 * d * d)?, gpu.positive(d)?, gpu.out(BF16, 3 * d * d)?)),
            move |device, (w, gain, out)| {
                let gains = [0, 2 * d].map(|first_row| RowGain { first_row, rows: d, gain }).to_vec();
                weight_rescale(device, &mut WeightRescale { n: 3 * d, k: d, w, gains, out })
            },
        ),
        case(
            "weight_rescale_batched 12 qkv, q and v, f32 to bf16",
            bytes(12 * 6 * 3 * d * d),
            move |gpu| {
                let one = |_| Ok((gpu.random(F32, 3 * d * d)?, gpu.positive(d)?, gpu.out(BF16, 3 * d * d)?));
                Ok(((0..12).map(one).collect::<peftk::Result<Vec<_>>>()?, RescaleTable::default()))
            },
            move |device, (list, table)| {
                let weights = list.iter_mut().map(|(w, gain, out)| {
                    let gains = [0, 2 * d].map(|first_row| RowGain { first_row, rows: d, gain: &*gain }).to_vec();
                    WeightRescale { n: 3 * d, k: d, w, gains, out }
                });
                weight_rescale_batched(device, &mut weights.collect::<Vec<_>>(), table)
            },
        ),
        case(
            "magnitude_rescale_backward q,v, 24 adapters",
            bytes(24 * 12 * d),
            move |gpu| {
                let one = |_| Ok([gpu.positive(d)?, gpu.positive(d)?, gpu.random(F32, d)?, gpu.out(F32, d)?]);
                (0..24).map(one).collect::<peftk::Result<Vec<_>>>()
            },
            move |device, list| {
                let gains = list.iter_mut().map(|[magnitude, norm, dgain, dmagnitude]| GainGradients {
                    count: d,
                    magnitude,
                    norm,
                    dgain,
                    dmagnitude,
                    add: false,
                    dnorm: None,
                });
                magnitude_rescale_backward(device, &mut gains.collect::<Vec<_>>())
            },
        ),
        case(
            "dora_dropout b256 q of qkv",
            bytes(2 * 4 * ROWS * d),
            move |gpu| {
                Ok((
                    gpu.positive(d)?,
                    gpu.random(BF16, ROWS * d)?,
                    gpu.random(BF16, ROWS * d)?,
                    gpu.random(BF16, ROWS * 3 * d)?,
                ))
            },
            move |device, (gain, z, u, y)| {
                add_rescaled(device, Columns { m: ROWS, n: 3 * d, first: 0, rows: d }, gain, z, u, y)
            },
        ),
        case(
            "gain_minus_one 384",
            bytes(8 * d),
            move |gpu| Ok((gpu.positive(d)?, gpu.out(F32, d)?)),
            |device, (gain, out)| gain_minus_one(device, gain, out),
        ),
    ]);
    cases
}
