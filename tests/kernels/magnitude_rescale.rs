//! kernels/magnitude_rescale.cu against the plain loops in f64.

use peftk::autograd::{Backend, GainBackward, Sums};
use peftk::gpu::{Buf, DType, Device};
use peftk::kernels::adapter_pack::padded_rank;
use peftk::kernels::lora_gradients::{AdapterGradients, GainFromOutput, LoraGradients, lora_gradients};
use peftk::kernels::magnitude_rescale::{
    GainGradient, GainGradients, GainSource, magnitude_gradient, magnitude_rescale_backward,
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
    Test { name: "magnitude_gradient::several_adapters_in_one_pass", needs: Needs::Gpu, run: several_adapters },
    Test { name: "magnitude_gradient::equal_inputs_give_equal_bits", needs: Needs::Gpu, run: repeatable },
    Test { name: "magnitude_rescale::wrong_shapes_are_refused", needs: Needs::Gpu, run: wrong_shapes },
];

/// Two gains of `count` values and of fewer in one launch, twice: the first time dm is written, the second it is added to.
fn check(count: usize, random: &mut impl Rng) {
    let mut draw = |bound| Numbers::draw(random, DType::F32, count, bound);
    let (magnitude, mut norm, dgain) = (draw(2.0), draw(2.0), draw(1.0));
    norm.values.iter_mut().for_each(|x| *x = x.abs() + 1e-3);
    let (m, n, dg) = (magnitude.wide(), norm.wide(), dgain.wide());
    let gain = GainBackward { magnitude: &m, norm: &n, dgain: &dg, need_norm: true };
    let (dm, dn) = Reference::<f64>::new().dora_gains_backward(&[gain], Sums::fresh()).unwrap().swap_remove(0);
    let (dn, fewer) = (dn.unwrap(), count.div_ceil(2));
    on_every_arch(|device| {
        let what = format!("magnitude_rescale_backward {} {count}", device.arch());
        let [magnitude, norm, dgain] = [&magnitude, &norm, &dgain].map(|numbers| numbers.upload(device));
        let [mut first, mut dnorm] = [0; 2].map(|_| poisoned(device, DType::F32, count));
        let mut second = poisoned(device, DType::F32, fewer);
        for add in [false, true] {
            let (magnitude, norm, dgain) = (&magnitude, &norm, &dgain);
            let gain =
                |count, dmagnitude, dnorm| GainGradients { count, magnitude, norm, dgain, dmagnitude, add, dnorm };
            let mut gains = [gain(count, &mut first, Some(&mut dnorm)), gain(fewer, &mut second, None)];
            magnitude_rescale_backward(device, &mut gains).unwrap();
            let twice = if add { 2.0 } else { 1.0 };
            for (ours, truth) in [(&first, &dm[..]), (&second, &dm[..fewer])] {
                let truth: Vec<f64> = truth.iter().map(|x| twice * x).collect();
                compare(&what, &results(ours, &what), &truth, |i| 3e-7 * truth[i].abs());
            }
            compare(&what, &results(&dnorm, &what), &dn, |i| 3e-7 * dn[i].abs());
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

    /// Rows of W lie as products read them: in bf16 a multiple of 8 apart.
    fn w_stride(&self) -> usize {
        if self.dtype == DType::Bf16 { self.sizes.k.next_multiple_of(8) } else { self.sizes.k }
    }

    /// W with NaN between its rows.
    fn wide_w(&self) -> Numbers {
        let (k, stride) = (self.sizes.k, self.w_stride());
        let gap = || std::iter::repeat_n(f32::NAN, stride - k);
        let values = self.w.values.chunks_exact(k).flat_map(|row| row.iter().copied().chain(gap()));
        Numbers { dtype: self.dtype, values: values.collect() }
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

    fn run(&self, device: &Device, from_z: bool) -> Vec<f64> {
        let what = format!("magnitude_gradient {} {:?} {:?}", device.arch(), self.dtype, self.sizes);
        let [x, bias, t, b] = [&self.x, &self.bias, &self.t, &self.b].map(|numbers| numbers.upload(device));
        let w = self.wide_w().upload(device);
        let [gain, dy, y, z] = [&self.gain, &self.dy, &self.y, &self.z].map(|numbers| numbers.upload(device));
        let mut dgain = poisoned(device, DType::F32, self.sizes.rows);
        let from = if from_z {
            GainSource::Z(&z)
        } else {
            GainSource::Output {
                y: &y,
                bias: Some(&bias),
                gain: &gain,
                x: &x,
                w: &w,
                w_stride: self.w_stride(),
                t: &t,
                b: &b,
            }
        };
        magnitude_gradient(device, self.sizes, &dy, from, &mut dgain).unwrap();
        results(&dgain, &what)
    }

    /// dg in the pass that makes Q, dA and dB, which have the bits that they have without it.
    fn in_one_pass(&self, device: &Device) -> Vec<f64> {
        let what = format!("dg in one pass {} {:?} {:?}", device.arch(), self.dtype, self.sizes);
        let GainGradient { m, k, n, first_row, rows, rank, scale, granule, .. } = self.sizes;
        let [x, bias, t, b] = [&self.x, &self.bias, &self.t, &self.b].map(|numbers| numbers.upload(device));
        let w = self.wide_w().upload(device);
        let [gain, dy, y] = [&self.gain, &self.dy, &self.y].map(|numbers| numbers.upload(device));
        let room = |dtype, len| poisoned(device, dtype, len);
        let mut made = Vec::new();
        let mut dgain = room(DType::F32, rows);
        for with in [true, false] {
            let mut q = room(self.dtype, m * padded_rank(rank));
            let (mut da, mut db) = (room(DType::F32, rank * k), room(DType::F32, rows * rank));
            let w_stride = self.w_stride();
            let from =
                GainFromOutput { y: &y, bias: Some(&bias), w: &w, w_stride, b: &b, dgain: &mut dgain, add: false };
            let adapter = AdapterGradients {
                first_row,
                rows,
                rank,
                scale,
                t: &t,
                bg: &b,
                gain: Some(&gain),
                da: &mut da,
                db: &mut db,
                add: (false, false),
                dgain: with.then_some(from),
            };
            let mut args = LoraGradients { m, k, n, x: &x, dy: &dy, granule, adapters: vec![adapter] };
            lora_gradients(device, &mut args, &mut q).unwrap();
            made.push([&q, &da, &db].map(|buf| results(buf, &what)));
        }
        assert!(made[0] == made[1], "{what}: other bits of Q, dA or dB");
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
            let values: Vec<f64> = truth.iter().map(|(sum, _)| *sum).collect();
            let ours = self.in_one_pass(device);
            compare(&format!("{what}, in one pass"), &ours, &values, |j| sum_error(truth[j].1));
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
        Gradient::random(&mut random, dtype, sizes(257, 384, 1536, 0, 1536, 8)).check();
    }
}

/// q, k and v of a packed weight: dg of two of them beside each other, each with the bits that it has alone.
fn several_adapters() {
    let mut random = fresh();
    let (m, k, rows, n) = (530, 40, 72, 3 * 72);
    for (dtype, rank) in [(DType::F32, 5), (DType::Bf16, 5), (DType::Bf16, 20)] {
        let case = |random: &mut _, first_row| Gradient::random(random, dtype, sizes(m, k, n, first_row, rows, rank));
        let cases: Vec<_> = (0..3).map(|i| case(&mut random, i * rows)).collect();
        on_every_arch(|device| {
            let what = format!("dg of several adapters {} {dtype:?}, rank {rank}", device.arch());
            // x, dy, y, W and the bias are the first one's.
            let shared = &cases[0];
            let [x, bias] = [&shared.x, &shared.bias].map(|numbers| numbers.upload(device));
            let w = shared.wide_w().upload(device);
            let [dy, y] = [&shared.dy, &shared.y].map(|numbers| numbers.upload(device));
            let own: Vec<_> =
                cases.iter().map(|case| [&case.t, &case.b, &case.gain].map(|numbers| numbers.upload(device))).collect();
            let run = |which: &[usize]| -> Vec<Vec<f64>> {
                let room = |len| poisoned(device, DType::F32, len);
                let mut outputs: Vec<_> = which.iter().map(|_| [rank * k, rows * rank, rows].map(room)).collect();
                let mut adapters = Vec::new();
                for (&i, out) in which.iter().zip(&mut outputs) {
                    let ([t, b, gain], [da, db, dgain]) = (&own[i], out);
                    // The second has a gain and asks for no gradient of it.
                    let w_stride = shared.w_stride();
                    let from = GainFromOutput { y: &y, bias: Some(&bias), w: &w, w_stride, b, dgain, add: false };
                    adapters.push(AdapterGradients {
                        first_row: i * rows,
                        rows,
                        rank,
                        scale: 1.25,
                        t,
                        bg: b,
                        gain: Some(gain),
                        da,
                        db,
                        add: (false, false),
                        dgain: (i != 1).then_some(from),
                    });
                }
                let mut args = LoraGradients { m, k, n, x: &x, dy: &dy, granule: m.div_ceil(2), adapters };
                let mut q = poisoned(device, dtype, m * args.q_columns());
                lora_gradients(device, &mut args, &mut q).unwrap();
                drop(args);
                outputs.iter().map(|[_, _, dgain]| results(dgain, &what)).collect()
            };
            let together = run(&[0, 1, 2]);
            assert!(together[1].iter().all(|x| x.is_nan()), "{what}: nobody asked for it");
            for i in [0, 2] {
                assert!(together[i].iter().all(|x| x.is_finite()), "{what}: {i}");
                assert!(together[i] == run(&[i])[0], "{what}: {i} has other bits alone");
            }
        });
    }
}

fn odd_shapes() {
    let mut random = fresh();
    // Around 16 and 32 tokens, 16 and 64 columns a tile, 8 or 4 values a load, 384 and 1024 rows a kernel.
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
        (15, 3, 385, 1, 384, 2),
        (17, 4, 392, 0, 385, 3),
        (48, 5, 1030, 7, 1023, 17),
        (49, 6, 1025, 0, 1025, 4),
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
            let first = case.in_one_pass(device);
            for _ in 0..3 {
                assert!(case.in_one_pass(device) == first, "other bits in one pass");
            }
        });
    }
}

fn wrong_shapes() {
    on_every_arch(|device| {
        let buffer = |n: usize| Buf::zeros(device, DType::F32, n).unwrap();
        let (magnitude, norm, dgain, mut dm) = (buffer(4), buffer(4), buffer(4), buffer(4));
        let mut backward = |count| {
            let (magnitude, norm, dgain, dmagnitude) = (&magnitude, &norm, &dgain, &mut dm);
            let gain = GainGradients { count, magnitude, norm, dgain, dmagnitude, add: false, dnorm: None };
            magnitude_rescale_backward(device, &mut [gain])
        };
        backward(4).unwrap();
        for count in [0, 5] {
            let error = backward(count).expect_err("it does not fit");
            assert!(error.to_string().starts_with("magnitude_rescale_backward"), "{count}: {error}");
        }
        magnitude_rescale_backward(device, &mut []).expect_err("nothing to do");
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
