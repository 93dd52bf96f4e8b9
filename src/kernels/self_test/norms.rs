//! LayerNorm, LayerScale with its residual, and sums over rows.

use super::{BOTH, Bench, STREAMS, named, streamed, sums};
use crate::autograd::{Backend, NormBackward, Sums};
use crate::gpu::{Buf, DType};
use crate::kernels::column_sum::{Columns, column_dot, column_sum};
use crate::kernels::layer_norm::{LayerNormDx, LayerNormInputs, layer_norm_backward, layer_norm_forward};
use crate::kernels::layer_scale::{layer_scale_backward, layer_scale_forward};
use crate::reference::Reference;

const ROWS: usize = 514;
const COLS: usize = 384;
const EPS: f64 = 1e-6;

pub(super) fn checks(bench: &mut Bench<'_>) {
    for types in STREAMS {
        layer_norm(bench, types);
        layer_scale(bench, types);
    }
    for dtype in BOTH {
        column_sums(bench, dtype);
    }
}

/// The forward pass; dx alone; dx added to the residual's gradient, with the weights' gradients.
fn layer_norm(bench: &mut Bench<'_>, types: (DType, DType)) {
    let (stream, activations) = types;
    let (device, reference) = (bench.device, Reference::<f64>::new());
    bench.check("layer_norm", streamed("layer_norm_forward", types), sums(activations), |bench| {
        let x = bench.draw(stream, ROWS * COLS, 2.0)?;
        let (weight, bias) = (bench.draw(DType::F32, COLS, 1.5)?, bench.draw(DType::F32, COLS, 1.0)?);
        let (y, mean, rstd) = reference.layer_norm(ROWS, COLS, &x.wide, &weight.wide, &bias.wide, EPS)?;
        let f32_room = || bench.room(DType::F32, ROWS);
        let rooms = [bench.room(activations, ROWS * COLS)?, f32_room()?, f32_room()?];
        bench.measure(rooms, [y, mean, rstd], |[y, mean, rstd]| {
            let statistics = Some((mean, rstd));
            layer_norm_forward(device, ROWS, COLS, EPS as f32, &x.buf, &weight.buf, &bias.buf, y, statistics)
        })
    });
    for weights in [false, true] {
        let name = streamed("layer_norm_backward", types) + if weights { ", weights" } else { "" };
        bench.check("layer_norm", name, sums(stream), |bench| {
            let (x, dy) = (bench.draw(stream, ROWS * COLS, 2.0)?, bench.draw(activations, ROWS * COLS, 1.0)?);
            let (weight, add) = (bench.draw(DType::F32, COLS, 1.5)?, bench.draw(stream, ROWS * COLS, 1.0)?);
            let (_, mean, rstd) = reference.layer_norm(ROWS, COLS, &x.wide, &weight.wide, &weight.wide, EPS)?;
            let (mean, rstd) = (bench.put(DType::F32, &mean)?, bench.put(DType::F32, &rstd)?);
            let (dx, dweights) = {
                let (x, weight, mean, rstd, dy) = (&x.wide, &weight.wide, &mean.wide, &rstd.wide, &dy.wide);
                let args = NormBackward { rows: ROWS, cols: COLS, x, weight, mean, rstd, dy };
                reference.layer_norm_backward(args, (true, true), Sums::fresh())?
            };
            let (mut true_dx, (dweight, dbias)) = (dx.unwrap_or_default(), dweights.unwrap_or_default());
            let (weight, mean, rstd, dy) = (&weight.buf, &mean.buf, &rstd.buf, &dy.buf);
            let inputs = LayerNormInputs { x: &x.buf, weight, mean, rstd, dy };
            let room = bench.room(stream, ROWS * COLS)?;
            if !weights {
                return bench.measure([room], [true_dx], |[dx]| {
                    layer_norm_backward(device, ROWS, COLS, inputs, LayerNormDx::Write(dx), None)
                });
            }
            true_dx.iter_mut().zip(&add.wide).for_each(|(dx, add)| *dx += add);
            let rooms = [room, bench.room(DType::F32, COLS)?, bench.room(DType::F32, COLS)?];
            bench.measure(rooms, [true_dx, dweight, dbias], |[dx, dweight, dbias]| {
                let dx = LayerNormDx::Sum(&add.buf, dx);
                layer_norm_backward(device, ROWS, COLS, inputs, dx, Some((dweight, dbias)))
            })
        });
    }
    bench.check("layer_norm", streamed("layer_norm_backward_scaled", types), sums(activations), |bench| {
        let (x, dy) = (bench.draw(stream, ROWS * COLS, 2.0)?, bench.draw(activations, ROWS * COLS, 1.0)?);
        let (weight, gamma) = (bench.draw(DType::F32, COLS, 1.5)?, bench.draw(DType::F32, COLS, 1.0)?);
        let (_, mean, rstd) = reference.layer_norm(ROWS, COLS, &x.wide, &weight.wide, &weight.wide, EPS)?;
        let (mean, rstd) = (bench.put(DType::F32, &mean)?, bench.put(DType::F32, &rstd)?);
        let (weights, means, rstds) = (&weight.wide, &mean.wide, &rstd.wide);
        let args = NormBackward {
            rows: ROWS,
            cols: COLS,
            x: &x.wide,
            weight: weights,
            mean: means,
            rstd: rstds,
            dy: &dy.wide,
        };
        let (dx, _) = reference.layer_norm_backward(args, (true, false), Sums::fresh())?;
        let scaled = dx.iter().flatten().zip(gamma.wide.iter().cycle()).map(|(dx, gamma)| dx * gamma).collect();
        let (weight, mean, rstd, dy) = (&weight.buf, &mean.buf, &rstd.buf, &dy.buf);
        let inputs = LayerNormInputs { x: &x.buf, weight, mean, rstd, dy };
        let mut onto = Buf::zeros(device, stream, ROWS * COLS)?;
        bench.measure([bench.room(activations, ROWS * COLS)?], [scaled], |[scaled]| {
            onto.fill_bytes(0)?;
            let to = LayerNormDx::AddToScaled { dx: &mut onto, gamma: &gamma.buf, scaled };
            layer_norm_backward(device, ROWS, COLS, inputs, to, None)
        })
    });
}

