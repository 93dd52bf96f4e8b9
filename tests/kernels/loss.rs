//! kernels/loss.cu against the plain loops in f64.

use peftk::autograd::Backend;
use peftk::autograd::{Asymmetric, Sums, TreeLoss};
use peftk::gpu::{Buf, DType, Device};
use peftk::kernels::loss::{LogitDims, asymmetric_loss, binary_cross_entropy, cross_entropy, tree_loss};
use peftk::reference::{self, Reference};
use rand::{Rng, RngExt};

use crate::harness::{Needs, Test, on_every_arch};
use crate::matmul::{Numbers, compare, fresh, poisoned, results};

pub const TESTS: &[Test] = &[
    Test { name: "sanitize_loss", needs: Needs::Gpu, run: sanitize },
    Test { name: "loss::cross_entropy", needs: Needs::Gpu, run: cross_entropies },
    Test { name: "loss::sigmoids", needs: Needs::Gpu, run: sigmoids },
    Test { name: "loss::trees", needs: Needs::Gpu, run: trees },
    Test { name: "loss::extreme_logits_stay_finite", needs: Needs::Gpu, run: extremes },
    Test { name: "loss::columns_of_wider_rows", needs: Needs::Gpu, run: columns },
    Test { name: "loss::nan_shows", needs: Needs::Gpu, run: nan_shows },
    Test { name: "loss::wrong_shapes_are_refused", needs: Needs::Gpu, run: wrong_shapes },
];

/// (rows, classes or labels), around 128 threads a row, 4 warps, 1024 entries a block and 1024 parts.
const SHAPES: [(usize, usize); 22] = [
    (256, 100),
    (64, 20),
    (1, 1),
    (1, 2),
    (2, 1),
    (3, 5),
    (5, 31),
    (7, 32),
    (6, 33),
    (9, 127),
    (8, 128),
    (4, 129),
    (3, 1000),
    (2, 1023),
    (1, 1025),
    (2, 10_450),
    (31, 33),
    (1023, 3),
    (1024, 2),
    (1025, 1),
    (1500, 4),
    (33, 257),
];

const SETS: [Asymmetric; 5] = [
    Asymmetric { gamma_positive: 0.0, gamma_negative: 1.0, clip: 0.05, positive_weight: 0.8 },
    Asymmetric { gamma_positive: 1.0, gamma_negative: 4.0, clip: 0.05, positive_weight: 1.0 },
    Asymmetric { gamma_positive: 0.0, gamma_negative: 0.0, clip: 0.0, positive_weight: 1.0 },
    Asymmetric { gamma_positive: 2.0, gamma_negative: 3.0, clip: 0.0, positive_weight: 0.5 },
    Asymmetric { gamma_positive: 0.5, gamma_negative: 1.5, clip: 0.2, positive_weight: 2.0 },
];

/// What is launched on logits, loss and dlogits.
type Launch<'a> = &'a dyn Fn(&Device, &Buf, &mut Buf, &mut Buf, bool);

/// Launches twice and once more to accumulate; returns the loss and dlogits.
fn run(device: &Device, what: &str, logits: &Numbers, launch: Launch<'_>) -> (f64, Vec<f64>) {
    let logits_buf = logits.upload(device);
    let once = || {
        let mut loss = poisoned(device, DType::F32, 1);
        let mut dlogits = poisoned(device, DType::F32, logits.values.len());
        launch(device, &logits_buf, &mut loss, &mut dlogits, false);
        let first = results(&loss, what)[0];
        launch(device, &logits_buf, &mut loss, &mut dlogits, true);
        // Row after row upon the first: a rounding a row.
        let (twice, most) =
            (results(&loss, what)[0], logits.values.len() as f64 * f64::from(f32::EPSILON) * first.abs());
        assert!((twice - 2.0 * first).abs() <= most, "{what}: accumulated {twice} for twice {first}");
        (first, results(&dlogits, what))
    };
    let first = once();
    let again = once();
    assert_eq!(first.0.to_bits(), again.0.to_bits(), "{what}: equal inputs, another loss");
    assert!(first.1.iter().zip(&again.1).all(|(a, b)| a.to_bits() == b.to_bits()), "{what}: other gradients");
    first
}

