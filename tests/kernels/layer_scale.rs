//! kernels/layer_scale.cu and column_sum.cu against the plain loops in f64.

use peftk::autograd::{Backend, Sums};
use peftk::gpu::{Buf, DType, Device};
use peftk::kernels::column_sum::{Columns, column_dot, column_sum};
use peftk::kernels::cut::Rows;
use peftk::kernels::layer_scale::{layer_scale_backward, layer_scale_forward};
use peftk::reference::Reference;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::harness::{Needs, Test, on_every_arch};
use crate::layer_norm::STREAMS;
use crate::matmul::{DTYPES, Numbers, compare, fresh, poisoned, results, rounding, sum_error};

pub const TESTS: &[Test] = &[
    Test { name: "sanitize_layer_scale", needs: Needs::Gpu, run: sanitize },
    Test { name: "layer_scale::dinov2_shapes", needs: Needs::Gpu, run: dinov2_shapes },
    Test { name: "layer_scale::odd_shapes", needs: Needs::Gpu, run: odd_shapes },
    Test { name: "layer_scale::wrong_shapes_are_refused", needs: Needs::Gpu, run: wrong_shapes },
    Test { name: "sanitize_column_sum", needs: Needs::Gpu, run: sanitize_sums },
    Test { name: "column_sum::dinov2_shapes", needs: Needs::Gpu, run: dinov2_sums },
    Test { name: "column_sum::odd_shapes", needs: Needs::Gpu, run: odd_sums },
    Test { name: "column_sum::wrong_shapes_are_refused", needs: Needs::Gpu, run: wrong_sums },
];

/// Around every boundary there is: 8 columns a thread, 128 a block, 16 row slots, 128 rows a granule, 32 granules a slice.
const ODD: [(usize, usize); 24] = [
    (1, 1),
    (1, 7),
    (2, 8),
    (3, 9),
    (15, 16),
    (16, 15),
    (17, 127),
    (33, 128),
    (5, 129),
    (127, 136),
    (128, 3),
    (129, 8),
    (130, 131),
    (255, 24),
    (257, 40),
    (1, 384),
    (2, 383),
    (3, 385),
    (1000, 10),
    (1001, 5),
    (4097, 8),
    (4111, 3),
    (9, 1028),
    (7, 1536),
];

