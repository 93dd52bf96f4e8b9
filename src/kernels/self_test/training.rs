//! Losses and the optimizer.

use rand::RngExt;

use super::{Bench, named, rounded, sums};
use crate::Result;
use crate::autograd::{AdamW, Asymmetric, Backend, Sums, TreeLoss};
use crate::gpu::{Buf, DType};
use crate::kernels::adamw::{AdamWTable, GRAD_NORM_LEN, Trained, adamw_multi, grad_norm, hyper, sum_squares};
use crate::kernels::loss::{LogitDims, asymmetric_loss, binary_cross_entropy, cross_entropy, tree_loss};
use crate::reference::{self, Reference};

const F32: DType = DType::F32;

pub(super) fn checks(bench: &mut Bench<'_>) {
    losses(bench);
    optimizer(bench);
    norms(bench);
}

/// Of 64 images: 100 classes, 20 labels.
fn losses(bench: &mut Bench<'_>) {
    let (device, reference) = (bench.device, Reference::<f64>::new());
    let (rows, classes, cols) = (64, 100, 20);
    let denominator = rows as f64;
    bench.check("loss", named("cross_entropy", F32), sums(F32), |bench| {
        let logits = bench.draw(F32, rows * classes, 4.0)?;
        let labels: Vec<usize> = (0..rows).map(|_| bench.random.random_range(0..classes)).collect();
        let wide = labels.iter().map(|&label| label as f64).collect();
        let (loss, dlogits) =
            reference.cross_entropy(classes, &logits.wide, &wide, None, 0.1, denominator, Sums::fresh())?;
        let labels: Vec<i32> = labels.into_iter().map(|label| label as i32).collect();
        let labels = Buf::from_slice(device, &labels, DType::I32)?;
        let rooms = [bench.room(F32, 1)?, bench.room(F32, rows * classes)?];
        bench.measure(rooms, [loss, dlogits], |[loss, dlogits]| {
            let dims = LogitDims::whole(rows, classes);
            cross_entropy(device, dims, &logits.buf, &labels, None, 0.1, denominator, loss, dlogits, false)
        })
    });
    let targets = |bench: &mut Bench<'_>| -> Vec<f32> {
        (0..rows * cols).map(|_| if bench.random.random_bool(0.2) { 1.0 } else { 0.0 }).collect()
    };
    let dims = LogitDims::whole(rows, cols);
    bench.check("loss", named("binary_cross_entropy", F32), sums(F32), |bench| {
        let (logits, targets) = (bench.draw(F32, rows * cols, 4.0)?, targets(bench));
        let wide = targets.iter().map(|&target| f64::from(target)).collect();
        let (loss, dlogits) = reference.binary_cross_entropy(&logits.wide, &wide, denominator, Sums::fresh())?;
        let targets = Buf::from_f32(device, &targets, F32)?;
        let rooms = [bench.room(F32, 1)?, bench.room(F32, rows * cols)?];
        bench.measure(rooms, [loss, dlogits], |[loss, dlogits]| {
            binary_cross_entropy(device, dims, &logits.buf, &targets, denominator, loss, dlogits, false)
        })
    });
    bench.check("loss", named("asymmetric_loss", F32), sums(F32), |bench| {
        let constants = Asymmetric { gamma_positive: 1.0, gamma_negative: 4.0, clip: 0.05, positive_weight: 0.8 };
        let (logits, targets) = (bench.draw(F32, rows * cols, 4.0)?, targets(bench));
        let (loss, dlogits) = reference::asymmetric_loss(constants, &logits.wide, &targets, denominator);
        let targets = Buf::from_f32(device, &targets, F32)?;
        let rooms = [bench.room(F32, 1)?, bench.room(F32, rows * cols)?];
        bench.measure(rooms, [vec![loss], dlogits], |[loss, dlogits]| {
            asymmetric_loss(device, dims, constants, &logits.buf, &targets, denominator, loss, dlogits, false)
        })
    });
    bench.check("loss", named("tree_loss", F32), sums(F32), |bench| {
        // Two heads of 3 and 12 labels and 5 labels by themselves.
        let begins = [0, 3, 15];
        let single = Asymmetric { gamma_positive: 0.0, gamma_negative: 1.0, clip: 0.05, positive_weight: 0.8 };
        let tree = TreeLoss { cols, heads: 2, smoothing: 0.1, single };
        let logits = bench.draw(F32, rows * cols, 4.0)?;
        let mut targets = vec![0.0_f32; rows * cols];
        for row in targets.chunks_exact_mut(cols) {
            row[bench.random.random_range(0..3)] = 1.0;
            if bench.random.random_bool(0.5) {
                row[bench.random.random_range(3..15)] = 1.0;
            }
            row[15..].iter_mut().for_each(|x| *x = [0.0, 1.0, -1.0][bench.random.random_range(0..3)]);
        }
        let wide = targets.iter().map(|&target| f64::from(target)).collect();
        let places = begins.map(f64::from).to_vec();
        let (loss, dlogits) = reference.tree_loss(tree, &logits.wide, &wide, &places, denominator, Sums::fresh())?;
        let (targets, begins) = (Buf::from_f32(device, &targets, F32)?, Buf::from_slice(device, &begins, DType::I32)?);
        let rooms = [bench.room(F32, 1)?, bench.room(F32, rows * cols)?];
        bench.measure(rooms, [loss, dlogits], |[loss, dlogits]| {
            tree_loss(device, tree, rows, &logits.buf, &targets, &begins, denominator, loss, dlogits, false)
        })
    });
}

