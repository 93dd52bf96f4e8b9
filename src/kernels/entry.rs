//! Which entry of a kernel file belongs to which types, and grids of so many blocks.

use crate::gpu::Grid;
use crate::{Error, Result};

/// NAME_f32 or NAME_bf16, as the dtype says; an error for any other dtype.
macro_rules! by_type {
    ($name:literal, $dtype:expr) => {
        match $dtype {
            $crate::gpu::DType::F32 => Ok(concat!($name, "_f32")),
            $crate::gpu::DType::Bf16 => Ok(concat!($name, "_bf16")),
            other => Err($crate::Error::shape($name, "f32 or bf16", other)),
        }
    };
}

/// NAME_f32_f32, NAME_f32_bf16 or NAME_bf16_bf16: the residual stream's dtype, then the activations'.
macro_rules! by_stream {
    ($name:literal, $stream:expr, $activations:expr) => {
        match ($stream, $activations) {
            ($crate::gpu::DType::F32, $crate::gpu::DType::F32) => Ok(concat!($name, "_f32_f32")),
            ($crate::gpu::DType::F32, $crate::gpu::DType::Bf16) => Ok(concat!($name, "_f32_bf16")),
            ($crate::gpu::DType::Bf16, $crate::gpu::DType::Bf16) => Ok(concat!($name, "_bf16_bf16")),
            other => Err($crate::Error::shape($name, "f32 and f32, f32 and bf16, or bf16 and bf16", other)),
        }
    };
}

pub(super) use {by_stream, by_type};

/// `blocks` blocks along x.
pub(super) fn grid(op: &str, blocks: u64, threads: u32) -> Result<Grid> {
    match u32::try_from(blocks) {
        Ok(blocks) if blocks <= i32::MAX as u32 => Ok(Grid { blocks: (blocks, 1, 1), threads, shared_bytes: 0 }),
        _ => Err(Error::shape(format!("{op} grid"), format!("at most {} blocks", i32::MAX), blocks)),
    }
}

/// Blocks of 256 threads that have 8 elements each.
pub(super) fn map_grid(op: &str, elements: u64) -> Result<Grid> {
    grid(op, elements.div_ceil(2048), 256)
}

/// Blocks of 256 threads for rows of chunks of 8 columns; a chunk does not reach into the next row.
pub(super) fn row_grid(op: &str, rows: u64, cols: u64) -> Result<Grid> {
    grid(op, (rows * cols.div_ceil(8)).div_ceil(256), 256)
}

/// The address, or 0 for what is not there.
pub(super) fn address(buf: Option<&crate::gpu::Buf>) -> u64 {
    buf.map_or(0, crate::gpu::Buf::address)
}