fn check_cross_entropy(rows: usize, classes: usize, bound: f32, random: &mut impl Rng) {
    let reference = Reference::<f64>::new();
    let logits = Numbers::draw(random, DType::F32, rows * classes, bound);
    let labels: Vec<usize> = (0..rows).map(|_| random.random_range(0..classes)).collect();
    let on_device: Vec<i32> = labels.iter().map(|&label| label as i32).collect();
    let wide = labels.iter().map(|&label| label as f64).collect();
    for (smoothing, weighted) in [(0.0, false), (0.1, false), (0.1, true)] {
        let weights = weighted.then(|| (0..classes).map(|class| 0.25 + (class % 7) as f64).collect::<Vec<f64>>());
        let denominator = 1.0 + rows as f64;
        let (loss, truth) = reference
            .cross_entropy(classes, &logits.wide(), &wide, weights.as_ref(), smoothing, denominator, Sums::fresh())
            .unwrap();
        on_every_arch(|device| {
            let what = format!(
                "cross_entropy {} {rows}x{classes} s {smoothing} weighted {weighted} up to {bound}",
                device.arch()
            );
            let labels = Buf::from_slice(device, &on_device, DType::I32).unwrap();
            let by_class = weights.as_ref().map(|weights| {
                let narrow: Vec<f32> = weights.iter().map(|&weight| weight as f32).collect();
                Buf::from_f32(device, &narrow, DType::F32).unwrap()
            });
            let dims = LogitDims::whole(rows, classes);
            let (ours, dlogits) = run(device, &what, &logits, &|device, logits, loss, dlogits, accumulate| {
                let weights = by_class.as_ref();
                cross_entropy(
                    device,
                    dims,
                    logits,
                    &labels,
                    weights,
                    smoothing,
                    denominator,
                    loss,
                    dlogits,
                    accumulate,
                )
                .unwrap();
            });
            let most = if weighted { 6.25 } else { 1.0 };
            let allowed = most * (4e-6 * (f64::from(bound) + (classes as f64).ln()) + 1e-6);
            assert!((ours - loss[0]).abs() <= allowed, "{what}: loss {ours}, truth {}", loss[0]);
            compare(&what, &dlogits, &truth, |_| most * 4e-6 / denominator);
        });
    }
}

fn cross_entropies() {
    let mut random = fresh();
    for (rows, classes) in SHAPES {
        for bound in [3.0, 60.0] {
            check_cross_entropy(rows, classes, bound, &mut random);
        }
    }
}

/// Binary cross-entropy against soft targets and -1 (ignored); the asymmetric loss against 1, 0 and -1.
fn check_sigmoids(rows: usize, cols: usize, bound: f32, sets: &[Asymmetric], random: &mut impl Rng) {
    let reference = Reference::<f64>::new();
    let logits = Numbers::draw(random, DType::F32, rows * cols, bound);
    let dims = LogitDims::whole(rows, cols);
    let denominator = 1.0 + rows as f64;
    let entries = (rows * cols) as f64;

    let mut soft = Numbers::draw(random, DType::F32, rows * cols, 0.5);
    soft.values.iter_mut().for_each(|x| *x = if random.random_bool(0.2) { -1.0 } else { *x + 0.5 });
    let (loss, truth) =
        reference.binary_cross_entropy(&logits.wide(), &soft.wide(), denominator, Sums::fresh()).unwrap();
    on_every_arch(|device| {
        let what = format!("binary_cross_entropy {} {rows}x{cols} up to {bound}", device.arch());
        let targets = soft.upload(device);
        let (ours, dlogits) = run(device, &what, &logits, &|device, logits, loss, dlogits, accumulate| {
            binary_cross_entropy(device, dims, logits, &targets, denominator, loss, dlogits, accumulate).unwrap();
        });
        let allowed = 2e-6 * entries * f64::from(1.0 + bound) / denominator;
        assert!((ours - loss[0]).abs() <= allowed, "{what}: loss {ours}, truth {}", loss[0]);
        compare(&what, &dlogits, &truth, |_| 1e-6 / denominator);
    });

    let targets: Vec<f32> = (0..rows * cols).map(|_| [1.0, 0.0, -1.0][random.random_range(0..3)]).collect();
    for &constants in sets {
        // The shift of a probability is the f32 number that the device has.
        let exact = Asymmetric { clip: f64::from(constants.clip as f32), ..constants };
        let (loss, truth) = reference::asymmetric_loss(exact, &logits.wide(), &targets, denominator);
        on_every_arch(|device| {
            let what = format!("asymmetric_loss {} {rows}x{cols} up to {bound} {constants:?}", device.arch());
            let targets = Buf::from_f32(device, &targets, DType::F32).unwrap();
            let (ours, dlogits) = run(device, &what, &logits, &|device, logits, loss, dlogits, accumulate| {
                asymmetric_loss(device, dims, constants, logits, &targets, denominator, loss, dlogits, accumulate)
                    .unwrap();
            });
            let allowed = 4e-6 * entries * f64::from(1.0 + bound) / denominator;
            assert!((ours - loss).abs() <= allowed, "{what}: loss {ours}, truth {loss}");
            compare(&what, &dlogits, &truth, |_| 1e-5 / denominator);
        });
    }
}

