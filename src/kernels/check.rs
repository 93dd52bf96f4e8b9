//! What every launcher checks before it launches.

use crate::gpu::{Buf, DType, Device};
use crate::{Error, Result};

/// A buffer of this type with at least `needed` elements, on this device.
pub fn length(op: &str, name: &str, buf: &Buf, device: &Device, dtype: DType, needed: usize) -> Result<()> {
    if buf.dtype() != dtype {
        return Err(Error::shape(format!("{op} {name}"), dtype, buf.dtype()));
    }
    if buf.len() < needed {
        return Err(Error::shape(format!("{op} {name}"), format!("{needed} values"), buf.len()));
    }
    if !buf.is_on(device) {
        return Err(Error::Internal(format!("{op} {name}: the buffer belongs to another open device")));
    }
    Ok(())
}

/// A size from 1 to 2^31 - 1: grids and the kernels' indices within a row are 32 bits.
pub fn dimension(op: &str, name: &str, size: usize) -> Result<u32> {
    match i32::try_from(size) {
        Ok(small) if small >= 1 => Ok(small.unsigned_abs()),
        _ => Err(Error::shape(format!("{op} {name}"), format!("1 to {}", i32::MAX), size)),
    }
}
