//! Launches what lies between images and sequences: kernels/patches.cu, tokens.cu, pool.cu, positions.cu.

use super::check::{dimension, length};
use super::entry::{address, by_type, grid, row_grid};
use super::function;
use super::params::{PeftkPatchesParams, PeftkPoolParams, PeftkPositionsParams, PeftkTokensParams};
use crate::autograd::{IMAGENET_MEAN, IMAGENET_STD, TokenDims};
use crate::gpu::{Buf, DType, Device, Grid};
use crate::{Error, Result};

/// Row stride of patches of this type: 3 patch^2, for bf16 rounded up to 16 bytes.
pub fn patches_ld(patch: usize, dtype: DType) -> usize {
    let inner = 3 * patch * patch;
    if dtype == DType::Bf16 { inner.next_multiple_of(8) } else { inner }
}

/// Normalised patches \[batch (size / patch)^2, [`patches_ld`]\] of u8 images \[batch, size, size, 3\]; f32 or bf16.
///
/// # Errors
/// [`Error::Shape`] for sizes or types that do not fit.
pub fn patches_u8(
    device: &Device,
    batch: usize,
    size: usize,
    patch: usize,
    images: &Buf,
    patches: &mut Buf,
) -> Result<()> {
    const OP: &str = "patches";
    let entry = by_type!("patches_u8", patches.dtype())?;
    if patch == 0 || !size.is_multiple_of(patch) {
        return Err(Error::shape("patches size", format!("a multiple of {patch}"), size));
    }
    let ld = patches_ld(patch, patches.dtype());
    let rows = batch * (size / patch) * (size / patch);
    length(OP, "images", images, device, DType::U8, batch * size * size * 3)?;
    length(OP, "patches", patches, device, patches.dtype(), rows * ld)?;
    let params = PeftkPatchesParams {
        images: images.address(),
        patches: patches.address(),
        scale: IMAGENET_STD.map(|std| (1.0 / (255.0 * std)) as f32),
        shift: [0, 1, 2].map(|c| (-IMAGENET_MEAN[c] / IMAGENET_STD[c]) as f32),
        batch: dimension(OP, "batch", batch)?,
        size: dimension(OP, "size", size)?,
        patch: dimension(OP, "patch", patch)?,
        ld: dimension(OP, "row stride", ld)?,
    };
    let grid = grid(OP, (ld as u64).div_ceil(256) * (rows as u64).div_ceil(32), 256)?;
    // SAFETY: the entry takes a PeftkPatchesParams; the lengths were checked.
    unsafe { function(device, "patches", entry)?.launch(grid, &params) }
}

/// The sequences x \[batch tokens, width\] of the residual stream's type: CLS + position 0, registers, patches + their positions.
/// patches \[batch patches, width\] of the activations' type; cls \[width\], pos \[1 + patches, width\], registers \[registers, width\] f32.
///
/// # Errors
/// [`Error::Shape`] for sizes or types that do not fit.
#[allow(clippy::too_many_arguments)]
pub fn assemble_tokens_forward(
    device: &Device,
    dims: TokenDims,
    patches: &Buf,
    cls: &Buf,
    pos: &Buf,
    registers: Option<&Buf>,
    x: &mut Buf,
) -> Result<()> {
    const OP: &str = "assemble_tokens_forward";
    let entry = match (patches.dtype(), x.dtype()) {
        (DType::F32, DType::F32) => "assemble_tokens_forward_f32_f32",
        (DType::Bf16, DType::F32) => "assemble_tokens_forward_bf16_f32",
        (DType::Bf16, DType::Bf16) => "assemble_tokens_forward_bf16_bf16",
        other => return Err(Error::shape(OP, "f32 and f32, bf16 and f32, or bf16 and bf16", other)),
    };
    if registers.is_some() != (dims.registers > 0) {
        return Err(Error::shape(format!("{OP} registers"), dims.registers > 0, registers.is_some()));
    }
    let parts = Parts { patches: Some(patches), cls: Some(cls), pos: Some(pos), registers };
    parts.check(OP, device, dims, patches.dtype())?;
    length(OP, "x", x, device, x.dtype(), dims.batch * dims.tokens() * dims.width)?;
    let grid = row_grid(OP, (dims.batch * dims.tokens()) as u64, dims.width as u64)?;
    let params = parts.params(OP, dims, x)?;
    // SAFETY: the entry takes a PeftkTokensParams; the lengths were checked.
    unsafe { function(device, "tokens", entry)?.launch(grid, &params) }
}

