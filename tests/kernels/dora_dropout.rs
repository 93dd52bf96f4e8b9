//! kernels/dora_dropout.cu against its formula in f64.

use peftk::gpu::{Buf, DType, Device};
use peftk::kernels::dora_dropout::{Columns, add_rescaled, gain_minus_one};
use rand::Rng;

use crate::harness::{Needs, Test, on_every_arch};
use crate::matmul::{DTYPES, Numbers, compare, fresh, poisoned, results, rounding};

pub const TESTS: &[Test] = &[
    Test { name: "sanitize_dora_dropout", needs: Needs::Gpu, run: sanitize },
    Test { name: "dora_dropout::dinov2_shapes", needs: Needs::Gpu, run: dinov2_shapes },
    Test { name: "dora_dropout::odd_shapes", needs: Needs::Gpu, run: odd_shapes },
    Test { name: "dora_dropout::wrong_shapes_are_refused", needs: Needs::Gpu, run: wrong_shapes },
];

/// (m, n, first column, columns): around every boundary of 256 threads, adapters at either end and in the middle.
const ODD: [(usize, usize, usize, usize); 22] = [
    (1, 1, 0, 1),
    (1, 3, 1, 1),
    (1, 384, 0, 384),
    (1, 256, 0, 255),
    (1, 257, 0, 256),
    (1, 258, 1, 257),
    (2, 7, 2, 5),
    (3, 5, 4, 1),
    (5, 3, 0, 2),
    (7, 64, 32, 32),
    (13, 11, 3, 7),
    (16, 16, 0, 16),
    (17, 15, 14, 1),
    (31, 33, 1, 31),
    (64, 4, 0, 3),
    (85, 3, 0, 3),
    (86, 3, 0, 3),
    (127, 129, 2, 126),
    (257, 1, 0, 1),
    (261, 6, 2, 2),
    (1000, 13, 5, 8),
    (1370, 40, 20, 20),
];

fn check(device: &Device, (m, n, first, rows): (usize, usize, usize, usize), dtype: DType, random: &mut impl Rng) {
    let what = format!("{} {dtype:?} m {m} n {n} columns {first}+{rows}", device.arch());
    let mut draw = |dtype, len| Numbers::draw(random, dtype, len, 2.0);
    let (y, z, u, gain) = (draw(dtype, m * n), draw(dtype, m * rows), draw(dtype, m * rows), draw(DType::F32, rows));
    let [mut y_buf, z_buf, u_buf, gain_buf] = [&y, &z, &u, &gain].map(|numbers| numbers.upload(device));
    let (y, z, u, gain) = (y.wide(), z.wide(), u.wide(), gain.wide());

    let mut truth = y.clone();
    for t in 0..m {
        for j in 0..rows {
            truth[t * n + first + j] += gain[j] * z[t * rows + j] - u[t * rows + j];
        }
    }
    add_rescaled(device, Columns { m, n, first, rows }, &gain_buf, &z_buf, &u_buf, &mut y_buf).unwrap();
    compare(&what, &results(&y_buf, &what), &truth, |i| {
        // Columns that are not the adapter's keep their bits.
        let inside = (first..first + rows).contains(&(i % n));
        if inside { 2e-6 + rounding(dtype) * truth[i].abs() } else { 0.0 }
    });

    let mut less_one = poisoned(device, DType::F32, rows);
    // The buffer has guards behind it: only what belongs to it may be asked for.
    let mut exact = Buf::uninit(device, DType::F32, rows).unwrap();
    exact.fill_bytes(0xff).unwrap();
    gain_minus_one(device, &gain_buf, &mut exact).unwrap();
    less_one.copy_range(0, &exact, rows).unwrap();
    let truth: Vec<f64> = gain.iter().map(|gain| gain - 1.0).collect();
    compare(&format!("{what} g - 1"), &results(&less_one, &what), &truth, |_| 3e-7);
}

fn run(shapes: &[(usize, usize, usize, usize)]) {
    let mut random = fresh();
    for &shape in shapes {
        for dtype in DTYPES {
            on_every_arch(|device| check(device, shape, dtype, &mut random.clone()));
            random.next_u32();
        }
    }
}

fn sanitize() {
    run(&[(5, 7, 2, 3), (129, 2, 0, 2)]);
}

fn dinov2_shapes() {
    run(&[(514, 1152, 0, 384), (514, 1152, 768, 384), (257, 1536, 0, 1536)]);
}

fn odd_shapes() {
    run(&ODD);
}

fn wrong_shapes() {
    on_every_arch(|device| {
        let buffer = |len: usize| Buf::from_f32(device, &vec![0.0; len], DType::F32).unwrap();
        let (gain, z, u, mut y) = (buffer(2), buffer(6), buffer(6), buffer(9));
        let mut launch = |m, n, first, rows| add_rescaled(device, Columns { m, n, first, rows }, &gain, &z, &u, &mut y);
        launch(3, 3, 1, 2).unwrap();
        for (m, n, first, rows) in [(3, 3, 2, 2), (4, 3, 1, 2), (3, 4, 0, 2), (3, 3, 0, 3), (0, 3, 0, 2)] {
            launch(m, n, first, rows).expect_err("it does not fit");
        }
    });
}
