//! kernels/magnitude_rescale.cu against the plain loops in f64.

use peftk::autograd::Backend;
use peftk::gpu::{Buf, DType};
use peftk::kernels::adapter_pack::padded_rank;
use peftk::kernels::magnitude_rescale::{
    GainGradient, GainSource, magnitude_gradient, magnitude_rescale, magnitude_rescale_backward,
};
use peftk::reference::Reference;
use rand::Rng;

use crate::harness::{Needs, Test, on_every_arch};
use crate::matmul::{DTYPES, Numbers, compare, fresh, poisoned, results, sum_error};

pub const TESTS: &[Test] = &[
    Test { name: "sanitize_magnitude_rescale", needs: Needs::Gpu, run: sanitize },
    Test { name: "magnitude_rescale::every_length", needs: Needs::Gpu, run: lengths },
    Test { name: "magnitude_gradient::dinov2_shapes", needs: Needs::Gpu, run: dinov2_shapes },
    Test { name: "magnitude_gradient::odd_shapes", needs: Needs::Gpu, run: odd_shapes },
    Test { name: "magnitude_gradient::equal_inputs_give_equal_bits", needs: Needs::Gpu, run: repeatable },
    Test { name: "magnitude_rescale::wrong_shapes_are_refused", needs: Needs::Gpu, run: wrong_shapes },
];

fn check(count: usize, random: &mut impl Rng) {
    let mut draw = |bound| Numbers::draw(random, DType::F32, count, bound);
    let (magnitude, mut norm, dgain) = (draw(2.0), draw(2.0), draw(1.0));
    norm.values.iter_mut().for_each(|x| *x = x.abs() + 1e-3);
    let reference = Reference::<f64>::new();
    let (m, n, dg) = (magnitude.wide(), norm.wide(), dgain.wide());
    let gain = reference.magnitude_rescale(&m, &n).unwrap();
    let (dm, dn) = reference.magnitude_rescale_backward(&m, &n, &dg).unwrap();
    on_every_arch(|device| {
        let what = format!("magnitude_rescale {} {count}", device.arch());
        let [magnitude, norm, dgain] = [&magnitude, &norm, &dgain].map(|numbers| numbers.upload(device));
        let mut out = [0; 3].map(|_| poisoned(device, DType::F32, count));
        let [g, dmagnitude, dnorm] = &mut out;
        magnitude_rescale(device, count, &magnitude, &norm, g).unwrap();
        magnitude_rescale_backward(device, count, &magnitude, &norm, &dgain, dmagnitude, dnorm).unwrap();
        for (ours, truth) in out.iter().zip([&gain, &dm, &dn]) {
            compare(&what, &results(ours, &what), truth, |i| 3e-7 * truth[i].abs());
        }
    });
}

fn lengths() {
    let mut random = fresh();
    for count in [1, 2, 3, 7, 31, 32, 33, 255, 256, 257, 384, 1000, 4096, 9216, 100_003] {
        check(count, &mut random);
    }
}

struct Gradient {
    sizes: GainGradient,
    dtype: DType,
    x: Numbers,
    w: Numbers,
    bias: Numbers,
    t: Numbers,
    b: Numbers,
    gain: Numbers,
    dy: Numbers,
    y: Numbers,
    z: Numbers,
}

