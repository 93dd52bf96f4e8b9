//! A linear layer with any number of LoRA or DoRA adapters on ranges of its rows, as one operation.

use super::linear_backward::backward;
use super::{expect, rows_cols};
use crate::autograd::{Adapter, AdapterDims, Array, Backend, LinearDims, LinearOutput, Tape, Tensor};
use crate::config::Level;
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

/// gelu(h), made by the linear that made h.
pub struct Activated<B: Backend> {
    /// h, which gradients flow to.
    pub pre: Tensor<B>,
    /// gelu(h).
    pub values: Array<B>,
}

/// What a linear multiplies.
#[derive(Clone, Copy)]
pub enum LinearInput<'a, B: Backend> {
    /// x itself.
    Plain(&'a Tensor<B>),
    /// gelu(h): the gradient that flows back is h's, and gelu(h) is kept only where a weight's gradient asks.
    Activated(&'a Activated<B>),
}

impl<B: Backend> LinearInput<'_, B> {
    fn values(&self) -> &Array<B> {
        match self {
            Self::Plain(x) => x.array(),
            Self::Activated(x) => &x.values,
        }
    }

    fn source(&self) -> &Tensor<B> {
        match self {
            Self::Plain(x) => x,
            Self::Activated(x) => &x.pre,
        }
    }
}

/// What a linear's gradients flow to.
fn sources<'a, B: Backend>(
    x: &'a Tensor<B>,
    w: &'a Tensor<B>,
    bias: Option<&'a Tensor<B>>,
    adapters: &'a [AdapterInput<B>],
) -> Vec<&'a Tensor<B>> {
    let mut inputs = vec![x, w];
    inputs.extend(bias);
    for adapter in adapters {
        inputs.extend([&adapter.a, &adapter.b]);
        inputs.extend(&adapter.gain);
        inputs.extend(&adapter.dropped);
    }
    inputs
}

/// What the backward pass needs to know besides arrays: where they stand in the saved list follows from it.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    pub(super) dims: LinearDims,
    pub(super) adapters: [Option<AdapterPlan>; MOST_ADAPTERS],
    pub(super) bias: bool,
    pub(super) saves_x: bool,
    pub(super) saves_y: bool,
    pub(super) activated: bool,
    pub(super) residual: bool,
}

