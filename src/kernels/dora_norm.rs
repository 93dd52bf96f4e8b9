//! Launches kernels/dora_norm.cu: the norm of every row of W + scale B A.

use super::load;
use super::params::PeftkDoraNormParams;
use crate::gpu::{Buffer, Device, Function, Grid};
use crate::{Error, Result};

/// The largest rank the kernel takes: its rows of B stay in shared memory.
pub const MAX_RANK: usize = 256;

// As in kernels/dora_norm.cu.
const THREADS: u32 = 128;
const ROWS_PER_BLOCK: usize = 4;

/// The sizes of one linear with its adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DoraNormShape {
    /// Output features: rows of W and of B.
    pub rows: usize,
    /// Input features: columns of W and of A.
    pub cols: usize,
    /// Rows of A, columns of B.
    pub rank: usize,
}

/// The kernel, loaded on one device.
#[derive(Debug, Clone)]
pub struct DoraNorm {
    function: Function,
}

impl DoraNorm {
    /// Loads it.
    ///
    /// # Errors
    /// [`Error::Input`] when this executable carries no kernels or the driver is too old for them.
    pub fn new(device: &Device) -> Result<Self> {
        Ok(Self { function: load(device, "dora_norm")?.function("dora_norm_f32")? })
    }

    /// Queues `norm[j] = ||W[j] + scale (B A)[j]||` for every row j.
    ///
    /// `w` is `[rows, cols]`, `a` `[rank, cols]`, `b` `[rows, rank]`, `norm` `[rows]`: f32, row-major, on this kernel's
    /// device. Buffers may be longer than their shape; what is beyond it is neither read nor written.
    ///
    /// # Errors
    /// [`Error::Shape`] for a size of 0, a rank above [`MAX_RANK`], sizes beyond 32 bits or a buffer that is too short.
    pub fn launch(
        &self,
        shape: DoraNormShape,
        scale: f32,
        w: &Buffer<f32>,
        a: &Buffer<f32>,
        b: &Buffer<f32>,
        norm: &mut Buffer<f32>,
    ) -> Result<()> {
        let DoraNormShape { rows, cols, rank } = shape;
        let dimension = |name: &str, size: usize, most: usize| match u32::try_from(size) {
            Ok(small) if size >= 1 && size <= most => Ok(small),
            _ => Err(Error::Shape {
                op: format!("dora_norm {name}"),
                expected: format!("1 to {most}"),
                found: size.to_string(),
            }),
        };
        // Blocks along x are 31 bits, and the kernel steps through columns in 32 bits.
        let most = i32::MAX as usize;
        let params = PeftkDoraNormParams {
            w: w.address(),
            a: a.address(),
            b: b.address(),
            norm: norm.address(),
            scale,
            rows: dimension("rows", rows, most)?,
            cols: dimension("cols", cols, most)?,
            rank: dimension("rank", rank, MAX_RANK)?,
        };
        let extents = [("W", w, rows * cols), ("A", a, rank * cols), ("B", b, rows * rank), ("norm", &*norm, rows)];
        for (name, buffer, needed) in extents {
            if buffer.len() < needed {
                return Err(Error::Shape {
                    op: format!("dora_norm {name} for {shape:?}"),
                    expected: format!("{needed} values"),
                    found: buffer.len().to_string(),
                });
            }
            if !buffer.is_on(self.function.device()) {
                return Err(Error::Internal(format!("dora_norm {name}: the buffer belongs to another open device")));
            }
        }
        let blocks = params.rows.div_ceil(ROWS_PER_BLOCK as u32);
        let grid = Grid { blocks: (blocks, 1, 1), threads: THREADS, shared_bytes: 0 };
        // SAFETY: dora_norm_f32 takes a PeftkDoraNormParams; the buffers are on its device and as long as it reads and writes,
        // `norm` is borrowed mutably and so is none of the others; the grid covers every row.
        unsafe { self.function.launch(grid, &params) }
    }
}
