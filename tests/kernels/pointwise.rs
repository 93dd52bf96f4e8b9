//! kernels/gelu.cu, swiglu.cu and elementwise.cu against the plain loops in f64.

use peftk::autograd::Backend;
use peftk::gpu::{Buf, DType, Device};
use peftk::kernels::pointwise::{
    add_assign, cast, dropout, fill, gelu_backward, gelu_forward, scale_assign, swiglu_backward, swiglu_forward,
};
use peftk::reference::Reference;
use rand::RngExt;

use crate::harness::{Needs, Test, on_every_arch};
use crate::matmul::{DTYPES, Numbers, compare, fresh, poisoned, results, rounding};

pub const TESTS: &[Test] = &[
    Test { name: "sanitize_pointwise", needs: Needs::Gpu, run: sanitize },
    Test { name: "gelu::every_length", needs: Needs::Gpu, run: gelu_lengths },
    Test { name: "gelu::tails", needs: Needs::Gpu, run: gelu_tails },
    Test { name: "swiglu::shapes", needs: Needs::Gpu, run: swiglu_shapes },
    Test { name: "elementwise::every_length", needs: Needs::Gpu, run: elementwise_lengths },
    Test { name: "elementwise::casts", needs: Needs::Gpu, run: casts },
    Test { name: "elementwise::dropout_is_the_hosts", needs: Needs::Gpu, run: dropouts },
    Test { name: "pointwise::wrong_shapes_are_refused", needs: Needs::Gpu, run: wrong_shapes },
];

/// Around 8 elements a thread and 2048 a block; the last two are a batch's MLP in part.
const LENGTHS: [usize; 22] =
    [1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 31, 255, 257, 2040, 2047, 2048, 2049, 4095, 98_765, 394_752];

fn check_gelu(x: &Numbers, dy: &Numbers) {
    let reference = Reference::<f64>::new();
    let (wide, wide_dy) = (x.wide(), dy.wide());
    let (truth, true_dx) = (reference.gelu(&wide).unwrap(), reference.gelu_backward(&wide, &wide_dy).unwrap());
    let (n, dtype) = (x.values.len(), x.dtype);
    on_every_arch(|device| {
        let what = format!("gelu {} {n} {dtype:?}", device.arch());
        let (x, dy) = (x.upload(device), dy.upload(device));
        let (mut y, mut dx) = (poisoned(device, dtype, n), poisoned(device, dtype, n));
        gelu_forward(device, n, &x, &mut y).unwrap();
        gelu_backward(device, n, &x, &dy, &mut dx).unwrap();
        // f32: relative all the way into the tail, where the exponential's argument is rounded: x^2 / 2 times an ulp. bf16: as the kernel
        // says, and half a unit of bf16.
        let (relative, least, slope, half) = match dtype {
            DType::Bf16 => (5e-4, 1e-6, 5e-6, 1.0 / 511.0),
            _ => (2.5e-6, 1e-37, 2e-6, 0.0),
        };
        let allowed = |i: usize| (relative + 1.5e-7 * wide[i] * wide[i] + half) * truth[i].abs() + least;
        compare(&what, &results(&y, &what), &truth, allowed);
        compare(&what, &results(&dx, &what), &true_dx, |i| slope * wide_dy[i].abs() + half * true_dx[i].abs());
    });
}

fn gelu_lengths() {
    let mut random = fresh();
    for n in LENGTHS {
        for dtype in DTYPES {
            check_gelu(&Numbers::draw(&mut random, dtype, n, 6.0), &Numbers::draw(&mut random, dtype, n, 2.0));
        }
    }
}

fn gelu_tails() {
    for dtype in DTYPES {
        let mut values: Vec<f32> = (-12 * 16..=12 * 16).map(|i| i as f32 / 16.0).collect();
        values.extend([0.0, -0.0, 1e-30, -1e-30, 100.0, -100.0, 1e30, -1e30]);
        let dy = Numbers { dtype, values: vec![1.0; values.len()] };
        let values =
            values.into_iter().map(|x| if dtype == DType::Bf16 { half::bf16::from_f32(x).to_f32() } else { x });
        check_gelu(&Numbers { dtype, values: values.collect() }, &dy);
    }
}

fn swiglu_shapes() {
    let mut random = fresh();
    let shapes = [
        (257, 4096),
        (514, 1536),
        (1, 1),
        (1, 7),
        (1, 8),
        (2, 9),
        (3, 3),
        (5, 16),
        (7, 17),
        (31, 24),
        (33, 12),
        (64, 5),
        (65, 40),
        (127, 2),
        (129, 1),
        (9, 257),
        (2, 1023),
        (3, 1025),
        (255, 8),
        (257, 15),
        (1000, 3),
        (11, 384),
    ];
    for (rows, width) in shapes {
        for dtype in DTYPES {
            let h = Numbers::draw(&mut random, dtype, rows * 2 * width, 8.0);
            let dy = Numbers::draw(&mut random, dtype, rows * width, 2.0);
            check_swiglu(rows, width, &h, &dy);
        }
    }
}

