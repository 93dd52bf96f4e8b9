//! Launches kernels/layer_norm.cu.

use super::check::{dimension, length};
use super::column_sum::{Ends, reduce_partials};
use super::cut::Rows;
use super::entry::{address, by_stream, grid};
use super::function;
use super::params::{PeftkLayerNormBackwardParams, PeftkLayerNormParams};
use crate::gpu::{Buf, DType, Device};
use crate::{Error, Result};

/// The widest row.
pub const MAX_COLS: usize = 8192;

// As in kernels/layer_norm.cu.
const COLUMNS_PER_WARP: usize = 512;
const PIECE_ROWS: usize = 32;

/// y = LayerNorm(x) and, where asked for, (mean, rstd) of every row.
///
/// x \[rows, cols\] f32 or bf16 (the residual stream), weight and bias \[cols\] f32, y \[rows, cols\] of x's type or bf16, mean and rstd
/// \[rows\] f32.
///
/// # Errors
/// [`Error::Shape`] for sizes or types that do not fit, and for more than [`MAX_COLS`] columns.
#[allow(clippy::too_many_arguments)]
pub fn layer_norm_forward(
    device: &Device,
    rows: usize,
    cols: usize,
    eps: f32,
    x: &Buf,
    weight: &Buf,
    bias: &Buf,
    y: &mut Buf,
    statistics: Option<(&mut Buf, &mut Buf)>,
) -> Result<()> {
    const OP: &str = "layer_norm_forward";
    let (stream, activations) = (x.dtype(), y.dtype());
    let entry = by_stream!("layer_norm_forward", stream, activations)?;
    let (warps_per_row, threads) = row_warps(OP, cols)?;
    length(OP, "x", x, device, stream, rows * cols)?;
    length(OP, "weight", weight, device, DType::F32, cols)?;
    length(OP, "bias", bias, device, DType::F32, cols)?;
    length(OP, "y", y, device, activations, rows * cols)?;
    let (mean, rstd) = statistics.unzip();
    for (name, buf) in [("mean", mean.as_deref()), ("rstd", rstd.as_deref())] {
        buf.map_or(Ok(()), |buf| length(OP, name, buf, device, DType::F32, rows))?;
    }
    let params = PeftkLayerNormParams {
        x: x.address(),
        weight: weight.address(),
        bias: bias.address(),
        y: y.address(),
        mean: address(mean.as_deref()),
        rstd: address(rstd.as_deref()),
        eps,
        rows: dimension(OP, "rows", rows)?,
        cols: dimension(OP, "cols", cols)?,
        warps_per_row,
    };
    let grid = grid(OP, rows.div_ceil(rows_per_block(warps_per_row)) as u64, threads)?;
    // SAFETY: the entry takes a PeftkLayerNormParams and reads and writes whole rows of buffers whose lengths were checked.
    unsafe { function(device, "layer_norm", entry)?.launch(grid, &params) }
}

/// What the backward pass reads: x \[rows, cols\] of the residual stream's type, weight \[cols\], mean and rstd \[rows\] f32, dy
/// \[rows, cols\] of the activations' type.
#[derive(Debug, Clone, Copy)]
pub struct LayerNormInputs<'a> {
    /// The forward pass's input.
    pub x: &'a Buf,
    /// Its weight.
    pub weight: &'a Buf,
    /// Its rows' means.
    pub mean: &'a Buf,
    /// Its rows' 1 / sqrt(variance + eps).
    pub rstd: &'a Buf,
    /// The gradient of its output.
    pub dy: &'a Buf,
}