impl Gradient {
    /// Every fifth gain is 0, the next one small; x, W, t and B small enough for y to be near 1.
    fn random(random: &mut impl Rng, dtype: DType, sizes: GainGradient) -> Self {
        let GainGradient { m, k, n, first_row, rows, rank, scale, .. } = sizes;
        let padded = padded_rank(rank);
        let mut draw = |dtype, len, bound| Numbers::draw(random, dtype, len, bound);
        let bound = (1.0 / k as f32).sqrt();
        let (x, w, t, b) = (
            draw(dtype, m * k, 1.0),
            draw(dtype, n * k, bound),
            draw(dtype, m * padded, 0.5),
            draw(dtype, rows * padded, 0.5),
        );
        let (bias, mut gain) = (draw(DType::F32, n, 1.0), draw(DType::F32, rows, 1.0));
        let (dy, mut y, mut z) = (draw(dtype, m * n, 1.0), draw(dtype, m * n, 1.0), draw(dtype, m * rows, 1.0));
        for (j, g) in gain.values.iter_mut().enumerate() {
            *g = if j % 5 == 0 {
                0.0
            } else if j % 5 == 1 {
                1e-3 * *g
            } else {
                g.signum() * (0.5 + g.abs())
            };
        }
        let round = |x: f64| if dtype == DType::Bf16 { half::bf16::from_f64(x).to_f32() } else { x as f32 };
        for i in 0..m {
            for j in 0..rows {
                let dot =
                    |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum() };
                let base = dot(&x.values[i * k..][..k], &w.values[(first_row + j) * k..][..k]);
                let low_rank = dot(&t.values[i * padded..][..padded], &b.values[j * padded..][..padded]);
                let value = base + f64::from(scale) * low_rank;
                z.values[i * rows + j] = round(value);
                let out = f64::from(gain.values[j]) * value + f64::from(bias.values[first_row + j]);
                y.values[i * n + first_row + j] = round(out);
            }
        }
        Self { sizes, dtype, x, w, bias, t, b, gain, dy, y, z }
    }

    /// (sum of dy z, sum of the sizes of what is added): z from the rounded y, and from x where the gain is small.
    fn truth(&self, j: usize) -> (f64, f64) {
        let GainGradient { m, k, n, first_row, rows: _, rank, scale, .. } = self.sizes;
        let padded = padded_rank(rank);
        let g = f64::from(self.gain.values[j]);
        let bias = f64::from(self.bias.values[first_row + j]);
        (0..m).fold((0.0, 0.0), |(sum, size), i| {
            let dy = f64::from(self.dy.values[i * n + first_row + j]);
            let (z, of) = if g.abs() < 1.0 / 64.0 {
                let terms = |a: &[f32], b: &[f32]| -> (f64, f64) {
                    let products = || a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b));
                    (products().sum(), products().map(f64::abs).sum())
                };
                let base = terms(&self.x.values[i * k..][..k], &self.w.values[(first_row + j) * k..][..k]);
                let low = terms(&self.t.values[i * padded..][..padded], &self.b.values[j * padded..][..padded]);
                (base.0 + f64::from(scale) * low.0, base.1 + f64::from(scale) * low.1)
            } else {
                let y = f64::from(self.y.values[i * n + first_row + j]);
                ((y - bias) / g, (y.abs() + bias.abs()) / g.abs())
            };
            (sum + dy * z, size + dy.abs() * of)
        })
    }

    fn run(&self, device: &peftk::gpu::Device, from_z: bool) -> Vec<f64> {
        let what = format!("magnitude_gradient {} {:?} {:?}", device.arch(), self.dtype, self.sizes);
        let [x, w, bias, t, b] = [&self.x, &self.w, &self.bias, &self.t, &self.b].map(|numbers| numbers.upload(device));
        let [gain, dy, y, z] = [&self.gain, &self.dy, &self.y, &self.z].map(|numbers| numbers.upload(device));
        let mut dgain = poisoned(device, DType::F32, self.sizes.rows);
        let from = if from_z {
            GainSource::Z(&z)
        } else {
            GainSource::Output { y: &y, bias: Some(&bias), gain: &gain, x: &x, w: &w, t: &t, b: &b }
        };
        magnitude_gradient(device, self.sizes, &dy, from, &mut dgain).unwrap();
        results(&dgain, &what)
    }

    fn check(&self) {
        let GainGradient { m, n, first_row, rows, .. } = self.sizes;
        let truth: Vec<(f64, f64)> = (0..rows).map(|j| self.truth(j)).collect();
        let from_z: Vec<(f64, f64)> = (0..rows)
            .map(|j| {
                let terms = || {
                    (0..m).map(|i| {
                        f64::from(self.dy.values[i * n + first_row + j]) * f64::from(self.z.values[i * rows + j])
                    })
                };
                (terms().sum(), terms().map(f64::abs).sum())
            })
            .collect();
        on_every_arch(|device| {
            let what = format!("magnitude_gradient {} {:?} {:?}", device.arch(), self.dtype, self.sizes);
            for (z, truth) in [(false, &truth), (true, &from_z)] {
                let values: Vec<f64> = truth.iter().map(|(sum, _)| *sum).collect();
                compare(&format!("{what}, z given: {z}"), &self.run(device, z), &values, |j| sum_error(truth[j].1));
            }
        });
    }
}