fn equal_bits(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

fn check(device: &Device, rows: usize, cols: usize, types: (DType, DType), random: &mut impl Rng) {
    let (stream, activations) = types;
    let what = format!("{} {rows}x{cols} {types:?}", device.arch());
    let reference = Reference::<f64>::new();
    let mut draw = |dtype, len| Numbers::draw(random, dtype, len, 2.0);
    let (x, h, gamma, dy) =
        (draw(stream, rows * cols), draw(activations, rows * cols), draw(DType::F32, cols), draw(stream, rows * cols));
    let [x_buf, h_buf, gamma_buf, dy_buf] = [&x, &h, &gamma, &dy].map(|numbers| numbers.upload(device));

    let mut y = poisoned(device, stream, rows * cols);
    layer_scale_forward(device, rows, cols, &x_buf, &h_buf, &gamma_buf, &mut y).unwrap();
    let truth = reference.layer_scale(rows, cols, &x.wide(), &h.wide(), &gamma.wide()).unwrap();
    compare(&format!("{what} y"), &results(&y, &what), &truth, |i| 1e-6 + rounding(stream) * truth[i].abs());

    let backward = |dh: Option<&mut Buf>, dgamma: Option<&mut Buf>, accumulate| {
        let dgamma = dgamma.map(|dgamma| (&h_buf, dgamma));
        let rows = Rows { count: rows, granule: rows, add: accumulate };
        layer_scale_backward(device, rows, cols, &gamma_buf, &dy_buf, dh, dgamma).unwrap();
    };
    let (mut dh, mut dgamma) = (poisoned(device, activations, rows * cols), poisoned(device, DType::F32, cols));
    backward(Some(&mut dh), Some(&mut dgamma), false);
    let (true_dh, true_dgamma) = reference
        .layer_scale_backward(rows, cols, Some(&h.wide()), &gamma.wide(), &dy.wide(), (true, true), Sums::fresh())
        .unwrap();
    let (true_dh, true_dgamma) = (true_dh.unwrap(), true_dgamma.unwrap());
    let ours = results(&dh, &what);
    compare(&format!("{what} dh"), &ours, &true_dh, |i| 1e-6 + rounding(activations) * true_dh[i].abs());
    let (dy, h) = (dy.abs(), h.abs());
    let size = |c: usize| (0..rows).map(|i| dy[i * cols + c] * h[i * cols + c]).sum::<f64>();
    let sums = results(&dgamma, &what);
    compare(&format!("{what} dgamma"), &sums, &true_dgamma, |c| sum_error(size(c)));

    // Each alone gives the same bits; a second time is added.
    let (mut dh, mut again) = (poisoned(device, activations, rows * cols), poisoned(device, DType::F32, cols));
    backward(Some(&mut dh), None, false);
    backward(None, Some(&mut again), false);
    assert!(equal_bits(&results(&dh, &what), &ours) && equal_bits(&results(&again, &what), &sums), "{what}: alone");
    backward(None, Some(&mut again), true);
    let doubled: Vec<f64> = sums.iter().map(|sum| 2.0 * sum).collect();
    assert!(equal_bits(&results(&again, &what), &doubled), "{what}: accumulated");
}

fn check_all(shapes: &[(usize, usize)]) {
    let mut random = fresh();
    for &(rows, cols) in shapes {
        for stream in STREAMS {
            let seed = random.random();
            on_every_arch(|device| {
                let mut random = ChaCha8Rng::seed_from_u64(seed);
                check(device, rows, cols, stream, &mut random);
            });
        }
    }
}

fn sanitize() {
    check_all(&[(130, 11), (17, 136)]);
}

fn dinov2_shapes() {
    check_all(&[(514, 384), (257, 768), (261, 1024), (257, 1536)]);
}

fn odd_shapes() {
    check_all(&ODD);
}

fn wrong_shapes() {
    on_every_arch(|device| {
        let buf = |len| Buf::zeros(device, DType::F32, len).unwrap();
        let (x, h, gamma, mut y) = (buf(12), buf(12), buf(4), buf(12));
        layer_scale_forward(device, 3, 4, &x, &h, &gamma, &mut y).unwrap();
        for (rows, cols) in [(0, 4), (3, 0), (4, 4), (2, 5)] {
            let error = layer_scale_forward(device, rows, cols, &x, &h, &gamma, &mut y).expect_err("it does not fit");
            assert!(error.to_string().starts_with("layer_scale_forward"), "{rows}x{cols}: {error}");
        }
        layer_scale_backward(device, 3, 4, &gamma, &y, None, None).expect_err("nothing is asked for");
        let error = layer_scale_backward(device, 3, 4, &gamma, &y, Some(&mut buf(11)), None);
        assert!(error.expect_err("dh is too short").to_string().starts_with("layer_scale_backward dh"));
    });
}

/// Columns `first .. first + cols` of wider rows, against sums in f64; what lies beside them is NaN.
fn check_sums(device: &Device, rows: usize, cols: usize, first: usize, dtype: DType, random: &mut impl Rng) {
    let what = format!("{} {rows}x{cols} from {first} {dtype:?}", device.arch());
    // Even gaps keep the rows on 16 bytes where the columns are.
    let (lda, ldb) = (first + cols + if first.is_multiple_of(8) { 8 } else { 3 }, cols + 8);
    let mut spread = |ld: usize, first: usize| {
        let inner = Numbers::draw(random, dtype, rows * cols, 2.0);
        let mut values = vec![f32::NAN; rows * ld];
        for (row, inner) in values.chunks_exact_mut(ld).zip(inner.values.chunks_exact(cols)) {
            row[first..first + cols].copy_from_slice(inner);
        }
        (inner.wide(), Numbers { dtype, values }.upload(device))
    };
    let ((a, a_buf), (b, b_buf)) = (spread(lda, first), spread(ldb, 0));
    let (bias, mut gain) = (Numbers::draw(random, DType::F32, cols, 1.0), Numbers::draw(random, DType::F32, cols, 2.0));
    gain.values.iter_mut().for_each(|gain| *gain = gain.signum() * gain.abs().max(0.1));
    gain.values[cols / 2] = 0.0;
    let (bias_buf, gain_buf) = (bias.upload(device), gain.upload(device));
    let (bias, gain) = (bias.wide(), gain.wide());
    let left = Columns { matrix: &a_buf, ld: lda, first };
    let right = Columns { matrix: &b_buf, ld: ldb, first: 0 };

    let sum = || {
        let mut out = poisoned(device, DType::F32, cols);
        column_sum(device, rows, cols, left, &mut out).unwrap();
        let once = results(&out, &what);
        column_sum(device, Rows { count: rows, granule: rows, add: true }, cols, left, &mut out).unwrap();
        let doubled: Vec<f64> = once.iter().map(|sum| 2.0 * sum).collect();
        assert!(equal_bits(&results(&out, &what), &doubled), "{what}: accumulated");
        once
    };
    let dot = |bias: Option<&Buf>, gain: Option<&Buf>| {
        let mut out = poisoned(device, DType::F32, cols);
        column_dot(device, rows, cols, left, right, bias, gain, &mut out).unwrap();
        results(&out, &what)
    };
    let total = |of: &dyn Fn(usize, usize) -> f64| -> Vec<f64> {
        (0..cols).map(|c| (0..rows).map(|i| of(i * cols + c, c)).sum()).collect()
    };
    let (ours, truth, size) = (sum(), total(&|i, _| a[i]), total(&|i, _| a[i].abs()));
    compare(&format!("{what} sum"), &ours, &truth, |c| sum_error(size[c]));
    assert!(equal_bits(&ours, &sum()), "{what}: equal inputs, other bits");

    let (ours, truth, size) = (dot(None, None), total(&|i, _| a[i] * b[i]), total(&|i, _| (a[i] * b[i]).abs()));
    compare(&format!("{what} dot"), &ours, &truth, |c| sum_error(size[c]));
    assert!(equal_bits(&ours, &dot(None, None)), "{what}: equal inputs, other bits");

    let ours = dot(Some(&bias_buf), Some(&gain_buf));
    let rescaled = |c: usize, sum: f64| if gain[c] == 0.0 { 0.0 } else { sum / gain[c] };
    let truth = total(&|i, c| a[i] * (b[i] - bias[c]));
    let truth: Vec<f64> = truth.iter().enumerate().map(|(c, &sum)| rescaled(c, sum)).collect();
    let size = total(&|i, c| a[i].abs() * (b[i].abs() + bias[c].abs()));
    compare(&format!("{what} dot with bias and gain"), &ours, &truth, |c| rescaled(c, sum_error(size[c])).abs());
}

fn check_all_sums(shapes: &[(usize, usize)], firsts: &[usize]) {
    let mut random = fresh();
    for &(rows, cols) in shapes {
        for (&first, dtype) in firsts.iter().flat_map(|first| DTYPES.map(|dtype| (first, dtype))) {
            let seed = random.random();
            on_every_arch(|device| {
                let mut random = ChaCha8Rng::seed_from_u64(seed);
                check_sums(device, rows, cols, first, dtype, &mut random);
            });
        }
    }
}

fn sanitize_sums() {
    check_all_sums(&[(130, 11), (17, 136)], &[0, 3]);
}

fn dinov2_sums() {
    check_all_sums(&[(514, 384), (514, 1152), (261, 1536), (64, 100)], &[0, 384]);
}

fn odd_sums() {
    check_all_sums(&ODD, &[0, 8, 3]);
}

fn wrong_sums() {
    on_every_arch(|device| {
        let buf = |len| Buf::zeros(device, DType::F32, len).unwrap();
        let (a, mut out) = (buf(12), buf(4));
        let mut run =
            |rows, cols, ld, first| column_sum(device, rows, cols, Columns { matrix: &a, ld, first }, &mut out);
        run(3, 4, 4, 0).unwrap();
        run(3, 2, 4, 2).unwrap();
        for (rows, cols, ld, first) in [(0, 4, 4, 0), (3, 0, 4, 0), (4, 4, 4, 0), (3, 4, 4, 1), (3, 5, 5, 0)] {
            let error = run(rows, cols, ld, first).expect_err("it does not fit");
            println!("    {error}");
        }
        let half = Buf::zeros(device, DType::Bf16, 12).unwrap();
        let (left, right) = (Columns { matrix: &a, ld: 4, first: 0 }, Columns { matrix: &half, ld: 4, first: 0 });
        column_dot(device, 3, 4, left, right, None, None, &mut buf(4)).expect_err("two types");
    });
}
