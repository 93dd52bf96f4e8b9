//! Launches kernels/dora_dropout.cu: what DoRA adds under dropout.

use super::check::{dimension, length};
use super::function;
use super::params::{PeftkDoraDropoutParams, PeftkGainMinusOneParams};
use crate::gpu::{Buf, DType, Device, Grid};
use crate::{Error, Result};

// As in kernels/dora_dropout.cu.
const THREADS: u32 = 256;

/// An adapter's columns in a linear's output.
#[derive(Clone, Copy, Debug)]
pub struct Columns {
    /// Rows of y.
    pub m: usize,
    /// Columns of y.
    pub n: usize,
    /// First column under the adapter.
    pub first: usize,
    /// Columns under the adapter.
    pub rows: usize,
}

/// Queues `y[t, first + j] += g[j] z[t, j] - u[t, j]`: y `[m, n]`, z and u `[m, rows]` of one type, g `[rows]` f32.
///
/// # Errors
/// [`Error::Shape`] for sizes and buffers that do not fit.
pub fn add_rescaled(device: &Device, columns: Columns, gain: &Buf, z: &Buf, u: &Buf, y: &mut Buf) -> Result<()> {
    let op = "dora_dropout";
    let Columns { m, n, first, rows } = columns;
    let dtype = y.dtype();
    if first + rows > n {
        return Err(Error::shape(op, format!("columns within {n}"), first + rows));
    }
    length(op, "y", y, device, dtype, m * n)?;
    length(op, "z", z, device, dtype, m * rows)?;
    length(op, "u", u, device, dtype, m * rows)?;
    length(op, "gain", gain, device, DType::F32, rows)?;
    let params = PeftkDoraDropoutParams {
        y: y.address(),
        z: z.address(),
        u: u.address(),
        gain: gain.address(),
        m: dimension(op, "m", m)?,
        n: dimension(op, "n", n)?,
        // Within n, which is checked.
        first_row: first as u32,
        rows: dimension(op, "rows", rows)?,
    };
    let entry = match dtype {
        DType::Bf16 => "dora_dropout_bf16",
        DType::F32 => "dora_dropout_f32",
        other => return Err(Error::shape(op, "f32 or bf16", other)),
    };
    let blocks = dimension(op, "m rows", (m * rows).div_ceil(THREADS as usize))?;
    let grid = Grid { blocks: (blocks, 1, 1), threads: THREADS, shared_bytes: 0 };
    // SAFETY: the entries take a PeftkDoraDropoutParams; all extents are checked, y is borrowed mutably, a thread touches one element.
    unsafe { function(device, "dora_dropout", entry)?.launch(grid, &params) }
}

/// Queues `out = gain - 1`, f32.
///
/// # Errors
/// [`Error::Shape`] for buffers that do not fit.
pub fn gain_minus_one(device: &Device, gain: &Buf, out: &mut Buf) -> Result<()> {
    let op = "gain_minus_one";
    length(op, "gain", gain, device, DType::F32, out.len())?;
    length(op, "out", out, device, DType::F32, 1)?;
    let params = PeftkGainMinusOneParams { gain: gain.address(), out: out.address(), count: out.len() as u64 };
    let blocks = dimension(op, "count", out.len().div_ceil(THREADS as usize))?;
    let grid = Grid { blocks: (blocks, 1, 1), threads: THREADS, shared_bytes: 0 };
    // SAFETY: the entry takes a PeftkGainMinusOneParams, reads and writes `count` values, which both buffers hold.
    unsafe { function(device, "dora_dropout", "gain_minus_one_f32")?.launch(grid, &params) }
}
