//! Matrix products with a low-rank adapter in them.

use super::products::{Adapter, Ending, Product, file};
use super::{BOTH, Bench, padded, sums};
use crate::Result;
use crate::autograd::{self, AdapterDims, Backend, LinearDims};
use crate::gpu::DType;
use crate::kernels::adapter_pack::padded_rank;
use crate::kernels::matmul::{Layout, MAX_RANK_IN_LOOP};
use crate::reference::Reference;

/// x W^T with an adapter under DoRA's gain on some of the columns; with it the truth of y and of t, the latter where it is made in the loop.
fn random(
    bench: &mut Bench<'_>,
    dtype: DType,
    (first_row, rows, rank): (usize, usize, usize),
) -> Result<(Product, Vec<f64>, Option<Vec<f64>>)> {
    let (m, n, k, scale) = (257, 256, 128, 1.25);
    let bound = (3.0 / k as f64).sqrt();
    let (x, w) = (bench.draw(dtype, m * k, 1.7)?, bench.draw(dtype, n * k, bound)?);
    let (a, b) = (bench.draw(dtype, rank * k, bound)?, bench.draw(dtype, rows * rank, 0.5)?);
    let (bias, gain) = (bench.draw(DType::F32, n, 1.0)?, bench.draw_gains(rows, false)?);

    let dims = AdapterDims { first_row, rows, rank, scale };
    let adapter = autograd::Adapter { dims, a: &a.wide, b: &b.wide, gain: Some(&gain.wide), dropped: None };
    let sizes = LinearDims { m, k, n };
    let truth = Reference::<f64>::new().linear(sizes, &x.wide, &w.wide, Some(&bias.wide), &[adapter])?;

    let rank_padded = padded_rank(rank);
    let t: Vec<f64> = truth.t.iter().flat_map(|t| padded(t, rank, rank_padded)).collect();
    let given = if rank_padded > MAX_RANK_IN_LOOP { Some(bench.put(dtype, &t)?) } else { None };
    let mut a_padded = a.wide;
    a_padded.resize(rank_padded * k, 0.0);
    let made = given.is_none().then_some(t);
    let adapter = Adapter {
        first_row,
        rows,
        rank_padded,
        scale: scale as f32,
        a: bench.put(dtype, &a_padded)?,
        b: bench.put(dtype, &padded(&b.wide, rank, rank_padded))?,
        gain,
        given,
    };
    let (second, bias, adapter) = (None, Some(bias), Some(adapter));
    Ok((Product { layout: Layout::Nt, dtype, m, n, k, a: x, b: w, second, bias, adapter }, truth.y, made))
}

pub(super) fn checks(bench: &mut Bench<'_>) {
    let arch = bench.device.arch();
    for dtype in BOTH {
        let mut endings = vec![Ending::Plain, Ending::Gelu, Ending::ScaleResidual(dtype)];
        endings.extend((dtype == DType::Bf16).then_some(Ending::ScaleResidual(DType::F32)));
        for ending in endings {
            // Ranks padded to 16 and 32, made in the product's loop; one that is made before.
            for rank in [8, 20, 40] {
                let name = ending.named("lora_matmul", dtype, &format!(", rank {rank}"));
                bench.check(file(arch, dtype, true), name, sums(dtype), |bench| {
                    let (product, y, t) = random(bench, dtype, (128, 128, rank))?;
                    product.measure(bench, ending, y, t)
                });
            }
            // Columns that are no multiple of Hopper's tiles.
            if dtype == DType::Bf16 {
                let name = ending.named("lora_matmul", dtype, ", columns from 40");
                bench.check("lora_matmul_bf16", name, sums(dtype), |bench| {
                    let (product, y, t) = random(bench, dtype, (40, 80, 8))?;
                    product.measure(bench, ending, y, t)
                });
            }
        }
    }
}
