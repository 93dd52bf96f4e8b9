//! kernels/dora_norm.cu against the plain loops in f64.

use peftk::gpu::{Buf, DType, Device};
use peftk::kernels::dora_norm::{AdapterRows, DoraNormItem, dora_norm, dora_norm_batched};
use peftk::kernels::{DoraNorm, DoraNormShape, MAX_RANK};
use peftk::reference;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::harness::{Needs, Test, on_every_arch};

pub const TESTS: &[Test] = &[
    Test { name: "sanitize_dora_norm", needs: Needs::Gpu, run: sanitize },
    Test { name: "dora_norm::dinov2_shapes", needs: Needs::Gpu, run: dinov2_shapes },
    Test { name: "dora_norm::odd_shapes", needs: Needs::Gpu, run: odd_shapes },
    Test { name: "dora_norm::an_adapter_that_opposes_w", needs: Needs::Gpu, run: opposing_adapter },
    Test { name: "dora_norm::zero_and_extreme_rows", needs: Needs::Gpu, run: zero_and_extreme_rows },
    Test { name: "dora_norm::a_batch_gives_the_bits_of_one", needs: Needs::Gpu, run: batched },
    Test { name: "dora_norm::rows_within_a_weight", needs: Needs::Gpu, run: rows_within },
    Test { name: "dora_norm::equal_inputs_give_equal_bits", needs: Needs::Gpu, run: repeatable },
    Test { name: "dora_norm::wrong_shapes_are_refused", needs: Needs::Gpu, run: wrong_shapes },
];

/// Elements behind every buffer that no kernel may touch: a read brings NaN into the result, a write is seen.
const GUARD: usize = 64;
/// A NaN that no arithmetic makes.
const POISON: u32 = 0x7fc0_dead;

struct Case {
    shape: DoraNormShape,
    scale: f32,
    w: Vec<f32>,
    a: Vec<f32>,
    b: Vec<f32>,
}

impl Case {
    /// W and A as a trained linear has them (uniform, variance near 1 / cols), B as large as W.
    fn random(rows: usize, cols: usize, rank: usize, random: &mut impl Rng) -> Self {
        let bound = (3.0 / cols as f32).sqrt();
        let mut values =
            |n: usize, bound: f32| -> Vec<f32> { (0..n).map(|_| random.random_range(-bound..bound)).collect() };
        let (w, a, b) = (values(rows * cols, bound), values(rank * cols, bound), values(rows * rank, 0.5));
        Self { shape: DoraNormShape { rows, cols, rank }, scale: random.random_range(0.5..4.0), w, a, b }
    }

    fn launch(&self, device: &Device) -> Vec<f32> {
        let guarded = |values: &[f32]| {
            let poison = std::iter::repeat_n(f32::from_bits(POISON), GUARD);
            Buf::from_f32(device, &values.iter().copied().chain(poison).collect::<Vec<_>>(), DType::F32).unwrap()
        };
        let (w, a, b) = (guarded(&self.w), guarded(&self.a), guarded(&self.b));
        let mut norm = guarded(&vec![f32::from_bits(POISON); self.shape.rows]);
        DoraNorm::new(device).unwrap().launch(self.shape, self.scale, &w, &a, &b, &mut norm).unwrap();
        let mut norm = norm.to_vec::<f32>().unwrap();
        let guard = norm.split_off(self.shape.rows);
        assert!(guard.iter().all(|value| value.to_bits() == POISON), "{:?}: wrote beyond the end", self.shape);
        norm
    }

    fn truth(&self) -> Vec<f64> {
        self.reference(f64::from)
    }

    fn reference(&self, widen: fn(f32) -> f64) -> Vec<f64> {
        let wide = |values: &[f32]| -> Vec<f64> { values.iter().map(|&value| widen(value)).collect() };
        let DoraNormShape { rows, cols, rank } = self.shape;
        reference::dora_norm::dora_norm(
            &wide(&self.w),
            &wide(&self.a),
            &wide(&self.b),
            widen(self.scale),
            rows,
            cols,
            rank,
        )
    }

