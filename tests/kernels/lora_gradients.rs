//! kernels/lora_gradients.cu and lora_gradients_f32.cu against the plain loops in f64, on inputs as the device rounds them.

use peftk::autograd::{Adapter, AdapterDims, Backend, LinearBackward, LinearDims, Sums};
use peftk::gpu::{Buf, DType, Device};
use peftk::kernels::adapter_pack::padded_rank;
use peftk::kernels::lora_gradients::{AdapterGradients, LoraGradients, lora_gradients, lora_project};
use peftk::reference::Reference;
use rand::Rng;

use crate::harness::{Needs, Test, on_every_arch};
use crate::matmul::{DTYPES, Numbers, compare, fresh, poisoned, results, rounding, sum_error};

pub const TESTS: &[Test] = &[
    Test { name: "sanitize_lora_gradients", needs: Needs::Gpu, run: sanitize },
    Test { name: "lora_gradients::dinov2_shapes", needs: Needs::Gpu, run: dinov2_shapes },
    Test { name: "lora_gradients::odd_shapes", needs: Needs::Gpu, run: odd_shapes },
    Test { name: "lora_gradients::several_adapters", needs: Needs::Gpu, run: several_adapters },
    Test { name: "lora_gradients::a_batch_of_256_images", needs: Needs::Gpu, run: large_batch },
    Test { name: "lora_gradients::equal_inputs_give_equal_bits", needs: Needs::Gpu, run: repeatable },
    Test { name: "lora_gradients::wrong_shapes_are_refused", needs: Needs::Gpu, run: wrong_shapes },
];

#[derive(Clone, Copy, Debug)]
struct Place {
    first_row: usize,
    rows: usize,
    rank: usize,
}

struct Case {
    dtype: DType,
    m: usize,
    k: usize,
    n: usize,
    places: Vec<Place>,
    scale: f32,
    x: Numbers,
    dy: Numbers,
    t: Vec<Numbers>,
    bg: Vec<Numbers>,
    gain: Vec<Numbers>,
}

/// Random columns up to the rank, zeros up to the padded one.
fn padded(random: &mut impl Rng, dtype: DType, rows: usize, rank: usize) -> Numbers {
    let columns = padded_rank(rank);
    let mut numbers = Numbers::draw(random, dtype, rows * columns, 1.0);
    for row in numbers.values.chunks_exact_mut(columns) {
        row[rank..].fill(0.0);
    }
    numbers
}

/// Its columns up to the rank, in f64.
fn narrow(numbers: &Numbers, rank: usize) -> Vec<f64> {
    numbers.values.chunks_exact(padded_rank(rank)).flat_map(|row| &row[..rank]).map(|&x| f64::from(x)).collect()
}

struct Outputs {
    q: Vec<f64>,
    da: Vec<Vec<f64>>,
    db: Vec<Vec<f64>>,
}

impl Case {
    fn random(random: &mut impl Rng, dtype: DType, (m, k, n): (usize, usize, usize), places: &[Place]) -> Self {
        let mut draw = |dtype, len| Numbers::draw(random, dtype, len, 1.0);
        let (x, dy) = (draw(dtype, m * k), draw(dtype, m * n));
        let gain = places.iter().map(|at| draw(DType::F32, at.rows)).collect();
        let t = places.iter().map(|at| padded(random, dtype, m, at.rank)).collect();
        let bg = places.iter().map(|at| padded(random, dtype, at.rows, at.rank)).collect();
        Self { dtype, m, k, n, places: places.to_vec(), scale: 0.75, x, dy, t, bg, gain }
    }

    fn q_columns(&self) -> usize {
        self.places.iter().map(|at| padded_rank(at.rank)).sum()
    }

    fn name(&self, device: &Device) -> String {
        let Self { dtype, m, k, n, places, .. } = self;
        format!("lora_gradients {} {dtype:?} m {m} k {k} n {n} {places:?}", device.arch())
    }