/// What [`grad_norm`] writes: the sum of squares, its root, the factor, and that all is finite.
fn norm_truth(gradients: &[f64], max_norm: f64) -> Vec<f64> {
    let squares: f64 = gradients.iter().map(|g| g * g).sum();
    let factor = if max_norm > 0.0 { (max_norm / (squares.sqrt() + 1e-6)).min(1.0) } else { 1.0 };
    vec![squares, squares.sqrt(), factor, 0.0]
}

/// The tensors of an adapter and a head take the 10th step, clipped: once the f32 values and moments are looked at, once the bf16 copy.
fn optimizer(bench: &mut Bench<'_>) {
    let (device, reference) = (bench.device, Reference::<f64>::new());
    let (lengths, max_norm) = ([384 * 8, 1001], 0.5);
    let step = AdamW { lr: 1e-2, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.05, step: 10 };
    for shadowed in [false, true] {
        let (name, tolerance) = if shadowed {
            (named("adamw_multi", DType::Bf16) + " copy", rounded(DType::Bf16))
        } else {
            (named("adamw_multi", F32), sums(F32))
        };
        bench.check("adamw", name, tolerance, |bench| {
            let (mut on_device, mut truths, mut grads) = (Vec::new(), Vec::new(), Vec::new());
            for length in lengths {
                let (value, m, v) =
                    (bench.draw(F32, length, 1.0)?, bench.draw(F32, length, 0.1)?, bench.draw(F32, length, 0.1)?);
                // Squares, as second moments are.
                let squares: Vec<f64> = v.wide.iter().map(|v| v * v).collect();
                let v = bench.put(F32, &squares)?;
                on_device.push([value.buf, m.buf, v.buf]);
                truths.push([value.wide, m.wide, v.wide]);
                grads.push(bench.draw(F32, length, 0.1)?);
            }
            let all: Vec<f64> = grads.iter().flat_map(|grad| grad.wide.iter().copied()).collect();
            let clip = norm_truth(&all, max_norm);
            let norm = bench.put(F32, &clip)?;
            for ([value, m, v], grad) in truths.iter_mut().zip(&grads) {
                let grad = grad.wide.iter().map(|g| clip[2] * g).collect();
                reference.adamw(step, value, &grad, m, v)?;
            }
            let shadows = [bench.room(DType::Bf16, lengths[0])?, bench.room(DType::Bf16, lengths[1])?];
            let hyper = Buf::from_f32(device, &hyper(step), F32)?;
            let run = |tensors: [[&Buf; 3]; 2], shadows: [Option<&Buf>; 2]| {
                let trained = [0, 1].map(|i| Trained {
                    value: tensors[i][0],
                    grad: &grads[i].buf,
                    m: tensors[i][1],
                    v: tensors[i][2],
                    shadow: shadows[i],
                    length: lengths[i],
                    weight_decay: step.weight_decay,
                });
                adamw_multi(device, &AdamWTable::new(device, &trained)?, &hyper, Some(&norm.buf))
            };
            let [[value0, m0, v0], [value1, m1, v1]] = two(truths)?;
            let [[b0, b1, b2], [b3, b4, b5]] = two(on_device)?;
            if shadowed {
                return bench.measure(shadows, [value0, value1], |[s0, s1]| {
                    run([[&b0, &b1, &b2], [&b3, &b4, &b5]], [Some(s0), Some(s1)])
                });
            }
            bench.measure([b0, b1, b2, b3, b4, b5], [value0, m0, v0, value1, m1, v1], |[b0, b1, b2, b3, b4, b5]| {
                run([[b0, b1, b2], [b3, b4, b5]], [None, None])
            })
        });
    }
}

fn two<T>(list: Vec<T>) -> Result<[T; 2]> {
    list.try_into().map_err(|list: Vec<T>| crate::Error::shape("self-test", 2, list.len()))
}

fn norms(bench: &mut Bench<'_>) {
    let (device, lengths, max_norm) = (bench.device, [384 * 8, 1001], 0.5);
    bench.check("adamw", named("grad_norm", F32), sums(F32), |bench| {
        // A norm near 1, so that each of the results counts.
        let grads = [bench.draw(F32, lengths[0], 0.03)?, bench.draw(F32, lengths[1], 0.03)?];
        let all: Vec<f64> = grads.iter().flat_map(|grad| grad.wide.iter().copied()).collect();
        let trained = grads.each_ref().map(|grad| {
            let buf = &grad.buf;
            Trained { value: buf, grad: buf, m: buf, v: buf, shadow: None, length: buf.len(), weight_decay: 0.0 }
        });
        let table = AdamWTable::new(device, &trained)?;
        bench.measure([bench.room(F32, GRAD_NORM_LEN)?], [norm_truth(&all, max_norm)], |[result]| {
            grad_norm(device, &table, max_norm, result)
        })
    });
    bench.check("adamw", named("sum_squares", F32), sums(F32), |bench| {
        let x = bench.draw(F32, lengths[0], 0.03)?;
        bench.measure([bench.room(F32, GRAD_NORM_LEN)?], [norm_truth(&x.wide, 0.0)], |[result]| {
            sum_squares(device, lengths[0], &x.buf, result)
        })
    });
}