    /// The largest error relative to the norm itself, after checking every value against `1e-6 || |W| + |scale| |B| |A| ||`:
    /// f32 can't do better where the adapter cancels W, nor may it do worse.
    fn check(&self, device: &Device) -> f64 {
        let bounds = self.reference(|value| f64::from(value.abs()));
        let ours = self.launch(device);
        let mut worst = 0.0_f64;
        for (row, ((ours, truth), bound)) in ours.iter().zip(self.truth()).zip(bounds).enumerate() {
            let error = (f64::from(*ours) - truth).abs();
            let (arch, shape) = (device.arch(), self.shape);
            assert!(
                error <= 1e-6 * bound,
                "{arch} {shape:?} row {row}: {ours}, truth {truth}, allowed {:e}",
                1e-6 * bound
            );
            worst = worst.max(error / truth);
        }
        worst
    }
}

/// Fresh numbers every run, from a seed that is printed.
fn fresh() -> ChaCha8Rng {
    let clock =
        || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |t| t.as_nanos() as u64);
    let seed = std::env::var("PEFTK_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(clock);
    println!("    PEFTK_TEST_SEED={seed}");
    ChaCha8Rng::seed_from_u64(seed)
}

fn sanitize() {
    let mut random = fresh();
    for (rows, cols, rank) in [(5, 131, 3), (1, 7, 9)] {
        let case = Case::random(rows, cols, rank, &mut random);
        on_every_arch(|device| {
            case.check(device);
        });
    }
}

fn dinov2_shapes() {
    let mut random = fresh();
    for (rows, cols, rank) in [(384, 384, 8), (1536, 384, 16), (384, 1536, 8), (4096, 1536, 8), (1536, 4096, 64)] {
        let case = Case::random(rows, cols, rank, &mut random);
        on_every_arch(|device| {
            let worst = case.check(device);
            assert!(worst <= 1e-6, "{:?}: {worst:e}", case.shape);
            let micros = micros(device, &case);
            let gigabytes = (4 * (rows * cols + rank * cols + rows * rank + rows)) as f32 / micros / 1000.0;
            let shape = format!("{rows}x{cols} r{rank}");
            println!(
                "    dora_norm_f32 {} {shape}: error {worst:.1e}, {micros:.1} us, {gigabytes:.0} GB/s",
                device.arch()
            );
        });
    }
}

/// Microseconds of one launch, the median of several, each on its own.
fn micros(device: &Device, case: &Case) -> f32 {
    let [w, a, b] = [&case.w, &case.a, &case.b].map(|values| Buf::from_f32(device, values, DType::F32).unwrap());
    let mut norm = Buf::zeros(device, DType::F32, case.shape.rows).unwrap();
    let kernel = DoraNorm::new(device).unwrap();
    let mut once = || device.time(|| kernel.launch(case.shape, case.scale, &w, &a, &b, &mut norm)).unwrap();
    let mut times: Vec<f32> = (0..21).map(|_| once()).collect();
    times.sort_by(f32::total_cmp);
    times[times.len() / 2]
}

fn odd_shapes() {
    let mut random = fresh();
    // Around every boundary there is: 8 rows a block, 128 threads over columns or fours of them, 4 ranks an unrolled step, 256 ranks.
    let shapes = [
        (1, 1, 1),
        (1, 1, 256),
        (1, 384, 8),
        (384, 1, 8),
        (2, 2, 2),
        (3, 5, 1),
        (4, 4, 4),
        (5, 3, 3),
        (7, 127, 7),
        (8, 128, 8),
        (9, 129, 9),
        (6, 130, 5),
        (31, 33, 32),
        (33, 31, 33),
        (64, 257, 12),
        (65, 255, 255),
        (13, 1023, 256),
        (17, 1025, 129),
        (127, 383, 3),
        (129, 385, 127),
        (1000, 10, 1),
        (1001, 589, 24),
        (15, 508, 4),
        (16, 512, 5),
        (17, 516, 6),
        (3, 10_007, 17),
        (10_007, 3, 128),
    ];
    for (rows, cols, rank) in shapes {
        let case = Case::random(rows, cols, rank, &mut random);
        on_every_arch(|device| {
            case.check(device);
        });
    }
}

