//! kernels/merge.cu against the plain loops in f64.

use peftk::autograd::{AdapterDims, Backend, DoraAdapter};
use peftk::gpu::{Buf, DType};
use peftk::kernels::dora_norm::AdapterRows;
use peftk::kernels::merge::{MergeAdapter, MergeGain, MergeWeight, merge, merge_batched};
use peftk::reference::Reference;
use rand::Rng;

use crate::harness::{Needs, Test, on_every_arch};
use crate::matmul::{Numbers, compare, fresh, poisoned, results, rounding};

pub const TESTS: &[Test] = &[
    Test { name: "sanitize_merge", needs: Needs::Gpu, run: sanitize },
    Test { name: "merge::dinov2_shapes", needs: Needs::Gpu, run: dinov2_shapes },
    Test { name: "merge::odd_shapes", needs: Needs::Gpu, run: odd_shapes },
    Test { name: "merge::a_model_at_once", needs: Needs::Gpu, run: batch },
    Test { name: "merge::wrong_shapes_are_refused", needs: Needs::Gpu, run: wrong_shapes },
];

struct Case {
    n: usize,
    rows: AdapterRows,
    w: Numbers,
    a: Numbers,
    b: Numbers,
    gain: Numbers,
}

/// A merged weight, and of every element what its terms amount to.
struct Truth {
    merged: Vec<f64>,
    sizes: Vec<f64>,
}

impl Case {
    fn random(random: &mut impl Rng, (n, cols): (usize, usize), first_row: usize, rows: usize, rank: usize) -> Self {
        let mut draw = |len, bound| Numbers::draw(random, DType::F32, len, bound);
        let (w, a, b, gain) = (draw(n * cols, 1.0), draw(rank * cols, 1.0), draw(rows * rank, 0.5), draw(rows, 2.0));
        Self { n, rows: AdapterRows { first_row, rows, cols, rank, scale: 1.5 }, w, a, b, gain }
    }

    fn dims(&self) -> AdapterDims {
        let AdapterRows { first_row, rows, rank, scale, .. } = self.rows;
        AdapterDims { first_row, rows, rank, scale: f64::from(scale) }
    }

    fn truth(&self, gain: Option<&Vec<f64>>) -> Truth {
        let reference = Reference::<f64>::new();
        let cols = self.rows.cols;
        let (mut merged, mut sizes) = (self.w.wide(), self.w.abs());
        reference.merge(self.dims(), cols, &mut merged, &self.a.wide(), &self.b.wide(), gain).unwrap();
        let gain: Option<Vec<f64>> = gain.map(|gain| gain.iter().map(|g| g.abs()).collect());
        reference.merge(self.dims(), cols, &mut sizes, &self.a.abs(), &self.b.abs(), gain.as_ref()).unwrap();
        Truth { merged, sizes }
    }

    /// magnitude / norm, with the gain as the magnitude; and how far off f32 may be, relative.
    fn dora_gain(&self) -> (Vec<f64>, f64) {
        let reference = Reference::<f64>::new();
        let (dims, cols) = (self.dims(), self.rows.cols);
        let magnitude = self.gain.wide();
        let gains = |[w, a, b]: [Vec<f64>; 3]| {
            let adapter = DoraAdapter { dims, k: cols, w: &w, a: &a, b: &b, magnitude: &magnitude };
            reference.dora_gains(&[adapter]).unwrap().swap_remove(0)
        };
        let (norm, gain) = gains([&self.w, &self.a, &self.b].map(Numbers::wide));
        let (sizes, _) = gains([&self.w, &self.a, &self.b].map(Numbers::abs));
        let worst = norm.iter().zip(&sizes).map(|(n, size)| size / n).fold(1.0, f64::max);
        (gain, 1e-6 * worst)
    }

