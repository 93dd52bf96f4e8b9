//! kernels/layer_norm.cu against the plain loops in f64.

use peftk::autograd::{Backend, NormBackward, Sums};
use peftk::gpu::{Buf, DType, Device};
use peftk::kernels::layer_norm::{LayerNormDx, LayerNormInputs, MAX_COLS, layer_norm_backward, layer_norm_forward};
use peftk::kernels::layer_scale::layer_scale_backward;
use peftk::reference::Reference;
use rand::Rng;

use crate::harness::{Needs, Test, on_every_arch};
use crate::matmul::{Numbers, compare, fresh, poisoned, results, rounding};

pub const TESTS: &[Test] = &[
    Test { name: "sanitize_layer_norm", needs: Needs::Gpu, run: sanitize },
    Test { name: "layer_norm::dinov2_shapes", needs: Needs::Gpu, run: dinov2_shapes },
    Test { name: "layer_norm::odd_shapes", needs: Needs::Gpu, run: odd_shapes },
    Test { name: "layer_norm::a_mean_far_from_zero", needs: Needs::Gpu, run: far_mean },
    Test { name: "layer_norm::equal_inputs_give_equal_bits", needs: Needs::Gpu, run: repeatable },
    Test { name: "layer_norm::wrong_shapes_are_refused", needs: Needs::Gpu, run: wrong_shapes },
];

/// (residual stream, activations).
pub const STREAMS: [(DType, DType); 3] =
    [(DType::F32, DType::F32), (DType::F32, DType::Bf16), (DType::Bf16, DType::Bf16)];

const EPS: f32 = 1e-6;

struct Case {
    rows: usize,
    cols: usize,
    x: Numbers,
    weight: Numbers,
    bias: Numbers,
    dy: Numbers,
    add: Numbers,
}

/// dx, dx with a residual gradient, dx of the entry with weights, dweight, dbias.
type Grads = [Vec<f64>; 5];

impl Case {
    fn random(rows: usize, cols: usize, (stream, activations): (DType, DType), random: &mut impl Rng) -> Self {
        Self {
            rows,
            cols,
            x: Numbers::draw(random, stream, rows * cols, 2.0),
            weight: Numbers::draw(random, DType::F32, cols, 2.0),
            bias: Numbers::draw(random, DType::F32, cols, 1.0),
            dy: Numbers::draw(random, activations, rows * cols, 1.0),
            add: Numbers::draw(random, stream, rows * cols, 1.0),
        }
    }

    fn what(&self, device: &Device, of: &str) -> String {
        let Self { rows, cols, .. } = self;
        format!("{of} {} {rows}x{cols} {:?} {:?}", device.arch(), self.x.dtype, self.dy.dtype)
    }

    /// y, mean, rstd.
    fn forward(&self, device: &Device) -> [Vec<f64>; 3] {
        let (rows, cols) = (self.rows, self.cols);
        let (x, weight, bias) = (self.x.upload(device), self.weight.upload(device), self.bias.upload(device));
        let mut y = poisoned(device, self.dy.dtype, rows * cols);
        let (mut mean, mut rstd) = (poisoned(device, DType::F32, rows), poisoned(device, DType::F32, rows));
        let statistics = Some((&mut mean, &mut rstd));
        layer_norm_forward(device, rows, cols, EPS, &x, &weight, &bias, &mut y, statistics).unwrap();
        [&y, &mean, &rstd].map(|buf| results(buf, &self.what(device, "forward")))
    }

    /// With the true statistics, rounded to f32.
    fn backward(&self, device: &Device, mean: &[f64], rstd: &[f64]) -> Grads {
        let (rows, cols) = (self.rows, self.cols);
        let narrow = |values: &[f64]| Numbers { dtype: DType::F32, values: values.iter().map(|&x| x as f32).collect() };
        let [x, weight, dy, add] = [&self.x, &self.weight, &self.dy, &self.add].map(|n| n.upload(device));
        let (mean, rstd) = (narrow(mean).upload(device), narrow(rstd).upload(device));
        let inputs = LayerNormInputs { x: &x, weight: &weight, mean: &mean, rstd: &rstd, dy: &dy };
        let stream = self.x.dtype;
        let run = |dx: LayerNormDx<'_>, weights: Option<(&mut Buf, &mut Buf)>| {
            layer_norm_backward(device, rows, cols, inputs, dx, weights).unwrap();
        };

        let mut dx = poisoned(device, stream, rows * cols);
        run(LayerNormDx::Write(&mut dx), None);
        let what = self.what(device, "backward");
        let dx = results(&dx, &what);
        // The three ways of adding agree to the bit.
        let mut sum = poisoned(device, stream, rows * cols);
        run(LayerNormDx::Sum(&add, &mut sum), None);
        let mut added = self.add.upload(device);
        run(LayerNormDx::AddTo(&mut added), None);
        let sum = results(&sum, &what);
        assert_eq!(sum, results(&added, &what), "{what}");
        // And gamma times it, as LayerScale's own backward pass rounds it.
        let gamma = self.bias.upload(device);
        let mut added = self.add.upload(device);
        let mut scaled = poisoned(device, self.dy.dtype, rows * cols);
        run(LayerNormDx::AddToScaled { dx: &mut added, gamma: &gamma, scaled: &mut scaled }, None);
        assert_eq!(sum, results(&added, &what), "{what}: beside gamma dx");
        let mut alone = poisoned(device, self.dy.dtype, rows * cols);
        layer_scale_backward(device, rows, cols, &gamma, &added, Some(&mut alone), None).unwrap();
        assert_eq!(results(&scaled, &what), results(&alone, &what), "{what}: gamma dx");

