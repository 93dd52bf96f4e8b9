//! Launches kernels/magnitude_rescale.cu: DoRA's gain g = m / n, its gradients, and the gain's own gradient.

use super::adapter_pack::padded_rank;
use super::check::{dimension, length};
use super::cut::Rows;
use super::function;
use super::lora_gradients::piece;
use super::params::{PeftkMagnitudeGradientParams, PeftkMagnitudeParams};
use crate::gpu::{Buf, DType, Device, Grid};
use crate::{Error, Result};

const THREADS: u32 = 256;
const COLUMNS: u32 = 64;
const FILE: &str = "magnitude_rescale";

fn elementwise(count: u32) -> Grid {
    Grid { blocks: (count.div_ceil(THREADS), 1, 1), threads: THREADS, shared_bytes: 0 }
}

/// Queues `gain` = `magnitude` / `norm` over `count` values, f32.
///
/// # Errors
/// [`Error::Shape`] for no values or a buffer that is too short.
pub fn magnitude_rescale(device: &Device, count: usize, magnitude: &Buf, norm: &Buf, gain: &mut Buf) -> Result<()> {
    let op = "magnitude_rescale";
    for (name, buf) in [("magnitude", magnitude), ("norm", norm), ("gain", &*gain)] {
        length(op, name, buf, device, DType::F32, count)?;
    }
    let mut params = <PeftkMagnitudeParams as bytemuck::Zeroable>::zeroed();
    (params.magnitude, params.norm, params.gain) = (magnitude.address(), norm.address(), gain.address());
    params.count = count as u64;
    let grid = elementwise(dimension(op, "values", count)?);
    // SAFETY: the entry takes a PeftkMagnitudeParams and touches magnitude, norm and gain, which were checked; gain is borrowed mutably.
    unsafe { function(device, FILE, "magnitude_rescale_forward_f32")?.launch(grid, &params) }
}

/// Queues `dmagnitude` = `dgain` / n and `dnorm` = -`dgain` m / n^2 over `count` values, f32.
///
/// # Errors
/// [`Error::Shape`] for no values or a buffer that is too short.
#[allow(clippy::too_many_arguments)]
pub fn magnitude_rescale_backward(
    device: &Device,
    count: usize,
    magnitude: &Buf,
    norm: &Buf,
    dgain: &Buf,
    dmagnitude: &mut Buf,
    dnorm: &mut Buf,
) -> Result<()> {
    let op = "magnitude_rescale_backward";
    let all =
        [("magnitude", magnitude), ("norm", norm), ("dgain", dgain), ("dmagnitude", &*dmagnitude), ("dnorm", &*dnorm)];
    for (name, buf) in all {
        length(op, name, buf, device, DType::F32, count)?;
    }
    let params = PeftkMagnitudeParams {
        magnitude: magnitude.address(),
        norm: norm.address(),
        gain: 0,
        dgain: dgain.address(),
        dmagnitude: dmagnitude.address(),
        dnorm: dnorm.address(),
        count: count as u64,
    };
    let grid = elementwise(dimension(op, "values", count)?);
    // SAFETY: the entry takes a PeftkMagnitudeParams and touches all but gain; all were checked, the outputs are borrowed mutably.
    unsafe { function(device, FILE, "magnitude_rescale_backward_f32")?.launch(grid, &params) }
}

/// From what z is known, z = x W^T + s t B^T being what the gain multiplies.
#[derive(Clone, Copy, Debug)]
pub enum GainSource<'a> {
    /// From the linear's output y = g z + bias. Where |g| is below 1/64, z is made anew from the rest.
    Output {
        /// y `[m, n]`, of dy's dtype.
        y: &'a Buf,
        /// bias `[n]`, f32.
        bias: Option<&'a Buf>,
        /// g `[rows]`, f32.
        gain: &'a Buf,
        /// x `[m, k]`, of dy's dtype.
        x: &'a Buf,
        /// W `[n, k]`, of dy's dtype.
        w: &'a Buf,
        /// t `[m, padded rank]`, of dy's dtype.
        t: &'a Buf,
        /// B `[rows, padded rank]`, of dy's dtype.
        b: &'a Buf,
    },
    /// z itself, `[m, rows]`, of dy's dtype.
    Z(&'a Buf),
}

