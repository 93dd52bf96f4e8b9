//! kernels/dora_norm_backward.cu against the plain loops in f64.

use peftk::autograd::{AdapterDims, Backend, DoraAdapter};
use peftk::gpu::{Buf, DType, Device};
use peftk::kernels::dora_norm::AdapterRows;
use peftk::kernels::dora_norm_backward::dora_norm_backward;
use peftk::reference::Reference;
use rand::Rng;

use crate::harness::{Needs, Test, on_every_arch};
use crate::matmul::{Numbers, compare, fresh, poisoned, results, sum_error};

pub const TESTS: &[Test] = &[
    Test { name: "sanitize_dora_norm_backward", needs: Needs::Gpu, run: sanitize },
    Test { name: "dora_norm_backward::dinov2_shapes", needs: Needs::Gpu, run: dinov2_shapes },
    Test { name: "dora_norm_backward::odd_shapes", needs: Needs::Gpu, run: odd_shapes },
    Test { name: "dora_norm_backward::a_zero_norm_takes_no_gradient", needs: Needs::Gpu, run: zero_norm },
    Test { name: "dora_norm_backward::equal_inputs_give_equal_bits", needs: Needs::Gpu, run: repeatable },
    Test { name: "dora_norm_backward::wrong_shapes_are_refused", needs: Needs::Gpu, run: wrong_shapes },
];

struct Case {
    adapter: AdapterRows,
    w: Numbers,
    a: Numbers,
    b: Numbers,
    norm: Numbers,
    dnorm: Numbers,
    da: Numbers,
    db: Numbers,
}

impl Case {
    fn random(random: &mut impl Rng, first_row: usize, rows: usize, cols: usize, rank: usize) -> Self {
        let mut draw = |n, bound| Numbers::draw(random, DType::F32, n, bound);
        let adapter = AdapterRows { first_row, rows, cols, rank, scale: 1.5 };
        let (w, a, b) = (draw((first_row + rows) * cols, 1.0), draw(rank * cols, 1.0), draw(rows * rank, 0.5));
        let (dnorm, da, db) = (draw(rows, 1.0), draw(rank * cols, 1.0), draw(rows * rank, 1.0));
        let mut case = Self { adapter, w, a, b, norm: dnorm.clone(), dnorm, da, db };
        let (w, a, b) = (&case.w.wide(), &case.a.wide(), &case.b.wide());
        let adapter = DoraAdapter { dims: case.dims(), k: cols, w, a, b, magnitude: &vec![1.0; rows] };
        let (norm, _) = Reference::<f64>::new().dora_gains(&[adapter]).unwrap().swap_remove(0);
        case.norm.values = norm.into_iter().map(|x| x as f32).collect();
        case
    }

    fn dims(&self) -> AdapterDims {
        let AdapterRows { first_row, rows, rank, scale, .. } = self.adapter;
        AdapterDims { first_row, rows, rank, scale: f64::from(scale) }
    }

    /// (dA, dB), added to what was there or not.
    fn run(&self, device: &Device, accumulate: bool) -> (Vec<f64>, Vec<f64>) {
        let what = format!("dora_norm_backward {} {:?}", device.arch(), self.adapter);
        let [w, a, b, norm, dnorm] =
            [&self.w, &self.a, &self.b, &self.norm, &self.dnorm].map(|numbers| numbers.upload(device));
        let out = |numbers: &Numbers| {
            if accumulate { numbers.upload(device) } else { poisoned(device, DType::F32, numbers.values.len()) }
        };
        let (mut da, mut db) = (out(&self.da), out(&self.db));
        dora_norm_backward(device, self.adapter, &w, &a, &b, &norm, &dnorm, accumulate, &mut da, &mut db).unwrap();
        (results(&da, &what), results(&db, &what))
    }

