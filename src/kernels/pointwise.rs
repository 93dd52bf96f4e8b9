//! Launches what works element by element: kernels/gelu.cu, swiglu.cu, elementwise.cu.

use super::check::{dimension, length};
use super::entry::{by_type, map_grid, row_grid};
use super::function;
use super::params::{
    PeftkCastParams, PeftkDropoutParams, PeftkMapBackwardParams, PeftkMapParams, PeftkScaleParams, PeftkSwigluParams,
};
use crate::gpu::{Buf, DType, Device};
use crate::{Error, Result};

/// y = GELU(x), erf form, over `count` elements of f32 or bf16.
///
/// # Errors
/// [`Error::Shape`] for lengths or types that do not fit.
pub fn gelu_forward(device: &Device, count: usize, x: &Buf, y: &mut Buf) -> Result<()> {
    const OP: &str = "gelu_forward";
    let entry = by_type!("gelu_forward", x.dtype())?;
    length(OP, "x", x, device, x.dtype(), count)?;
    length(OP, "y", y, device, x.dtype(), count)?;
    let params = PeftkMapParams { x: x.address(), y: y.address(), count: count as u64 };
    // SAFETY: the entry takes a PeftkMapParams and touches `count` elements, which both have.
    unsafe { function(device, "gelu", entry)?.launch(map_grid(OP, count as u64)?, &params) }
}

/// dx = dy GELU'(x) over `count` elements of f32 or bf16.
///
/// # Errors
/// [`Error::Shape`] for lengths or types that do not fit.
pub fn gelu_backward(device: &Device, count: usize, x: &Buf, dy: &Buf, dx: &mut Buf) -> Result<()> {
    const OP: &str = "gelu_backward";
    let entry = by_type!("gelu_backward", x.dtype())?;
    for (name, buf) in [("x", x), ("dy", dy), ("dx", &*dx)] {
        length(OP, name, buf, device, x.dtype(), count)?;
    }
    let params = PeftkMapBackwardParams { x: x.address(), dy: dy.address(), dx: dx.address(), count: count as u64 };
    // SAFETY: the entry takes this struct and touches `count` elements, which all three have.
    unsafe { function(device, "gelu", entry)?.launch(map_grid(OP, count as u64)?, &params) }
}

/// y \[rows, width\] = silu(gate) up from h = gate | up \[rows, 2 width\], f32 or bf16.
///
/// # Errors
/// [`Error::Shape`] for lengths or types that do not fit.
pub fn swiglu_forward(device: &Device, rows: usize, width: usize, h: &Buf, y: &mut Buf) -> Result<()> {
    const OP: &str = "swiglu_forward";
    let entry = by_type!("swiglu_forward", h.dtype())?;
    length(OP, "h", h, device, h.dtype(), rows * 2 * width)?;
    length(OP, "y", y, device, h.dtype(), rows * width)?;
    swiglu(device, OP, entry, rows, width, h, None, y)
}

/// dh \[rows, 2 width\] from h and dy \[rows, width\], f32 or bf16.
///
/// # Errors
/// [`Error::Shape`] for lengths or types that do not fit.
pub fn swiglu_backward(device: &Device, rows: usize, width: usize, h: &Buf, dy: &Buf, dh: &mut Buf) -> Result<()> {
    const OP: &str = "swiglu_backward";
    let entry = by_type!("swiglu_backward", h.dtype())?;
    length(OP, "h", h, device, h.dtype(), rows * 2 * width)?;
    length(OP, "dy", dy, device, h.dtype(), rows * width)?;
    length(OP, "dh", dh, device, h.dtype(), rows * 2 * width)?;
    swiglu(device, OP, entry, rows, width, h, Some(dy), dh)
}

#[allow(clippy::too_many_arguments)]
fn swiglu(
    device: &Device,
    op: &str,
    entry: &'static str,
    rows: usize,
    width: usize,
    h: &Buf,
    dy: Option<&Buf>,
    out: &mut Buf,
) -> Result<()> {
    let params = PeftkSwigluParams {
        h: h.address(),
        dy: super::entry::address(dy),
        out: out.address(),
        rows: dimension(op, "rows", rows)?,
        width: dimension(op, "width", width)?,
    };
    // SAFETY: both entries take a PeftkSwigluParams; the callers checked the lengths.
    unsafe { function(device, "swiglu", entry)?.launch(row_grid(op, rows as u64, width as u64)?, &params) }
}

