//! Tensor maps: what Hopper's copy engine has to know of a matrix.

use cudarc::driver::sys;

use super::{DType, Device};
use crate::{Error, Result};

/// A tensor map's 128 bytes, as a launch's parameters hold them.
pub type TensorMapWords = [u64; 16];

/// A matrix in device memory and the box that one copy brings to shared memory.
#[derive(Clone, Copy, Debug)]
pub struct MatrixMap {
    /// First element's address, a multiple of 16.
    pub address: u64,
    /// Type of the elements.
    pub dtype: DType,
    /// Rows and columns; what a box holds beyond them is filled with zeros.
    pub rows: u64,
    /// See `rows`.
    pub cols: u64,
    /// From one row to the next, in bytes, a multiple of 16.
    pub row_bytes: u64,
    /// Rows of a box, 256 at most.
    pub box_rows: u32,
    /// Columns of a box; with a swizzle its row is as wide as the swizzle.
    pub box_cols: u32,
    /// Width in bytes over which 16-byte pieces are exchanged: 0, 32, 64 or 128.
    pub swizzle: u32,
}

impl MatrixMap {
    /// The map in the form that the hardware reads; zeros on a dry device.
    ///
    /// # Errors
    /// What the driver refuses: an address, stride or box that the hardware cannot take.
    pub fn encode(&self, device: &Device) -> Result<TensorMapWords> {
        if device.is_dry() {
            return Ok([0; 16]);
        }
        use sys::{CUtensorMapDataType as Type, CUtensorMapSwizzle as Swizzle};
        let dtype = match self.dtype {
            DType::F32 => Type::CU_TENSOR_MAP_DATA_TYPE_FLOAT32,
            DType::Bf16 => Type::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
            DType::U8 => Type::CU_TENSOR_MAP_DATA_TYPE_UINT8,
            DType::I32 => Type::CU_TENSOR_MAP_DATA_TYPE_INT32,
        };
        let swizzle = match self.swizzle {
            0 => Swizzle::CU_TENSOR_MAP_SWIZZLE_NONE,
            32 => Swizzle::CU_TENSOR_MAP_SWIZZLE_32B,
            64 => Swizzle::CU_TENSOR_MAP_SWIZZLE_64B,
            128 => Swizzle::CU_TENSOR_MAP_SWIZZLE_128B,
            other => return Err(Error::Internal(format!("tensor map: swizzle {other}"))),
        };
        let (dims, strides) = ([self.cols, self.rows], [self.row_bytes]);
        let (boxes, steps) = ([self.box_cols, self.box_rows], [1, 1]);
        let mut map = sys::CUtensorMap { opaque: [0; 16] };
        // SAFETY: every pointer is to an array of the rank that is given; the driver checks the values and touches no device memory.
        let status = unsafe {
            sys::cuTensorMapEncodeTiled(
                &mut map,
                dtype,
                2,
                self.address as *mut _,
                dims.as_ptr(),
                strides.as_ptr(),
                boxes.as_ptr(),
                steps.as_ptr(),
                sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                swizzle,
                sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        };
        status.result().map_err(|e| super::error::device(format_args!("describe {self:?} to the copy engine"), e))?;
        Ok(map.opaque)
    }
}
