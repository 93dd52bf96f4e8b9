//! Launches kernels/adapter_pack.cu: an adapter's operands from its f32 masters, and a weight with its rows under a gain rescaled.

use super::check::{dimension, length};
use super::function;
use super::params::{PeftkAdapterPackItem, PeftkAdapterPackParams, PeftkWeightRescaleItem, PeftkWeightRescaleParams};
use super::table::ItemTable;
use crate::gpu::{Buf, DType, Device, Grid};
use crate::{Error, Result};

const THREADS: u32 = 256;
/// The most adapters of one linear: q, k and v.
const MOST_ADAPTERS: usize = 3;

/// `rank` as the products take it: rounded up to a multiple of 16, the added ranks being zeros.
pub fn padded_rank(rank: usize) -> usize {
    rank.next_multiple_of(16)
}

/// One adapter's masters and where its operands go; what is None is not written. All outputs have one dtype.
#[derive(Debug)]
pub struct AdapterPack<'a> {
    /// Rows of B.
    pub rows: usize,
    /// Rank.
    pub rank: usize,
    /// s.
    pub scale: f32,
    /// A `[rank, k]`, f32.
    pub a: &'a Buf,
    /// B `[rows, rank]`, f32.
    pub b: &'a Buf,
    /// DoRA's g `[rows]`, f32.
    pub gain: Option<&'a Buf>,
    /// A `[padded_rank, k]`.
    pub a_packed: Option<&'a mut Buf>,
    /// B `[rows, padded_rank]`.
    pub b_packed: Option<&'a mut Buf>,
    /// s g B `[rows, padded_rank]`, for the backward pass.
    pub bg_packed: Option<&'a mut Buf>,
}

/// The adapters of one linear of `k` input features, and where all their A's go one below the other, if that is wanted:
/// `[sum of padded ranks, k]`.
#[derive(Debug)]
pub struct LinearPack<'a> {
    /// Columns of every A.
    pub k: usize,
    /// 1 to 3 adapters.
    pub adapters: Vec<AdapterPack<'a>>,
    /// All A.
    pub joined: Option<&'a mut Buf>,
}

