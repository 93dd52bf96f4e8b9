//! A sum over rows in parts: granule upon granule it is the sum of the whole to the bit, added to what was there, and right.

use std::ops::Range;

use peftk::autograd::TokenDims;
use peftk::gpu::{Buf, DType, Device};
use peftk::kernels::adapter_pack::padded_rank;
use peftk::kernels::column_sum::{Columns, column_sum};
use peftk::kernels::cut::Rows;
use peftk::kernels::layer_norm::{LayerNormDx, LayerNormInputs, layer_norm_backward};
use peftk::kernels::layer_scale::layer_scale_backward;
use peftk::kernels::lora_gradients::{AdapterGradients, GainFromOutput, LoraGradients, lora_gradients};
use peftk::kernels::loss::{LogitDims, cross_entropy};
use peftk::kernels::magnitude_rescale::{GainGradient, GainSource, magnitude_gradient};
use peftk::kernels::matmul::{Layout, Matmul, WeightSum, matmul};
use peftk::kernels::tokens::{TokenGrads, assemble_tokens_backward};
use rand::RngExt;

use crate::harness::{Needs, Test, on_every_arch};
use crate::matmul::{DTYPES, Numbers, compare, fresh, poisoned, results, sum_error};

pub const TESTS: &[Test] = &[
    Test { name: "sanitize_parts", needs: Needs::Gpu, run: sanitize },
    Test { name: "parts::weight_gradients", needs: Needs::Gpu, run: weight_gradients },
    Test { name: "parts::every_other_sum", needs: Needs::Gpu, run: other_sums },
];

/// Rows of a granule (of 16 images) and in all: granules are whole, cut short, and not filled.
const SIZES: [(usize, usize); 6] = [(16, 41), (4112, 9000), (272, 272), (800, 2000), (48, 7), (1040, 3121)];

/// Some rows of a matrix, on the device.
fn rows(device: &Device, all: &Numbers, cols: usize, part: &Range<usize>) -> Buf {
    Numbers { dtype: all.dtype, values: all.values[part.start * cols..part.end * cols].to_vec() }.upload(device)
}

/// Runs the whole of `count` rows, then its parts one upon the other: the same bits, which are returned. `run` sums a part into fresh or filled blocks
/// of these lengths.
fn in_parts(
    device: &Device,
    what: &str,
    (granule, count): (usize, usize),
    lengths: &[usize],
    run: impl Fn(Range<usize>, bool, &mut [Buf]),
) -> Vec<Vec<f64>> {
    let blocks = || lengths.iter().map(|&length| poisoned(device, DType::F32, length)).collect::<Vec<_>>();
    let mut whole = blocks();
    run(0..count, false, &mut whole);
    let whole: Vec<_> = whole.iter().map(|block| results(block, what)).collect();
    for walk in [granule, 2 * granule] {
        let mut sums = blocks();
        for first in (0..count).step_by(walk) {
            run(first..(first + walk).min(count), first > 0, &mut sums);
        }
        for (place, (sum, whole)) in sums.iter().zip(&whole).enumerate() {
            let same = results(sum, what).iter().zip(whole).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same, "{what}: sum {place} in parts of {walk} of {count} rows");
        }
    }
    whole
}

