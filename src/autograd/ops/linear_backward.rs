//! A linear's backward pass on a tape: the saved list read again, and the gradients in the order of the inputs.

use super::linear::{Plan, with_width};
use crate::autograd::{Adapter, AdapterDims, Array, Backend, InputGrads, LinearBackward, LinearDims, Needs, Sums};
use crate::{Error, Result};

pub(super) fn backward<B: Backend>(
    backend: &B,
    plan: Plan,
    saved: &[Array<B>],
    dy: Array<B>,
    needs: &mut Needs<B>,
) -> Result<InputGrads<B>> {
    // The saved list is read in the order in which `linear` wrote it.
    let mut list = saved.iter();
    let mut next = || list.next().ok_or_else(|| Error::Internal("linear: the saved list is short".into()));
    let w = next()?;
    let bias = if plan.bias { Some(next()?) } else { None };
    let x = if plan.saves_x { Some(next()?) } else { None };
    let y = if plan.saves_y { Some(next()?) } else { None };
    let pre = if plan.activated { Some(next()?) } else { None };
    let gamma = if plan.residual { Some(next()?) } else { None };
    let (mut adapters, mut t, mut z) = (Vec::new(), Vec::new(), Vec::new());
    for adapter in plan.adapters.iter().flatten() {
        let (a, b) = (next()?.buffer(), next()?.buffer());
        t.push(next()?.buffer());
        let gain = if adapter.gain { Some(next()?.buffer()) } else { None };
        let dropped = if adapter.dropped { Some(next()?.buffer()) } else { None };
        z.push(if adapter.dropped && adapter.gain { Some(next()?.buffer()) } else { None });
        adapters.push(Adapter { dims: adapter.dims, a, b, gain, dropped });
    }
    let first_adapter_input = if plan.bias { 3 } else { 2 };
    let last_adapter_input = needs.count() - usize::from(plan.residual);
    let LinearDims { m, k, n } = plan.dims;
    // What reaches the residual is dL/dy itself; the linear's own gradient is behind LayerScale.
    let residual = gamma.is_some().then(|| dy.clone());
    let dy = match (gamma, needs.scaled_output.take()) {
        (Some(_), Some(scaled)) => scaled,
        (Some(gamma), None) => {
            let (dh, _) =
                backend.layer_scale_backward(m, n, None, gamma.buffer(), dy.buffer(), (true, false), Sums::fresh())?;
            let dh = dh.ok_or_else(|| Error::Internal("layer_scale gave no gradient".into()))?;
            Array::new(backend, dh, dy.shape())?
        }
        (None, _) => dy,
    };
    let args = LinearBackward {
        dims: plan.dims,
        x: x.map(Array::buffer),
        w: w.buffer(),
        bias: bias.map(Array::buffer),
        y: y.map(Array::buffer),
        adapters,
        t,
        z,
        dy: dy.buffer(),
        // drop(x)'s gradient comes with x's: it is asked for where x's is.
        need_x: needs[0],
        need_w: needs[1],
        need_bias: plan.bias && needs[2],
        need_adapter: needs.any(first_adapter_input..last_adapter_input),
    };
    // W, bias, then A, B and gain of each adapter.
    let mut places = vec![Some(1), plan.bias.then_some(2)];
    let mut at = first_adapter_input;
    for adapter in plan.adapters.iter().flatten() {
        places.extend([Some(at), Some(at + 1), adapter.gain.then_some(at + 2)]);
        at += 2 + usize::from(adapter.gain) + usize::from(adapter.dropped);
    }
    let sums = needs.sums(places)?;
    let made = match pre {
        Some(pre) => backend.linear_backward_gelu(args, pre.buffer(), sums)?,
        None => backend.linear_backward(args, sums)?,
    };

    let x_shape = with_width(dy.shape(), k);
    let wrap = |buffer: Option<B::Buffer>, shape: &[usize]| buffer.map(|b| Array::new(backend, b, shape)).transpose();
    let mut grads = vec![wrap(made.x, &x_shape)?, wrap(made.w, &[n, k])?];
    if plan.bias {
        grads.push(wrap(made.bias, &[n])?);
    }
    for (adapter, made) in plan.adapters.iter().flatten().zip(made.adapters) {
        let AdapterDims { rows, rank, .. } = adapter.dims;
        grads.extend([wrap(made.a, &[rank, k])?, wrap(made.b, &[rows, rank])?]);
        if adapter.gain {
            grads.push(wrap(made.gain, &[rows])?);
        }
        if adapter.dropped {
            grads.push(wrap(made.dropped, &x_shape)?);
        }
    }
    grads.extend(residual.map(Some));
    Ok(grads)
}