/// W is all but cancelled by the adapter: the expanded form of the norm is off by several percent here.
fn opposing_adapter() {
    let mut random = fresh();
    let mut case = Case::random(96, 384, 4, &mut random);
    let DoraNormShape { rows, cols, rank } = case.shape;
    for j in 0..rows {
        for c in 0..cols {
            let delta: f32 = (0..rank).map(|k| case.b[j * rank + k] * case.a[k * cols + c]).sum();
            case.w[j * cols + c] = -0.999 * case.scale * delta;
        }
    }
    let size = case.reference(|value| f64::from(value.abs()));
    assert!(
        case.truth().iter().zip(size).all(|(norm, size)| *norm < 1e-2 * size),
        "nothing cancels: the case is not one"
    );
    on_every_arch(|device| {
        let worst = case.check(device);
        assert!(worst <= 1e-3, "{worst:e}");
    });
}

/// Rows of zeros have norm 0, and what is not finite stays in its row.
fn zero_and_extreme_rows() {
    let mut case = Case::random(6, 100, 2, &mut fresh());
    let row = |values: &mut [f32], width: usize, j: usize, value: f32| values[j * width..(j + 1) * width].fill(value);
    for j in [0, 4] {
        row(&mut case.w, 100, j, 0.0);
        row(&mut case.b, 2, j, 0.0);
    }
    case.w[100] = f32::NAN;
    case.w[200] = f32::INFINITY;
    row(&mut case.w, 100, 5, 1e15);
    let truth = case.truth();
    on_every_arch(|device| {
        let ours = case.launch(device);
        assert_eq!((ours[0], ours[4]), (0.0, 0.0));
        assert!(ours[1].is_nan(), "{}", ours[1]);
        assert_eq!(ours[2], f32::INFINITY);
        for j in [3, 5] {
            let error = (f64::from(ours[j]) - truth[j]).abs() / truth[j];
            assert!(error <= 1e-6, "row {j}: {} against {}", ours[j], truth[j]);
        }
    });
}

/// Many adapters of many sizes in one launch, half of them with a gain.
fn batched() {
    let mut random = fresh();
    let shapes = [(384, 384, 8), (1, 1, 1), (1536, 384, 16), (7, 131, 3), (8, 4, 256), (65, 1000, 5)];
    let cases: Vec<Case> =
        shapes.iter().map(|&(rows, cols, rank)| Case::random(rows, cols, rank, &mut random)).collect();
    on_every_arch(|device| {
        let upload = |values: &[f32]| Buf::from_f32(device, values, DType::F32).unwrap();
        let inputs: Vec<[Buf; 3]> = cases.iter().map(|case| [&case.w, &case.a, &case.b].map(|v| upload(v))).collect();
        let room = |case: &Case| upload(&vec![f32::from_bits(POISON); case.shape.rows]);
        let mut norms: Vec<Buf> = cases.iter().map(room).collect();
        let mut gains: Vec<Buf> = cases.iter().map(room).collect();
        let magnitudes: Vec<Vec<f32>> =
            cases.iter().map(|case| case.b[..case.shape.rows.min(case.b.len())].to_vec()).collect();
        let uploaded: Vec<Buf> = magnitudes.iter().map(|v| upload(v)).collect();
        let mut items = Vec::new();
        for (i, ((case, [w, a, b]), (norm, gain))) in
            cases.iter().zip(&inputs).zip(norms.iter_mut().zip(&mut gains)).enumerate()
        {
            let DoraNormShape { rows, cols, rank } = case.shape;
            let adapter = AdapterRows { first_row: 0, rows, cols, rank, scale: case.scale };
            let gain = (i % 2 == 0).then_some((&uploaded[i], gain));
            items.push(DoraNormItem { adapter, w, a, b, norm, gain });
        }
        dora_norm_batched(device, &mut items).unwrap();
        drop(items);
        for (i, case) in cases.iter().enumerate() {
            let (ours, alone) = (norms[i].to_vec::<f32>().unwrap(), case.launch(device));
            assert!(ours == alone, "{:?}: {ours:?} against {alone:?}", case.shape);
            let gain = gains[i].to_vec::<f32>().unwrap();
            for (j, gain) in gain.iter().enumerate() {
                if i % 2 == 0 {
                    assert_eq!(*gain, magnitudes[i][j] / ours[j], "{:?} row {j}", case.shape);
                } else {
                    assert_eq!(gain.to_bits(), POISON, "{:?} row {j}", case.shape);
                }
            }
        }
        dora_norm_batched(device, &mut []).expect_err("nothing to do");
    });
}