/// Gradients of the parts of the sequences, each where it is asked for: shapes as in [`assemble_tokens_forward`].
#[derive(Debug, Default)]
pub struct TokenGrads<'a> {
    /// dpatches, of the activations' type.
    pub patches: Option<&'a mut Buf>,
    /// dcls, f32.
    pub cls: Option<&'a mut Buf>,
    /// dpos, f32.
    pub pos: Option<&'a mut Buf>,
    /// dregisters, f32.
    pub registers: Option<&'a mut Buf>,
}

/// The gradients of the parts from dx \[batch tokens, width\] of the residual stream's type, written.
///
/// # Errors
/// [`Error::Shape`] for sizes or types that do not fit.
pub fn assemble_tokens_backward(
    device: &Device,
    dims: TokenDims,
    dx: &Buf,
    grads: TokenGrads<'_>,
    add: bool,
) -> Result<()> {
    const OP: &str = "assemble_tokens_backward";
    let activations = grads.patches.as_deref().map_or(dx.dtype(), Buf::dtype);
    let entry = match (activations, dx.dtype()) {
        (DType::F32, DType::F32) => "assemble_tokens_backward_f32_f32",
        (DType::Bf16, DType::F32) => "assemble_tokens_backward_bf16_f32",
        (DType::Bf16, DType::Bf16) => "assemble_tokens_backward_bf16_bf16",
        other => return Err(Error::shape(OP, "f32 and f32, bf16 and f32, or bf16 and bf16", other)),
    };
    let parts = Parts {
        patches: grads.patches.as_deref(),
        cls: grads.cls.as_deref(),
        pos: grads.pos.as_deref(),
        registers: grads.registers.as_deref().filter(|_| dims.registers > 0),
    };
    parts.check(OP, device, dims, activations)?;
    length(OP, "dx", dx, device, dx.dtype(), dims.batch * dims.tokens() * dims.width)?;
    let grid = grid(OP, (dims.tokens() as u64 * (dims.width as u64).div_ceil(4)).div_ceil(128), 128)?;
    let params = PeftkTokensParams { add: add.into(), ..parts.params(OP, dims, dx)? };
    // SAFETY: the entry takes a PeftkTokensParams; the lengths were checked, and what it writes came as a mutable borrow.
    unsafe { function(device, "tokens", entry)?.launch(grid, &params) }
}

/// What a sequence is made of, or the gradients of that.
struct Parts<'a> {
    patches: Option<&'a Buf>,
    cls: Option<&'a Buf>,
    pos: Option<&'a Buf>,
    registers: Option<&'a Buf>,
}

impl Parts<'_> {
    fn check(&self, op: &str, device: &Device, dims: TokenDims, activations: DType) -> Result<()> {
        let width = dims.width;
        for (name, buf, dtype, needed) in [
            ("patches", self.patches, activations, dims.batch * dims.patches * width),
            ("cls", self.cls, DType::F32, width),
            ("pos", self.pos, DType::F32, (1 + dims.patches) * width),
            ("registers", self.registers, DType::F32, dims.registers * width),
        ] {
            buf.map_or(Ok(()), |buf| length(op, name, buf, device, dtype, needed))?;
        }
        Ok(())
    }

    fn params(&self, op: &str, dims: TokenDims, x: &Buf) -> Result<PeftkTokensParams> {
        dimension(op, "tokens", dims.tokens())?;
        Ok(PeftkTokensParams {
            patches: address(self.patches),
            cls: address(self.cls),
            pos: address(self.pos),
            registers: address(self.registers),
            x: x.address(),
            batch: dimension(op, "batch", dims.batch)?,
            register_count: dims.registers as u32,
            patch_count: dimension(op, "patches", dims.patches)?,
            width: dimension(op, "width", dims.width)?,
            add: 0,
            padding: 0,
        })
    }
}

/// CLS, or CLS beside the mean of the patches, \[batch, width or 2 width\] f32, from x \[batch tokens, width\], f32 or bf16.
///
/// # Errors
/// [`Error::Shape`] for sizes or types that do not fit.
pub fn pool_forward(device: &Device, dims: TokenDims, with_mean: bool, x: &Buf, pooled: &mut Buf) -> Result<()> {
    const OP: &str = "pool_forward";
    let entry = by_type!("pool_forward", x.dtype())?;
    let params = pool_params(OP, device, dims, with_mean, x, pooled)?;
    if dims.batch > 65_535 {
        return Err(Error::shape("pool_forward batch", "at most 65535", dims.batch));
    }
    let grid = Grid { blocks: (params.width.div_ceil(128), params.batch, 1), threads: 256, shared_bytes: 0 };
    // SAFETY: the entry takes a PeftkPoolParams; the lengths were checked.
    unsafe { function(device, "pool", entry)?.launch(grid, &params) }
}

