//! kernels/lora_matmul_bf16.cu and lora_matmul_f32.cu against the reference's linear with adapters, in f64.

use peftk::autograd::{Adapter, AdapterDims, Backend, LinearDims, LinearOutput};
use peftk::gpu::{Buf, DType, Device};
use peftk::kernels::matmul::{Epilogue, Layout, LoraAdapter, Matmul, RankProduct, matmul};
use peftk::reference::Reference;
use rand::{Rng, RngExt};

use crate::harness::{Needs, Test, on_every_arch};
use crate::matmul::{DTYPES, Numbers, compare, fresh, poisoned, results, rounding, sum_error};

pub const TESTS: &[Test] = &[
    Test { name: "sanitize_lora_matmul", needs: Needs::Gpu, run: sanitize },
    Test { name: "lora_matmul::dinov2_shapes", needs: Needs::Gpu, run: dinov2_shapes },
    Test { name: "lora_matmul::odd_shapes", needs: Needs::Gpu, run: odd_shapes },
    Test { name: "lora_matmul::several_tiles_a_block", needs: Needs::Gpu, run: several_tiles },
    Test { name: "lora_matmul::wrong_adapters_are_refused", needs: Needs::Gpu, run: wrong_adapters },
];

/// One adapter: its columns, its rank, whether it has a gain, whether t is given.
#[derive(Clone, Copy, Debug)]
struct Place {
    first_row: usize,
    rows: usize,
    rank: usize,
    gain: bool,
    given: bool,
}

struct One {
    place: Place,
    scale: f64,
    a: Numbers,
    b: Numbers,
    gain: Option<Numbers>,
}

impl One {
    fn padded(&self) -> usize {
        self.place.rank.next_multiple_of(16)
    }

    /// A with rows of zeros up to the padded rank.
    fn padded_a(&self, k: usize) -> Numbers {
        let mut values = self.a.values.clone();
        values.resize(self.padded() * k, 0.0);
        Numbers { dtype: self.a.dtype, values }
    }

    /// Rows of `rank` values padded with zeros: B, and t where it is given.
    fn padded_rows(&self, numbers: &Numbers) -> Numbers {
        let mut values = Vec::new();
        for row in numbers.values.chunks_exact(self.place.rank) {
            values.extend_from_slice(row);
            values.resize(values.len() + self.padded() - row.len(), 0.0);
        }
        Numbers { dtype: numbers.dtype, values }
    }
}

struct Case {
    dims: LinearDims,
    x: Numbers,
    w: Numbers,
    bias: Numbers,
    adapters: Vec<One>,
    truth: LinearOutput<Vec<f64>>,
    /// The linear of absolute values, and the adapters' part of it.
    size: LinearOutput<Vec<f64>>,
    adapted_size: Vec<f64>,
}

