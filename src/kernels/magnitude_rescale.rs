//! Launches kernels/magnitude_rescale.cu: the gradients of DoRA's gain g = m / n, and the gain's own gradient.

use super::adapter_pack::padded_rank;
use super::check::{dimension, length};
use super::cut::Rows;
use super::function;
use super::lora_gradients::piece;
use super::params::{PeftkMagnitudeBackwardItem, PeftkMagnitudeBackwardParams, PeftkMagnitudeGradientParams};
use crate::gpu::{Buf, DType, Device, Grid};
use crate::{Error, Result};

const THREADS: u32 = 256;
const COLUMNS: u32 = 64;
const FILE: &str = "magnitude_rescale";
// As in kernels/params/dora.h.
const MOST_GAINS: usize = 48;

/// One gain's inputs, and where its gradients go; all f32.
#[derive(Debug)]
pub struct GainGradients<'a> {
    /// Values.
    pub count: usize,
    /// m.
    pub magnitude: &'a Buf,
    /// n.
    pub norm: &'a Buf,
    /// dg.
    pub dgain: &'a Buf,
    /// dm = dg / n.
    pub dmagnitude: &'a mut Buf,
    /// Whether dm is added to what is there, or written over it.
    pub add: bool,
    /// dn = -dg m / n^2, where it is asked for.
    pub dnorm: Option<&'a mut Buf>,
}

/// Queues the gradients of many gains: a launch for each 48 of them.
///
/// # Errors
/// [`Error::Shape`] for no gain, no values or a buffer that is too short.
pub fn magnitude_rescale_backward(device: &Device, gains: &mut [GainGradients<'_>]) -> Result<()> {
    let op = "magnitude_rescale_backward";
    if gains.is_empty() {
        return Err(Error::shape(op, "at least one gain", 0));
    }
    for gains in gains.chunks_mut(MOST_GAINS) {
        let mut params = <PeftkMagnitudeBackwardParams as bytemuck::Zeroable>::zeroed();
        let mut most = 1;
        for (to, gain) in params.items.iter_mut().zip(gains.iter()) {
            *to = backward_item(op, device, gain)?;
            most = most.max(to.count);
        }
        let grid = Grid { blocks: (most.div_ceil(THREADS), gains.len() as u32, 1), threads: THREADS, shared_bytes: 0 };
        // SAFETY: the entry takes a PeftkMagnitudeBackwardParams and reads its first grid.y items, whose buffers were checked; the outputs
        // are borrowed mutably.
        unsafe { function(device, FILE, "magnitude_rescale_backward_f32")?.launch(grid, &params)? };
    }
    Ok(())
}

fn backward_item(op: &str, device: &Device, gain: &GainGradients<'_>) -> Result<PeftkMagnitudeBackwardItem> {
    let GainGradients { count, magnitude, norm, dgain, .. } = *gain;
    let all = [("magnitude", magnitude), ("norm", norm), ("dgain", dgain), ("dmagnitude", &*gain.dmagnitude)];
    for (name, buf) in all.into_iter().chain(gain.dnorm.as_deref().map(|dnorm| ("dnorm", dnorm))) {
        length(op, name, buf, device, DType::F32, count)?;
    }
    Ok(PeftkMagnitudeBackwardItem {
        magnitude: magnitude.address(),
        norm: norm.address(),
        dgain: dgain.address(),
        dmagnitude: gain.dmagnitude.address(),
        dnorm: gain.dnorm.as_ref().map_or(0, |dnorm| dnorm.address()),
        count: dimension(op, "values", count)?,
        add: gain.add.into(),
    })
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
        /// Elements from one row of W to the next.
        w_stride: usize,
        /// t `[m, padded rank]`, of dy's dtype.
        t: &'a Buf,
        /// B `[rows, padded rank]`, of dy's dtype.
        b: &'a Buf,
    },
    /// z itself, `[m, rows]`, of dy's dtype.
    Z(&'a Buf),
}

/// Checks W's row stride.
pub(super) fn rows_apart(op: &str, stride: usize, k: usize) -> Result<()> {
    if stride < k {
        return Err(Error::shape(format!("{op} W's row stride"), format!("at least {k}"), stride));
    }
    dimension(op, "W's row stride", stride).map(drop)
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
        GainSource::Output { y, bias, gain, x, w, w_stride, t, b } => {
            rows_apart(op, w_stride, k)?;
            let padded = padded_rank(rank);
            let all = [
                ("y", y, m * n),
                ("x", x, m * k),
                ("W", w, (n - 1) * w_stride + k),
                ("t", t, m * padded),
                ("B", b, rows * padded),
            ];
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
            params.ld_w = w_stride as u32;
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
