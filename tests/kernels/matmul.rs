//! kernels/matmul_bf16.cu and matmul_f32.cu against the plain loops in f64, on inputs as the device rounds them.

use half::bf16;
use peftk::autograd::{Backend, LinearBackward, LinearDims, Sums};
use peftk::gpu::{Buf, DType, Device};
use peftk::kernels::matmul::{Epilogue, Layout, Matmul, Operand, Second, matmul};
use peftk::reference::Reference;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::harness::{Needs, Test, on_every_arch};

pub const TESTS: &[Test] = &[
    Test { name: "sanitize_matmul", needs: Needs::Gpu, run: sanitize },
    Test { name: "matmul::dinov2_shapes", needs: Needs::Gpu, run: dinov2_shapes },
    Test { name: "matmul::odd_shapes", needs: Needs::Gpu, run: odd_shapes },
    Test { name: "matmul::several_tiles_a_block", needs: Needs::Gpu, run: several_tiles },
    Test { name: "matmul::rows_apart_and_offsets", needs: Needs::Gpu, run: rows_apart },
    Test { name: "matmul::a_deep_weight_gradient", needs: Needs::Gpu, run: deep_weight_gradient },
    Test { name: "matmul::wrong_shapes_are_refused", needs: Needs::Gpu, run: wrong_shapes },
];

/// Elements behind every buffer: NaN, so that a read of them shows in the result and a write as a number.
const GUARD: usize = 64;
pub const DTYPES: [DType; 2] = [DType::F32, DType::Bf16];

/// Fresh numbers every run, from a seed that is printed.
pub fn fresh() -> ChaCha8Rng {
    let clock =
        || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |t| t.as_nanos() as u64);
    let seed = std::env::var("PEFTK_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(clock);
    println!("    PEFTK_TEST_SEED={seed}");
    ChaCha8Rng::seed_from_u64(seed)
}

/// Numbers that this dtype holds exactly.
#[derive(Clone)]
pub struct Numbers {
    pub dtype: DType,
    pub values: Vec<f32>,
}

impl Numbers {
    pub fn draw(random: &mut impl Rng, dtype: DType, len: usize, bound: f32) -> Self {
        let round = |x: f32| if dtype == DType::Bf16 { bf16::from_f32(x).to_f32() } else { x };
        Self { dtype, values: (0..len).map(|_| round(random.random_range(-bound..bound))).collect() }
    }

    /// On the device, with the guard behind.
    pub fn upload(&self, device: &Device) -> Buf {
        let guard = std::iter::repeat_n(f32::NAN, GUARD);
        Buf::from_f32(device, &self.values.iter().copied().chain(guard).collect::<Vec<_>>(), self.dtype).unwrap()
    }

    pub fn wide(&self) -> Vec<f64> {
        self.values.iter().map(|&x| f64::from(x)).collect()
    }

    pub fn abs(&self) -> Vec<f64> {
        self.values.iter().map(|&x| f64::from(x.abs())).collect()
    }
}

/// Room for `len` results, NaN all over and behind.
pub fn poisoned(device: &Device, dtype: DType, len: usize) -> Buf {
    Numbers { dtype, values: vec![f32::NAN; len] }.upload(device)
}

/// The results, after a look at the guard.
pub fn results(buf: &Buf, what: &str) -> Vec<f64> {
    let mut values = buf.to_f32().unwrap();
    let guard = values.split_off(values.len() - GUARD);
    assert!(guard.iter().all(|x| x.is_nan()), "{what}: wrote beyond the end");
    values.into_iter().map(f64::from).collect()
}

/// How far one rounding to `dtype` may be off, relative: 2^-8 for bf16, and a little for what was rounded being off itself.
pub fn rounding(dtype: DType) -> f64 {
    if dtype == DType::Bf16 { 1.0 / 250.0 } else { 0.0 }
}

pub fn compare(what: &str, ours: &[f64], truth: &[f64], allowed: impl Fn(usize) -> f64) {
    assert_eq!(ours.len(), truth.len(), "{what}");
    for (i, (&ours, &truth)) in ours.iter().zip(truth).enumerate() {
        let allowed = allowed(i);
        assert!((ours - truth).abs() <= allowed, "{what}: element {i} is {ours}, truth {truth}, allowed {allowed:e}");
    }
}

/// What f32 sums of terms with this sum of sizes may be off.
pub fn sum_error(size: f64) -> f64 {
    2e-6 * size + 1e-30
}

#[derive(Clone, Copy, Debug)]
struct Shape {
    m: usize,
    n: usize,
    k: usize,
    /// Depth of the second product; 0: none.
    k2: usize,
}