impl Case {
    fn random(random: &mut impl Rng, (m, n, k): (usize, usize, usize), places: &[Place], dtype: DType) -> Self {
        let bound = (3.0 / k as f32).sqrt();
        let dims = LinearDims { m, k, n };
        let x = Numbers::draw(random, dtype, m * k, 1.7);
        let w = Numbers::draw(random, dtype, n * k, bound);
        let bias = Numbers::draw(random, DType::F32, n, 1.0);
        let one = |place: &Place, random: &mut _| One {
            place: *place,
            // A number that f32 holds.
            scale: f64::from(RngExt::random_range(random, 0.5_f32..2.0)),
            a: Numbers::draw(random, dtype, place.rank * k, bound),
            b: Numbers::draw(random, dtype, place.rows * place.rank, 0.5),
            gain: place.gain.then(|| Numbers::draw(random, DType::F32, place.rows, 1.5)),
        };
        let adapters: Vec<One> = places.iter().map(|place| one(place, random)).collect();
        let linear = |widen: fn(&Numbers) -> Vec<f64>, w: &Vec<f64>, bias: &Vec<f64>| {
            let parts: Vec<_> =
                adapters.iter().map(|one| (widen(&one.a), widen(&one.b), one.gain.as_ref().map(widen))).collect();
            let list: Vec<_> = adapters
                .iter()
                .zip(&parts)
                .map(|(one, (a, b, gain))| {
                    let Place { first_row, rows, rank, .. } = one.place;
                    let dims = AdapterDims { first_row, rows, rank, scale: one.scale };
                    Adapter { dims, a, b, gain: gain.as_ref(), dropped: None }
                })
                .collect();
            Reference::<f64>::new().linear(dims, &widen(&x), w, Some(bias), &list).unwrap()
        };
        let truth = linear(Numbers::wide, &w.wide(), &bias.wide());
        // With a gain below 1 the reference's y + (g - 1) z + s t B^T would cancel: for sizes every g is at least 1.
        let large: fn(&Numbers) -> Vec<f64> = |numbers| numbers.abs();
        let mut size = linear(large, &w.abs(), &bias.abs());
        let mut adapted_size = linear(large, &vec![0.0; n * k], &vec![0.0; n]).y;
        for one in &adapters {
            let Some(gain) = &one.gain else { continue };
            for i in 0..m {
                for j in 0..one.place.rows {
                    // Linear in g: undo it where it shrinks.
                    let g = f64::from(gain.values[j].abs());
                    let at = i * n + one.place.first_row + j;
                    if g < 1.0 {
                        size.y[at] = (size.y[at] - f64::from(bias.values[one.place.first_row + j].abs())) / g.max(1e-9)
                            + f64::from(bias.values[one.place.first_row + j].abs());
                        adapted_size[at] /= g.max(1e-9);
                    }
                }
            }
        }
        Self { dims, x, w, bias, adapters, truth, size, adapted_size }
    }

    fn label(&self, device: &Device) -> String {
        let places: Vec<Place> = self.adapters.iter().map(|one| one.place).collect();
        format!("{} {:?} {:?} {places:?}", device.arch(), self.x.dtype, self.dims)
    }

    /// What v may be off: the sum, its rounding, and where there are adapters two roundings of t.
    fn value_error(&self, i: usize) -> f64 {
        let round = rounding(self.x.dtype);
        2.0 * sum_error(self.size.y[i]) + round * (self.truth.y[i].abs() + 2.0 * self.adapted_size[i])
    }

