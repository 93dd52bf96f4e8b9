//! Values on a device, and the trained values of a model.

use std::rc::Rc;

use super::{Backend, SumTo, Tensor};
use crate::{Error, Result};

/// An immutable block of numbers with a shape; cloning shares it.
pub struct Array<B: Backend> {
    buffer: Rc<B::Buffer>,
    shape: Rc<[usize]>,
}

impl<B: Backend> Clone for Array<B> {
    fn clone(&self) -> Self {
        Self { buffer: self.buffer.clone(), shape: self.shape.clone() }
    }
}

impl<B: Backend> Array<B> {
    /// Wraps a buffer; its length must be the shape's.
    pub fn new(backend: &B, buffer: B::Buffer, shape: &[usize]) -> Result<Self> {
        let (expected, found) = (shape.iter().product::<usize>(), backend.len(&buffer));
        if expected != found {
            return Err(Error::shape(format!("array {shape:?}"), expected, found));
        }
        Ok(Self { buffer: Rc::new(buffer), shape: shape.into() })
    }

    /// Copies host values to the device.
    pub fn upload(backend: &B, values: &[f32], shape: &[usize]) -> Result<Self> {
        Self::new(backend, backend.upload(values)?, shape)
    }

    /// Copies the values back.
    pub fn download(&self, backend: &B) -> Result<Vec<f32>> {
        backend.download(&self.buffer)
    }

    /// The same numbers under another shape.
    pub fn reshaped(&self, shape: &[usize]) -> Result<Self> {
        if shape.iter().product::<usize>() != self.elements() {
            return Err(Error::shape("reshape", &self.shape, shape));
        }
        Ok(Self { buffer: self.buffer.clone(), shape: shape.into() })
    }

    /// Sizes of the dimensions.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// How many numbers.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Its size on the device in bytes.
    pub fn bytes(&self, backend: &B) -> usize {
        backend.bytes(&self.buffer)
    }

    /// The device's block.
    pub fn buffer(&self) -> &B::Buffer {
        &self.buffer
    }

    /// The block for writing, when nothing else shares it.
    pub(crate) fn buffer_mut(&mut self) -> Option<&mut B::Buffer> {
        Rc::get_mut(&mut self.buffer)
    }

    /// The block itself, when nothing else shares it.
    pub(crate) fn into_buffer(self) -> Result<B::Buffer> {
        Rc::try_unwrap(self.buffer).map_err(|_| Error::Internal("a gradient's sum is shared".into()))
    }

    /// A handle that does not keep the block.
    pub(crate) fn downgrade(&self) -> std::rc::Weak<B::Buffer> {
        Rc::downgrade(&self.buffer)
    }

    /// The block's identity: equal for arrays that share it.
    pub(crate) fn identity(&self) -> *const () {
        Rc::as_ptr(&self.buffer).cast()
    }

    /// The sum of two arrays of one shape, written into whichever nothing else shares.
    pub(crate) fn sum(mut self, mut other: Self, backend: &B) -> Result<Self> {
        if self.shape != other.shape {
            return Err(Error::shape("sum of gradients", &self.shape, &other.shape));
        }
        if let Some(acc) = Rc::get_mut(&mut self.buffer) {
            backend.add_assign(acc, &other.buffer)?;
            return Ok(self);
        }
        if let Some(acc) = Rc::get_mut(&mut other.buffer) {
            backend.add_assign(acc, &self.buffer)?;
            return Ok(other);
        }
        let mut acc = backend.copy(&self.buffer)?;
        backend.add_assign(&mut acc, &other.buffer)?;
        Ok(Self { buffer: Rc::new(acc), shape: self.shape })
    }
}

/// Where a parameter lies in its [`Params`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ParamId(pub(crate) usize);

impl ParamId {
    /// Its place, counted from 0.
    pub fn index(self) -> usize {
        self.0
    }

    /// The place of a derived value's gradient, behind those of a model's `params` values.
    pub(crate) fn derived(params: usize, slot: usize) -> Self {
        Self(params + slot)
    }
}

/// One of a model's values.
pub struct Param<B: Backend> {
    /// A name that is unique in the model.
    pub name: String,
    /// Its numbers.
    pub value: Array<B>,
    /// Whether training changes it.
    pub trainable: bool,
}

/// All values of a model, trained or not.
pub struct Params<B: Backend> {
    backend: B,
    list: Vec<Param<B>>,
}

impl<B: Backend> Params<B> {
    /// An empty set on a device.
    pub fn new(backend: B) -> Self {
        Self { backend, list: Vec::new() }
    }