    /// The second adapter has no gain.
    fn run(&self, device: &Device) -> Outputs {
        let what = self.name(device);
        let upload = |list: &[Numbers]| -> Vec<Buf> { list.iter().map(|numbers| numbers.upload(device)).collect() };
        let (x, dy) = (self.x.upload(device), self.dy.upload(device));
        let (t, bg, gain) = (upload(&self.t), upload(&self.bg), upload(&self.gain));
        let room = |n| poisoned(device, DType::F32, n);
        let mut da: Vec<Buf> = self.places.iter().map(|at| room(at.rank * self.k)).collect();
        let mut db: Vec<Buf> = self.places.iter().map(|at| room(at.rows * at.rank)).collect();
        let mut q = poisoned(device, self.dtype, self.m * self.q_columns());
        let mut projected = poisoned(device, self.dtype, self.m * self.q_columns());
        let mut adapters = Vec::new();
        for (i, (da, db)) in da.iter_mut().zip(&mut db).enumerate() {
            let Place { first_row, rows, rank } = self.places[i];
            let (t, bg, gain) = (&t[i], &bg[i], (i != 1).then_some(&gain[i]));
            adapters.push(AdapterGradients {
                first_row,
                rows,
                rank,
                scale: self.scale,
                t,
                bg,
                gain,
                da,
                db,
                add: (false, false),
                dgain: None,
            });
        }
        let mut args =
            LoraGradients { m: self.m, k: self.k, n: self.n, x: &x, dy: &dy, granule: self.m.div_ceil(3), adapters };
        lora_project(device, &mut args, &mut projected).unwrap();
        lora_gradients(device, &mut args, &mut q).unwrap();
        drop(args);
        let q = results(&q, &what);
        // Another kernel, another order of the sum.
        let projected = results(&projected, &what);
        compare(&format!("{what}: Q alone"), &projected, &q, |i| {
            2.0 * rounding(self.dtype) * q[i].abs() + 4e-6 * self.n as f64
        });
        let all = |list: &[Buf]| list.iter().map(|buf| results(buf, &what)).collect();
        Outputs { q, da: all(&da), db: all(&db) }
    }

    /// dA and dB for s = g = 1 and s g B as B, of the values themselves or of their sizes.
    fn reference(&self, i: usize, sizes: bool) -> (Vec<f64>, Vec<f64>) {
        let at = self.places[i];
        let value =
            |list: Vec<f64>| -> Vec<f64> { list.into_iter().map(|x| if sizes { x.abs() } else { x }).collect() };
        let (x, dy) = (value(self.x.wide()), value(self.dy.wide()));
        let (t, b) = (value(narrow(&self.t[i], at.rank)), value(narrow(&self.bg[i], at.rank)));
        let a = vec![0.0; at.rank * self.k];
        let dims = AdapterDims { first_row: at.first_row, rows: at.rows, rank: at.rank, scale: 1.0 };
        let grads = Reference::<f64>::new()
            .linear_backward(
                LinearBackward {
                    dims: LinearDims { m: self.m, k: self.k, n: self.n },
                    x: Some(&x),
                    w: &Vec::new(),
                    bias: None,
                    y: None,
                    adapters: vec![Adapter { dims, a: &a, b: &b, gain: None, dropped: None }],
                    t: vec![&t],
                    z: vec![None],
                    dy: &dy,
                    need_x: false,
                    need_w: false,
                    need_bias: false,
                    need_adapter: true,
                },
                Sums::fresh(),
            )
            .unwrap();
        let mut grads = grads.adapters.into_iter().next().unwrap();
        (grads.a.take().unwrap(), grads.b.take().unwrap())
    }