fn sizes(m: usize, k: usize, n: usize, first_row: usize, rows: usize, rank: usize) -> GainGradient {
    GainGradient { m, k, n, first_row, rows, rank, scale: 1.25, granule: m.div_ceil(2), add: false }
}

fn sanitize() {
    let mut random = fresh();
    check(300, &mut random);
    for dtype in DTYPES {
        Gradient::random(&mut random, dtype, sizes(35, 10, 19, 2, 11, 3)).check();
        Gradient::random(&mut random, dtype, sizes(3, 8, 80, 8, 72, 1)).check();
    }
}

fn dinov2_shapes() {
    let mut random = fresh();
    for dtype in DTYPES {
        Gradient::random(&mut random, dtype, sizes(514, 384, 1152, 768, 384, 8)).check();
        Gradient::random(&mut random, dtype, sizes(257, 1024, 1024, 0, 1024, 16)).check();
    }
}

fn odd_shapes() {
    let mut random = fresh();
    // Around 32 tokens, 64 columns a block, 8 or 4 values a load.
    for (m, k, n, first_row, rows, rank) in [
        (1, 1, 1, 0, 1, 1),
        (1, 3, 2, 1, 1, 3),
        (2, 2, 9, 1, 8, 2),
        (3, 5, 8, 0, 8, 16),
        (31, 7, 16, 8, 8, 17),
        (32, 8, 63, 0, 63, 1),
        (33, 9, 64, 0, 64, 3),
        (34, 10, 65, 0, 65, 4),
        (63, 31, 72, 8, 64, 5),
        (64, 32, 68, 4, 64, 6),
        (65, 33, 130, 1, 129, 7),
        (96, 40, 128, 0, 128, 33),
        (100, 1, 136, 8, 120, 8),
        (127, 50, 100, 50, 50, 9),
        (128, 64, 12, 4, 8, 10),
        (129, 65, 7, 0, 7, 11),
        (200, 12, 200, 0, 200, 100),
        (257, 3, 3, 1, 2, 13),
        (1000, 2, 10, 3, 6, 1),
        (4224, 4, 8, 0, 8, 2),
        (4225, 4, 5, 0, 5, 2),
        (9001, 6, 6, 1, 4, 1),
    ] {
        for dtype in DTYPES {
            Gradient::random(&mut random, dtype, sizes(m, k, n, first_row, rows, rank)).check();
        }
    }
}

fn repeatable() {
    let mut random = fresh();
    for dtype in DTYPES {
        let case = Gradient::random(&mut random, dtype, sizes(3000, 20, 75, 2, 70, 5));
        on_every_arch(|device| {
            let first = case.run(device, false);
            for _ in 0..3 {
                assert!(case.run(device, false) == first, "other bits");
            }
        });
    }
}

fn wrong_shapes() {
    on_every_arch(|device| {
        let buffer = |n: usize| Buf::zeros(device, DType::F32, n).unwrap();
        let (m, n) = (buffer(4), buffer(4));
        let mut g = buffer(4);
        magnitude_rescale(device, 4, &m, &n, &mut g).unwrap();
        for count in [0, 5] {
            let error = magnitude_rescale(device, count, &m, &n, &mut g).expect_err("it does not fit");
            assert!(error.to_string().starts_with("magnitude_rescale"), "{count}: {error}");
        }
        let (dy, z, mut dgain) = (buffer(10), buffer(6), buffer(3));
        let mut launch = |m, n, first_row, rows| {
            magnitude_gradient(device, sizes(m, 1, n, first_row, rows, 1), &dy, GainSource::Z(&z), &mut dgain)
        };
        launch(2, 5, 2, 3).unwrap();
        for (m, n, first_row, rows) in
            [(0, 5, 2, 3), (2, 5, 3, 3), (2, 5, 2, 0), (3, 5, 2, 3), (1, 10, 0, 4), (3, 3, 0, 3)]
        {
            let error = launch(m, n, first_row, rows).expect_err("it does not fit");
            assert!(error.to_string().starts_with("magnitude_gradient"), "{m} {n} {first_row} {rows}: {error}");
        }
    });
}