/// A B in f64 by the reference's linear, and its gradients.
fn product(layout: Layout, (m, n, k): (usize, usize, usize), a: &Vec<f64>, b: &Vec<f64>) -> Vec<f64> {
    let reference = Reference::<f64>::new();
    let (dims, x, w, need_x) = match layout {
        Layout::Nt => return reference.linear(LinearDims { m, k, n }, a, b, None, &[]).unwrap().y,
        Layout::Nn => (LinearDims { m, k: n, n: k }, None, b, true),
        Layout::Tn => (LinearDims { m: k, k: n, n: m }, Some(b), b, false),
    };
    let grads = reference.linear_backward(
        LinearBackward {
            dims,
            x,
            w,
            bias: None,
            y: None,
            adapters: Vec::new(),
            t: Vec::new(),
            z: Vec::new(),
            dy: a,
            need_x,
            need_w: !need_x,
            need_bias: false,
            need_adapter: false,
        },
        Sums::fresh(),
    );
    let grads = grads.unwrap();
    grads.x.or(grads.w).unwrap()
}

struct Case {
    layout: Layout,
    shape: Shape,
    a: Numbers,
    b: Numbers,
    second: Option<(Numbers, Numbers)>,
    bias: Option<Numbers>,
    /// A B + A2 B2 + bias.
    truth: Vec<f64>,
    /// The same of absolute values.
    size: Vec<f64>,
}

impl Case {
    fn random(random: &mut impl Rng, layout: Layout, shape: Shape, dtype: DType) -> Self {
        let Shape { m, n, k, k2 } = shape;
        let bound = (3.0 / k as f32).sqrt();
        let a = Numbers::draw(random, dtype, m * k, 1.7);
        let b = Numbers::draw(random, dtype, n * k, bound);
        let second = (k2 > 0 && layout != Layout::Tn)
            .then(|| (Numbers::draw(random, dtype, m * k2, 1.0), Numbers::draw(random, dtype, n * k2, 0.5)));
        let bias = (layout == Layout::Nt).then(|| Numbers::draw(random, DType::F32, n, 1.0));
        let mut truth = product(layout, (m, n, k), &a.wide(), &b.wide());
        let mut size = product(layout, (m, n, k), &a.abs(), &b.abs());
        if let Some((a2, b2)) = &second {
            let more = product(layout, (m, n, k2), &a2.wide(), &b2.wide());
            let more_size = product(layout, (m, n, k2), &a2.abs(), &b2.abs());
            truth.iter_mut().zip(more).for_each(|(x, more)| *x += more);
            size.iter_mut().zip(more_size).for_each(|(x, more)| *x += more);
        }
        if let Some(bias) = &bias {
            for i in 0..m * n {
                truth[i] += f64::from(bias.values[i % n]);
                size[i] += f64::from(bias.values[i % n].abs());
            }
        }
        Self { layout, shape, a, b, second, bias, truth, size }
    }

