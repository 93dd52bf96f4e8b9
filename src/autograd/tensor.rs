//! Values on a device, and the trained values of a model.

use std::rc::Rc;

use super::Backend;
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