/// C of fewer rows and columns than the product, times s and a gain a row, and added to what is there.
fn check_weight_gradient(m: usize, n: usize, sizes: (usize, usize), dtype: DType) {
    let mut random = fresh();
    let (granule, k) = sizes;
    let (a, b) = (Numbers::draw(&mut random, dtype, k * m, 1.0), Numbers::draw(&mut random, dtype, k * n, 1.0));
    let (used, scale) = ((random.random_range(1..=m), random.random_range(1..=n)), 0.75_f32);
    let gain = Numbers::draw(&mut random, DType::F32, used.0, 2.0);
    // [depth, rows] and [depth, columns] of a few elements: all would take minutes in f64.
    let picked: Vec<(usize, usize)> =
        (0..200).map(|_| (random.random_range(0..used.0), random.random_range(0..used.1))).collect();
    let term = |l: usize, (i, j): (usize, usize)| f64::from(a.values[l * m + i]) * f64::from(b.values[l * n + j]);
    let factor = |i: usize| f64::from(scale) * f64::from(gain.values[i]);
    let truth: Vec<f64> = picked.iter().map(|&at| factor(at.0) * (0..k).map(|l| term(l, at)).sum::<f64>()).collect();
    let size: Vec<f64> =
        picked.iter().map(|&at| factor(at.0).abs() * (0..k).map(|l| term(l, at).abs()).sum::<f64>()).collect();
    on_every_arch(|device| {
        let what = format!("weight gradient {} {dtype:?} m {m} n {n} {sizes:?} as {used:?}", device.arch());
        let gain = gain.upload(device);
        let made = in_parts(device, &what, sizes, &[used.0 * used.1, m * n], |part, add, c| {
            let (a, b) = (rows(device, &a, m, &part), rows(device, &b, n, &part));
            let plain = WeightSum { granule: Some(granule), add, ..WeightSum::default() };
            let sums = [WeightSum { size: Some(used), scale: Some(scale), gain: Some(&gain), ..plain }, plain];
            for (c, sum) in c.iter_mut().zip(sums) {
                let product = Matmul { sum, ..Matmul::new(Layout::Tn, (m, n, part.len()), &a, &b) };
                matmul(device, product, c).unwrap();
            }
        });
        let ours: Vec<f64> = picked.iter().map(|&(i, j)| made[0][i * used.1 + j]).collect();
        compare(&what, &ours, &truth, |at| sum_error(size[at]));
        // Without the factors, the same element of the whole C.
        let plain: Vec<f64> = picked.iter().map(|&(i, j)| made[1][i * n + j] * factor(i)).collect();
        compare(&what, &plain, &truth, |at| sum_error(size[at]));
    });
}

fn weight_gradients() {
    for (sizes, (m, n)) in SIZES.into_iter().zip([(384, 128), (1152, 384), (5, 7), (16, 384), (130, 33), (200, 64)]) {
        for dtype in DTYPES {
            check_weight_gradient(m, n, sizes, dtype);
        }
    }
}