/// An adapter on rows of a larger weight, where the first row lies off every boundary.
fn rows_within() {
    let mut random = fresh();
    for (n, first_row, rows, cols, rank) in
        [(1152, 768, 384, 384, 8), (10, 3, 5, 7, 2), (9, 8, 1, 33, 1), (6, 1, 5, 4, 3)]
    {
        let case = Case::random(rows, cols, rank, &mut random);
        let before = vec![f32::NAN; first_row * cols];
        let behind = vec![f32::NAN; (n - first_row - rows) * cols];
        let weight: Vec<f32> = before.iter().chain(&case.w).chain(&behind).copied().collect();
        on_every_arch(|device| {
            let [w, a, b] = [&weight, &case.a, &case.b].map(|v| Buf::from_f32(device, v, DType::F32).unwrap());
            let mut norm = Buf::from_f32(device, &vec![f32::NAN; rows], DType::F32).unwrap();
            let adapter = AdapterRows { first_row, rows, cols, rank, scale: case.scale };
            dora_norm(device, adapter, &w, &a, &b, &mut norm).unwrap();
            for (j, (ours, truth)) in norm.to_vec::<f32>().unwrap().iter().zip(case.truth()).enumerate() {
                // B and W are of one size, so that little cancels.
                assert!((f64::from(*ours) - truth).abs() <= 1e-5 * truth, "{adapter:?} row {j}: {ours}, truth {truth}");
            }
        });
    }
}

fn repeatable() {
    let case = Case::random(250, 777, 20, &mut fresh());
    on_every_arch(|device| {
        let bits = || -> Vec<u32> { case.launch(device).iter().map(|value| value.to_bits()).collect() };
        let first = bits();
        for _ in 0..5 {
            assert_eq!(bits(), first);
        }
    });
}

fn wrong_shapes() {
    on_every_arch(|device| {
        let kernel = DoraNorm::new(device).unwrap();
        let buffer = |n: usize| Buf::zeros(device, DType::F32, n).unwrap();
        let (w, a, b, mut norm) = (buffer(6), buffer(3), buffer(2), buffer(2));
        let mut launch =
            |rows, cols, rank| kernel.launch(DoraNormShape { rows, cols, rank }, 1.0, &w, &a, &b, &mut norm);
        launch(2, 3, 1).unwrap();
        let shapes =
            [(0, 3, 1), (2, 0, 1), (2, 3, 0), (2, 3, MAX_RANK + 1), (3, 3, 1), (2, 4, 1), (2, 3, 2), (1, 6, 1)];
        for (rows, cols, rank) in shapes {
            let error = launch(rows, cols, rank).expect_err("it does not fit");
            assert!(error.to_string().starts_with("dora_norm "), "{rows}x{cols} r{rank}: {error}");
        }
        let other = Device::open_with(0, Some(device.arch())).unwrap();
        let foreign = Buf::zeros(&other, DType::F32, 6).unwrap();
        let shape = DoraNormShape { rows: 2, cols: 3, rank: 1 };
        let error = kernel.launch(shape, 1.0, &foreign, &a, &b, &mut norm).expect_err("nothing orders two streams");
        assert!(error.to_string().contains("another open device"), "{error}");
    });
}