fn check_swiglu(rows: usize, width: usize, h: &Numbers, dy: &Numbers) {
    let reference = Reference::<f64>::new();
    let truth = reference.swiglu(rows, width, &h.wide()).unwrap();
    let true_dh = reference.swiglu_backward(rows, width, &h.wide(), &dy.wide()).unwrap();
    let dtype = h.dtype;
    on_every_arch(|device| {
        let what = format!("swiglu {} {rows}x{width} {dtype:?}", device.arch());
        let (h, dy) = (h.upload(device), dy.upload(device));
        let (mut y, mut dh) = (poisoned(device, dtype, rows * width), poisoned(device, dtype, rows * 2 * width));
        swiglu_forward(device, rows, width, &h, &mut y).unwrap();
        swiglu_backward(device, rows, width, &h, &dy, &mut dh).unwrap();
        let allowed = |truth: f64| (3e-6 + rounding(dtype)) * truth.abs() + 1e-5;
        compare(&what, &results(&y, &what), &truth, |i| allowed(truth[i]));
        compare(&what, &results(&dh, &what), &true_dh, |i| allowed(true_dh[i]));
    });
}

fn check_elementwise(n: usize) {
    let mut random = fresh();
    for (acc_type, x_type) in DTYPES.into_iter().flat_map(|acc| DTYPES.map(|x| (acc, x))) {
        let acc = Numbers::draw(&mut random, acc_type, n, 2.0);
        let x = Numbers::draw(&mut random, x_type, n, 2.0);
        on_every_arch(|device| {
            let what = format!("add_assign {} {n} {acc_type:?} {x_type:?}", device.arch());
            let (mut sum, addend) = (acc.upload(device), x.upload(device));
            add_assign(device, n, &mut sum, &addend).unwrap();
            let truth: Vec<f64> = acc.wide().iter().zip(x.wide()).map(|(acc, x)| acc + x).collect();
            let allowed = |i: usize| 2e-7 * truth[i].abs() + rounding(acc_type) * truth[i].abs();
            compare(&what, &results(&sum, &what), &truth, allowed);
        });
    }
    for dtype in DTYPES {
        let x = Numbers::draw(&mut random, dtype, n, 2.0);
        on_every_arch(|device| {
            let what = format!("{} {n} {dtype:?}", device.arch());
            let mut scaled = x.upload(device);
            scale_assign(device, n, &mut scaled, 0.3).unwrap();
            let truth: Vec<f64> = x.wide().iter().map(|x| x * f64::from(0.3_f32)).collect();
            let allowed = |i: usize| 1e-7 * truth[i].abs() + rounding(dtype) * truth[i].abs();
            compare(&what, &results(&scaled, &what), &truth, allowed);
            let mut filled = poisoned(device, dtype, n);
            fill(device, n, &mut filled, -1.5).unwrap();
            assert!(results(&filled, &what).iter().all(|&x| x == -1.5), "{what}: fill");
        });
    }
}

fn elementwise_lengths() {
    LENGTHS.into_iter().for_each(check_elementwise);
}

fn check_cast(rows: usize, cols: usize, ld_source: usize, ld_target: usize) {
    let mut random = fresh();
    for (from, to) in DTYPES.into_iter().flat_map(|from| DTYPES.map(|to| (from, to))) {
        let inner = Numbers::draw(&mut random, from, rows * cols, 2.0);
        let mut values = vec![f32::NAN; rows * ld_source];
        for (row, inner) in values.chunks_exact_mut(ld_source).zip(inner.values.chunks_exact(cols)) {
            row[..cols].copy_from_slice(inner);
        }
        let source = Numbers { dtype: from, values };
        let round = |x: f32| if to == DType::Bf16 { half::bf16::from_f32(x).to_f32() } else { x };
        let mut truth = vec![0.0; rows * ld_target];
        for (row, inner) in truth.chunks_exact_mut(ld_target).zip(inner.values.chunks_exact(cols)) {
            row.iter_mut().zip(inner).for_each(|(out, &x)| *out = f64::from(round(x)));
        }
        on_every_arch(|device| {
            let what = format!("cast {} {rows}x{cols} {ld_source} {ld_target} {from:?} {to:?}", device.arch());
            let (source, mut target) = (source.upload(device), poisoned(device, to, rows * ld_target));
            cast(device, rows, cols, &source, ld_source, &mut target, ld_target).unwrap();
            assert_eq!(results(&target, &what), truth, "{what}");
        });
    }
}

