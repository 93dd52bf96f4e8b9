//! Device memory with a type and a length.

use std::sync::Arc;

use bytemuck::Pod;
use cudarc::driver::{CudaSlice, DevicePtr, DeviceRepr};

use super::{Device, error};
use crate::{Error, Result};

/// A plain element as cudarc wants it.
#[derive(Debug, Clone, Copy)]
#[repr(transparent)]
pub(super) struct Plain<T>(pub(super) T);

// SAFETY: Pod has no padding, no pointers to the host and no invalid bit patterns: its bytes mean the same on the device.
unsafe impl<T: Pod> DeviceRepr for Plain<T> {}

/// `len` elements of device memory, freed (in stream order) when dropped.
#[derive(Debug)]
pub struct Buffer<T> {
    slice: CudaSlice<Plain<T>>,
    device: Device,
}

impl<T: Pod> Buffer<T> {
    /// Copies `values`, at least one, to new device memory.
    ///
    /// # Errors
    /// [`Error::Input`] when the device's memory is full, [`Error::Shape`] when there is nothing to copy.
    pub fn from_slice(device: &Device, values: &[T]) -> Result<Self> {
        // The driver has no allocation of 0 bytes.
        if values.is_empty() {
            return Err(Error::shape("copy to the device", "at least one value", 0));
        }
        let doing = || format!("copy {} bytes to the device", std::mem::size_of_val(values));
        let values: &[Plain<T>] = plain(values);
        let slice = device.stream.clone_htod(values).map_err(|e| error::device(doing(), e))?;
        // The copy reads the caller's memory, which is the caller's again on return.
        device.synchronize()?;
        Ok(Self { slice, device: device.clone() })
    }

    /// Copies everything back, after all queued work.
    ///
    /// # Errors
    /// A device fault, of the copy or of work that was queued before it.
    pub fn to_vec(&self) -> Result<Vec<T>> {
        let mut values = vec![T::zeroed(); self.len()];
        self.copy_to(&mut values)?;
        Ok(values)
    }

    /// As [`Buffer::to_vec`], into memory that is there already; the lengths must be equal.
    ///
    /// # Errors
    /// [`Error::Shape`] for another length, else as [`Buffer::to_vec`].
    pub fn copy_to(&self, values: &mut [T]) -> Result<()> {
        if values.len() != self.len() {
            return Err(Error::shape("copy from the device", self.len(), values.len()));
        }
        let doing = || format!("copy {} bytes from the device", self.slice.num_bytes());
        let copied = self.device.stream.memcpy_dtoh(&self.slice, plain_mut(values));
        let waited = self.device.stream.synchronize();
        copied.and(waited).map_err(|e| error::device(doing(), e))
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.slice.len()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it is memory of this open device: opened twice, a GPU has two streams, and nothing orders one after the other.
    pub fn is_on(&self, device: &Device) -> bool {
        Arc::ptr_eq(&self.device.stream, &device.stream)
    }

    /// The device address, for a launch's parameters. It is valid as long as this buffer, and on its device alone.
    pub fn address(&self) -> u64 {
        let (pointer, _no_events) = self.slice.device_ptr(&self.device.stream);
        pointer
    }
}

fn plain<T: Pod>(values: &[T]) -> &[Plain<T>] {
    // SAFETY: Plain<T> is transparent over T.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), values.len()) }
}

fn plain_mut<T: Pod>(values: &mut [T]) -> &mut [Plain<T>] {
    // SAFETY: Plain<T> is transparent over T; the borrow is handed on.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), values.len()) }
}