/// acc += x over `count` elements; each f32 or bf16.
///
/// # Errors
/// [`Error::Shape`] for lengths or types that do not fit.
pub fn add_assign(device: &Device, count: usize, acc: &mut Buf, x: &Buf) -> Result<()> {
    const OP: &str = "add_assign";
    let entry = match (acc.dtype(), x.dtype()) {
        (DType::F32, DType::F32) => "add_assign_f32_f32",
        (DType::F32, DType::Bf16) => "add_assign_f32_bf16",
        (DType::Bf16, DType::F32) => "add_assign_bf16_f32",
        (DType::Bf16, DType::Bf16) => "add_assign_bf16_bf16",
        other => return Err(Error::shape(OP, "f32 or bf16", other)),
    };
    length(OP, "acc", acc, device, acc.dtype(), count)?;
    length(OP, "x", x, device, x.dtype(), count)?;
    let params = PeftkMapParams { x: x.address(), y: acc.address(), count: count as u64 };
    // SAFETY: the entry takes a PeftkMapParams, with acc in y, and touches `count` elements, which both have.
    unsafe { function(device, "elementwise", entry)?.launch(map_grid(OP, count as u64)?, &params) }
}

/// x *= factor over `count` elements of f32 or bf16.
///
/// # Errors
/// [`Error::Shape`] for a length or type that does not fit.
pub fn scale_assign(device: &Device, count: usize, x: &mut Buf, factor: f32) -> Result<()> {
    scale(device, "scale_assign", by_type!("scale_assign", x.dtype())?, count, x, factor)
}

/// x = value over `count` elements of f32 or bf16.
///
/// # Errors
/// [`Error::Shape`] for a length or type that does not fit.
pub fn fill(device: &Device, count: usize, x: &mut Buf, value: f32) -> Result<()> {
    scale(device, "fill", by_type!("fill", x.dtype())?, count, x, value)
}

fn scale(device: &Device, op: &str, entry: &'static str, count: usize, x: &mut Buf, factor: f32) -> Result<()> {
    length(op, "x", x, device, x.dtype(), count)?;
    let params = PeftkScaleParams { x: x.address(), count: count as u64, factor, padding: 0 };
    // SAFETY: both entries take a PeftkScaleParams and touch `count` elements, which x has.
    unsafe { function(device, "elementwise", entry)?.launch(map_grid(op, count as u64)?, &params) }
}

/// Rows of `cols` elements from row stride `ld_source` to row stride `ld_target`, f32 or bf16 each; a written row is zero beyond `cols`.
///
/// # Errors
/// [`Error::Shape`] for sizes or types that do not fit.
#[allow(clippy::too_many_arguments)]
pub fn cast(
    device: &Device,
    rows: usize,
    cols: usize,
    source: &Buf,
    ld_source: usize,
    target: &mut Buf,
    ld_target: usize,
) -> Result<()> {
    const OP: &str = "cast";
    let entry = match (source.dtype(), target.dtype()) {
        (DType::F32, DType::F32) => "cast_f32_f32",
        (DType::F32, DType::Bf16) => "cast_f32_bf16",
        (DType::Bf16, DType::F32) => "cast_bf16_f32",
        (DType::Bf16, DType::Bf16) => "cast_bf16_bf16",
        other => return Err(Error::shape(OP, "f32 or bf16", other)),
    };
    if cols > ld_source.min(ld_target) {
        return Err(Error::shape("cast cols", format!("at most {}", ld_source.min(ld_target)), cols));
    }
    length(OP, "source", source, device, source.dtype(), (rows.max(1) - 1) * ld_source + cols)?;
    length(OP, "target", target, device, target.dtype(), rows * ld_target)?;
    let params = PeftkCastParams {
        source: source.address(),
        target: target.address(),
        rows: dimension(OP, "rows", rows)?,
        cols: dimension(OP, "cols", cols)?,
        ld_source: dimension(OP, "source row stride", ld_source)?,
        ld_target: dimension(OP, "target row stride", ld_target)?,
    };
    // SAFETY: the entry takes a PeftkCastParams; rows of both were checked to fit.
    unsafe { function(device, "elementwise", entry)?.launch(row_grid(OP, rows as u64, ld_target as u64)?, &params) }
}

/// Inverted dropout over `count` elements of f32 or bf16, with the mask of [`crate::autograd::dropout_keeps`].
///
/// # Errors
/// [`Error::Shape`] for lengths or types that do not fit, and for p outside 0 <= p < 1.
pub fn dropout(device: &Device, count: usize, x: &Buf, p: f64, seed: u64, y: &mut Buf) -> Result<()> {
    const OP: &str = "dropout";
    let entry = by_type!("dropout", x.dtype())?;
    if !(0.0..1.0).contains(&p) {
        return Err(Error::shape("dropout p", "0 <= p < 1", p));
    }
    length(OP, "x", x, device, x.dtype(), count)?;
    length(OP, "y", y, device, x.dtype(), count)?;
    let params = PeftkDropoutParams {
        x: x.address(),
        y: y.address(),
        count: count as u64,
        seed,
        // The hash's fraction k / 2^24 is at least p where the integer k is at least this.
        threshold: (p * f64::from(1 << 24)).ceil() as u32,
        scale: (1.0 / (1.0 - p)) as f32,
    };
    // SAFETY: the entry takes a PeftkDropoutParams and touches `count` elements, which both have.
    unsafe { function(device, "elementwise", entry)?.launch(map_grid(OP, count as u64)?, &params) }
}