/// Heads of any sizes, some in which a row has no label, and labels by themselves behind them; against the plain loops.
fn check_tree(rows: usize, sizes: &[usize], single: usize, bound: f32, random: &mut impl Rng) {
    let reference = Reference::<f64>::new();
    let begins: Vec<usize> = std::iter::once(0)
        .chain(sizes.iter().scan(0, |end, size| {
            *end += size;
            Some(*end)
        }))
        .collect();
    let heads_end = begins[sizes.len()];
    let cols = heads_end + single;
    let logits = Numbers::draw(random, DType::F32, rows * cols, bound);
    let mut targets = vec![0.0_f32; rows * cols];
    for row in targets.chunks_exact_mut(cols) {
        for head in begins.windows(2).filter(|head| head[1] > head[0]) {
            if random.random_bool(0.6) {
                row[random.random_range(head[0]..head[1])] = 1.0;
            }
        }
        row[heads_end..].iter_mut().for_each(|x| *x = [1.0, 0.0, -1.0][random.random_range(0..3)]);
    }
    let wide: Vec<f64> = targets.iter().map(|&target| f64::from(target)).collect();
    let places: Vec<f64> = begins.iter().map(|&begin| begin as f64).collect();
    let on_device: Vec<i32> = begins.iter().map(|&begin| begin as i32).collect();
    for (smoothing, constants) in [(0.0, SETS[0]), (0.1, SETS[2])] {
        let exact = Asymmetric { clip: f64::from(constants.clip as f32), ..constants };
        let denominator = 1.0 + rows as f64;
        let tree = TreeLoss { cols, heads: sizes.len(), smoothing, single: exact };
        let (loss, truth) =
            reference.tree_loss(tree, &logits.wide(), &wide, &places, denominator, Sums::fresh()).unwrap();
        on_every_arch(|device| {
            let what = format!("tree_loss {} {rows} rows, {sizes:?} + {single} up to {bound}", device.arch());
            let what = what.chars().take(200).collect::<String>();
            let targets = Buf::from_f32(device, &targets, DType::F32).unwrap();
            let begins = Buf::from_slice(device, &on_device, DType::I32).unwrap();
            let (ours, dlogits) = run(device, &what, &logits, &|device, logits, loss, dlogits, accumulate| {
                tree_loss(device, tree, rows, logits, &targets, &begins, denominator, loss, dlogits, accumulate)
                    .unwrap();
            });
            let allowed = 4e-6 * (2.0 + single as f64) * (f64::from(bound) + (cols as f64).ln() + 1.0);
            assert!((ours - loss[0]).abs() <= allowed, "{what}: loss {ours}, truth {}", loss[0]);
            compare(&what, &dlogits, &truth, |_| 1e-5 / denominator);
        });
    }
}

fn trees() {
    let mut random = fresh();
    let many: Vec<usize> = (2..45).collect();
    let cases: [(usize, &[usize], usize); 11] = [
        (64, &[3, 12], 5),
        (1, &[2], 0),
        (3, &[], 7),
        (5, &[31, 32, 33, 64, 65], 1),
        (9, &[2, 2, 2, 2, 2, 2, 2, 2, 2], 3),
        (2, &[1000], 300),
        (7, &[2, 257], 0),
        (300, &[4, 4], 2),
        (4, &many, 11),
        (1, &[129], 1),
        (2, &[41, 70, 100], 513),
    ];
    for (rows, sizes, single) in cases {
        for bound in [3.0, 60.0] {
            check_tree(rows, sizes, single, bound, &mut random);
        }
    }
}

fn sigmoids() {
    let mut random = fresh();
    for (rows, cols) in SHAPES {
        for bound in [4.0, 30.0] {
            check_sigmoids(rows, cols, bound, &SETS, &mut random);
        }
    }
}

