//! The gradients of a model's values, and values that are derived from these once a step.

use super::{Array, Backend, ParamId, Params, SumTo, Tensor};
use crate::{Error, Result};

/// Values that follow from a model's own and stand for a whole step (DoRA's gains, resampled positions), by slot. They are computed once
/// on a tape of their own; passes over parts of a batch sum their gradients, which then flow on through that tape once.
pub struct Derived<B: Backend> {
    list: Vec<Tensor<B>>,
}

impl<B: Backend> Derived<B> {
    /// From the values on their tape.
    pub fn new(list: Vec<Tensor<B>>) -> Self {
        Self { list }
    }

    /// A value, and whether it asks for a gradient.
    pub(crate) fn get(&self, slot: usize) -> Option<(&Array<B>, bool)> {
        self.list.get(slot).map(|tensor| (tensor.array(), tensor.needs_grad()))
    }

    /// Tells where each lies.
    pub(crate) fn places(&self, backend: &B, tell: &mut impl FnMut(u64)) {
        self.list.iter().for_each(|tensor| tell(backend.place(tensor.array().buffer())));
    }

    /// Those that a gradient reached, with it.
    pub fn with_grads(&self, grads: &Grads<B>) -> Vec<(&Tensor<B>, Array<B>)> {
        let of = |(slot, tensor)| Some((tensor, grads.get(ParamId::derived(grads.params, slot))?.clone()));
        self.list.iter().enumerate().filter_map(of).collect()
    }
}

/// A gradient's place.
enum Slot<B: Backend> {
    /// Nothing came yet.
    Empty,
    /// A block without content that is to be written over.
    Old(Array<B>),
    /// What came so far.
    Sum(Array<B>),
    /// An operation adds to it just now.
    Lent,
}

/// Gradients of the trained values, and behind them of derived ones, summed over backward passes. A gradient's block stays where it is
/// ([`Grads::restart`]): in a planned arena every step then finds the same places free.
pub struct Grads<B: Backend> {
    backend: B,
    /// The model's values.
    params: usize,
    list: Vec<Slot<B>>,
}

impl<B: Backend> Grads<B> {
    /// None yet.
    pub fn new(params: &Params<B>) -> Self {
        let list = (0..params.len()).map(|_| Slot::Empty).collect();
        Self { backend: params.backend().clone(), params: params.len(), list }
    }

    /// With a block for each trained value, to be used step after step.
    pub fn with_blocks(params: &Params<B>) -> Result<Self> {
        let mut grads = Self::new(params);
        for (id, param) in params.trainable() {
            grads.reserve(id, param.value.shape())?;
        }
        Ok(grads)
    }

    /// A block for a gradient that has none.
    fn reserve(&mut self, id: ParamId, shape: &[usize]) -> Result<()> {
        if matches!(self.slot(id), Slot::Empty) {
            let block = Array::upload(&self.backend, &vec![0.0; shape.iter().product()], shape)?;
            *self.slot(id) = Slot::Old(block);
        }
        Ok(())
    }

    /// Blocks for the gradients of derived values, where there are none yet.
    pub fn reserve_derived(&mut self, derived: &Derived<B>) -> Result<()> {
        for (slot, tensor) in derived.list.iter().enumerate().filter(|(_, tensor)| tensor.needs_grad()) {
            self.reserve(ParamId::derived(self.params, slot), tensor.shape())?;
        }
        Ok(())
    }

    /// Begins anew in the same blocks.
    pub fn restart(&mut self) {
        for slot in &mut self.list {
            *slot = match std::mem::replace(slot, Slot::Empty) {
                Slot::Sum(array) | Slot::Old(array) => Slot::Old(array),
                Slot::Empty | Slot::Lent => Slot::Empty,
            };
        }
    }

    /// Adds one from the host.
    pub fn add(&mut self, id: ParamId, values: &[f32], shape: &[usize]) -> Result<()> {
        let grad = Array::upload(&self.backend, values, shape)?;
        self.accumulate(id, grad)
    }

    fn slot(&mut self, id: ParamId) -> &mut Slot<B> {
        if self.list.len() <= id.0 {
            self.list.resize_with(id.0 + 1, || Slot::Empty);
        }
        &mut self.list[id.0]
    }

