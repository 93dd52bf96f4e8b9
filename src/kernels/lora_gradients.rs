//! Launches kernels/lora_gradients.cu and lora_gradients_f32.cu: the gradients of low-rank adapters.

use super::adapter_pack::padded_rank;
use super::check::{dimension, length};
use super::cut::Rows;
use super::function;
use super::lora_launches::{SLICE, dora_output, launches};
use super::magnitude_rescale::{GainGradient, GainSource, magnitude_gradient, rows_apart};
use super::params::{PeftkLoraAdapter, PeftkLoraGradientsParams};
use crate::gpu::{Buf, DType, Device};
use crate::{Error, Result};

/// The most adapters of one linear: q, k and v.
const MOST_ADAPTERS: usize = 3;

// As in the kernels.
const TILE_TOKENS: usize = 32;
/// Pieces that a granule of tokens is cut into, about, and the most tokens of one. Sizes alone decide, never the GPU, so that the sums are the
/// same on all. Two granules of 4112 tokens and two slices of ranks make 172 blocks.
const PIECES: usize = 43;
const MOST_TOKENS: usize = 512;

/// Tokens whose products are summed by one block, of a granule's: a multiple of 32.
pub(super) fn piece(granule: usize) -> usize {
    granule.div_ceil(PIECES).next_multiple_of(TILE_TOKENS).min(MOST_TOKENS)
}

/// One adapter's inputs, and where its gradients go.
#[derive(Debug)]
pub struct AdapterGradients<'a> {
    /// First column of dy.
    pub first_row: usize,
    /// Columns of dy: the rows of W that it changes.
    pub rows: usize,
    /// Rank.
    pub rank: usize,
    /// s.
    pub scale: f32,
    /// t = x A^T `[m, padded rank]`.
    pub t: &'a Buf,
    /// s g B `[rows, padded rank]`, as [`super::adapter_pack`] makes it.
    pub bg: &'a Buf,
    /// DoRA's g `[rows]`, f32.
    pub gain: Option<&'a Buf>,
    /// dA `[rank, k]`, f32.
    pub da: &'a mut Buf,
    /// dB `[rows, rank]`, f32.
    pub db: &'a mut Buf,
    /// Whether dA and dB are added to what is there, or written over it.
    pub add: (bool, bool),
    /// The gain's own gradient, where it is asked for.
    pub dgain: Option<GainFromOutput<'a>>,
}

/// What the gradient of a gain is made from besides x, dy and t, and where it goes; for an adapter that has a gain.
#[derive(Debug)]
pub struct GainFromOutput<'a> {
    /// The linear's output y `[m, n]`, of dy's dtype.
    pub y: &'a Buf,
    /// bias `[n]`, f32.
    pub bias: Option<&'a Buf>,
    /// W `[n, k]`, of dy's dtype: rows of small gain are made anew from it.
    pub w: &'a Buf,
    /// Elements from one row of W to the next.
    pub w_stride: usize,
    /// B `[rows, padded rank]`, of dy's dtype, likewise.
    pub b: &'a Buf,
    /// dg `[rows]`, f32.
    pub dgain: &'a mut Buf,
    /// Whether it is added to what is there, or written over it.
    pub add: bool,
}

/// Adapters of one linear that read the same x. x, dy, t, s g B and Q have one dtype, f32 or bf16.
#[derive(Debug)]
pub struct LoraGradients<'a> {
    /// Tokens.
    pub m: usize,
    /// Width of x.
    pub k: usize,
    /// Width of dy.
    pub n: usize,
    /// x `[m, k]`.
    pub x: &'a Buf,
    /// dy `[m, n]`.
    pub dy: &'a Buf,
    /// Tokens of a granule: these are summed on their own ([`super::cut::Rows::granule`]).
    pub granule: usize,
    /// 1 to 3 adapters.
    pub adapters: Vec<AdapterGradients<'a>>,
}

impl LoraGradients<'_> {
    /// Columns of Q: the sum of the padded ranks.
    pub fn q_columns(&self) -> usize {
        self.adapters.iter().map(|adapter| padded_rank(adapter.rank)).sum()
    }
}