    /// The device.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// Adds a value from the host.
    pub fn add(
        &mut self,
        name: impl Into<String>,
        values: &[f32],
        shape: &[usize],
        trainable: bool,
    ) -> Result<ParamId> {
        let value = Array::upload(&self.backend, values, shape)?;
        self.list.push(Param { name: name.into(), value, trainable });
        Ok(ParamId(self.list.len() - 1))
    }

    /// One of them.
    pub fn get(&self, id: ParamId) -> &Param<B> {
        &self.list[id.0]
    }

    /// One of them, for the optimiser or for loading.
    pub fn get_mut(&mut self, id: ParamId) -> &mut Param<B> {
        &mut self.list[id.0]
    }

    /// All, in the order they were added.
    pub fn iter(&self) -> impl Iterator<Item = (ParamId, &Param<B>)> {
        self.list.iter().enumerate().map(|(index, param)| (ParamId(index), param))
    }

    /// All, for the optimiser.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (ParamId, &mut Param<B>)> {
        self.list.iter_mut().enumerate().map(|(index, param)| (ParamId(index), param))
    }

    /// Those that training changes.
    pub fn trainable(&self) -> impl Iterator<Item = (ParamId, &Param<B>)> {
        self.iter().filter(|(_, param)| param.trainable)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Replaces a value by another of the same shape.
    pub fn set(&mut self, id: ParamId, values: &[f32]) -> Result<()> {
        let param = &mut self.list[id.0];
        let shape = param.value.shape().to_vec();
        match param.value.buffer_mut() {
            // In place where it can be: on a device whose memory is planned there is no room for a second one.
            Some(buffer) if values.len() == shape.iter().product::<usize>() => self.backend.write(buffer, values)?,
            _ => param.value = Array::upload(&self.backend, values, &shape)?,
        }
        Ok(())
    }

    /// A value's numbers on the host.
    pub fn download(&self, id: ParamId) -> Result<Vec<f32>> {
        self.get(id).value.download(&self.backend)
    }
}

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

    /// Those that a gradient reached, with it.
    pub fn with_grads(&self, params: usize, grads: &mut Grads<B>) -> Vec<(&Tensor<B>, Array<B>)> {
        let take = |(slot, tensor)| Some((tensor, grads.take(ParamId::derived(params, slot))?));
        self.list.iter().enumerate().filter_map(take).collect()
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

/// Gradients of the trained values, summed over backward passes until they are taken.
pub struct Grads<B: Backend> {
    backend: B,
    list: Vec<Slot<B>>,
}

impl<B: Backend> Grads<B> {
    /// None yet.
    pub fn new(params: &Params<B>) -> Self {
        Self { backend: params.backend.clone(), list: (0..params.len()).map(|_| Slot::Empty).collect() }
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

    /// Blocks for the gradients of derived values.
    pub fn reserve_derived(&mut self, params: usize, derived: &Derived<B>) -> Result<()> {
        for (slot, tensor) in derived.list.iter().enumerate().filter(|(_, tensor)| tensor.needs_grad()) {
            self.reserve(ParamId::derived(params, slot), tensor.shape())?;
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
            Slot::Empty | Slot::Old(_) | Slot::Lent => grad,
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

    /// The gradient of a value, if any reached it.
    pub fn get(&self, id: ParamId) -> Option<&Array<B>> {
        match self.list.get(id.0) {
            Some(Slot::Sum(array)) => Some(array),
            _ => None,
        }
    }

    /// The same, taken out.
    pub(crate) fn take(&mut self, id: ParamId) -> Option<Array<B>> {
        let slot = self.slot(id);
        match std::mem::replace(slot, Slot::Empty) {
            Slot::Sum(array) => Some(array),
            other => {
                *slot = other;
                None
            }
        }
    }

    /// Those that are there.
    pub fn iter(&self) -> impl Iterator<Item = (ParamId, &Array<B>)> {
        (0..self.list.len()).filter_map(|index| Some((ParamId(index), self.get(ParamId(index))?)))
    }

    /// The global L2 norm.
    pub fn norm(&self) -> Result<f64> {
        let list: Vec<_> = self.iter().map(|(_, grad)| grad.buffer()).collect();
        let sum = self.backend.sum_squares_all(&list)?;
        Ok(sum.sqrt())
    }

    /// Multiplies all by a factor.
    pub fn scale(&mut self, factor: f64) -> Result<()> {
        for slot in &mut self.list {
            let Slot::Sum(grad) = slot else { continue };
            if grad.buffer_mut().is_none() {
                *grad = Array::new(&self.backend, self.backend.copy(grad.buffer())?, grad.shape())?;
            }
            let buffer = grad.buffer_mut().ok_or_else(|| Error::Internal("a gradient is shared".into()))?;
            self.backend.scale_assign(buffer, factor)?;
        }
        Ok(())
    }
}