    /// Adds one.
    pub(crate) fn accumulate(&mut self, id: ParamId, grad: Array<B>) -> Result<()> {
        let backend = self.backend.clone();
        let slot = self.slot(id);
        *slot = Slot::Sum(match std::mem::replace(slot, Slot::Empty) {
            Slot::Sum(sum) => sum.sum(grad, &backend)?,
            Slot::Old(mut block) => match block.buffer_mut() {
                Some(buffer) => {
                    backend.assign(buffer, grad.buffer())?;
                    block
                }
                None => grad,
            },
            Slot::Empty | Slot::Lent => grad,
        });
        Ok(())
    }

    /// The sum so far for an operation that goes on from it; nothing where there is no block yet.
    pub(crate) fn lend(&mut self, id: ParamId) -> Option<SumTo<Array<B>>> {
        let slot = self.slot(id);
        match std::mem::replace(slot, Slot::Lent) {
            Slot::Sum(block) => Some(SumTo { block, add: true }),
            Slot::Old(block) => Some(SumTo { block, add: false }),
            other => {
                *slot = other;
                None
            }
        }
    }

    /// Whether an operation has the sum.
    pub(crate) fn is_lent(&self, id: ParamId) -> bool {
        matches!(self.list.get(id.0), Some(Slot::Lent))
    }

    /// What was lent, as it was.
    pub(crate) fn give_back(&mut self, id: ParamId, lent: SumTo<Array<B>>) {
        *self.slot(id) = if lent.add { Slot::Sum(lent.block) } else { Slot::Old(lent.block) };
    }

    /// What was lent, added to.
    pub(crate) fn put(&mut self, id: ParamId, sum: Array<B>) {
        *self.slot(id) = Slot::Sum(sum);
    }

    /// Tells where each lies and what is there.
    pub(crate) fn places(&self, tell: &mut impl FnMut(u64)) {
        for slot in &self.list {
            match slot {
                Slot::Empty | Slot::Lent => tell(0),
                Slot::Old(block) => tell(self.backend.place(block.buffer())),
                Slot::Sum(block) => tell(!self.backend.place(block.buffer())),
            }
        }
    }

    /// Which values a gradient reached.
    pub(crate) fn reached(&self) -> Vec<bool> {
        self.list.iter().map(|slot| matches!(slot, Slot::Sum(_))).collect()
    }

    /// Gradients reached these values in work that was queued without the tape.
    pub(crate) fn mark_reached(&mut self, reached: &[bool]) {
        for (slot, _) in self.list.iter_mut().zip(reached).filter(|(_, reached)| **reached) {
            *slot = match std::mem::replace(slot, Slot::Empty) {
                Slot::Old(block) => Slot::Sum(block),
                other => other,
            };
        }
    }

    /// Those of the model's own values that are there, in their order, for writing.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = Result<(ParamId, &mut B::Buffer)>> {
        let Self { backend, params, list } = self;
        let sums = list[..*params].iter_mut().enumerate();
        sums.filter_map(move |(index, slot)| match slot {
            Slot::Sum(grad) => Some(own(backend, grad).map(|buffer| (ParamId(index), buffer))),
            _ => None,
        })
    }

    /// The gradient of a value, if any reached it.
    pub fn get(&self, id: ParamId) -> Option<&Array<B>> {
        match self.list.get(id.0) {
            Some(Slot::Sum(array)) => Some(array),
            _ => None,
        }
    }

    /// Those of the model's own values that are there.
    pub fn iter(&self) -> impl Iterator<Item = (ParamId, &Array<B>)> {
        (0..self.params).filter_map(|index| Some((ParamId(index), self.get(ParamId(index))?)))
    }

    /// The global L2 norm.
    pub fn norm(&self) -> Result<f64> {
        let list: Vec<_> = self.iter().map(|(_, grad)| grad.buffer()).collect();
        let sum = self.backend.sum_squares_all(&list)?;
        Ok(sum.sqrt())
    }

    /// Multiplies all by a factor.
    pub fn scale(&mut self, factor: f64) -> Result<()> {
        let backend = self.backend.clone();
        for grad in self.iter_mut() {
            backend.scale_assign(grad?.1, factor)?;
        }
        Ok(())
    }
}

/// An array's block for writing; what something else shares is copied first.
fn own<'a, B: Backend>(backend: &B, array: &'a mut Array<B>) -> Result<&'a mut B::Buffer> {
    if array.buffer_mut().is_none() {
        *array = Array::new(backend, backend.copy(array.buffer())?, array.shape())?;
    }
    array.buffer_mut().ok_or_else(|| Error::Internal("a gradient is shared".into()))
}