        let mut with_weights = poisoned(device, stream, rows * cols);
        let (mut dweight, mut dbias) = (poisoned(device, DType::F32, cols), poisoned(device, DType::F32, cols));
        run(LayerNormDx::Write(&mut with_weights), Some((&mut dweight, &mut dbias)));
        let with_weights = results(&with_weights, &what);
        let (mut alone_weight, mut alone_bias) =
            (poisoned(device, DType::F32, cols), poisoned(device, DType::F32, cols));
        run(LayerNormDx::None, Some((&mut alone_weight, &mut alone_bias)));
        let [dweight, dbias, alone_weight, alone_bias] =
            [&dweight, &dbias, &alone_weight, &alone_bias].map(|buf| results(buf, &what));
        assert_eq!((&dweight, &dbias), (&alone_weight, &alone_bias), "{what}: without dx");
        [dx, sum, with_weights, dweight, dbias]
    }

    fn check(&self, device: &Device) {
        let (rows, cols) = (self.rows, self.cols);
        let reference = Reference::<f64>::new();
        let [x, weight, bias, dy, add] = [&self.x, &self.weight, &self.bias, &self.dy, &self.add].map(Numbers::wide);
        let (y, mean, rstd) = reference.layer_norm(rows, cols, &x, &weight, &bias, f64::from(EPS)).unwrap();
        let ours = self.forward(device);
        // x - mean is off by an ulp of x, and rstd makes that as large as itself: up to 1000 in rows that are nearly constant.
        let size: Vec<f64> = x.chunks(cols).map(|x| x.iter().fold(0.0, |m: f64, x| m.max(x.abs()))).collect();
        let slack = |row: usize| 4e-6 * (1.0 + size[row] * rstd[row]);
        let out = rounding(self.dy.dtype);
        compare(&self.what(device, "y"), &ours[0], &y, |i| {
            slack(i / cols) * weight[i % cols].abs().max(0.1) + 1e-6 + out * y[i].abs()
        });
        compare(&self.what(device, "mean"), &ours[1], &mean, |i| 1e-6 * size[i] + 1e-30);
        compare(&self.what(device, "rstd"), &ours[2], &rstd, |i| 4.0 * slack(i) * rstd[i]);

        // The backward pass is checked on the statistics that it is given.
        let (mean, rstd): (Vec<f64>, Vec<f64>) =
            mean.iter().zip(&rstd).map(|(&mean, &rstd)| (f64::from(mean as f32), f64::from(rstd as f32))).unzip();
        let args = NormBackward { rows, cols, x: &x, weight: &weight, mean: &mean, rstd: &rstd, dy: &dy };
        let (dx, params) = reference.layer_norm_backward(args, (true, true), Sums::fresh()).unwrap();
        let (dx, (dweight, dbias)) = (dx.unwrap(), params.unwrap());
        let ours = self.backward(device, &mean, &rstd);
        // How large h gets, and how far it is off.
        let h_size = |row: usize| (2.0 * size[row] * rstd[row]).min((cols as f64).sqrt());
        let h_error = |row: usize| 2.5e-7 * size[row] * rstd[row];
        let dx_slack = |i: usize| {
            let row = i / cols;
            rstd[row] * (8e-6 * (1.0 + h_size(row)) + 4.0 * h_error(row)) + 1e-6
        };
        let stream = rounding(self.x.dtype);
        compare(&self.what(device, "dx"), &ours[0], &dx, |i| dx_slack(i) + stream * dx[i].abs());
        compare(&self.what(device, "dx with weights"), &ours[2], &dx, |i| dx_slack(i) + stream * dx[i].abs());
        let sum: Vec<f64> = dx.iter().zip(&add).map(|(dx, add)| dx + add).collect();
        compare(&self.what(device, "add + dx"), &ours[1], &sum, |i| {
            dx_slack(i) + stream * (dx[i].abs() + sum[i].abs())
        });
        let column =
            |c: usize, of: &dyn Fn(usize) -> f64| (0..rows).map(|i| dy[i * cols + c].abs() * of(i)).sum::<f64>();
        let dweight_slack = |row: usize| 3e-6 * h_size(row) + h_error(row);
        compare(&self.what(device, "dweight"), &ours[3], &dweight, |c| column(c, &dweight_slack) + 1e-6);
        compare(&self.what(device, "dbias"), &ours[4], &dbias, |c| 3e-6 * column(c, &|_| 1.0) + 1e-6);
    }
}