fn layer_scale(bench: &mut Bench<'_>, types: (DType, DType)) {
    let (stream, activations) = types;
    let (device, reference) = (bench.device, Reference::<f64>::new());
    bench.check("layer_scale", streamed("layer_scale_forward", types), sums(stream), |bench| {
        let (x, h) = (bench.draw(stream, ROWS * COLS, 2.0)?, bench.draw(activations, ROWS * COLS, 2.0)?);
        let gamma = bench.draw(DType::F32, COLS, 1.0)?;
        let y = reference.layer_scale(ROWS, COLS, &x.wide, &h.wide, &gamma.wide)?;
        bench.measure([bench.room(stream, ROWS * COLS)?], [y], |[y]| {
            layer_scale_forward(device, ROWS, COLS, &x.buf, &h.buf, &gamma.buf, y)
        })
    });
    bench.check("layer_scale", streamed("layer_scale_backward", types), sums(activations), |bench| {
        let (h, dy) = (bench.draw(activations, ROWS * COLS, 2.0)?, bench.draw(stream, ROWS * COLS, 2.0)?);
        let gamma = bench.draw(DType::F32, COLS, 1.0)?;
        let (dh, dgamma) = reference.layer_scale_backward(
            ROWS,
            COLS,
            Some(&h.wide),
            &gamma.wide,
            &dy.wide,
            (true, true),
            Sums::fresh(),
        )?;
        let rooms = [bench.room(activations, ROWS * COLS)?, bench.room(DType::F32, COLS)?];
        bench.measure(rooms, [dh.unwrap_or_default(), dgamma.unwrap_or_default()], |[dh, dgamma]| {
            let dgamma = Some((&h.buf, dgamma));
            layer_scale_backward(device, ROWS, COLS, &gamma.buf, &dy.buf, Some(dh), dgamma)
        })
    });
}

/// On the middle third of q, k and v. f32 holds bf16, so its sums are as good.
fn column_sums(bench: &mut Bench<'_>, dtype: DType) {
    let (device, ld) = (bench.device, 3 * COLS);
    let sum = |term: &dyn Fn(usize, usize) -> f64| -> Vec<f64> {
        (0..COLS).map(|c| (0..ROWS).map(|i| term(i * ld + COLS + c, c)).sum()).collect()
    };
    bench.check("column_sum", named("column_sum", dtype), sums(DType::F32), |bench| {
        let a = bench.draw(dtype, ROWS * ld, 2.0)?;
        let truth = sum(&|at, _| a.wide[at]);
        bench.measure([bench.room(DType::F32, COLS)?], [truth], |[out]| {
            column_sum(device, ROWS, COLS, Columns { matrix: &a.buf, ld, first: COLS }, out)
        })
    });
    bench.check("column_sum", named("column_dot", dtype), sums(DType::F32), |bench| {
        let (a, b) = (bench.draw(dtype, ROWS * ld, 2.0)?, bench.draw(dtype, ROWS * ld, 2.0)?);
        let (bias, gain) = (bench.draw(DType::F32, COLS, 1.0)?, bench.draw_gains(COLS, false)?);
        let truth = sum(&|at, c| a.wide[at] * (b.wide[at] - bias.wide[c]) / gain.wide[c]);
        bench.measure([bench.room(DType::F32, COLS)?], [truth], |[out]| {
            let columns = |matrix| Columns { matrix, ld, first: COLS };
            let (a, b) = (columns(&a.buf), columns(&b.buf));
            column_dot(device, ROWS, COLS, a, b, Some(&bias.buf), Some(&gain.buf), out)
        })
    });
}