fn check_other_sums(cols: usize, sizes: (usize, usize), dtype: DType) {
    let mut random = fresh();
    let (granule, count) = sizes;
    let mut draw = |dtype, len| Numbers::draw(&mut random, dtype, len, 1.0);
    let (x, dy, stream) = (draw(dtype, count * cols), draw(dtype, count * cols), draw(DType::F32, count * cols));
    let (weight, mean) = (draw(DType::F32, cols), draw(DType::F32, count));
    let w = draw(dtype, cols * cols);
    let rank = 5.min(cols);
    let padded = padded_rank(rank);
    let (t, bg) = (draw(dtype, count * padded), draw(dtype, cols * padded));
    let logits = draw(DType::F32, count * 3);
    let truth: Vec<f64> = (0..cols).map(|c| (0..count).map(|i| f64::from(dy.values[i * cols + c])).sum()).collect();
    let size: Vec<f64> =
        (0..cols).map(|c| (0..count).map(|i| f64::from(dy.values[i * cols + c].abs())).sum()).collect();
    on_every_arch(|device| {
        let what = |name: &str| format!("{name} {} {dtype:?} cols {cols} {sizes:?}", device.arch());
        let [weight, bg, w] = [&weight, &bg, &w].map(|numbers| numbers.upload(device));
        let summed = |part: &Range<usize>, add| Rows { count: part.len(), granule, add };

        let made = in_parts(device, &what("column_sum"), sizes, &[cols], |part, add, out| {
            let matrix = rows(device, &dy, cols, &part);
            column_sum(device, summed(&part, add), cols, Columns { matrix: &matrix, ld: cols, first: 0 }, &mut out[0])
                .unwrap();
        });
        compare(&what("column_sum"), &made[0], &truth, |c| sum_error(size[c]));

        in_parts(device, &what("layer_norm"), sizes, &[cols, cols], |part, add, out| {
            let (x, dy) = (rows(device, &stream, cols, &part), rows(device, &dy, cols, &part));
            let mean = rows(device, &mean, 1, &part);
            let inputs = LayerNormInputs { x: &x, weight: &weight, mean: &mean, rstd: &mean, dy: &dy };
            let [dweight, dbias] = out else { unreachable!() };
            layer_norm_backward(device, summed(&part, add), cols, inputs, LayerNormDx::None, Some((dweight, dbias)))
                .unwrap();
        });

        in_parts(device, &what("layer_scale"), sizes, &[cols], |part, add, out| {
            let (h, dy) = (rows(device, &x, cols, &part), rows(device, &stream, cols, &part));
            layer_scale_backward(device, summed(&part, add), cols, &weight, &dy, None, Some((&h, &mut out[0])))
                .unwrap();
        });

        in_parts(device, &what("lora_gradients"), sizes, &[rank * cols, cols * rank, cols], |part, add, out| {
            let (x, dy) = (rows(device, &x, cols, &part), rows(device, &dy, cols, &part));
            let t = rows(device, &t, padded, &part);
            let mut q = poisoned(device, dtype, part.len() * padded);
            let [da, db, dgain] = out else { unreachable!() };
            // x stands for y as well.
            let dgain = Some(GainFromOutput { y: &x, bias: Some(&weight), w: &w, w_stride: cols, b: &bg, dgain, add });
            let (t, bg, gain, scale, add) = (&t, &bg, Some(&weight), 0.5, (add, add));
            let adapter = AdapterGradients { first_row: 0, rows: cols, rank, scale, t, bg, gain, da, db, add, dgain };
            let adapters = vec![adapter];
            let mut args = LoraGradients { m: part.len(), k: cols, n: cols, x: &x, dy: &dy, granule, adapters };
            lora_gradients(device, &mut args, &mut q).unwrap();
        });

        in_parts(device, &what("magnitude_gradient"), sizes, &[cols], |part, add, out| {
            let (z, dy) = (rows(device, &x, cols, &part), rows(device, &dy, cols, &part));
            let m = part.len();
            let sizes = GainGradient { m, k: 1, n: cols, first_row: 0, rows: cols, rank: 1, scale: 1.0, granule, add };
            magnitude_gradient(device, sizes, &dy, GainSource::Z(&z), &mut out[0]).unwrap();
        });

        // Images of one class token, one register and one patch.
        let images = (granule.div_ceil(3), count / 3);
        if images.1 > 0 {
            let tokens = |part: &Range<usize>| TokenDims { batch: part.len(), registers: 1, patches: 1, width: cols };
            in_parts(device, &what("tokens"), images, &[cols, 2 * cols, cols], |part, add, out| {
                let dx = rows(device, &stream, 3 * cols, &part);
                let mut dpatches = poisoned(device, dtype, part.len() * cols);
                let [cls, pos, registers] = out else { unreachable!() };
                let patches = Some(&mut dpatches);
                let grads = TokenGrads { patches, cls: Some(cls), pos: Some(pos), registers: Some(registers) };
                assemble_tokens_backward(device, tokens(&part), &dx, grads, add).unwrap();
            });
        }

        in_parts(device, &what("cross_entropy"), sizes, &[1], |part, add, out| {
            let logits = rows(device, &logits, 3, &part);
            let labels: Vec<i32> = part.clone().map(|row| (row % 3) as i32).collect();
            let labels = Buf::from_slice(device, &labels, DType::I32).unwrap();
            let mut dlogits = poisoned(device, DType::F32, part.len() * 3);
            let dims = LogitDims::whole(part.len(), 3);
            cross_entropy(device, dims, &logits, &labels, None, 0.1, 7.0, &mut out[0], &mut dlogits, add).unwrap();
        });
    });
}

fn other_sums() {
    for (sizes, cols) in SIZES.into_iter().zip([33, 384, 1, 768, 130, 72]) {
        for dtype in DTYPES {
            check_other_sums(cols, sizes, dtype);
        }
    }
}

fn sanitize() {
    check_weight_gradient(24, 40, (80, 201), DType::Bf16);
    for dtype in DTYPES {
        check_weight_gradient(9, 7, (32, 71), dtype);
        check_other_sums(17, (48, 115), dtype);
    }
}
