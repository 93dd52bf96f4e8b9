//! Launches kernels/dora_norm_backward.cu: the gradients of DoRA's row norms.

use super::check::{dimension, length};
use super::dora_norm::AdapterRows;
use super::function;
use super::params::{PeftkDoraNormBackwardItem, PeftkDoraNormBackwardParams};
use crate::Result;
use crate::gpu::{Buf, DType, Device, Grid};

// As in the kernel: a tile's rows and columns, and the second kernel's threads.
const TILE_ROWS: u32 = 32;
const TILE_COLS: u32 = 128;
const REDUCE_THREADS: u32 = 256;

/// Queues, with V = W + s B A and c = dnorm / norm, `db` = s (c V) A^T `[rows, rank]` and `da` = s B^T (c V) `[rank, cols]`; with `accumulate`
/// they are added to. `w` is `[n, cols]`, of which the adapter's rows are read; `norm` and `dnorm` are `[rows]`. All f32. A row of norm 0 takes
/// no gradient. A workspace of partial sums is taken while this is queued.
///
/// # Errors
/// [`crate::Error::Shape`] for a size of 0, a rank above 256 or a buffer that is too short; [`crate::Error::Input`] when the device's memory is
/// full.
#[allow(clippy::too_many_arguments)]
pub fn dora_norm_backward(
    device: &Device,
    adapter: AdapterRows,
    w: &Buf,
    a: &Buf,
    b: &Buf,
    norm: &Buf,
    dnorm: &Buf,
    accumulate: bool,
    da: &mut Buf,
    db: &mut Buf,
) -> Result<()> {
    let op = "dora_norm_backward";
    let AdapterRows { rows, cols, rank, .. } = adapter;
    let w = adapter.check(op, device, w, a, b)?;
    let vectors = [("norm", norm, rows), ("dnorm", dnorm, rows), ("dA", &*da, rank * cols), ("dB", &*db, rows * rank)];
    for (name, buf, needed) in vectors {
        length(op, name, buf, device, DType::F32, needed)?;
    }
    let partial_a = Buf::uninit(device, DType::F32, rows.div_ceil(TILE_ROWS as usize) * rank * cols)?;
    let partial_b = Buf::uninit(device, DType::F32, cols.div_ceil(TILE_COLS as usize) * rows * rank)?;
    let item = PeftkDoraNormBackwardItem {
        w,
        a: a.address(),
        b: b.address(),
        norm: norm.address(),
        dnorm: dnorm.address(),
        partial_a: partial_a.address(),
        partial_b: partial_b.address(),
        da: da.address(),
        db: db.address(),
        scale: adapter.scale,
        rows: dimension(op, "rows", rows)?,
        cols: dimension(op, "cols", cols)?,
        rank: dimension(op, "rank", rank)?,
        accumulate: accumulate.into(),
        padding: 0,
    };
    let params = PeftkDoraNormBackwardParams { item, items: 0 };
    let blocks = (item.cols.div_ceil(TILE_COLS), item.rows.div_ceil(TILE_ROWS), 1);
    let tiles = Grid { blocks, threads: TILE_COLS, shared_bytes: 0 };
    let outputs = dimension(op, "outputs", rank * (rows + cols))?;
    let sums = Grid { blocks: (outputs.div_ceil(REDUCE_THREADS), 1, 1), threads: REDUCE_THREADS, shared_bytes: 0 };
    // SAFETY: both entries take a PeftkDoraNormBackwardParams with `items` 0, so `item`. Every buffer was checked or made with the length
    // that its shape asks for; da and db are borrowed mutably; the workspaces are freed in stream order, so after both launches.
    unsafe {
        function(device, "dora_norm_backward", "dora_norm_backward_f32")?.launch(tiles, &params)?;
        function(device, "dora_norm_backward", "dora_norm_backward_reduce_f32")?.launch(sums, &params)
    }
}
