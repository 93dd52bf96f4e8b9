//! Blocks of device memory.

use bytemuck::Pod;
use cudarc::driver::{DeviceRepr, result};
use half::bf16;

use super::context::Memory;
use super::guard::{self, Room};
use super::upload::Later;
use super::{DType, Device, error};
use crate::{Error, Result};

/// A plain element as cudarc wants it.
#[derive(Debug, Clone, Copy)]
#[repr(transparent)]
pub(super) struct Plain<T>(pub(super) T);

// SAFETY: Pod has no padding, no pointers to the host and no invalid bit patterns: its bytes mean the same on the device.
unsafe impl<T: Pod> DeviceRepr for Plain<T> {}

/// `len` elements of device memory; given back, in stream order, when dropped.
#[derive(Debug)]
pub struct Buf {
    dtype: DType,
    len: usize,
    address: u64,
    /// Whether it is given back when dropped.
    owned: bool,
    device: Device,
}

impl Buf {
    /// A program's own memory, which stays its own.
    ///
    /// # Safety
    /// `address` must be device memory of `device`'s context with `len` elements of this type, a multiple of 16, and stay allocated until the
    /// work that uses this is done. What is written through it must not be used otherwise in the meantime, but in stream order.
    pub unsafe fn borrowed(device: &Device, address: u64, dtype: DType, len: usize) -> Self {
        Self { dtype, len, address, owned: false, device: device.clone() }
    }

    /// Memory with anything in it, in guard mode NaN. A length of 0 is an error: there is no such block.
    ///
    /// # Errors
    /// [`Error::Input`] when the device's memory, or the arena, is full.
    pub fn uninit(device: &Device, dtype: DType, len: usize) -> Result<Self> {
        if len == 0 {
            return Err(Error::shape("device memory", "at least one value", 0));
        }
        let mut memory = device.memory();
        // Guard mode begins under this lock, while there is no block: one that is made with bands is given back with them.
        let room = Room::of((len * dtype.bytes()) as u64, device.is_guarded());
        let first = match &mut *memory {
            Memory::Arena { base, arena, outside } => match arena.take(room.bytes) {
                Some(first) => *base + first,
                None => {
                    let first = allocate(device, room.bytes)?;
                    outside.in_use += room.bytes;
                    outside.peak = outside.peak.max(arena.high_water() + outside.in_use);
                    first
                }
            },
            Memory::Single(usage) => {
                let first = allocate(device, room.bytes)?;
                usage.take(room.bytes);
                first
            }
        };
        drop(memory);
        let buf = Self { dtype, len, address: first + room.before, owned: true, device: device.clone() };
        guard::made(&buf)?;
        Ok(buf)
    }

    /// Memory of zeros.
    ///
    /// # Errors
    /// As [`Buf::uninit`].
    pub fn zeros(device: &Device, dtype: DType, len: usize) -> Result<Self> {
        let mut buf = Self::uninit(device, dtype, len)?;
        buf.fill_bytes(0)?;
        Ok(buf)
    }

    /// Copies f32 values, rounded to nearest even where `dtype` is bf16.
    ///
    /// # Errors
    /// As [`Buf::uninit`]; a dtype that is neither.
    pub fn from_f32(device: &Device, values: &[f32], dtype: DType) -> Result<Self> {
        let mut buf = Self::uninit(device, dtype, values.len())?;
        if device.is_dry() {
            return Ok(buf);
        }
        match dtype {
            DType::F32 => buf.write(values)?,
            DType::Bf16 => buf.write(&values.iter().map(|&x| bf16::from_f32(x)).collect::<Vec<_>>())?,
            _ => return Err(Error::shape("copy of f32 values", "f32 or bf16", dtype)),
        }
        Ok(buf)
    }

    /// Copies values whose size is the dtype's.
    ///
    /// # Errors
    /// As [`Buf::uninit`].
    pub fn from_slice<T: Pod>(device: &Device, values: &[T], dtype: DType) -> Result<Self> {
        let mut buf = Self::uninit(device, dtype, size_of_val(values) / dtype.bytes())?;
        buf.write(values)?;
        Ok(buf)
    }