/// Queues, for every adapter, Q = dy (s g B), dA = Q^T x, dB = s g dy^T t, and where asked for the gain's dg. `q` takes all Q side by side,
/// `[m, q_columns]`: with the adapters' A one below the other it is the second product of dx. A workspace of partial sums is taken while
/// this is queued.
///
/// dg costs y beside the dy that is read anyway, in bf16 and where the rows are few enough for both to stand in shared memory; elsewhere it
/// is [`magnitude_gradient`]'s.
///
/// # Errors
/// [`Error::Shape`] for a size of 0, too many adapters, columns beyond n, a dtype or a buffer that does not fit, a dg without a gain;
/// [`Error::Input`] when the device's memory is full.
pub fn lora_gradients(device: &Device, args: &mut LoraGradients<'_>, q: &mut Buf) -> Result<()> {
    let Prepared { mut params, dtype } = prepare(device, args, q)?;
    let pieces = params.cut.pieces as usize;
    let with_gains = args.adapters.iter().any(|adapter| adapter.dgain.is_some());
    let dora = if with_gains { dora_output(device.arch(), dtype, &params) } else { None };
    let partial_a = Buf::uninit(device, DType::F32, pieces * args.q_columns() * args.k)?;
    params.partial_a = partial_a.address();
    let mut partials = Vec::new();
    for (to, adapter) in params.adapters.iter_mut().zip(&args.adapters) {
        let partial = Buf::uninit(device, DType::F32, pieces * padded_rank(adapter.rank) * adapter.rows)?;
        to.partial_b = partial.address();
        partials.push(partial);
        if let (Some(gain), true) = (&adapter.dgain, dora.is_some()) {
            let partial = Buf::uninit(device, DType::F32, pieces * adapter.rows)?;
            (to.y, to.bias) = (gain.y.address(), gain.bias.map_or(0, Buf::address));
            (to.w, to.ld_w, to.b) = (gain.w.address(), gain.w_stride as u32, gain.b.address());
            (to.partial_gain, to.dgain, to.add_gain) = (partial.address(), gain.dgain.address(), gain.add.into());
            partials.push(partial);
        }
    }
    let separate = dora.is_none();
    for launch in launches(device.arch(), dtype, &params, Some(dora)) {
        // SAFETY: every entry takes a PeftkLoraGradientsParams. `prepare` has compared every buffer's dtype, length and device with the
        // sizes; the workspaces are as long as their shapes, and are freed in stream order, so after these launches; q, da, db and dgain
        // are borrowed mutably and so apart from all else; `launches` covers every piece, column and rank; an adapter has a y only where it
        // has a gain and the entry that reads both.
        unsafe { function(device, launch.file, launch.entry)?.launch(launch.grid, &params)? };
    }
    if separate {
        let LoraGradients { m, k, n, x, dy, granule, .. } = *args;
        for adapter in &mut args.adapters {
            let AdapterGradients { first_row, rows, rank, scale, t, .. } = *adapter;
            let (Some(GainFromOutput { y, bias, w, w_stride, b, dgain, add }), Some(gain)) =
                (&mut adapter.dgain, adapter.gain)
            else {
                continue;
            };
            let sizes = GainGradient { m, k, n, first_row, rows, rank, scale, granule, add: *add };
            let from = GainSource::Output { y, bias: *bias, gain, x, w, w_stride: *w_stride, t, b };
            magnitude_gradient(device, sizes, dy, from, dgain)?;
        }
    }
    Ok(())
}

/// Queues Q = dy (s g B) alone: what dx needs where no adapter is trained. `da`, `db` and x are not touched.
///
/// # Errors
/// As [`lora_gradients`].
pub fn lora_project(device: &Device, args: &mut LoraGradients<'_>, q: &mut Buf) -> Result<()> {
    let Prepared { params, dtype } = prepare(device, args, q)?;
    for launch in launches(device.arch(), dtype, &params, None) {
        // SAFETY: as in `lora_gradients`; the project entries use no workspace.
        unsafe { function(device, launch.file, launch.entry)?.launch(launch.grid, &params)? };
    }
    Ok(())
}

struct Prepared {
    params: PeftkLoraGradientsParams,
    dtype: DType,
}