/// dx \[batch tokens, width\], f32 or bf16, from the gradient of [`pool_forward`]'s result; zero where nothing was read.
///
/// # Errors
/// [`Error::Shape`] for sizes or types that do not fit.
pub fn pool_backward(device: &Device, dims: TokenDims, with_mean: bool, dpooled: &Buf, dx: &mut Buf) -> Result<()> {
    const OP: &str = "pool_backward";
    let entry = by_type!("pool_backward", dx.dtype())?;
    let params = pool_params(OP, device, dims, with_mean, dx, dpooled)?;
    let grid = row_grid(OP, (dims.batch * dims.tokens()) as u64, dims.width as u64)?;
    // SAFETY: the entry takes a PeftkPoolParams; the lengths were checked.
    unsafe { function(device, "pool", entry)?.launch(grid, &params) }
}

fn pool_params(
    op: &str,
    device: &Device,
    dims: TokenDims,
    with_mean: bool,
    x: &Buf,
    pooled: &Buf,
) -> Result<PeftkPoolParams> {
    let wide = if with_mean { 2 * dims.width } else { dims.width };
    length(op, "x", x, device, x.dtype(), dims.batch * dims.tokens() * dims.width)?;
    length(op, "pooled", pooled, device, DType::F32, dims.batch * wide)?;
    dimension(op, "tokens", dims.tokens())?;
    Ok(PeftkPoolParams {
        x: x.address(),
        pooled: pooled.address(),
        batch: dimension(op, "batch", dims.batch)?,
        register_count: dims.registers as u32,
        patch_count: dimension(op, "patches", dims.patches)?,
        width: dimension(op, "width", dims.width)?,
        with_mean: with_mean.into(),
        padding: 0,
    })
}

/// Positions \[1 + to, width\] from pos \[1 + from, width\]: row 0 stays, the others are matrix \[to, from\] times the old ones; all f32.
///
/// # Errors
/// [`Error::Shape`] for sizes or types that do not fit.
#[allow(clippy::too_many_arguments)]
pub fn resample_positions_forward(
    device: &Device,
    from: usize,
    to: usize,
    width: usize,
    pos: &Buf,
    matrix: &Buf,
    out: &mut Buf,
) -> Result<()> {
    const OP: &str = "resample_positions_forward";
    length(OP, "pos", pos, device, DType::F32, (1 + from) * width)?;
    length(OP, "out", out, device, DType::F32, (1 + to) * width)?;
    positions(device, OP, "resample_positions_forward_f32", from, to, width, to, pos, matrix, out)
}

/// dpos \[1 + from, width\] from the gradient dy \[1 + to, width\] of [`resample_positions_forward`]'s result.
///
/// # Errors
/// [`Error::Shape`] for sizes or types that do not fit.
#[allow(clippy::too_many_arguments)]
pub fn resample_positions_backward(
    device: &Device,
    from: usize,
    to: usize,
    width: usize,
    matrix: &Buf,
    dy: &Buf,
    dpos: &mut Buf,
) -> Result<()> {
    const OP: &str = "resample_positions_backward";
    length(OP, "dy", dy, device, DType::F32, (1 + to) * width)?;
    length(OP, "dpos", dpos, device, DType::F32, (1 + from) * width)?;
    positions(device, OP, "resample_positions_backward_f32", from, to, width, from, dy, matrix, dpos)
}

#[allow(clippy::too_many_arguments)]
fn positions(
    device: &Device,
    op: &str,
    entry: &'static str,
    from: usize,
    to: usize,
    width: usize,
    rows: usize,
    source: &Buf,
    matrix: &Buf,
    target: &mut Buf,
) -> Result<()> {
    length(op, "matrix", matrix, device, DType::F32, from * to)?;
    let params = PeftkPositionsParams {
        source: source.address(),
        matrix: matrix.address(),
        target: target.address(),
        from: dimension(op, "from", from)?,
        to: dimension(op, "to", to)?,
        width: dimension(op, "width", width)?,
        padding: 0,
    };
    if rows > 4 * 65_534 {
        return Err(Error::shape(format!("{op} positions"), format!("at most {}", 4 * 65_534), rows));
    }
    let blocks = (params.width.div_ceil(32), 1 + rows.div_ceil(4) as u32, 1);
    // SAFETY: both entries take a PeftkPositionsParams; the lengths were checked here and by the callers.
    unsafe { function(device, "positions", entry)?.launch(Grid { blocks, threads: 256, shared_bytes: 0 }, &params) }
}