    fn check(&self) {
        let truths: Vec<_> =
            (0..self.places.len()).map(|i| (self.reference(i, false), self.reference(i, true))).collect();
        on_every_arch(|device| {
            let what = self.name(device);
            let ours = self.run(device);
            let columns = self.q_columns();
            let mut column = 0;
            for (i, at) in self.places.iter().enumerate() {
                let Place { first_row, rows, rank } = *at;
                let padded = padded_rank(rank);
                for token in 0..self.m {
                    for r in 0..padded {
                        let terms = || {
                            (0..rows).map(|j| {
                                f64::from(self.dy.values[token * self.n + first_row + j])
                                    * f64::from(self.bg[i].values[j * padded + r])
                            })
                        };
                        let (truth, size): (f64, f64) = (terms().sum(), terms().map(f64::abs).sum());
                        let q = ours.q[token * columns + column + r];
                        let allowed = rounding(self.dtype) * truth.abs() + sum_error(size);
                        assert!((q - truth).abs() <= allowed, "{what}: Q [{token}, {r}] of {i} is {q}, truth {truth}");
                    }
                }
                column += padded;
                let ((da, db), (da_size, db_size)) = &truths[i];
                compare(&format!("{what}: dA of {i}"), &ours.da[i], da, |at| {
                    rounding(self.dtype) * da_size[at] + sum_error(da_size[at])
                });
                let factor: Vec<f64> = (0..rows * rank)
                    .map(|at| {
                        let gain = if i == 1 { 1.0 } else { self.gain[i].values[at / rank] };
                        f64::from(self.scale) * f64::from(gain)
                    })
                    .collect();
                let db: Vec<f64> = db.iter().zip(&factor).map(|(db, factor)| db * factor).collect();
                compare(&format!("{what}: dB of {i}"), &ours.db[i], &db, |at| {
                    sum_error(db_size[at] * factor[at].abs())
                });
            }
        });
    }
}

fn one(random: &mut impl Rng, sizes: (usize, usize, usize), first_row: usize, rows: usize, rank: usize) {
    for dtype in DTYPES {
        Case::random(random, dtype, sizes, &[Place { first_row, rows, rank }]).check();
    }
}

fn sanitize() {
    let mut random = fresh();
    one(&mut random, (35, 10, 19), 2, 17, 3);
    one(&mut random, (3, 33, 400), 0, 400, 17);
}

fn dinov2_shapes() {
    let mut random = fresh();
    one(&mut random, (514, 384, 384), 0, 384, 8);
    one(&mut random, (514, 384, 1536), 0, 1536, 16);
    one(&mut random, (257, 1536, 384), 0, 384, 32);
    one(&mut random, (257, 1024, 1024), 0, 1024, 8);
    one(&mut random, (257, 1024, 4096), 0, 4096, 4);
}

fn odd_shapes() {
    let mut random = fresh();
    // Around every boundary: 32 tokens a tile and a granule, 16 ranks a slice, 384 and 1536 rows a kernel, 384 columns a block, 8 values
    // a load.
    for (m, k, n, first_row, rows, rank) in [
        (1, 1, 1, 0, 1, 1),
        (1, 384, 384, 0, 384, 8),
        (2, 2, 3, 1, 1, 3),
        (31, 7, 9, 3, 5, 1),
        (32, 8, 16, 8, 8, 15),
        (33, 9, 17, 1, 16, 16),
        (34, 16, 24, 8, 16, 17),
        (63, 383, 33, 0, 33, 2),
        (64, 384, 40, 8, 32, 31),
        (65, 385, 47, 16, 31, 33),
        (100, 15, 383, 0, 383, 4),
        (96, 24, 400, 16, 384, 3),
        (127, 33, 385, 0, 385, 5),
        (128, 40, 392, 0, 392, 12),
        (129, 769, 15, 0, 15, 48),
        (50, 48, 1535, 0, 1535, 7),
        (49, 56, 1544, 8, 1536, 18),
        (47, 64, 1537, 0, 1537, 3),
        (40, 1, 1600, 0, 1600, 1),
        (200, 130, 7, 0, 7, 64),
        (257, 1000, 5, 4, 1, 100),
        (4225, 12, 10, 1, 9, 2),
        (8449, 5, 8, 0, 8, 1),
    ] {
        one(&mut random, (m, k, n), first_row, rows, rank);
    }
}

fn several_adapters() {
    let mut random = fresh();
    let place = |first_row, rows, rank| Place { first_row, rows, rank };
    for dtype in DTYPES {
        let mut check = |sizes, places: &[Place]| Case::random(&mut random, dtype, sizes, places).check();
        check((514, 384, 1152), &[place(0, 384, 8), place(768, 384, 8)]);
        check((257, 768, 2304), &[place(0, 768, 16), place(768, 768, 16), place(1536, 768, 16)]);
        check((100, 30, 50), &[place(0, 20, 3), place(20, 1, 33), place(25, 25, 17)]);
        check((45, 400, 900), &[place(0, 400, 32), place(500, 3, 1)]);
        check((70, 11, 2000), &[place(0, 16, 1), place(100, 1700, 20)]);
    }
}