/// Checks everything; the workspaces are still missing.
fn prepare(device: &Device, args: &LoraGradients<'_>, q: &Buf) -> Result<Prepared> {
    let op = "lora_gradients";
    let LoraGradients { m, k, n, .. } = *args;
    let dtype = args.dy.dtype();
    if !matches!(dtype, DType::F32 | DType::Bf16) {
        return Err(Error::shape("lora_gradients dy", "f32 or bf16", dtype));
    }
    if args.adapters.is_empty() || args.adapters.len() > MOST_ADAPTERS {
        return Err(Error::shape(op, format!("1 to {MOST_ADAPTERS} adapters"), args.adapters.len()));
    }
    let tokens = dimension(op, "m", m)?;
    let columns = args.q_columns();
    length(op, "x", args.x, device, dtype, m * k)?;
    length(op, "dy", args.dy, device, dtype, m * n)?;
    length(op, "Q", q, device, dtype, m * columns)?;
    let mut params = <PeftkLoraGradientsParams as bytemuck::Zeroable>::zeroed();
    let mut column = 0;
    for (to, adapter) in params.adapters.iter_mut().zip(&args.adapters) {
        let AdapterGradients { first_row, rows, rank, .. } = *adapter;
        if first_row + rows > n {
            let found = format!("{first_row} .. {}", first_row + rows);
            return Err(Error::shape("lora_gradients' columns", format!("within 0 .. {n}"), found));
        }
        let padded = padded_rank(rank);
        length(op, "t", adapter.t, device, dtype, m * padded)?;
        length(op, "s g B", adapter.bg, device, dtype, rows * padded)?;
        length(op, "dA", adapter.da, device, DType::F32, rank * k)?;
        length(op, "dB", adapter.db, device, DType::F32, rows * rank)?;
        if let Some(gain) = adapter.gain {
            length(op, "gain", gain, device, DType::F32, rows)?;
        }
        if let Some(from) = &adapter.dgain {
            if adapter.gain.is_none() {
                return Err(Error::shape("lora_gradients' dg", "an adapter with a gain", "none"));
            }
            length(op, "y", from.y, device, dtype, m * n)?;
            rows_apart(op, from.w_stride, k)?;
            length(op, "W", from.w, device, dtype, (n - 1) * from.w_stride + k)?;
            length(op, "B", from.b, device, dtype, rows * padded)?;
            length(op, "dg", from.dgain, device, DType::F32, rows)?;
            if let Some(bias) = from.bias {
                length(op, "bias", bias, device, DType::F32, n)?;
            }
        }
        *to = PeftkLoraAdapter {
            t: adapter.t.address(),
            bg: adapter.bg.address(),
            gain: adapter.gain.map_or(0, Buf::address),
            da: adapter.da.address(),
            db: adapter.db.address(),
            scale: adapter.scale,
            first_row: first_row as u32,
            rows: dimension(op, "rows", rows)?,
            rank: dimension(op, "rank", rank)?,
            rank_padded: dimension(op, "padded rank", padded)?,
            q_column: column as u32,
            add_a: adapter.add.0.into(),
            add_b: adapter.add.1.into(),
            ..<PeftkLoraAdapter as bytemuck::Zeroable>::zeroed()
        };
        column += padded;
    }
    params.x = args.x.address();
    params.dy = args.dy.address();
    params.q = q.address();
    params.m = tokens;
    params.k = dimension(op, "k", k)?;
    params.ld_dy = dimension(op, "n", n)?;
    params.ld_q = dimension(op, "ranks", columns)?;
    params.q_columns = params.ld_q;
    let granule = args.granule.max(1);
    params.cut = Rows { count: m, granule, add: false }.cut(op, piece(granule))?;
    params.count = args.adapters.len() as u32;
    params.slices = params.q_columns / SLICE;
    Ok(Prepared { params, dtype })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_whole_tiles() {
        for granule in [1, 31, 32, 33, 257, 4112, 65_792, 1_000_003] {
            assert!(piece(granule).is_multiple_of(32) && piece(granule) <= MOST_TOKENS, "{granule}");
        }
        assert_eq!((piece(65_792), piece(4112), piece(257)), (512, 96, 32));
    }
}