fn sanitize() {
    let mut random = fresh();
    for (rows, cols) in [(3, 131), (5, 7)] {
        check_cross_entropy(rows, cols, 4.0, &mut random);
        check_sigmoids(rows, cols, 4.0, &SETS[..2], &mut random);
    }
    check_tree(3, &[2, 35, 7], 5, 4.0, &mut random);
}

fn extremes() {
    let values = vec![1e30_f32, -1e30, 3e4, -3e4, 88.8, -88.8, 104.0, -104.0, 0.0];
    let logits = Numbers { dtype: DType::F32, values };
    let n = logits.values.len();
    on_every_arch(|device| {
        for target in [0.0, 1.0] {
            let targets = Buf::from_f32(device, &vec![target; n], DType::F32).unwrap();
            for constants in SETS {
                let what = format!("{} {constants:?} target {target}", device.arch());
                let (loss, slopes) = run(device, &what, &logits, &|device, logits, loss, dlogits, accumulate| {
                    let dims = LogitDims::whole(1, n);
                    asymmetric_loss(device, dims, constants, logits, &targets, 1.0, loss, dlogits, accumulate).unwrap();
                });
                assert!(loss.is_finite() && slopes.iter().all(|x| x.is_finite()), "{what}: {loss} {slopes:?}");
            }
            let what = format!("{} binary_cross_entropy target {target}", device.arch());
            let (loss, slopes) = run(device, &what, &logits, &|device, logits, loss, dlogits, accumulate| {
                let dims = LogitDims::whole(1, n);
                binary_cross_entropy(device, dims, logits, &targets, 1.0, loss, dlogits, accumulate).unwrap();
            });
            assert!(loss.is_finite() && slopes.iter().all(|x| x.is_finite()), "{what}: {loss} {slopes:?}");
        }
        for label in 0..n {
            for smoothing in [0.0, 0.1] {
                let what = format!("{} cross_entropy label {label} s {smoothing}", device.arch());
                let labels = Buf::from_slice(device, &[label as i32], DType::I32).unwrap();
                let (loss, slopes) = run(device, &what, &logits, &|device, logits, loss, dlogits, accumulate| {
                    let dims = LogitDims::whole(1, n);
                    cross_entropy(device, dims, logits, &labels, None, smoothing, 1.0, loss, dlogits, accumulate)
                        .unwrap();
                });
                assert!(loss.is_finite() && slopes.iter().all(|x| x.is_finite()), "{what}: {loss} {slopes:?}");
            }
        }
    });
}

/// A loss on some columns leaves the others alone; a row without a label counts for nothing.
fn columns() {
    let mut random = fresh();
    let reference = Reference::<f64>::new();
    let (rows, cols, first, ld) = (9, 5, 3, 11);
    let inner = Numbers::draw(&mut random, DType::F32, rows * cols, 3.0);
    let mut values = vec![f32::NAN; rows * ld];
    for (row, inner) in values.chunks_exact_mut(ld).zip(inner.values.chunks_exact(cols)) {
        row[first..first + cols].copy_from_slice(inner);
    }
    let logits = Numbers { dtype: DType::F32, values };
    let labels: Vec<i32> = (0..rows).map(|i| if i % 3 == 1 { -1 } else { (i % cols) as i32 }).collect();
    let (mut loss, mut truth) = (0.0, Vec::new());
    for (row, &label) in inner.wide().chunks_exact(cols).zip(&labels) {
        if label < 0 {
            truth.extend([0.0].repeat(cols));
            continue;
        }
        let (row_loss, slopes) = reference
            .cross_entropy(cols, &row.to_vec(), &vec![f64::from(label)], None, 0.1, 7.0, Sums::fresh())
            .unwrap();
        loss += row_loss[0];
        truth.extend(slopes);
    }
    on_every_arch(|device| {
        let what = format!("columns {}", device.arch());
        let labels = Buf::from_slice(device, &labels, DType::I32).unwrap();
        let (ours, dlogits) = run(device, &what, &logits, &|device, logits, loss, dlogits, accumulate| {
            let dims = LogitDims { rows, cols, first, ld };
            cross_entropy(device, dims, logits, &labels, None, 0.1, 7.0, loss, dlogits, accumulate).unwrap();
        });
        assert!((ours - loss).abs() < 1e-5, "{what}: {ours}, truth {loss}");
        let (inside, outside): (Vec<_>, Vec<_>) =
            dlogits.iter().enumerate().partition(|(i, _)| (first..first + cols).contains(&(i % ld)));
        assert!(outside.iter().all(|(_, x)| x.is_nan()), "{what}: wrote beside its columns");
        let inside: Vec<f64> = inside.into_iter().map(|(_, &x)| x).collect();
        compare(&what, &inside, &truth, |_| 1e-6);
    });
}

