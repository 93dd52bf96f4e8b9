//! A linear layer with any number of LoRA or DoRA adapters on ranges of its rows, as one operation.

use super::{expect, rows_cols};
use crate::autograd::{Adapter, AdapterDims, Array, Backend, InputGrads, LinearBackward, LinearDims, Tape, Tensor};
use crate::{Error, Result};

/// The most adapters one linear carries: query, key and value of the packed qkv.
const MOST_ADAPTERS: usize = 3;

/// An adapter's values as an operation's inputs.
pub struct AdapterInput<B: Backend> {
    /// Place, rank and scale.
    pub dims: AdapterDims,
    /// A \[rank, k\].
    pub a: Tensor<B>,
    /// B \[rows, rank\].
    pub b: Tensor<B>,
    /// DoRA's g \[rows\].
    pub gain: Option<Tensor<B>>,
    /// drop(x), of x's shape.
    pub dropped: Option<Tensor<B>>,
}

/// What the backward pass needs to know besides arrays: where they stand in the saved list follows from it.
#[derive(Clone, Copy)]
struct Plan {
    dims: LinearDims,
    adapters: [Option<AdapterPlan>; MOST_ADAPTERS],
    bias: bool,
    saves_x: bool,
    saves_y: bool,
}

#[derive(Clone, Copy)]
struct AdapterPlan {
    dims: AdapterDims,
    gain: bool,
    dropped: bool,
}

impl<B: Backend> Tape<'_, B> {
    /// y = x W^T + bias with the adapters applied as [`Backend::linear`] says. x \[.., k\], W \[n, k\], bias \[n\]; y \[.., n\].
    ///
    /// Keeps W, x where dW or an adapter's dA asks for it, each adapter's values and t = drop(x) A^T, and y (with dropout: z) where a gain asks.
    pub fn linear(
        &self,
        x: &Tensor<B>,
        w: &Tensor<B>,
        bias: Option<&Tensor<B>>,
        adapters: &[AdapterInput<B>],
    ) -> Result<Tensor<B>> {
        let (m, k) = rows_cols("linear's input", x.array())?;
        let (n, k_of_w) = rows_cols("linear's weight", w.array())?;
        if k != k_of_w {
            return Err(Error::shape("linear", format!("an input of width {k_of_w}"), x.shape()));
        }
        if let Some(bias) = bias {
            expect("linear's bias", bias.array(), &[n])?;
        }
        if adapters.len() > MOST_ADAPTERS {
            return Err(Error::shape("linear", format!("at most {MOST_ADAPTERS} adapters"), adapters.len()));
        }
        for adapter in adapters {
            check_adapter(adapter, n, k, x.shape())?;
        }
        let dims = LinearDims { m, k, n };
        let views: Vec<_> = adapters.iter().map(adapter_view).collect();
        let made = self.backend().linear(
            dims,
            x.array().buffer(),
            w.array().buffer(),
            bias.map(|b| b.array().buffer()),
            &views,
        )?;
        let mut shape = x.shape().to_vec();
        if let Some(last) = shape.last_mut() {
            *last = n;
        }
        let y = Array::new(self.backend(), made.y, &shape)?;

        let mut inputs = vec![x, w];
        inputs.extend(bias);
        for adapter in adapters {
            inputs.extend([&adapter.a, &adapter.b]);
            inputs.extend(&adapter.gain);
            inputs.extend(&adapter.dropped);
        }
        if !self.records(&inputs) {
            return Ok(Tensor::constant(y));
        }

        let trains = |adapter: &AdapterInput<B>| adapter.a.needs_grad() || adapter.b.needs_grad();
        let saves_x = w.needs_grad() || adapters.iter().any(|a| trains(a) && a.dropped.is_none());
        let saves_y = adapters.iter().any(|a| a.gain.as_ref().is_some_and(Tensor::needs_grad) && a.dropped.is_none());
        let mut plan = Plan { dims, adapters: [None; MOST_ADAPTERS], bias: bias.is_some(), saves_x, saves_y };
        let mut saved = vec![w.array().clone()];
        saved.extend(bias.map(|b| b.array().clone()));
        saved.extend(saves_x.then(|| x.array().clone()));
        saved.extend(saves_y.then(|| y.clone()));
        for (index, ((adapter, t), z)) in adapters.iter().zip(made.t).zip(made.z).enumerate() {
            let (rows, rank) = (adapter.dims.rows, adapter.dims.rank);
            plan.adapters[index] = Some(AdapterPlan {
                dims: adapter.dims,
                gain: adapter.gain.is_some(),
                dropped: adapter.dropped.is_some(),
            });
            saved.extend([adapter.a.array().clone(), adapter.b.array().clone()]);
            saved.push(Array::new(self.backend(), t, &[m, rank])?);
            saved.extend(adapter.gain.as_ref().map(|g| g.array().clone()));
            if let Some(dropped) = &adapter.dropped {
                saved.push(dropped.array().clone());
                if adapter.gain.is_some() {
                    let z =
                        z.ok_or_else(|| Error::Internal("linear: no z from an adapter with gain and dropout".into()))?;
                    saved.push(Array::new(self.backend(), z, &[m, rows])?);
                }
            }
        }
        Ok(self.record("linear", &inputs, y, saved, plan, backward))
    }
}

fn check_adapter<B: Backend>(adapter: &AdapterInput<B>, n: usize, k: usize, x: &[usize]) -> Result<()> {
    let AdapterDims { first_row, rows, rank, .. } = adapter.dims;
    if rank == 0 || first_row + rows > n {
        return Err(Error::shape("an adapter's rows", format!("rank 1 or more, rows inside 0..{n}"), adapter.dims));
    }
    expect("an adapter's A", adapter.a.array(), &[rank, k])?;
    expect("an adapter's B", adapter.b.array(), &[rows, rank])?;
    if let Some(gain) = &adapter.gain {
        expect("an adapter's gain", gain.array(), &[rows])?;
    }
    if let Some(dropped) = &adapter.dropped {
        expect("an adapter's dropped input", dropped.array(), x)?;
    }
    Ok(())
}

fn adapter_view<B: Backend>(adapter: &AdapterInput<B>) -> Adapter<'_, B::Buffer> {
    Adapter {
        dims: adapter.dims,
        a: adapter.a.array().buffer(),
        b: adapter.b.array().buffer(),
        gain: adapter.gain.as_ref().map(|g| g.array().buffer()),
        dropped: adapter.dropped.as_ref().map(|d| d.array().buffer()),
    }
}

fn backward<B: Backend>(
    backend: &B,
    plan: Plan,
    saved: &[Array<B>],
    dy: Array<B>,
    needs: &[bool],
) -> Result<InputGrads<B>> {
    // The saved list is read in the order in which `linear` wrote it.
    let mut list = saved.iter();
    let mut next = || list.next().ok_or_else(|| Error::Internal("linear: the saved list is short".into()));
    let w = next()?;
    let bias = if plan.bias { Some(next()?) } else { None };
    let x = if plan.saves_x { Some(next()?) } else { None };
    let y = if plan.saves_y { Some(next()?) } else { None };
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
    let LinearDims { k, n, .. } = plan.dims;
    let made = backend.linear_backward(LinearBackward {
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
        need_adapter: needs[first_adapter_input..].iter().any(|&need| need),
    })?;

    let mut x_shape = dy.shape().to_vec();
    if let Some(last) = x_shape.last_mut() {
        *last = k;
    }
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
    Ok(grads)
}
