//! Launches kernels/dora_norm.cu: the norm of every row of W + scale B A, for one adapter or for many at once.

use super::check::{dimension, length};
use super::params::{PeftkDoraNormBatchParams, PeftkDoraNormParams};
use super::{function, load};
use crate::gpu::{Buf, DType, Device, Function, Grid};
use crate::{Error, Result};

/// The largest rank the kernel takes: its rows of B stay in shared memory.
pub const MAX_RANK: usize = 256;

// As in kernels/dora_norm.cu, common/adapted_rows.cuh and params/dora.h.
pub(super) const THREADS: u32 = 128;
const ROWS_PER_BLOCK: u32 = 16;
const MOST_ITEMS: usize = 48;

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

/// An adapter on some rows of a weight `[n, cols]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdapterRows {
    /// First row of W.
    pub first_row: usize,
    /// Rows of W and of B.
    pub rows: usize,
    /// Columns of W and of A.
    pub cols: usize,
    /// Rows of A, columns of B; 1 to 256.
    pub rank: usize,
    /// s.
    pub scale: f32,
}

impl AdapterRows {
    /// Checks the sizes and W, A and B, all f32, and returns the address of W's first row.
    pub(super) fn check(&self, op: &str, device: &Device, w: &Buf, a: &Buf, b: &Buf) -> Result<u64> {
        let Self { first_row, rows, cols, rank, .. } = *self;
        if rank > MAX_RANK {
            return Err(Error::shape(format!("{op} rank"), format!("1 to {MAX_RANK}"), rank));
        }
        for (name, size) in [("rows", rows), ("cols", cols), ("rank", rank)] {
            dimension(op, name, size)?;
        }
        length(op, "W", w, device, DType::F32, (first_row + rows) * cols)?;
        length(op, "A", a, device, DType::F32, rank * cols)?;
        length(op, "B", b, device, DType::F32, rows * rank)?;
        Ok(w.address() + (first_row * cols * 4) as u64)
    }
}

/// The kernel, loaded on one device.
#[derive(Debug, Clone)]
pub struct DoraNorm {
    device: Device,
    function: Function,
}

impl DoraNorm {
    /// Loads it.
    ///
    /// # Errors
    /// [`Error::Input`] when this executable carries no kernels or the driver is too old for them.
    pub fn new(device: &Device) -> Result<Self> {
        Ok(Self { device: device.clone(), function: load(device, "dora_norm")?.function("dora_norm_f32")? })
    }

    /// Queues `norm[j] = ||W[j] + scale (B A)[j]||` for every row j.
    ///
    /// `w` is `[rows, cols]`, `a` `[rank, cols]`, `b` `[rows, rank]`, `norm` `[rows]`: f32, row-major, on this kernel's
    /// device. Buffers may be longer than their shape; what is beyond it is neither read nor written.
    ///
    /// # Errors
    /// [`Error::Shape`] for a size of 0, a rank above [`MAX_RANK`], sizes beyond 32 bits or a buffer that is too short.
    pub fn launch(&self, shape: DoraNormShape, scale: f32, w: &Buf, a: &Buf, b: &Buf, norm: &mut Buf) -> Result<()> {
        let DoraNormShape { rows, cols, rank } = shape;
        launch_one(&self.device, &self.function, AdapterRows { first_row: 0, rows, cols, rank, scale }, w, a, b, norm)
    }
}

/// Queues `norm[j] = ||W[first_row + j] + scale (B A)[j]||` for the adapter's rows: `w` `[n, cols]`, `a` `[rank, cols]`, `b` `[rows, rank]`,
/// `norm` `[rows]`, all f32.
///
/// # Errors
/// As [`DoraNorm::launch`].
pub fn dora_norm(device: &Device, adapter: AdapterRows, w: &Buf, a: &Buf, b: &Buf, norm: &mut Buf) -> Result<()> {
    launch_one(device, &function(device, "dora_norm", "dora_norm_f32")?, adapter, w, a, b, norm)
}