fn nan_shows() {
    on_every_arch(|device| {
        let logits = Buf::from_f32(device, &[0.5, f32::NAN, 1.0, 2.0], DType::F32).unwrap();
        let targets = Buf::from_f32(device, &[0.0, 1.0, 0.0, 1.0], DType::F32).unwrap();
        let labels = Buf::from_slice(device, &[0_i32, 1], DType::I32).unwrap();
        let dims = LogitDims::whole(2, 2);
        let mut loss = Buf::zeros(device, DType::F32, 1).unwrap();
        let mut dlogits = Buf::zeros(device, DType::F32, 4).unwrap();
        let mut check = |what: &str, run: &dyn Fn(&mut Buf, &mut Buf)| {
            run(&mut loss, &mut dlogits);
            assert!(loss.to_f32().unwrap()[0].is_nan(), "{what}: loss {:?}", loss.to_f32());
            assert!(dlogits.to_f32().unwrap()[1].is_nan(), "{what}: {:?}", dlogits.to_f32());
        };
        check("cross_entropy", &|loss, slopes| {
            cross_entropy(device, dims, &logits, &labels, None, 0.0, 1.0, loss, slopes, false).unwrap();
        });
        check("binary_cross_entropy", &|loss, slopes| {
            binary_cross_entropy(device, dims, &logits, &targets, 1.0, loss, slopes, false).unwrap();
        });
        check("tree_loss", &|loss, slopes| {
            let begins = Buf::from_slice(device, &[0_i32, 2], DType::I32).unwrap();
            let tree = TreeLoss { cols: 2, heads: 1, smoothing: 0.0, single: SETS[0] };
            tree_loss(device, tree, 2, &logits, &targets, &begins, 1.0, loss, slopes, false).unwrap();
        });
        check("asymmetric_loss", &|loss, slopes| {
            asymmetric_loss(device, dims, SETS[0], &logits, &targets, 1.0, loss, slopes, false).unwrap();
        });
    });
}

fn wrong_shapes() {
    on_every_arch(|device| {
        let buf = |len| Buf::zeros(device, DType::F32, len).unwrap();
        let labels = Buf::zeros(device, DType::I32, 3).unwrap();
        let (logits, targets) = (buf(12), buf(12));
        let (mut loss, mut slopes) = (buf(1), buf(12));
        let whole = LogitDims::whole;
        for dims in [whole(0, 4), whole(3, 0), whole(4, 4), LogitDims { rows: 3, cols: 4, first: 1, ld: 4 }] {
            cross_entropy(device, dims, &logits, &labels, None, 0.0, 1.0, &mut loss, &mut slopes, false)
                .expect_err("it does not fit");
            binary_cross_entropy(device, dims, &logits, &targets, 1.0, &mut loss, &mut slopes, false)
                .expect_err("it does not fit");
        }
        let dims = whole(3, 4);
        cross_entropy(device, dims, &logits, &targets, None, 0.0, 1.0, &mut loss, &mut slopes, false)
            .expect_err("labels are integers");
        let few = buf(3);
        cross_entropy(device, dims, &logits, &labels, Some(&few), 0.0, 1.0, &mut loss, &mut slopes, false)
            .expect_err("too few weights");
        let tree = TreeLoss { cols: 4, heads: 2, smoothing: 0.0, single: SETS[0] };
        let mut refused = |rows, begins: &Buf, targets: &Buf, why| {
            tree_loss(device, tree, rows, &logits, targets, begins, 1.0, &mut loss, &mut slopes, false).expect_err(why);
        };
        refused(3, &labels, &buf(11), "too few targets");
        refused(4, &labels, &targets, "too few logits");
        refused(3, &targets, &targets, "heads are integers");
        refused(3, &Buf::zeros(device, DType::I32, 2).unwrap(), &targets, "too few heads");
        asymmetric_loss(device, dims, SETS[0], &logits, &buf(11), 1.0, &mut loss, &mut slopes, false)
            .expect_err("too few targets");
        cross_entropy(device, dims, &logits, &labels, None, 0.0, 1.0, &mut loss, &mut buf(11), false)
            .expect_err("too few gradients");
    });
}