    /// Overwrites all of it; `values` must have its size in bytes.
    ///
    /// # Errors
    /// [`Error::Shape`] for another size, a device fault.
    pub fn write<T: Pod>(&mut self, values: &[T]) -> Result<()> {
        if size_of_val(values) != self.bytes() {
            return Err(Error::shape("copy to the device (bytes)", self.bytes(), size_of_val(values)));
        }
        let Some(real) = &self.device.0.real else { return Ok(()) };
        real.bind()?;
        real.copy_in(self.address, bytemuck::cast_slice(values))
    }

    /// Overwrites the first half of it. The bytes travel to the second half beside the work that is queued, which may still be reading the first.
    /// `is_new`: nothing was written there in this way yet.
    ///
    /// # Errors
    /// [`Error::Shape`] unless they are half of it, a device fault.
    pub fn write_first_half_beside(&mut self, bytes: &[u8], is_new: bool) -> Result<()> {
        if 2 * bytes.len() != self.bytes() {
            return Err(Error::shape("copy to half of a block (bytes)", self.bytes() / 2, bytes.len()));
        }
        let Some(real) = &self.device.0.real else { return Ok(()) };
        real.copy_in_beside(self.address, self.address + bytes.len() as u64, bytes, is_new)
    }

    /// Overwrites the first bytes.
    ///
    /// # Errors
    /// [`Error::Shape`] for more bytes than it has, a device fault.
    pub fn write_prefix(&mut self, bytes: &[u8]) -> Result<()> {
        if bytes.len() > self.bytes() {
            return Err(Error::shape("copy to the device (bytes)", self.bytes(), bytes.len()));
        }
        let Some(real) = &self.device.0.real else { return Ok(()) };
        real.bind()?;
        real.copy_in(self.address, bytes)
    }

    /// Overwrites all of it with another block's content.
    ///
    /// # Errors
    /// [`Error::Shape`] for another size, a device fault.
    pub fn copy_from(&mut self, other: &Self) -> Result<()> {
        if other.bytes() != self.bytes() {
            return Err(Error::shape("copy on the device (bytes)", self.bytes(), other.bytes()));
        }
        let Some(real) = &self.device.0.real else { return Ok(()) };
        real.bind()?;
        // SAFETY: both are live blocks of this size.
        let copied =
            unsafe { result::memcpy_dtod_async(self.address, other.address, self.bytes(), real.stream.cu_stream()) };
        copied.map_err(|e| error::device(format_args!("copy {} bytes on the device", self.bytes()), e))
    }

    /// Overwrites `count` elements from `first` on with the first of another block of the same type.
    ///
    /// # Errors
    /// [`Error::Shape`] when they do not fit, a device fault.
    pub fn copy_range(&mut self, first: usize, other: &Self, count: usize) -> Result<()> {
        if other.dtype != self.dtype || first + count > self.len || count > other.len {
            return Err(Error::shape("copy into a block", (self.dtype, self.len), (other.dtype, first, count)));
        }
        let Some(real) = &self.device.0.real else { return Ok(()) };
        real.bind()?;
        let (at, bytes) = (self.address + (first * self.dtype.bytes()) as u64, count * self.dtype.bytes());
        // SAFETY: both are live blocks, and the parts read and written lie within them.
        let copied = unsafe { result::memcpy_dtod_async(at, other.address, bytes, real.stream.cu_stream()) };
        copied.map_err(|e| error::device(format_args!("copy {bytes} bytes on the device"), e))
    }

    /// Sets every byte.
    ///
    /// # Errors
    /// A device fault.
    pub fn fill_bytes(&mut self, byte: u8) -> Result<()> {
        let Some(real) = &self.device.0.real else { return Ok(()) };
        real.bind()?;
        // SAFETY: the extent is the block's.
        let done = unsafe { result::memset_d8_async(self.address, byte, self.bytes(), real.stream.cu_stream()) };
        done.map_err(|e| error::device(format_args!("fill {} bytes", self.bytes()), e))
    }