/// The sizes of a gain's gradient.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GainGradient {
    /// Tokens.
    pub m: usize,
    /// Width of x.
    pub k: usize,
    /// Width of dy and y.
    pub n: usize,
    /// First column of dy under the adapter.
    pub first_row: usize,
    /// Columns under the adapter.
    pub rows: usize,
    /// Rank.
    pub rank: usize,
    /// s.
    pub scale: f32,
    /// Tokens of a granule: these are summed on their own ([`super::cut::Rows::granule`]).
    pub granule: usize,
    /// Whether the gradient is added to what is there, or written over it.
    pub add: bool,
}

/// Queues `dgain[j]` = sum over tokens of dy z, `[rows]` f32. `dy` is `[m, n]`, f32 or bf16. A workspace of partial sums is taken while this
/// is queued.
///
/// # Errors
/// [`Error::Shape`] for a size of 0, columns beyond n, a dtype or a buffer that does not fit; [`Error::Input`] when the device's memory is
/// full.
pub fn magnitude_gradient(
    device: &Device,
    sizes: GainGradient,
    dy: &Buf,
    from: GainSource<'_>,
    dgain: &mut Buf,
) -> Result<()> {
    let op = "magnitude_gradient";
    let GainGradient { m, k, n, first_row, rows, rank, scale, granule, add } = sizes;
    let dtype = dy.dtype();
    let entry = match dtype {
        DType::F32 => "magnitude_gradient_f32",
        DType::Bf16 => "magnitude_gradient_bf16",
        other => return Err(Error::shape("magnitude_gradient dy", "f32 or bf16", other)),
    };
    if first_row + rows > n {
        let found = format!("{first_row} .. {}", first_row + rows);
        return Err(Error::shape("magnitude_gradient's columns", format!("within 0 .. {n}"), found));
    }
    length(op, "dy", dy, device, dtype, m * n)?;
    length(op, "dgain", dgain, device, DType::F32, rows)?;
    let tokens = dimension(op, "m", m)?;
    let granule = granule.max(1);
    let cut = Rows { count: m, granule, add }.cut(op, piece(granule))?;
    dimension(op, "rows", rows)?;
    let partial = Buf::uninit(device, DType::F32, cut.pieces as usize * rows)?;
    let mut params = <PeftkMagnitudeGradientParams as bytemuck::Zeroable>::zeroed();
    match from {
        GainSource::Output { y, bias, gain, x, w, t, b } => {
            let padded = padded_rank(rank);
            let all =
                [("y", y, m * n), ("x", x, m * k), ("W", w, n * k), ("t", t, m * padded), ("B", b, rows * padded)];
            for (name, buf, needed) in all {
                length(op, name, buf, device, dtype, needed)?;
            }
            length(op, "gain", gain, device, DType::F32, rows)?;
            if let Some(bias) = bias {
                length(op, "bias", bias, device, DType::F32, n)?;
            }
            (params.y, params.bias, params.gain) = (y.address(), bias.map_or(0, Buf::address), gain.address());
            (params.x, params.w, params.t, params.b) = (x.address(), w.address(), t.address(), b.address());
            (params.ld_y, params.y_column) = (dimension(op, "n", n)?, first_row as u32);
            params.k = dimension(op, "k", k)?;
            params.rank_padded = dimension(op, "padded rank", padded)?;
        }
        GainSource::Z(z) => {
            length(op, "z", z, device, dtype, m * rows)?;
            params.y = z.address();
            params.ld_y = dimension(op, "rows", rows)?;
        }
    }
    (params.dy, params.partial, params.dgain) = (dy.address(), partial.address(), dgain.address());
    params.scale = scale;
    params.m = tokens;
    params.ld = dimension(op, "n", n)?;
    params.first_row = first_row as u32;
    params.rows = dimension(op, "rows", rows)?;
    params.cut = cut;
    let blocks = (params.rows.div_ceil(COLUMNS), cut.pieces, 1);
    let sums = Grid { blocks, threads: THREADS, shared_bytes: 0 };
    let reduce = Grid { blocks: (params.rows.div_ceil(32), 1, 1), threads: THREADS, shared_bytes: 0 };
    // SAFETY: both entries take a PeftkMagnitudeGradientParams; every buffer was checked or made with the length that its shape asks for,
    // and without a gain neither x, W, t nor B is read; dgain is borrowed mutably; the workspace is freed in stream order.
    unsafe {
        function(device, FILE, entry)?.launch(sums, &params)?;
        function(device, FILE, "magnitude_gradient_reduce")?.launch(reduce, &params)
    }
}