/// Queues the packing of up to 3 adapters of one linear of `k` input features to `dtype`. `joined`, where wanted, takes all their A's one
/// below the other: `[sum of padded ranks, k]`.
///
/// # Errors
/// [`Error::Shape`] for a size of 0, more than 3 adapters, a dtype that is neither f32 nor bf16, a buffer that is too short.
pub fn adapter_pack(
    device: &Device,
    dtype: DType,
    k: usize,
    adapters: &mut [AdapterPack<'_>],
    joined: Option<&mut Buf>,
) -> Result<()> {
    let mut params = <PeftkAdapterPackParams as bytemuck::Zeroable>::zeroed();
    let items = items(device, dtype, k, adapters, joined.as_deref())?;
    params.adapters[..items.len()].copy_from_slice(&items);
    // SAFETY: `items` is 0, so the entry reads its first grid.y adapters; `items` checked every length, dtype and device; what is written
    // is borrowed mutably and so apart from everything else.
    unsafe { function(device, "adapter_pack", entry(dtype)?)?.launch(grid_of(&items), &params) }
}

/// Where the adapters of many linears stand for one launch.
pub type PackTable = ItemTable<PeftkAdapterPackItem>;

/// Queues the packing of the adapters of many linears to `dtype` in one launch.
///
/// # Errors
/// As [`adapter_pack`]; for no adapter at all.
pub fn adapter_pack_batched(
    device: &Device,
    dtype: DType,
    linears: &[LinearPack<'_>],
    table: &mut PackTable,
) -> Result<()> {
    let mut list = Vec::new();
    for linear in linears {
        list.extend(items(device, dtype, linear.k, &linear.adapters, linear.joined.as_deref())?);
    }
    if list.is_empty() {
        return Err(Error::shape("adapter_pack", "at least one adapter", 0));
    }
    let grid = grid_of(&list);
    let mut params = <PeftkAdapterPackParams as bytemuck::Zeroable>::zeroed();
    params.items = table.hold(device, list)?;
    // SAFETY: the table has grid.y adapters, and is written in stream order before the launch; the rest as in `adapter_pack`.
    unsafe { function(device, "adapter_pack", entry(dtype)?)?.launch(grid, &params) }
}

fn entry(dtype: DType) -> Result<&'static str> {
    match dtype {
        DType::F32 => Ok("adapter_pack_f32"),
        DType::Bf16 => Ok("adapter_pack_bf16"),
        other => Err(Error::shape("adapter_pack's outputs", "f32 or bf16", other)),
    }
}

/// The kernel strides over the elements of an adapter: more blocks than this would not make it faster.
fn grid_of(items: &[PeftkAdapterPackItem]) -> Grid {
    let most = items.iter().map(|item| item.rank_padded as usize * (item.k + item.rows) as usize).max().unwrap_or(0);
    let blocks = most.div_ceil(THREADS as usize).min(1024) as u32;
    Grid { blocks: (blocks, items.len() as u32, 1), threads: THREADS, shared_bytes: 0 }
}

/// What the kernel reads of one linear's adapters, checked.
fn items(
    device: &Device,
    dtype: DType,
    k: usize,
    adapters: &[AdapterPack<'_>],
    joined: Option<&Buf>,
) -> Result<Vec<PeftkAdapterPackItem>> {
    let op = "adapter_pack";
    if adapters.is_empty() || adapters.len() > MOST_ADAPTERS {
        return Err(Error::shape("adapter_pack", format!("1 to {MOST_ADAPTERS} adapters"), adapters.len()));
    }
    let (mut items, mut ranks) = (Vec::with_capacity(adapters.len()), 0);
    for adapter in adapters {
        let AdapterPack { rows, rank, .. } = *adapter;
        let padded = padded_rank(rank);
        length(op, "A", adapter.a, device, DType::F32, rank * k)?;
        length(op, "B", adapter.b, device, DType::F32, rows * rank)?;
        if let Some(gain) = adapter.gain {
            length(op, "gain", gain, device, DType::F32, rows)?;
        }
        let output = |name, buf: &Option<&mut Buf>, needed| match buf {
            Some(buf) => length(op, name, buf, device, dtype, needed).map(|()| buf.address()),
            None => Ok(0),
        };
        items.push(PeftkAdapterPackItem {
            a: adapter.a.address(),
            b: adapter.b.address(),
            gain: adapter.gain.map_or(0, Buf::address),
            a_packed: output("packed A", &adapter.a_packed, padded * k)?,
            a_joined: joined.map_or(0, |buf| buf.address() + (ranks * k * dtype.bytes()) as u64),
            b_packed: output("packed B", &adapter.b_packed, rows * padded)?,
            bg_packed: output("packed s g B", &adapter.bg_packed, rows * padded)?,
            scale: adapter.scale,
            rows: dimension(op, "rows", rows)?,
            k: dimension(op, "k", k)?,
            rank: dimension(op, "rank", rank)?,
            rank_padded: dimension(op, "padded rank", padded)?,
            padding: 0,
        });
        ranks += padded;
    }
    if let Some(joined) = joined {
        length(op, "joined A", joined, device, dtype, ranks * k)?;
    }
    Ok(items)
}

/// A gain on rows `first_row .. first_row + rows` of a weight.
#[derive(Clone, Copy, Debug)]
pub struct RowGain<'a> {
    /// First row.
    pub first_row: usize,
    /// Rows.
    pub rows: usize,
    /// g `[rows]`, f32.
    pub gain: &'a Buf,
}

/// One weight that is rescaled: `out_j = g_j w_j` on the rows under a gain, `w_j` on the others. `w` and `out` are `[n, k]`.
#[derive(Debug)]
pub struct WeightRescale<'a> {
    /// Rows.
    pub n: usize,
    /// Columns.
    pub k: usize,
    /// W.
    pub w: &'a Buf,
    /// At most 3.
    pub gains: Vec<RowGain<'a>>,
    /// g W.
    pub out: &'a mut Buf,
}

/// Where many weights stand for one launch.
pub type RescaleTable = ItemTable<PeftkWeightRescaleItem>;