    /// Launches with an epilogue made by `with`, twice, and returns C.
    fn launch(&self, device: &Device, c_dtype: DType, mut with: impl FnMut(Matmul<'_>, &mut Buf)) -> Vec<f64> {
        let Shape { m, n, k, k2 } = self.shape;
        let (a, b) = (self.a.upload(device), self.b.upload(device));
        let second = self.second.as_ref().map(|(a2, b2)| (a2.upload(device), b2.upload(device)));
        let bias = self.bias.as_ref().map(|bias| bias.upload(device));
        let mut once = || {
            let mut c = poisoned(device, c_dtype, m * n);
            let args = Matmul {
                second: second.as_ref().map(|(a, b)| Second { k: k2, a, b }),
                bias: bias.as_ref(),
                ..Matmul::new(self.layout, (m, n, k), &a, &b)
            };
            with(args, &mut c);
            results(&c, &self.label(device))
        };
        let first = once();
        let again = once();
        let same = first.iter().zip(&again).all(|(a, b)| a.to_bits() == b.to_bits());
        assert!(same, "{}: equal inputs, other bits", self.label(device));
        first
    }

    fn label(&self, device: &Device) -> String {
        format!("{} {:?} {:?} {:?}", device.arch(), self.layout, self.a.dtype, self.shape)
    }

    fn check(&self, device: &Device, random: &mut impl Rng) {
        let Shape { m, n, .. } = self.shape;
        let (dtype, label) = (self.a.dtype, self.label(device));
        let round = rounding(dtype);
        let value_error = |i: usize| sum_error(self.size[i]) + round * self.truth[i].abs();

        let c_dtype = if self.layout == Layout::Tn { DType::F32 } else { dtype };
        let c = self.launch(device, c_dtype, |args, c| matmul(device, args, c).unwrap());
        let c_round = rounding(c_dtype);
        compare(&label, &c, &self.truth, |i| sum_error(self.size[i]) + c_round * self.truth[i].abs());

        let reference = Reference::<f64>::new();
        match self.layout {
            Layout::Tn => {}
            Layout::Nt => {
                let mut written = Vec::new();
                let c = self.launch(device, dtype, |args, c| {
                    let mut aux = poisoned(device, dtype, m * n);
                    matmul(device, Matmul { epilogue: Epilogue::Gelu { aux: Some(&mut aux) }, ..args }, c).unwrap();
                    written = results(&aux, &label);
                });
                compare(&format!("{label} aux"), &written, &self.truth, value_error);
                let truth = reference.gelu(&written).unwrap();
                compare(&format!("{label} gelu"), &c, &truth, |i| 1e-6 + round * truth[i].abs());
                let alone = self.launch(device, dtype, |args, c| {
                    matmul(device, Matmul { epilogue: Epilogue::Gelu { aux: None }, ..args }, c).unwrap();
                });
                assert!(alone == c, "{label} gelu without its pre-activation");

                let gamma = Numbers::draw(random, DType::F32, n, 1.0);
                for stream in [dtype, DType::F32] {
                    let residual = Numbers::draw(random, stream, m * n, 2.0);
                    let (on_device, gamma_buf) = (residual.upload(device), gamma.upload(device));
                    let c = self.launch(device, stream, |args, c| {
                        let epilogue = Epilogue::ScaleResidual { residual: &on_device, gamma: &gamma_buf };
                        matmul(device, Matmul { epilogue, ..args }, c).unwrap();
                    });
                    let truth = reference.layer_scale(m, n, &residual.wide(), &self.truth, &gamma.wide()).unwrap();
                    compare(&format!("{label} residual {stream:?}"), &c, &truth, |i| {
                        let gamma = f64::from(gamma.values[i % n].abs());
                        1e-6 + gamma * value_error(i) + rounding(stream) * truth[i].abs()
                    });
                }
            }
            Layout::Nn => {
                let aux = Numbers::draw(random, dtype, m * n, 3.0);
                let on_device = aux.upload(device);
                let c = self.launch(device, dtype, |args, c| {
                    matmul(device, Matmul { epilogue: Epilogue::GeluBackward { aux: &on_device }, ..args }, c).unwrap();
                });
                let truth = reference.gelu_backward(&aux.wide(), &self.truth).unwrap();
                // The slope is below 1.13, and before the rounding to bf16 within 5e-6.
                let slope = if dtype == DType::Bf16 { 5e-6 } else { 1e-6 };
                let allowed = |i: usize| 1.13 * value_error(i) + slope * self.truth[i].abs() + round * truth[i].abs();
                compare(&format!("{label} gelu backward"), &c, &truth, allowed);
            }
        }
    }
}

fn check_all(shapes: &[(usize, usize, usize, usize)]) {
    let mut random = fresh();
    for &(m, n, k, k2) in shapes {
        for dtype in DTYPES {
            for layout in [Layout::Nt, Layout::Nn, Layout::Tn] {
                let case = Case::random(&mut random, layout, Shape { m, n, k, k2 }, dtype);
                let seed = random.random();
                on_every_arch(|device| case.check(device, &mut ChaCha8Rng::seed_from_u64(seed)));
            }
        }
    }
}

fn sanitize() {
    check_all(&[(5, 7, 3, 2), (130, 33, 40, 16)]);
}

fn dinov2_shapes() {
    // q, k and v; proj; fc1; fc2; the patches' convolution; a head.
    check_all(&[
        (257, 1152, 384, 0),
        (514, 384, 384, 16),
        (261, 1536, 384, 0),
        (257, 384, 1536, 32),
        (256, 384, 588, 0),
        (256, 100, 384, 0),
    ]);
}

/// More than two tiles for each of 132 multiprocessors, an odd number in the last round: what goes over a tile's end (rings, turns, what is
/// fetched ahead, a weight that stays). Little depth keeps the plain loops short.
fn several_tiles() {
    // A weight that stays; with a second product none does; beyond 384 deep neither; wide tiles of few columns.
    check_all(&[(4229, 1536, 72, 0), (4229, 1160, 40, 16), (4229, 1152, 392, 0), (19_205, 384, 72, 16)]);
}

fn odd_shapes() {
    // Around tiles of 128 and 32, steps of 32 and 16, 16-byte rows and their halves.
    check_all(&[
        (1, 1, 1, 0),
        (1, 1, 2, 1),
        (1, 8, 3, 0),
        (8, 1, 5, 3),
        (2, 2, 2, 2),
        (3, 5, 7, 0),
        (1, 384, 31, 16),
        (384, 1, 33, 0),
        (16, 16, 16, 16),
        (31, 33, 32, 31),
        (33, 31, 1, 0),
        (64, 63, 65, 0),
        (127, 129, 33, 17),
        (128, 128, 32, 32),
        (129, 127, 97, 0),
        (130, 132, 4, 4),
        (5, 1000, 10, 0),
        (1000, 5, 10, 0),
        (257, 130, 34, 33),
        (65, 260, 100, 0),
        (255, 136, 129, 48),
        (7, 11, 1027, 0),
        (1, 1, 4099, 0),
        (300, 40, 588, 8),
    ]);
}

/// Rows with gaps between them, from an odd place on: what lies between is NaN.
fn rows_apart() {
    let mut random = fresh();
    for (first, gap) in [(0, 8), (8, 4), (4, 2), (3, 1)] {
        for dtype in DTYPES {
            for layout in [Layout::Nt, Layout::Nn, Layout::Tn] {
                let shape = Shape { m: 131, n: 72, k: 70, k2: 0 };
                let case = Case::random(&mut random, layout, shape, dtype);
                let spread = |numbers: &Numbers, cols: usize| {
                    let mut values = vec![f32::NAN; first];
                    for row in numbers.values.chunks_exact(cols) {
                        values.extend_from_slice(row);
                        values.extend(std::iter::repeat_n(f32::NAN, gap));
                    }
                    Numbers { dtype, values }
                };
                let a_cols = if layout == Layout::Tn { shape.m } else { shape.k };
                let b_cols = if layout == Layout::Nt { shape.k } else { shape.n };
                on_every_arch(|device| {
                    let (a, b) = (spread(&case.a, a_cols).upload(device), spread(&case.b, b_cols).upload(device));
                    let c_dtype = if layout == Layout::Tn { DType::F32 } else { dtype };
                    let c = case.launch(device, c_dtype, |args, c| {
                        let a = Operand { buf: &a, first, stride: a_cols + gap };
                        let b = Operand { buf: &b, first, stride: b_cols + gap };
                        matmul(device, Matmul { a, b, ..args }, c).unwrap();
                    });
                    let round = rounding(c_dtype);
                    let allowed = |i: usize| sum_error(case.size[i]) + round * case.truth[i].abs();
                    compare(&case.label(device), &c, &case.truth, allowed);
                });
            }
        }
    }
}

/// Many tokens: the depth is cut into parts.
fn deep_weight_gradient() {
    let mut random = fresh();
    for (m, n, k) in [(384, 130, 4112), (33, 50, 20_001), (1, 1, 65_792)] {
        for dtype in DTYPES {
            let case = Case::random(&mut random, Layout::Tn, Shape { m, n, k, k2: 0 }, dtype);
            on_every_arch(|device| {
                let c = case.launch(device, DType::F32, |args, c| matmul(device, args, c).unwrap());
                compare(&case.label(device), &c, &case.truth, |i| sum_error(case.size[i]));
            });
        }
    }
}

fn wrong_shapes() {
    on_every_arch(|device| {
        let buf = |dtype, len| Buf::zeros(device, dtype, len).unwrap();
        let (a, b) = (buf(DType::Bf16, 64), buf(DType::Bf16, 64));
        let mut c = buf(DType::Bf16, 64);
        let mut refused = |args: Matmul<'_>| assert!(matmul(device, args, &mut c).is_err());
        refused(Matmul::new(Layout::Nt, (0, 8, 8), &a, &b));
        refused(Matmul::new(Layout::Nt, (9, 8, 8), &a, &b));
        refused(Matmul::new(Layout::Nn, (8, 9, 8), &a, &b));
        refused(Matmul::new(Layout::Tn, (8, 8, 8), &a, &b)); // C is f32
        let wide = buf(DType::F32, 64);
        refused(Matmul::new(Layout::Nt, (8, 8, 8), &a, &wide));
        refused(Matmul { bias: Some(&a), ..Matmul::new(Layout::Nt, (8, 8, 8), &a, &b) });
        refused(Matmul { epilogue: Epilogue::GeluBackward { aux: &b }, ..Matmul::new(Layout::Nt, (8, 8, 8), &a, &b) });
        let narrow = Operand { buf: &a, first: 0, stride: 7 };
        refused(Matmul { a: narrow, ..Matmul::new(Layout::Nt, (8, 8, 8), &a, &b) });
        matmul(device, Matmul::new(Layout::Nt, (8, 8, 8), &a, &b), &mut c).unwrap();
    });
}