    fn check(&self) {
        let reference = Reference::<f64>::new();
        let (cols, norm) = (self.adapter.cols, self.norm.wide());
        let gradients =
            |w, a, b, dnorm| reference.dora_norm_backward(self.dims(), cols, &w, &a, &b, &norm, &dnorm).unwrap();
        let (da, db) = gradients(self.w.wide(), self.a.wide(), self.b.wide(), self.dnorm.wide());
        let (da_size, db_size) = gradients(self.w.abs(), self.a.abs(), self.b.abs(), self.dnorm.abs());
        on_every_arch(|device| {
            let what = format!("dora_norm_backward {} {:?}", device.arch(), self.adapter);
            for accumulate in [false, true] {
                let (ours_a, ours_b) = self.run(device, accumulate);
                let with = |truth: &[f64], before: &Numbers| -> Vec<f64> {
                    let before = before.values.iter().map(|&x| if accumulate { f64::from(x) } else { 0.0 });
                    truth.iter().zip(before).map(|(x, before)| x + before).collect()
                };
                compare(&format!("{what}: dA"), &ours_a, &with(&da, &self.da), |i| sum_error(da_size[i] + 1.0));
                compare(&format!("{what}: dB"), &ours_b, &with(&db, &self.db), |i| sum_error(db_size[i] + 1.0));
            }
        });
    }
}

fn sanitize() {
    let mut random = fresh();
    Case::random(&mut random, 1, 35, 131, 3).check();
    Case::random(&mut random, 0, 1, 7, 40).check();
}

fn dinov2_shapes() {
    let mut random = fresh();
    for (first_row, rows, cols, rank) in
        [(768, 384, 384, 8), (0, 1536, 384, 16), (0, 384, 1536, 8), (0, 1024, 1024, 32)]
    {
        Case::random(&mut random, first_row, rows, cols, rank).check();
    }
}

fn odd_shapes() {
    let mut random = fresh();
    // Around 32 rows and 128 columns a tile, 32 ranks at once.
    for (first_row, rows, cols, rank) in [
        (0, 1, 1, 1),
        (1, 1, 1, 256),
        (0, 1, 384, 8),
        (3, 384, 1, 8),
        (2, 2, 2, 2),
        (0, 3, 5, 1),
        (5, 31, 127, 3),
        (0, 32, 128, 31),
        (7, 33, 129, 32),
        (0, 34, 130, 33),
        (1, 63, 255, 5),
        (0, 64, 256, 64),
        (0, 65, 257, 65),
        (9, 13, 1023, 100),
        (0, 17, 1025, 129),
        (0, 127, 383, 3),
        (1, 129, 385, 127),
        (0, 1000, 10, 1),
        (2, 501, 89, 24),
        (0, 3, 5003, 17),
        (0, 5003, 3, 12),
        (4, 100, 100, 256),
    ] {
        Case::random(&mut random, first_row, rows, cols, rank).check();
    }
}

fn zero_norm() {
    let mut case = Case::random(&mut fresh(), 0, 40, 20, 3);
    case.norm.values[33] = 0.0;
    on_every_arch(|device| {
        let (da, db) = case.run(device, false);
        assert!(da.iter().chain(&db).all(|x| x.is_finite()), "a row of norm 0 spread");
        assert!(db[33 * 3..34 * 3].iter().all(|&x| x == 0.0), "{:?}", &db[33 * 3..34 * 3]);
    });
}

fn repeatable() {
    let case = Case::random(&mut fresh(), 0, 250, 777, 20);
    on_every_arch(|device| {
        let first = case.run(device, false);
        for _ in 0..3 {
            assert!(case.run(device, false) == first, "other bits");
        }
    });
}

fn wrong_shapes() {
    on_every_arch(|device| {
        let buffer = |n: usize| Buf::zeros(device, DType::F32, n).unwrap();
        let (w, a, b, norm, dnorm) = (buffer(8), buffer(4), buffer(3), buffer(3), buffer(3));
        let (mut da, mut db) = (buffer(4), buffer(3));
        let mut launch = |first_row, rows, cols, rank| {
            let adapter = AdapterRows { first_row, rows, cols, rank, scale: 1.0 };
            dora_norm_backward(device, adapter, &w, &a, &b, &norm, &dnorm, false, &mut da, &mut db)
        };
        launch(1, 3, 2, 1).unwrap();
        for (first_row, rows, cols, rank) in [
            (1, 0, 2, 1),
            (1, 3, 0, 1),
            (1, 3, 2, 0),
            (2, 3, 2, 1),
            (0, 4, 2, 1),
            (0, 1, 5, 1),
            (0, 3, 2, 2),
            (0, 1, 1, 257),
        ] {
            let error = launch(first_row, rows, cols, rank).expect_err("it does not fit");
            assert!(error.to_string().starts_with("dora_norm_backward "), "{first_row} {rows}x{cols} r{rank}: {error}");
        }
    });
}