fn sanitize() {
    let mut random = fresh();
    for (rows, cols) in [(5, 131), (37, 516)] {
        for stream in STREAMS {
            let case = Case::random(rows, cols, stream, &mut random);
            on_every_arch(|device| case.check(device));
        }
    }
}

fn dinov2_shapes() {
    let mut random = fresh();
    for (rows, cols) in [(514, 384), (514, 768), (261, 1024), (257, 1536)] {
        for stream in STREAMS {
            let case = Case::random(rows, cols, stream, &mut random);
            on_every_arch(|device| case.check(device));
        }
    }
}

fn odd_shapes() {
    let mut random = fresh();
    // Around every boundary there is: 4 columns a chunk, 512 a warp, 1 to 16 warps a row, 4 rows a block, 32 a granule.
    let shapes = [
        (1, 1),
        (3, 1),
        (2, 2),
        (1, 3),
        (5, 4),
        (7, 5),
        (9, 7),
        (31, 8),
        (32, 12),
        (33, 127),
        (4, 128),
        (6, 129),
        (65, 132),
        (3, 383),
        (2, 385),
        (1, 384),
        (5, 511),
        (4, 512),
        (35, 513),
        (34, 516),
        (3, 1023),
        (2, 1028),
        (33, 2048),
        (2, 2052),
        (3, 4096),
        (2, 4100),
        (3, MAX_COLS - 1),
        (2, MAX_COLS),
        (300, 4),
    ];
    for (rows, cols) in shapes {
        for stream in STREAMS {
            let case = Case::random(rows, cols, stream, &mut random);
            on_every_arch(|device| case.check(device));
        }
    }
}

/// A variance taken as mean(x^2) - mean^2 loses everything here; and a row of one value has none.
fn far_mean() {
    let mut random = fresh();
    for cols in [384, 385] {
        let mut case = Case::random(9, cols, STREAMS[0], &mut random);
        case.x.values.iter_mut().for_each(|x| *x += 1000.0);
        case.x.values[3 * cols..4 * cols].fill(7.5);
        case.x.values[4 * cols..5 * cols].fill(0.0);
        on_every_arch(|device| {
            case.check(device);
            let [y, ..] = case.forward(device);
            let bias = case.bias.wide();
            assert_eq!(y[4 * cols..5 * cols], bias[..], "a row of zeros has the bias");
        });
    }
}

fn repeatable() {
    let mut random = fresh();
    for (rows, cols) in [(1000, 384), (77, 1023)] {
        for stream in STREAMS {
            let case = Case::random(rows, cols, stream, &mut random);
            on_every_arch(|device| {
                let [_, mean, rstd] = case.forward(device);
                for _ in 0..3 {
                    let again = case.forward(device);
                    assert_eq!((&again[1], &again[2]), (&mean, &rstd));
                    assert_eq!(case.backward(device, &mean, &rstd), case.backward(device, &mean, &rstd));
                }
            });
        }
    }
}

fn wrong_shapes() {
    on_every_arch(|device| {
        let buf = |len| Buf::zeros(device, DType::F32, len).unwrap();
        let (x, weight, bias, mut y) = (buf(12), buf(4), buf(4), buf(12));
        let mut run = |rows, cols| layer_norm_forward(device, rows, cols, EPS, &x, &weight, &bias, &mut y, None);
        run(3, 4).unwrap();
        for (rows, cols) in [(0, 4), (3, 0), (4, 4), (2, 5), (1, MAX_COLS + 1)] {
            let error = run(rows, cols).expect_err("it does not fit");
            assert!(error.to_string().starts_with("layer_norm_forward "), "{rows}x{cols}: {error}");
        }
        let mut half = Buf::zeros(device, DType::Bf16, 12).unwrap();
        let error = layer_norm_forward(device, 3, 4, EPS, &half, &weight, &bias, &mut buf(12), None);
        assert!(error.is_err(), "no entry has a bf16 stream and f32 activations");
        layer_norm_forward(device, 3, 4, EPS, &x, &weight, &bias, &mut half, None).unwrap();
        let (mean, rstd) = (buf(3), buf(3));
        let inputs = LayerNormInputs { x: &x, weight: &weight, mean: &mean, rstd: &rstd, dy: &y };
        let nothing = layer_norm_backward(device, 3, 4, inputs, LayerNormDx::None, None);
        assert!(nothing.expect_err("nothing is asked for").to_string().starts_with("layer_norm_backward"));
        let mut short = buf(11);
        layer_norm_backward(device, 3, 4, inputs, LayerNormDx::Write(&mut short), None).expect_err("dx is too short");
        let (mut dx, mut scaled) = (buf(12), buf(12));
        for (gamma, scaled) in [(&buf(3), &mut scaled), (&weight, &mut short)] {
            let to = LayerNormDx::AddToScaled { dx: &mut dx, gamma, scaled };
            layer_norm_backward(device, 3, 4, inputs, to, None).expect_err("gamma or gamma dx is too short");
        }
        let to = LayerNormDx::AddToScaled { dx: &mut dx, gamma: &weight, scaled: &mut scaled };
        layer_norm_backward(device, 3, 4, inputs, to, Some((&mut buf(4), &mut buf(4)))).expect_err("both at once");
    });
}