/// Granules of 512 tokens, sampled: the whole in f64 would take minutes.
fn large_batch() {
    let (m, k, n, rank) = (65_792, 384, 16, 8);
    let case = Case::random(&mut fresh(), DType::Bf16, (m, k, n), &[Place { first_row: 0, rows: n, rank }]);
    on_every_arch(|device| {
        let ours = case.run(device);
        let sum = |terms: &dyn Fn(usize) -> f64| -> (f64, f64) {
            (0..m).map(terms).fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()))
        };
        for r in 0..rank {
            for c in (0..k).step_by(29) {
                let q = &ours.q;
                let (truth, size) = sum(&|token| q[token * 16 + r] * f64::from(case.x.values[token * k + c]));
                let got = ours.da[0][r * k + c];
                assert!((got - truth).abs() <= sum_error(size), "dA [{r}, {c}]: {got}, truth {truth}");
            }
            for j in 0..n {
                let (dy, t) = (&case.dy.values, &case.t[0].values);
                let (truth, size) = sum(&|token| f64::from(dy[token * n + j]) * f64::from(t[token * 16 + r]));
                let factor = f64::from(case.scale) * f64::from(case.gain[0].values[j]);
                let got = ours.db[0][j * rank + r];
                assert!((got - factor * truth).abs() <= sum_error(size * factor.abs()), "dB [{j}, {r}]: {got}");
            }
        }
    });
}

fn repeatable() {
    let mut random = fresh();
    for dtype in DTYPES {
        let places = [Place { first_row: 1, rows: 390, rank: 20 }, Place { first_row: 400, rows: 30, rank: 3 }];
        let case = Case::random(&mut random, dtype, (5000, 70, 431), &places);
        on_every_arch(|device| {
            let first = case.run(device);
            for _ in 0..3 {
                let again = case.run(device);
                assert!(again.q == first.q && again.da == first.da && again.db == first.db, "{dtype:?}: other bits");
            }
        });
    }
}

fn wrong_shapes() {
    on_every_arch(|device| {
        let buffer = |n: usize| Buf::zeros(device, DType::F32, n).unwrap();
        let (x, dy, t, bg) = (buffer(6), buffer(10), buffer(32), buffer(48));
        let (mut da, mut db, mut q) = (buffer(3), buffer(3), buffer(32));
        let mut launch = |m, k, n, first_row, rows, rank| {
            let (t, bg, da, db) = (&t, &bg, &mut da, &mut db);
            let (scale, gain, add, dgain) = (1.0, None, (false, false), None);
            let adapter = AdapterGradients { first_row, rows, rank, scale, t, bg, gain, da, db, add, dgain };
            let mut args = LoraGradients { m, k, n, x: &x, dy: &dy, granule: m, adapters: vec![adapter] };
            lora_gradients(device, &mut args, &mut q)
        };
        launch(2, 3, 5, 2, 3, 1).unwrap();
        for (m, k, n, first_row, rows, rank) in [
            (0, 3, 5, 2, 3, 1),
            (2, 0, 5, 2, 3, 1),
            (2, 3, 5, 3, 3, 1),
            (2, 3, 5, 2, 0, 1),
            (2, 3, 5, 2, 3, 0),
            (2, 3, 5, 2, 3, 2),
            (3, 2, 3, 0, 3, 1),
            (2, 4, 5, 2, 3, 1),
            (2, 3, 6, 2, 3, 1),
        ] {
            let error = launch(m, k, n, first_row, rows, rank).expect_err("it does not fit");
            assert!(error.to_string().starts_with("lora_gradients"), "{m} {k} {n} {first_row} {rows} {rank}: {error}");
        }
        let mut none = LoraGradients { m: 2, k: 3, n: 5, x: &x, dy: &dy, granule: 2, adapters: Vec::new() };
        assert!(lora_gradients(device, &mut none, &mut q).is_err(), "no adapter");
    });
}