fn casts() {
    let shapes: [(usize, usize); 11] =
        [(1, 1), (1, 7), (3, 8), (5, 9), (384, 588), (7, 384), (33, 383), (64, 10), (2, 2049), (257, 16), (100, 3)];
    for (rows, cols) in shapes {
        for (source_gap, target_gap) in [(0, 0), (0, cols.next_multiple_of(8) - cols), (8, 16), (3, 5)] {
            check_cast(rows, cols, cols + source_gap, cols + target_gap);
        }
    }
}

/// The kept elements are those of the CPU, bit for bit; the seed's upper half counts.
fn check_dropout(n: usize, p: f64, seed: u64) {
    let reference = Reference::<f64>::new();
    let mut random = fresh();
    for dtype in DTYPES {
        let mut x = Numbers::draw(&mut random, dtype, n, 2.0);
        x.values.iter_mut().for_each(|x| *x = if *x == 0.0 { 1.0 } else { *x });
        let truth = reference.dropout(&x.wide(), p, seed, 0).unwrap();
        on_every_arch(|device| {
            let what = format!("dropout {} {n} {p} {dtype:?}", device.arch());
            let (x, mut y) = (x.upload(device), poisoned(device, dtype, n));
            dropout(device, n, &x, p, seed, &mut y).unwrap();
            let ours = results(&y, &what);
            let same_mask = ours.iter().zip(&truth).all(|(ours, truth)| (*ours == 0.0) == (*truth == 0.0));
            assert!(same_mask, "{what}: another mask");
            compare(&what, &ours, &truth, |i| (2e-7 + rounding(dtype)) * truth[i].abs());
        });
    }
}

fn dropouts() {
    let mut random = fresh();
    for n in [1, 7, 8, 9, 2047, 2049, 98_765] {
        for p in [0.0, 0.1, 0.5, 0.999, 1.0 / 3.0, 1e-9] {
            check_dropout(n, p, random.random());
        }
    }
}

fn sanitize() {
    let mut random = fresh();
    for n in [3, 2051] {
        check_elementwise(n);
        check_dropout(n, 0.5, 7);
        for dtype in DTYPES {
            check_gelu(&Numbers::draw(&mut random, dtype, n, 6.0), &Numbers::draw(&mut random, dtype, n, 2.0));
            let (h, dy) =
                (Numbers::draw(&mut random, dtype, 2 * n * 5, 6.0), Numbers::draw(&mut random, dtype, n * 5, 2.0));
            check_swiglu(5, n, &h, &dy);
        }
    }
    check_cast(5, 13, 13, 16);
    check_cast(3, 16, 24, 16);
}

fn wrong_shapes() {
    on_every_arch(|device: &Device| {
        let buf = |dtype, len| Buf::zeros(device, dtype, len).unwrap();
        let (x, half) = (buf(DType::F32, 8), buf(DType::Bf16, 8));
        gelu_forward(device, 8, &x, &mut buf(DType::F32, 8)).unwrap();
        let refused = [
            gelu_forward(device, 9, &x, &mut buf(DType::F32, 9)),
            gelu_forward(device, 8, &x, &mut buf(DType::F32, 7)),
            gelu_forward(device, 8, &x, &mut buf(DType::Bf16, 8)),
            gelu_forward(device, 8, &buf(DType::I32, 8), &mut buf(DType::I32, 8)),
            gelu_backward(device, 8, &x, &half, &mut buf(DType::F32, 8)),
            swiglu_forward(device, 2, 4, &x, &mut buf(DType::F32, 8)),
            swiglu_forward(device, 0, 2, &x, &mut buf(DType::F32, 8)),
            add_assign(device, 9, &mut buf(DType::F32, 9), &x),
            scale_assign(device, 9, &mut buf(DType::F32, 8), 1.0),
            fill(device, 1, &mut buf(DType::U8, 8), 1.0),
            cast(device, 2, 4, &x, 3, &mut buf(DType::Bf16, 8), 4),
            cast(device, 3, 4, &x, 4, &mut buf(DType::Bf16, 12), 4),
            cast(device, 2, 4, &x, 4, &mut buf(DType::Bf16, 15), 8),
            dropout(device, 8, &x, 1.0, 0, &mut buf(DType::F32, 8)),
            dropout(device, 8, &x, -0.1, 0, &mut buf(DType::F32, 8)),
            dropout(device, 8, &x, f64::NAN, 0, &mut buf(DType::F32, 8)),
        ];
        for (i, result) in refused.into_iter().enumerate() {
            assert!(result.is_err(), "case {i} was taken");
        }
    });
}