    fn check(&self) {
        let given = self.gain.wide();
        let (dora, dora_error) = self.dora_gain();
        on_every_arch(|device| {
            let what = format!("merge {} {} of {:?}", device.arch(), self.n, self.rows);
            let [a, b, gain] = [&self.a, &self.b, &self.gain].map(|numbers| numbers.upload(device));
            for scaled in [false, true] {
                let truth = self.truth(scaled.then_some(&given));
                let mut w = self.w.upload(device);
                merge(device, self.rows, &mut w, &a, &b, scaled.then_some(&gain)).unwrap();
                // Rows without the adapter are as they were, to the bit.
                let (start, end) =
                    (self.rows.first_row * self.rows.cols, (self.rows.first_row + self.rows.rows) * self.rows.cols);
                compare(&what, &results(&w, &what), &truth.merged, |i| {
                    if (start..end).contains(&i) { 2e-6 * truth.sizes[i] } else { 0.0 }
                });
            }
            let w = self.w.upload(device);
            for (which, truth, error) in [
                (MergeGain::One, self.truth(None), 0.0),
                (MergeGain::Given(&gain), self.truth(Some(&given)), 0.0),
                (MergeGain::Magnitude(&gain), self.truth(Some(&dora)), dora_error),
            ] {
                let count = self.w.values.len();
                let (mut wide, mut narrow) =
                    (poisoned(device, DType::F32, count), poisoned(device, DType::Bf16, count));
                let adapters = vec![MergeAdapter { rows: self.rows, a: &a, b: &b, gain: which }];
                let weight = MergeWeight { w: &w, adapters, out_f32: Some(&mut wide), out_bf16: Some(&mut narrow) };
                merge_batched(device, &mut [weight]).unwrap();
                let what = format!("{what}, batched, {which:?}");
                self.compare_rows(&what, &results(&wide, &what), &truth, error + 2e-6, 0.0);
                self.compare_rows(&what, &results(&narrow, &what), &truth, error + 2e-6, rounding(DType::Bf16));
            }
        });
    }

    /// The adapter's rows against the truth; nothing else may be written.
    fn compare_rows(&self, what: &str, ours: &[f64], truth: &Truth, error: f64, rounding: f64) {
        let AdapterRows { first_row, rows, cols, .. } = self.rows;
        let (start, end) = (first_row * cols, (first_row + rows) * cols);
        assert!(ours[..start].iter().chain(&ours[end..]).all(|x| x.is_nan()), "{what}: wrote other rows");
        compare(what, &ours[start..end], &truth.merged[start..end], |i| {
            error * truth.sizes[start + i] + rounding * truth.merged[start + i].abs()
        });
    }
}

fn sanitize() {
    let mut random = fresh();
    Case::random(&mut random, (12, 131), 1, 10, 3).check();
    Case::random(&mut random, (1, 8), 0, 1, 9).check();
}

fn dinov2_shapes() {
    let mut random = fresh();
    for (n, cols, first_row, rows, rank) in
        [(1152, 384, 768, 384, 8), (1536, 384, 0, 1536, 16), (384, 1536, 0, 384, 8), (1024, 1024, 0, 1024, 64)]
    {
        Case::random(&mut random, (n, cols), first_row, rows, rank).check();
    }
}

fn odd_shapes() {
    let mut random = fresh();
    // Around 8 rows a block, 128 threads over columns or fours of them, 4 ranks an unrolled step.
    for (n, cols, first_row, rows, rank) in [
        (1, 1, 0, 1, 1),
        (2, 1, 1, 1, 256),
        (3, 384, 1, 1, 8),
        (384, 1, 0, 384, 8),
        (5, 2, 2, 2, 2),
        (3, 5, 0, 3, 1),
        (9, 127, 1, 7, 3),
        (8, 128, 0, 8, 4),
        (10, 129, 0, 9, 5),
        (20, 132, 5, 15, 7),
        (16, 508, 0, 16, 8),
        (18, 512, 1, 17, 9),
        (31, 516, 0, 31, 10),
        (33, 31, 0, 33, 33),
        (70, 257, 3, 64, 12),
        (65, 255, 0, 65, 255),
        (13, 1023, 0, 13, 256),
        (17, 1025, 0, 17, 129),
        (127, 383, 0, 127, 3),
        (1000, 10, 0, 1000, 1),
        (501, 88, 1, 500, 24),
        (3, 5003, 0, 3, 17),
    ] {
        Case::random(&mut random, (n, cols), first_row, rows, rank).check();
    }
}