/// Queues the rescaling of one weight: f32 to f32, f32 to bf16, or bf16 to bf16; one rounding.
///
/// # Errors
/// [`Error::Shape`] for a size of 0, more than 3 gains, rows beyond n, other dtypes, a buffer that is too short.
pub fn weight_rescale(device: &Device, weight: &mut WeightRescale<'_>) -> Result<()> {
    let (entry, item) = (rescale_entry(weight)?, rescale_item(device, weight)?);
    // SAFETY: the entries take a PeftkWeightRescaleParams with `items` 0, so `item`; lengths, dtypes and devices were checked; `out` is
    // borrowed mutably and so none of the inputs.
    unsafe {
        function(device, "adapter_pack", entry)?
            .launch(rescale_grid(item.n, 1), &PeftkWeightRescaleParams { item, items: 0 })
    }
}

/// Queues the rescaling of many weights, all of the same dtypes, in one launch.
///
/// # Errors
/// As [`weight_rescale`]; [`Error::Shape`] for no weight or for weights of several dtypes.
pub fn weight_rescale_batched(
    device: &Device,
    weights: &mut [WeightRescale<'_>],
    table: &mut RescaleTable,
) -> Result<()> {
    let op = "weight_rescale";
    let Some(first) = weights.first() else { return Err(Error::shape(op, "at least one weight", 0)) };
    let entry = rescale_entry(first)?;
    let mut items = Vec::with_capacity(weights.len());
    for weight in weights.iter() {
        if rescale_entry(weight)? != entry {
            return Err(Error::shape(op, "weights of one dtype", weight.w.dtype()));
        }
        items.push(rescale_item(device, weight)?);
    }
    let most = items.iter().map(|item| item.n).max().unwrap_or(1);
    let grid = rescale_grid(most, dimension(op, "weights", items.len())?);
    let mut params = <PeftkWeightRescaleParams as bytemuck::Zeroable>::zeroed();
    params.items = table.hold(device, items)?;
    // SAFETY: the table has grid.y weights, each checked as for one, and is written in stream order before the launch; the outputs are
    // borrowed mutably.
    unsafe { function(device, "adapter_pack", entry)?.launch(grid, &params) }
}

fn rescale_grid(rows: u32, weights: u32) -> Grid {
    Grid { blocks: (rows.div_ceil(THREADS / 32), weights, 1), threads: THREADS, shared_bytes: 0 }
}

fn rescale_entry(weight: &WeightRescale<'_>) -> Result<&'static str> {
    match (weight.w.dtype(), weight.out.dtype()) {
        (DType::F32, DType::F32) => Ok("weight_rescale_f32"),
        (DType::F32, DType::Bf16) => Ok("weight_rescale_f32_bf16"),
        (DType::Bf16, DType::Bf16) => Ok("weight_rescale_bf16"),
        (_, other) => Err(Error::shape("weight_rescale's output", "f32 from f32, or bf16", other)),
    }
}

fn rescale_item(device: &Device, weight: &WeightRescale<'_>) -> Result<PeftkWeightRescaleItem> {
    let op = "weight_rescale";
    let WeightRescale { n, k, w, gains, out } = weight;
    let (n, k) = (*n, *k);
    if gains.len() > MOST_ADAPTERS {
        return Err(Error::shape("weight_rescale", format!("at most {MOST_ADAPTERS} gains"), gains.len()));
    }
    length(op, "W", w, device, w.dtype(), n * k)?;
    length(op, "output", out, device, out.dtype(), n * k)?;
    let (mut gain, mut first_row, mut rows) = ([0; MOST_ADAPTERS], [0; MOST_ADAPTERS], [0; MOST_ADAPTERS]);
    for (i, range) in gains.iter().enumerate() {
        if range.first_row + range.rows > n {
            let found = format!("{} .. {}", range.first_row, range.first_row + range.rows);
            return Err(Error::shape("weight_rescale's rows", format!("within 0 .. {n}"), found));
        }
        length(op, "gain", range.gain, device, DType::F32, range.rows)?;
        gain[i] = range.gain.address();
        rows[i] = dimension(op, "rows", range.rows)?;
        first_row[i] = range.first_row as u32;
    }
    let (n, k) = (dimension(op, "n", n)?, dimension(op, "k", k)?);
    Ok(PeftkWeightRescaleItem { w: w.address(), out: out.address(), gain, first_row, rows, n, k })
}