/// Where dx goes.
#[derive(Debug)]
pub enum LayerNormDx<'a> {
    /// dx \[rows, cols\] of x's type, written.
    Write(&'a mut Buf),
    /// dx is added to what is there: the gradient that came along the residual connection.
    AddTo(&'a mut Buf),
    /// dx = the first + LayerNorm's dx, written to the second.
    Sum(&'a Buf, &'a mut Buf),
    /// As [`LayerNormDx::AddTo`], and gamma times the sum is written as well: the gradient of the branch behind LayerScale that made x.
    /// Without the weights' gradients.
    AddToScaled {
        /// dx.
        dx: &'a mut Buf,
        /// LayerScale's gamma \[cols\] f32.
        gamma: &'a Buf,
        /// gamma dx \[rows, cols\] of dy's type.
        scaled: &'a mut Buf,
    },
    /// Nobody asks for it.
    None,
}

/// dx and, where asked for, (dweight, dbias) \[cols\] f32 of LayerNorm.
///
/// # Errors
/// As [`layer_norm_forward`]; when nothing is asked for.
pub fn layer_norm_backward(
    device: &Device,
    rows: impl Into<Rows>,
    cols: usize,
    inputs: LayerNormInputs<'_>,
    dx: LayerNormDx<'_>,
    weights: Option<(&mut Buf, &mut Buf)>,
) -> Result<()> {
    const OP: &str = "layer_norm_backward";
    let rows = rows.into();
    let cut = rows.cut(OP, PIECE_ROWS)?;
    let rows = rows.count;
    let LayerNormInputs { x, weight, mean, rstd, dy } = inputs;
    let (stream, activations) = (x.dtype(), dy.dtype());
    let (warps_per_row, threads) = row_warps(OP, cols)?;
    length(OP, "x", x, device, stream, rows * cols)?;
    length(OP, "weight", weight, device, DType::F32, cols)?;
    length(OP, "mean", mean, device, DType::F32, rows)?;
    length(OP, "rstd", rstd, device, DType::F32, rows)?;
    length(OP, "dy", dy, device, activations, rows * cols)?;
    let scaled = match &dx {
        LayerNormDx::AddToScaled { gamma, scaled, .. } => {
            length(OP, "gamma", gamma, device, DType::F32, cols)?;
            length(OP, "scaled dx", scaled, device, activations, rows * cols)?;
            (gamma.address(), scaled.address())
        }
        _ => (0, 0),
    };
    let (add, dx) = match &dx {
        LayerNormDx::Write(dx) => (None, Some(&**dx)),
        LayerNormDx::AddTo(dx) | LayerNormDx::AddToScaled { dx, .. } => (Some(&**dx), Some(&**dx)),
        LayerNormDx::Sum(add, dx) => (Some(*add), Some(&**dx)),
        LayerNormDx::None if weights.is_none() => return Err(Error::shape(OP, "a gradient that is asked for", "none")),
        LayerNormDx::None => (None, None),
    };
    for (name, buf) in [("add", add), ("dx", dx)] {
        buf.map_or(Ok(()), |buf| length(OP, name, buf, device, stream, rows * cols))?;
    }
    let mut params = PeftkLayerNormBackwardParams {
        x: x.address(),
        weight: weight.address(),
        mean: mean.address(),
        rstd: rstd.address(),
        dy: dy.address(),
        add: address(add),
        dx: address(dx),
        partial: 0,
        gamma: scaled.0,
        scaled: scaled.1,
        rows: dimension(OP, "rows", rows)?,
        cols: dimension(OP, "cols", cols)?,
        warps_per_row,
        padding: 0,
        cut,
    };
    let Some((dweight, dbias)) = weights else {
        let entry = match scaled {
            (_, 0) => by_stream!("layer_norm_backward", stream, activations)?,
            _ => by_stream!("layer_norm_backward_scaled", stream, activations)?,
        };
        let grid = grid(OP, rows.div_ceil(rows_per_block(warps_per_row)) as u64, threads)?;
        // SAFETY: the entry takes this struct; the lengths were checked. `add` may be dx: a row is read before it is written.
        return unsafe { function(device, "layer_norm", entry)?.launch(grid, &params) };
    };
    if scaled.1 != 0 {
        return Err(Error::shape(OP, "gamma dx without the weights' gradients", "both"));
    }
    length(OP, "dweight", dweight, device, DType::F32, cols)?;
    length(OP, "dbias", dbias, device, DType::F32, cols)?;
    let partial = Buf::uninit(device, DType::F32, cut.pieces as usize * 2 * cols)?;
    params.partial = partial.address();
    let entry = by_stream!("layer_norm_backward_weights", stream, activations)?;
    let grid = grid(OP, cut.pieces.into(), threads)?;
    // SAFETY: as above, and `partial` has a row a piece.
    unsafe { function(device, "layer_norm", entry)?.launch(grid, &params)? };
    let ends = Ends { out: dweight, rest: Some(dbias), gain: None, split: cols };
    reduce_partials(device, OP, &partial, cut, 2 * cols, ends)
}

/// Warps that share a row, and threads of a block.
fn row_warps(op: &str, cols: usize) -> Result<(u32, u32)> {
    if cols == 0 || cols > MAX_COLS {
        return Err(Error::shape(format!("{op} cols"), format!("1 to {MAX_COLS}"), cols));
    }
    let warps = cols.div_ceil(COLUMNS_PER_WARP).next_power_of_two() as u32;
    Ok((warps, 32 * warps.max(4)))
}

fn rows_per_block(warps_per_row: u32) -> usize {
    (warps_per_row.max(4) / warps_per_row) as usize
}