    /// Copies everything back as elements of the dtype's size, after all queued work; zeros from a dry device.
    ///
    /// # Errors
    /// A device fault, of the copy or of work that was queued before it; in guard mode a broken band; an element of another size.
    pub fn to_vec<T: Pod>(&self) -> Result<Vec<T>> {
        if size_of::<T>() != self.dtype.bytes() {
            return Err(Error::shape("copy from the device (bytes an element)", self.dtype.bytes(), size_of::<T>()));
        }
        let mut values = vec![T::zeroed(); self.len];
        let Some(real) = &self.device.0.real else { return Ok(values) };
        real.bind()?;
        // SAFETY: the sizes agree, and the stream is waited for before the values are read.
        let copied =
            unsafe { result::memcpy_dtoh_async(plain_mut(&mut values), self.address, real.stream.cu_stream()) };
        copied.map_err(|e| error::device(format_args!("copy {} bytes from the device", self.bytes()), e))?;
        real.wait()?;
        self.device.broken_guards()?;
        Ok(values)
    }

    /// Queues a copy of all of it, 64 bytes at most, to be waited for later.
    ///
    /// # Errors
    /// [`Error::Shape`] for more, a device fault.
    pub fn read_later(&self) -> Result<Later> {
        Later::of(self)
    }

    /// Copies f32 or bf16 back, widened.
    ///
    /// # Errors
    /// As [`Buf::to_vec`].
    pub fn to_f32(&self) -> Result<Vec<f32>> {
        match self.dtype {
            DType::F32 => self.to_vec(),
            DType::Bf16 => Ok(self.to_vec::<bf16>()?.into_iter().map(bf16::to_f32).collect()),
            other => Err(Error::shape("copy of floats from the device", "f32 or bf16", other)),
        }
    }

    /// What its elements are.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is nothing in it: never.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Its size in bytes.
    pub fn bytes(&self) -> usize {
        self.len * self.dtype.bytes()
    }

    /// Where it lies.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Whether it is memory of this open device.
    pub fn is_on(&self, device: &Device) -> bool {
        self.device.is_same(device)
    }

    /// The device address, for a launch's parameters. It is valid as long as this block, and on its device alone.
    pub fn address(&self) -> u64 {
        self.address
    }
}

impl Drop for Buf {
    fn drop(&mut self) {
        if !self.owned {
            return;
        }
        guard::given_back(self);
        let room = Room::of(self.bytes() as u64, self.device.is_guarded());
        let first = self.address - room.before;
        let mut memory = self.device.memory();
        let usage = match &mut *memory {
            Memory::Arena { base, arena, .. } if (*base..*base + arena.size()).contains(&first) => {
                return arena.give_back(first - *base, room.bytes);
            }
            Memory::Arena { outside, .. } => outside,
            Memory::Single(usage) => usage,
        };
        usage.in_use -= room.bytes;
        if let Some(real) = &self.device.0.real
            && real.bind().is_ok()
        {
            // SAFETY: the address came from malloc_async on this stream and is not used after this. Nobody is left to hear an error.
            let _ = unsafe { result::free_async(first, real.stream.cu_stream()) };
        }
    }
}

/// An allocation of its own.
fn allocate(device: &Device, bytes: u64) -> Result<u64> {
    let real = device.0.real.as_ref().ok_or_else(|| Error::Internal("a dry device has an endless arena".into()))?;
    real.bind()?;
    // SAFETY: the context is current; the stream is the one that all work goes through.
    unsafe { result::malloc_async(real.stream.cu_stream(), bytes as usize) }
        .map_err(|e| error::device(format_args!("allocate {bytes} bytes"), e))
}

fn plain_mut<T: Pod>(values: &mut [T]) -> &mut [Plain<T>] {
    // SAFETY: Plain<T> is transparent over T; the borrow is handed on.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), values.len()) }
}
