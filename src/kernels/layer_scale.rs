//! Launches kernels/layer_scale.cu: LayerScale with its residual.

use super::check::{dimension, length};
use super::column_sum::{Ends, PIECE_ROWS, TILE_COLUMNS, reduce_partials};
use super::cut::Rows;
use super::entry::{address, by_stream, grid, map_grid};
use super::function;
use super::params::{PeftkLayerScaleBackwardParams, PeftkLayerScaleParams};
use crate::gpu::{Buf, DType, Device};
use crate::{Error, Result};

/// y = x + gamma h: x, y \[rows, cols\] of the residual stream's type, h \[rows, cols\] of the activations', gamma \[cols\] f32.
///
/// # Errors
/// [`Error::Shape`] for sizes or types that do not fit.
#[allow(clippy::too_many_arguments)]
pub fn layer_scale_forward(
    device: &Device,
    rows: usize,
    cols: usize,
    x: &Buf,
    h: &Buf,
    gamma: &Buf,
    y: &mut Buf,
) -> Result<()> {
    const OP: &str = "layer_scale_forward";
    let entry = by_stream!("layer_scale_forward", x.dtype(), h.dtype())?;
    length(OP, "x", x, device, x.dtype(), rows * cols)?;
    length(OP, "h", h, device, h.dtype(), rows * cols)?;
    length(OP, "gamma", gamma, device, DType::F32, cols)?;
    length(OP, "y", y, device, x.dtype(), rows * cols)?;
    let params = PeftkLayerScaleParams {
        x: x.address(),
        h: h.address(),
        gamma: gamma.address(),
        y: y.address(),
        rows: dimension(OP, "rows", rows)?,
        cols: dimension(OP, "cols", cols)?,
    };
    // SAFETY: the entry takes a PeftkLayerScaleParams; the lengths were checked.
    unsafe { function(device, "layer_scale", entry)?.launch(map_grid(OP, rows as u64 * cols as u64)?, &params) }
}

/// dh = gamma dy \[rows, cols\] of the activations' type and, from h of the same type, dgamma \[cols\] f32 = sum over rows of dy h; each
/// where it is asked for. dy \[rows, cols\] of the residual stream's type is dx as well.
///
/// # Errors
/// [`Error::Shape`] for sizes or types that do not fit, and when nothing is asked for.
#[allow(clippy::too_many_arguments)]
pub fn layer_scale_backward(
    device: &Device,
    rows: impl Into<Rows>,
    cols: usize,
    gamma: &Buf,
    dy: &Buf,
    dh: Option<&mut Buf>,
    dgamma: Option<(&Buf, &mut Buf)>,
) -> Result<()> {
    const OP: &str = "layer_scale_backward";
    let cut = rows.into().cut(OP, PIECE_ROWS)?;
    let rows = cut.rows as usize;
    let (h, dgamma) = dgamma.unzip();
    let dh = dh.as_deref();
    let Some(activations) = dh.or(h).map(Buf::dtype) else {
        return Err(Error::shape(OP, "a gradient that is asked for", "none"));
    };
    let entry = by_stream!("layer_scale_backward", dy.dtype(), activations)?;
    length(OP, "gamma", gamma, device, DType::F32, cols)?;
    length(OP, "dy", dy, device, dy.dtype(), rows * cols)?;
    for (name, buf) in [("h", h), ("dh", dh)] {
        buf.map_or(Ok(()), |buf| length(OP, name, buf, device, activations, rows * cols))?;
    }
    let partial = h.map(|_| Buf::uninit(device, DType::F32, cut.pieces as usize * cols)).transpose()?;
    let params = PeftkLayerScaleBackwardParams {
        h: address(h),
        gamma: gamma.address(),
        dy: dy.address(),
        dh: address(dh),
        partial: address(partial.as_ref()),
        cut,
        cols: dimension(OP, "cols", cols)?,
        padding: 0,
    };
    let grid = grid(OP, u64::from(cut.pieces) * (cols as u64).div_ceil(TILE_COLUMNS), 256)?;
    // SAFETY: the entry takes this struct; the lengths were checked, and `partial` has a row a piece.
    unsafe { function(device, "layer_scale", entry)?.launch(grid, &params)? };
    let (Some(partial), Some(dgamma)) = (partial, dgamma) else { return Ok(()) };
    let ends = Ends { out: dgamma, rest: None, gain: None, split: cols };
    reduce_partials(device, OP, &partial, cut, cols, ends)
}