#[derive(Clone, Copy)]
pub(super) struct AdapterPlan {
    pub(super) dims: AdapterDims,
    pub(super) gain: bool,
    pub(super) dropped: bool,
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
        self.linear_of(LinearInput::Plain(x), w, bias, adapters)
    }

    /// [`Tape::linear`] whose output is computed again in the backward pass where the tape recomputes at least `from`.
    pub fn linear_again(
        &self,
        x: &Tensor<B>,
        w: &Tensor<B>,
        bias: Option<&Tensor<B>>,
        adapters: &[AdapterInput<B>],
        from: Level,
    ) -> Result<Tensor<B>> {
        self.run_linear(LinearInput::Plain(x), w, bias, adapters, self.recompute() >= from)
    }

    /// [`Tape::linear`] of any input.
    pub fn linear_of(
        &self,
        x: LinearInput<'_, B>,
        w: &Tensor<B>,
        bias: Option<&Tensor<B>>,
        adapters: &[AdapterInput<B>],
    ) -> Result<Tensor<B>> {
        self.run_linear(x, w, bias, adapters, false)
    }

    fn run_linear(
        &self,
        x: LinearInput<'_, B>,
        w: &Tensor<B>,
        bias: Option<&Tensor<B>>,
        adapters: &[AdapterInput<B>],
        again: bool,
    ) -> Result<Tensor<B>> {
        let dims = check(x.values(), w, bias, adapters)?;
        let (xb, wb, bb) = (x.values().buffer(), w.array().buffer(), bias.map(|b| b.array().buffer()));
        let made = self.backend().linear(dims, xb, wb, bb, &views(adapters))?;
        self.record_linear(dims, x, w, bias, adapters, made, None, again)
    }

    /// [`Tape::linear`] and GELU in one operation: h and gelu(h). What is kept is [`Tape::linear`]'s, and h by whatever reads gelu(h). Where no
    /// gradient flows back to h it is not even written, and gelu(h) stands for it.
    pub fn linear_gelu(
        &self,
        x: &Tensor<B>,
        w: &Tensor<B>,
        bias: Option<&Tensor<B>>,
        adapters: &[AdapterInput<B>],
    ) -> Result<Activated<B>> {
        let dims = check(x.array(), w, bias, adapters)?;
        let (xb, wb, bb) = (x.array().buffer(), w.array().buffer(), bias.map(|b| b.array().buffer()));
        if !self.records(&sources(x, w, bias, adapters)) {
            let values = self.backend().linear_activated(dims, xb, wb, bb, &views(adapters))?;
            let values = Array::new(self.backend(), values, &with_width(x.shape(), dims.n))?;
            return Ok(Activated { pre: Tensor::constant(values.clone()), values });
        }
        let (made, values) = self.backend().linear_gelu(dims, xb, wb, bb, &views(adapters))?;
        let values = Array::new(self.backend(), values, &with_width(x.shape(), dims.n))?;
        let again = self.recompute() >= Level::Hidden;
        let pre = self.record_linear(dims, LinearInput::Plain(x), w, bias, adapters, made, None, again)?;
        if self.recompute() >= Level::Pointwise && pre.needs_grad() {
            let shape = values.shape().to_vec();
            let remake =
                move |backend: &B, from: &[Array<B>]| Array::new(backend, backend.gelu(from[0].buffer())?, &shape);
            self.make_again(&values, vec![pre.array().clone()], Box::new(remake));
        }
        Ok(Activated { pre, values })
    }

    /// residual + gamma * (x W^T + bias, adapters applied): a branch's last linear, LayerScale and the residual. residual \[.., n\], gamma \[n\].
    ///
    /// One operation where nothing asks for the linear's own output in the backward pass: neither gamma nor a gain is trained. Else two.
    pub fn linear_residual(
        &self,
        x: LinearInput<'_, B>,
        w: &Tensor<B>,
        bias: Option<&Tensor<B>>,
        adapters: &[AdapterInput<B>],
        residual: &Tensor<B>,
        gamma: &Tensor<B>,
    ) -> Result<Tensor<B>> {
        let trains_gain = adapters.iter().any(|a| a.gain.as_ref().is_some_and(Tensor::needs_grad));
        if gamma.needs_grad() || trains_gain {
            let y = self.linear_of(x, w, bias, adapters)?;
            return self.layer_scale(residual, &y, gamma);
        }
        let dims = check(x.values(), w, bias, adapters)?;
        expect("linear_residual's residual", residual.array(), &with_width(x.values().shape(), dims.n))?;
        expect("linear_residual's gamma", gamma.array(), &[dims.n])?;
        let (xb, wb, bb) = (x.values().buffer(), w.array().buffer(), bias.map(|b| b.array().buffer()));
        let (rb, gb) = (residual.array().buffer(), gamma.array().buffer());
        let made = self.backend().linear_residual(dims, xb, wb, bb, &views(adapters), rb, gb)?;
        self.record_linear(dims, x, w, bias, adapters, made, Some((residual, gamma)), false)
    }

    /// y is made again from x and the values.
    fn make_linear_again(
        &self,
        dims: LinearDims,
        x: &Array<B>,
        w: &Tensor<B>,
        bias: Option<&Tensor<B>>,
        adapters: &[AdapterInput<B>],
        y: &Array<B>,
    ) {
        let mut sources = vec![x.clone(), w.array().clone()];
        sources.extend(bias.map(|bias| bias.array().clone()));
        let mut sites = Vec::new();
        for adapter in adapters {
            sources.extend([adapter.a.array().clone(), adapter.b.array().clone()]);
            sources.extend(adapter.gain.as_ref().map(|gain| gain.array().clone()));
            sites.push((adapter.dims, adapter.gain.is_some()));
        }
        let (with_bias, shape) = (bias.is_some(), y.shape().to_vec());
        let remake = move |backend: &B, from: &[Array<B>]| {
            let mut list = from.iter().map(Array::buffer);
            let mut next = || list.next().ok_or_else(|| Error::Internal("linear: too few sources".into()));
            let (x, w) = (next()?, next()?);
            let bias = if with_bias { Some(next()?) } else { None };
            let mut adapters = Vec::new();
            for &(dims, gain) in &sites {
                let (a, b) = (next()?, next()?);
                let gain = if gain { Some(next()?) } else { None };
                adapters.push(Adapter { dims, a, b, gain, dropped: None });
            }
            Array::new(backend, backend.linear(dims, x, w, bias, &adapters)?.y, &shape)
        };
        self.make_again(y, sources, Box::new(remake));
    }

    #[allow(clippy::too_many_arguments)]
    fn record_linear(
        &self,
        dims: LinearDims,
        x: LinearInput<'_, B>,
        w: &Tensor<B>,
        bias: Option<&Tensor<B>>,
        adapters: &[AdapterInput<B>],
        made: LinearOutput<B::Buffer>,
        residual: Option<(&Tensor<B>, &Tensor<B>)>,
        again: bool,
    ) -> Result<Tensor<B>> {
        let LinearDims { m, .. } = dims;
        let y = Array::new(self.backend(), made.y, &with_width(x.values().shape(), dims.n))?;

        let mut inputs = sources(x.source(), w, bias, adapters);
        inputs.extend(residual.map(|(residual, _)| residual));
        if !self.records(&inputs) {
            return Ok(Tensor::constant(y));
        }

        if again && adapters.iter().all(|adapter| adapter.dropped.is_none()) {
            self.make_linear_again(dims, x.values(), w, bias, adapters, &y);
        }
        let trains = |adapter: &AdapterInput<B>| adapter.a.needs_grad() || adapter.b.needs_grad();
        let saves_x = w.needs_grad() || adapters.iter().any(|a| trains(a) && a.dropped.is_none());
        let saves_y = adapters.iter().any(|a| a.gain.as_ref().is_some_and(Tensor::needs_grad) && a.dropped.is_none());
        let activated = matches!(x, LinearInput::Activated(_));
        let mut plan = Plan {
            dims,
            adapters: [None; MOST_ADAPTERS],
            bias: bias.is_some(),
            saves_x,
            saves_y,
            activated,
            residual: residual.is_some(),
        };
        let mut saved = vec![w.array().clone()];
        saved.extend(bias.map(|b| b.array().clone()));
        saved.extend(saves_x.then(|| x.values().clone()));
        saved.extend(saves_y.then(|| y.clone()));
        saved.extend(activated.then(|| x.source().array().clone()));
        saved.extend(residual.map(|(_, gamma)| gamma.array().clone()));
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
        let y = self.record("linear", &inputs, y, saved, plan, backward);
        Ok(match residual {
            Some((_, gamma)) => self.with_scale(y, gamma.array()),
            None => y,
        })
    }
}

/// Checks all shapes and returns the sizes.
fn check<B: Backend>(
    x: &Array<B>,
    w: &Tensor<B>,
    bias: Option<&Tensor<B>>,
    adapters: &[AdapterInput<B>],
) -> Result<LinearDims> {
    let (m, k) = rows_cols("linear's input", x)?;
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
    Ok(LinearDims { m, k, n })
}

/// A shape with another last dimension.
pub(super) fn with_width(shape: &[usize], width: usize) -> Vec<usize> {
    let mut shape = shape.to_vec();
    if let Some(last) = shape.last_mut() {
        *last = width;
    }
    shape
}

fn views<B: Backend>(adapters: &[AdapterInput<B>]) -> Vec<Adapter<'_, B::Buffer>> {
    adapters.iter().map(adapter_view).collect()
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