/// q and v of one weight, and others beside it, with and without a magnitude: two launches in all.
fn batch() {
    let mut random = fresh();
    let cases = [
        Case::random(&mut random, (1152, 384), 0, 384, 8),
        Case::random(&mut random, (30, 50), 3, 20, 5),
        Case::random(&mut random, (9, 1001), 1, 8, 17),
    ];
    let second = Case::random(&mut random, (1152, 384), 768, 384, 4);
    on_every_arch(|device| {
        let upload = |case: &Case| [&case.w, &case.a, &case.b, &case.gain].map(|numbers| numbers.upload(device));
        let inputs: Vec<[Buf; 4]> = cases.iter().map(upload).collect();
        let [_, a2, b2, gain2] = upload(&second);
        let mut outputs: Vec<Buf> =
            cases.iter().map(|case| poisoned(device, DType::F32, case.w.values.len())).collect();
        let mut weights: Vec<MergeWeight<'_>> = Vec::new();
        for (i, ((case, [w, a, b, gain]), out)) in cases.iter().zip(&inputs).zip(&mut outputs).enumerate() {
            let gain = if i == 1 { MergeGain::One } else { MergeGain::Magnitude(gain) };
            let mut adapters = vec![MergeAdapter { rows: case.rows, a, b, gain }];
            if i == 0 {
                adapters.push(MergeAdapter { rows: second.rows, a: &a2, b: &b2, gain: MergeGain::Given(&gain2) });
            }
            weights.push(MergeWeight { w, adapters, out_f32: Some(out), out_bf16: None });
        }
        merge_batched(device, &mut weights).unwrap();
        drop(weights);
        for (i, case) in cases.iter().enumerate() {
            let what = format!("merge_batched {} weight {i}", device.arch());
            let mut ours = results(&outputs[i], &what);
            if i == 0 {
                let (second_start, end) = (768 * 384, 1152 * 384);
                let with = Case { w: case.w.clone(), ..Case::random(&mut fresh(), (1152, 384), 768, 384, 4) };
                let with = Case { a: second.a.clone(), b: second.b.clone(), gain: second.gain.clone(), ..with };
                let truth = with.truth(Some(&with.gain.wide()));
                compare(&what, &ours[second_start..end], &truth.merged[second_start..], |at| {
                    2e-6 * truth.sizes[second_start + at]
                });
                ours[second_start..end].fill(f64::NAN);
            }
            let (gain, error) = case.dora_gain();
            let truth = if i == 1 { case.truth(None) } else { case.truth(Some(&gain)) };
            case.compare_rows(&what, &ours, &truth, error + 2e-6, 0.0);
        }
    });
}

fn wrong_shapes() {
    on_every_arch(|device| {
        let buffer = |n: usize| Buf::zeros(device, DType::F32, n).unwrap();
        let (mut w, a, b, gain) = (buffer(8), buffer(2), buffer(3), buffer(3));
        let mut launch = |first_row, rows, cols, rank| {
            let adapter = AdapterRows { first_row, rows, cols, rank, scale: 1.0 };
            merge(device, adapter, &mut w, &a, &b, Some(&gain))
        };
        launch(1, 3, 2, 1).unwrap();
        for (first_row, rows, cols, rank) in [
            (1, 0, 2, 1),
            (1, 3, 0, 1),
            (1, 3, 2, 0),
            (2, 3, 2, 1),
            (0, 4, 2, 1),
            (0, 1, 3, 1),
            (0, 3, 2, 2),
            (0, 1, 1, 257),
        ] {
            let error = launch(first_row, rows, cols, rank).expect_err("it does not fit");
            assert!(error.to_string().starts_with("merge "), "{first_row} {rows}x{cols} r{rank}: {error}");
        }
        assert!(merge_batched(device, &mut []).is_err(), "nothing to merge");
    });
}
