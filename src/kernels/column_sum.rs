//! Launches kernels/column_sum.cu: sums over rows, column by column.

use super::check::{dimension, length};
use super::cut::Rows;
use super::entry::{address, by_type, grid};
use super::function;
use super::params::{PeftkColumnSumParams, PeftkCut, PeftkReducePartialsParams};
use crate::gpu::{Buf, DType, Device};
use crate::{Error, Result};

/// Most rows of a piece.
pub(super) const PIECE_ROWS: usize = 128;
/// Columns of one of its blocks.
pub(super) const TILE_COLUMNS: u64 = 128;

/// Columns of a matrix: `first .. first + cols` of rows of `ld` elements, f32 or bf16.
#[derive(Debug, Clone, Copy)]
pub struct Columns<'a> {
    /// The matrix, `[rows, ld]`.
    pub matrix: &'a Buf,
    /// Its row stride in elements.
    pub ld: usize,
    /// The first column.
    pub first: usize,
}

/// out\[j\] = sum over rows of a\[i, j\], `[cols]` f32. Biases' gradients.
///
/// # Errors
/// [`Error::Shape`] for sizes that do not fit.
pub fn column_sum(device: &Device, rows: impl Into<Rows>, cols: usize, a: Columns<'_>, out: &mut Buf) -> Result<()> {
    const OP: &str = "column_sum";
    let entry = by_type!("column_sum", a.matrix.dtype())?;
    length(OP, "out", out, device, DType::F32, cols)?;
    let cut = rows.into().cut(OP, PIECE_ROWS)?;
    let partial = first_stage(device, OP, entry, cut, cols, a, None, None)?;
    let ends = Ends { out, rest: None, gain: None, split: cols };
    reduce_partials(device, OP, &partial, cut, cols, ends)
}

/// out\[j\] = sum over rows of a\[i, j\] (b\[i, j\] - bias\[j\]) / gain\[j\], `[cols]` f32; without a bias nothing is subtracted, without
/// a gain nothing divided, and where a gain is 0 the result is 0. The gradient of DoRA's gain g: a = dy, and with y = g z + bias either
/// b = y with bias and gain, or b = z with neither, which a gain of 0 needs.
///
/// # Errors
/// [`Error::Shape`] for sizes or types that do not fit.
#[allow(clippy::too_many_arguments)]
pub fn column_dot(
    device: &Device,
    rows: impl Into<Rows>,
    cols: usize,
    a: Columns<'_>,
    b: Columns<'_>,
    bias: Option<&Buf>,
    gain: Option<&Buf>,
    out: &mut Buf,
) -> Result<()> {
    const OP: &str = "column_dot";
    let entry = by_type!("column_dot", a.matrix.dtype())?;
    for (name, buf) in [("bias", bias), ("gain", gain)] {
        buf.map_or(Ok(()), |buf| length(OP, name, buf, device, DType::F32, cols))?;
    }
    length(OP, "out", out, device, DType::F32, cols)?;
    let cut = rows.into().cut(OP, PIECE_ROWS)?;
    let partial = first_stage(device, OP, entry, cut, cols, a, Some(b), bias)?;
    let ends = Ends { out, rest: None, gain, split: cols };
    reduce_partials(device, OP, &partial, cut, cols, ends)
}

#[allow(clippy::too_many_arguments)]
fn first_stage(
    device: &Device,
    op: &str,
    entry: &'static str,
    cut: PeftkCut,
    cols: usize,
    a: Columns<'_>,
    b: Option<Columns<'_>>,
    bias: Option<&Buf>,
) -> Result<Buf> {
    let dtype = a.matrix.dtype();
    let start = |name: &str, columns: Columns<'_>| {
        if columns.first + cols > columns.ld {
            return Err(Error::shape(
                format!("{op} columns of {name}"),
                format!("at most {}", columns.ld),
                columns.first + cols,
            ));
        }
        length(op, name, columns.matrix, device, dtype, (cut.rows as usize - 1) * columns.ld + columns.first + cols)?;
        let first = columns.matrix.address() + (columns.first * dtype.bytes()) as u64;
        Ok((first, dimension(op, "row stride", columns.ld)?))
    };
    let partial = Buf::uninit(device, DType::F32, cut.pieces as usize * cols)?;
    let ((a, lda), (b, ldb)) = (start("a", a)?, b.map_or(Ok((0, 0)), |b| start("b", b))?);
    let params = PeftkColumnSumParams {
        a,
        b,
        bias: address(bias),
        partial: partial.address(),
        cut,
        padding: 0,
        cols: dimension(op, "cols", cols)?,
        lda,
        ldb,
    };
    let grid = grid(op, u64::from(cut.pieces) * (cols as u64).div_ceil(TILE_COLUMNS), 256)?;
    // SAFETY: both entries take a PeftkColumnSumParams; the columns lie in their matrices, `partial` is this function's own.
    unsafe { function(device, "column_sum", entry)?.launch(grid, &params)? };
    Ok(partial)
}

/// Where sums go, and what happens to them on the way.
pub(super) struct Ends<'a> {
    /// The first `split` sums.
    pub out: &'a mut Buf,
    /// The others.
    pub rest: Option<&'a mut Buf>,
    /// Divides them, `[cols]`.
    pub gain: Option<&'a Buf>,
    /// How many are in `out`.
    pub split: usize,
}

/// The second stage: partial \[pieces, cols\] added up in order. The caller has checked what it hands over.
pub(super) fn reduce_partials(
    device: &Device,
    op: &str,
    partial: &Buf,
    cut: PeftkCut,
    cols: usize,
    ends: Ends<'_>,
) -> Result<()> {
    let Ends { out, rest, gain, split } = ends;
    let params = PeftkReducePartialsParams {
        partial: partial.address(),
        gain: address(gain),
        out: out.address(),
        out_rest: address(rest.as_deref()),
        cols: dimension(op, "cols", cols)?,
        split: dimension(op, "cols", split)?,
        cut,
    };
    length(op, "partial sums", partial, device, DType::F32, cut.pieces as usize * cols)?;
    length(op, "out", out, device, DType::F32, split)?;
    let grid = grid(op, (cols as u64).div_ceil(8), 256)?;
    // SAFETY: reduce_partials_f32 takes this struct; the lengths were checked here and by the callers, for `rest` and `gain`.
    unsafe { function(device, "column_sum", "reduce_partials_f32")?.launch(grid, &params) }
}