fn launch_one(
    device: &Device,
    function: &Function,
    adapter: AdapterRows,
    w: &Buf,
    a: &Buf,
    b: &Buf,
    norm: &mut Buf,
) -> Result<()> {
    let op = "dora_norm";
    let w = adapter.check(op, device, w, a, b)?;
    length(op, "norm", norm, device, DType::F32, adapter.rows)?;
    let params = PeftkDoraNormParams {
        w,
        a: a.address(),
        b: b.address(),
        norm: norm.address(),
        scale: adapter.scale,
        rows: adapter.rows as u32,
        cols: adapter.cols as u32,
        rank: adapter.rank as u32,
    };
    let grid = Grid { blocks: (params.rows.div_ceil(ROWS_PER_BLOCK), 1, 1), threads: THREADS, shared_bytes: 0 };
    // SAFETY: dora_norm_f32 takes a PeftkDoraNormParams; the buffers are on its device and as long as it reads and writes,
    // `norm` is borrowed mutably and so is none of the others; the grid covers every row.
    unsafe { function.launch(grid, &params) }
}

/// One adapter of a batch: all f32, as [`dora_norm`] takes them.
#[derive(Debug)]
pub struct DoraNormItem<'a> {
    /// Its place and sizes.
    pub adapter: AdapterRows,
    /// W `[n, cols]`.
    pub w: &'a Buf,
    /// A `[rank, cols]`.
    pub a: &'a Buf,
    /// B `[rows, rank]`.
    pub b: &'a Buf,
    /// The norms `[rows]`, written.
    pub norm: &'a mut Buf,
    /// The magnitude `[rows]`, and where magnitude / norm goes.
    pub gain: Option<(&'a Buf, &'a mut Buf)>,
}

/// Queues the norms of many adapters, and their gains where asked for: a launch for each 48 of them.
///
/// # Errors
/// As [`DoraNorm::launch`]; [`Error::Shape`] for no item.
pub fn dora_norm_batched(device: &Device, items: &mut [DoraNormItem<'_>]) -> Result<()> {
    if items.is_empty() {
        return Err(Error::shape("dora_norm_batched", "at least one item", 0));
    }
    items.chunks_mut(MOST_ITEMS).try_for_each(|items| launch_many(device, items))
}

/// At most as many as one launch takes.
fn launch_many(device: &Device, items: &mut [DoraNormItem<'_>]) -> Result<()> {
    let op = "dora_norm_batched";
    let mut params = <PeftkDoraNormBatchParams as bytemuck::Zeroable>::zeroed();
    let mut blocks = 0;
    for (to, item) in params.items.iter_mut().zip(items.iter()) {
        let AdapterRows { rows, cols, rank, scale, .. } = item.adapter;
        to.w = item.adapter.check(op, device, item.w, item.a, item.b)?;
        length(op, "norm", item.norm, device, DType::F32, rows)?;
        if let Some((from, gain)) = &item.gain {
            length(op, "magnitude", from, device, DType::F32, rows)?;
            length(op, "gain", gain, device, DType::F32, rows)?;
            (to.magnitude, to.gain) = (from.address(), gain.address());
        }
        (to.a, to.b, to.norm, to.scale) = (item.a.address(), item.b.address(), item.norm.address(), scale);
        (to.rows, to.cols, to.rank) = (rows as u32, cols as u32, rank as u32);
        to.first_block = blocks;
        blocks = next_block(op, blocks, to.rows.div_ceil(ROWS_PER_BLOCK))?;
    }
    params.count = items.len() as u32;
    let grid = Grid { blocks: (blocks, 1, 1), threads: THREADS, shared_bytes: 0 };
    // SAFETY: the entry takes a PeftkDoraNormBatchParams whose `count` items have all of the grid's blocks; each was checked as for one,
    // and what is written is borrowed mutably.
    unsafe { function(device, "dora_norm", "dora_norm_batched_f32")?.launch(grid, &params) }
}

/// The block after `blocks` more; a grid's x takes 2^31 - 1.
pub(super) fn next_block(op: &str, first: u32, blocks: u32) -> Result<u32> {
    let next = u64::from(first) + u64::from(blocks);
    match i32::try_from(next) {
        Ok(next) => Ok(next.unsigned_abs()),
        Err(_) => Err(Error::shape(op, "fewer rows in all", next)),
    }
}