    /// Launches with the epilogue that `with` puts in; returns C, and checks each t that was made.
    fn launch(&self, device: &Device, c_dtype: DType, mut with: impl FnMut(Matmul<'_>, &mut Buf)) -> Vec<f64> {
        let LinearDims { m, k, n } = self.dims;
        let dtype = self.x.dtype;
        let (x, w, bias) = (self.x.upload(device), self.w.upload(device), self.bias.upload(device));
        let label = self.label(device);
        let once = |with: &mut dyn FnMut(Matmul<'_>, &mut Buf)| {
            let mut c = poisoned(device, c_dtype, m * n);
            let a: Vec<Buf> = self.adapters.iter().map(|one| one.padded_a(k).upload(device)).collect();
            let b: Vec<Buf> = self.adapters.iter().map(|one| one.padded_rows(&one.b).upload(device)).collect();
            let gain: Vec<Option<Buf>> =
                self.adapters.iter().map(|one| one.gain.as_ref().map(|gain| gain.upload(device))).collect();
            let room = |(one, t): (&One, &Vec<f64>)| {
                if one.place.given {
                    let values: Vec<f32> = t.iter().map(|&t| t as f32).collect();
                    one.padded_rows(&Numbers { dtype, values }).upload(device)
                } else {
                    poisoned(device, dtype, m * one.padded())
                }
            };
            let mut t: Vec<Buf> = self.adapters.iter().zip(&self.truth.t).map(room).collect();
            let list = self.adapters.iter().zip(&a).zip(&b).zip(&gain).zip(&mut t);
            let list = list.map(|((((one, a), b), gain), t)| LoraAdapter {
                first_row: one.place.first_row,
                rows: one.place.rows,
                rank_padded: one.padded(),
                scale: one.scale as f32,
                b,
                gain: gain.as_ref(),
                t: if one.place.given { RankProduct::Given(t) } else { RankProduct::InLoop { a, t: Some(t) } },
            });
            let args =
                Matmul { bias: Some(&bias), adapters: list.collect(), ..Matmul::new(Layout::Nt, (m, n, k), &x, &w) };
            with(args, &mut c);
            for (index, (one, t)) in self.adapters.iter().zip(&t).enumerate().filter(|(_, (one, _))| !one.place.given) {
                let (rank, padded) = (one.place.rank, one.padded());
                for (i, row) in results(t, &label).chunks_exact(padded).enumerate() {
                    let at = i * rank..(i + 1) * rank;
                    let (truth, size) = (&self.truth.t[index][at.clone()], &self.size.t[index][at]);
                    compare(&format!("{label} t {index} row {i}"), &row[..rank], truth, |r| {
                        sum_error(size[r]) + rounding(dtype) * truth[r].abs()
                    });
                    assert!(row[rank..].iter().all(|&t| t == 0.0), "{label} t {index}: beyond the rank");
                }
            }
            results(&c, &label)
        };
        let first = once(&mut with);
        let again = once(&mut with);
        let same = first.iter().zip(&again).all(|(a, b)| a.to_bits() == b.to_bits());
        assert!(same, "{label}: equal inputs, other bits");
        first
    }

    fn check(&self, device: &Device, residuals: &[(Numbers, Numbers)]) {
        let LinearDims { m, n, .. } = self.dims;
        let (dtype, label) = (self.x.dtype, self.label(device));
        let reference = Reference::<f64>::new();
        let c = self.launch(device, dtype, |args, c| matmul(device, args, c).unwrap());
        compare(&label, &c, &self.truth.y, |i| self.value_error(i));

        let mut written = Vec::new();
        let c = self.launch(device, dtype, |args, c| {
            let mut aux = poisoned(device, dtype, m * n);
            matmul(device, Matmul { epilogue: Epilogue::Gelu { aux: Some(&mut aux) }, ..args }, c).unwrap();
            written = results(&aux, &label);
        });
        compare(&format!("{label} aux"), &written, &self.truth.y, |i| self.value_error(i));
        let truth = reference.gelu(&written).unwrap();
        compare(&format!("{label} gelu"), &c, &truth, |i| 1e-6 + rounding(dtype) * truth[i].abs());
        let alone = self.launch(device, dtype, |args, c| {
            matmul(device, Matmul { epilogue: Epilogue::Gelu { aux: None }, ..args }, c).unwrap();
        });
        assert!(alone == c, "{label} gelu without its pre-activation");

        for (residual, gamma) in residuals {
            let stream = residual.dtype;
            let (on_device, gamma_buf) = (residual.upload(device), gamma.upload(device));
            let c = self.launch(device, stream, |args, c| {
                let epilogue = Epilogue::ScaleResidual { residual: &on_device, gamma: &gamma_buf };
                matmul(device, Matmul { epilogue, ..args }, c).unwrap();
            });
            let truth = reference.layer_scale(m, n, &residual.wide(), &self.truth.y, &gamma.wide()).unwrap();
            compare(&format!("{label} residual {stream:?}"), &c, &truth, |i| {
                let gamma = f64::from(gamma.values[i % n].abs());
                1e-6 + gamma * self.value_error(i) + rounding(stream) * truth[i].abs()
            });
        }
    }
}

fn place(first_row: usize, rows: usize, rank: usize, gain: bool, given: bool) -> Place {
    Place { first_row, rows, rank, gain, given }
}

/// Every way an adapter set may lie over n columns.
fn place_sets(n: usize) -> Vec<Vec<Place>> {
    let mut sets = vec![
        vec![place(0, n, 8, false, false)],
        vec![place(0, n, 1, true, false)],
        vec![place(0, n, 17, true, false)],
        vec![place(0, n, 3, true, true)],
        vec![place(0, n, 33, false, true)],
        vec![place(n - 1, 1, 32, true, false)],
    ];
    if n >= 3 {
        let third = n / 3;
        // q and v; q, k and v with ranks of their own; boundaries that no tile knows.
        sets.push(vec![place(0, third, 8, true, false), place(2 * third, third, 8, false, false)]);
        sets.push(vec![
            place(0, third, 3, false, false),
            place(third, third, 32, true, false),
            place(2 * third, n - 2 * third, 100, true, true),
        ]);
        sets.push(vec![place(1, 1, 16, true, false), place(2, n - 2, 5, false, false)]);
    }
    sets
}

fn check_all(shapes: &[(usize, usize, usize)], sets: impl Fn(usize) -> Vec<Vec<Place>>) {
    let mut random = fresh();
    for &(m, n, k) in shapes {
        for dtype in DTYPES {
            let gamma = Numbers::draw(&mut random, DType::F32, n, 1.0);
            let mut residual = |stream| (Numbers::draw(&mut random, stream, m * n, 2.0), gamma.clone());
            let mut residuals = vec![residual(dtype)];
            if dtype == DType::Bf16 {
                residuals.push(residual(DType::F32));
            }
            for places in sets(n) {
                let case = Case::random(&mut random, (m, n, k), &places, dtype);
                on_every_arch(|device| case.check(device, &residuals));
            }
        }
    }
}

fn sanitize() {
    check_all(&[(5, 7, 3), (130, 33, 40)], |n| place_sets(n).split_off(5));
}

fn dinov2_shapes() {
    check_all(&[(130, 1152, 384), (257, 384, 384), (130, 384, 1536), (130, 1536, 384)], |n| {
        let third = n / 3;
        vec![
            vec![place(0, n, 8, true, false)],
            vec![place(0, third, 8, true, false), place(2 * third, third, 8, true, false)],
            vec![place(0, n, 64, true, true)],
        ]
    });
}

/// More than two tiles for each of 132 multiprocessors, of which only some lie in an adapter; a weight that stays (up to 384 deep), and not.
fn several_tiles() {
    check_all(&[(4229, 1152, 72), (4229, 1152, 392)], |n| {
        let third = n / 3;
        vec![
            vec![place(0, third, 8, true, false), place(2 * third, third, 8, true, false)],
            vec![place(third, third, 24, false, false)],
        ]
    });
}

fn odd_shapes() {
    let shapes = [
        (1, 1, 1),
        (1, 2, 3),
        (2, 1, 8),
        (3, 5, 7),
        (1, 384, 31),
        (17, 16, 16),
        (31, 33, 32),
        (33, 31, 1),
        (64, 63, 65),
        (127, 129, 33),
        (128, 128, 32),
        (129, 127, 97),
        (130, 132, 4),
        (5, 400, 10),
        (257, 30, 34),
        (65, 260, 100),
        (200, 136, 129),
        (7, 11, 1027),
        (1, 3, 588),
        (140, 40, 588),
        (256, 257, 2),
    ];
    check_all(&shapes, place_sets);
}

fn wrong_adapters() {
    on_every_arch(|device| {
        let bf16 = |len| Buf::zeros(device, DType::Bf16, len).unwrap();
        let (x, w, a, b) = (bf16(256), bf16(256), bf16(64 * 16), bf16(64 * 16));
        let mut c = bf16(256);
        let adapter = |first_row, rows, rank_padded| LoraAdapter {
            first_row,
            rows,
            rank_padded,
            scale: 1.0,
            b: &b,
            gain: None,
            t: RankProduct::InLoop { a: &a, t: None },
        };
        let args = |adapters| Matmul { adapters, ..Matmul::new(Layout::Nt, (16, 16, 16), &x, &w) };
        let mut refused = |adapters| assert!(matmul(device, args(adapters), &mut c).is_err());
        refused(vec![adapter(0, 0, 16)]);
        refused(vec![adapter(0, 17, 16)]);
        refused(vec![adapter(0, 16, 8)]);
        refused(vec![adapter(0, 16, 0)]);
        refused(vec![adapter(0, 16, 48)]); // too many for the loop
        refused(vec![adapter(0, 9, 16), adapter(8, 8, 16)]);
        refused((0..4).map(|i| adapter(i, 1, 16)).collect());
        matmul(device, args(vec![adapter(0, 8, 16), adapter(8, 8, 32)]), &mut c).unwrap();
    });
}
