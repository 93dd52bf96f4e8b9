//! Launches kernels/merge.cu: weights with their adapters in them.

use super::check::length;
use super::dora_norm::{AdapterRows, THREADS, next_block};
use super::function;
use super::params::{PeftkMergeItem, PeftkMergeParams};
use crate::gpu::{Buf, DType, Device, Grid};
use crate::{Error, Result};

const FILE: &str = "merge";
// As in kernels/params/dora.h.
const MOST_ITEMS: usize = 48;

/// Queues W_j <- g_j (W_j + s (B A)_j) on the adapter's rows of `w` `[n, cols]`: `a` `[rank, cols]`, `b` `[rows, rank]`, `gain` `[rows]` or none
/// for g = 1; all f32. The other rows stay.
///
/// # Errors
/// [`Error::Shape`] for a size of 0, a rank above 256 or a buffer that is too short.
pub fn merge(device: &Device, adapter: AdapterRows, w: &mut Buf, a: &Buf, b: &Buf, gain: Option<&Buf>) -> Result<()> {
    let op = "merge";
    let rows = adapter.check(op, device, w, a, b)?;
    if let Some(gain) = gain {
        length(op, "gain", gain, device, DType::F32, adapter.rows)?;
    }
    let mut item = item(adapter, rows, a, b);
    item.gain = gain.map_or(0, Buf::address);
    item.out_f32 = rows;
    launch(device, op, "merge_f32", &[item])
}

fn item(adapter: AdapterRows, w: u64, a: &Buf, b: &Buf) -> PeftkMergeItem {
    PeftkMergeItem {
        w,
        a: a.address(),
        b: b.address(),
        scale: adapter.scale,
        rows: adapter.rows as u32,
        cols: adapter.cols as u32,
        rank: adapter.rank as u32,
        ..<PeftkMergeItem as bytemuck::Zeroable>::zeroed()
    }
}

/// Rows a block, such that a warp's share of up to 1536 columns stays in registers.
fn block_rows(cols: u32) -> u32 {
    match cols {
        ..=384 => 16,
        385..=768 => 8,
        769..=1536 => 4,
        _ => 16,
    }
}

/// Queues items whose buffers were checked, as many as a launch takes at once.
fn launch(device: &Device, op: &str, entry: &'static str, items: &[PeftkMergeItem]) -> Result<()> {
    for items in items.chunks(MOST_ITEMS) {
        let mut params = <PeftkMergeParams as bytemuck::Zeroable>::zeroed();
        let mut blocks = 0;
        for (to, item) in params.items.iter_mut().zip(items) {
            *to = PeftkMergeItem { first_block: blocks, block_rows: block_rows(item.cols), ..*item };
            blocks = next_block(op, blocks, to.rows.div_ceil(to.block_rows))?;
        }
        params.count = items.len() as u32;
        let grid = Grid { blocks: (blocks, 1, 1), threads: THREADS, shared_bytes: 0 };
        // SAFETY: both entries take a PeftkMergeParams whose `count` items have all of the grid's blocks; the caller checked each one's
        // buffers and borrows the outputs mutably. An output may be W: every lane reads an element before it writes it, and no other
        // lane reads that one.
        unsafe { function(device, FILE, entry)?.launch(grid, &params)? };
    }
    Ok(())
}

/// What an adapter's rows are multiplied by, all `[rows]` f32.
#[derive(Clone, Copy, Debug)]
pub enum MergeGain<'a> {
    /// Nothing: LoRA.
    One,
    /// g.
    Given(&'a Buf),
    /// magnitude / || W_j + s (B A)_j ||, made in the same launch.
    Magnitude(&'a Buf),
}

/// One adapter of a weight that is merged.
#[derive(Debug)]
pub struct MergeAdapter<'a> {
    /// Its place and sizes.
    pub rows: AdapterRows,
    /// A `[rank, cols]`, f32.
    pub a: &'a Buf,
    /// B `[rows, rank]`, f32.
    pub b: &'a Buf,
    /// Its gain.
    pub gain: MergeGain<'a>,
}

/// One weight, its adapters, and where the merged rows go: f32, bf16 or both, `[n, cols]`. Rows without an adapter are not written.
#[derive(Debug)]
pub struct MergeWeight<'a> {
    /// W `[n, cols]`, f32.
    pub w: &'a Buf,
    /// Adapters on rows apart from each other.
    pub adapters: Vec<MergeAdapter<'a>>,
    /// In f32.
    pub out_f32: Option<&'a mut Buf>,
    /// In bf16, rounded once.
    pub out_bf16: Option<&'a mut Buf>,
}

/// Queues the merging of many weights: a launch for each 48 adapters that take their gain from the magnitude, and for each 48 others.
///
/// # Errors
/// [`Error::Shape`] for a size of 0, a rank above 256, a buffer that is too short, no adapter.
pub fn merge_batched(device: &Device, weights: &mut [MergeWeight<'_>]) -> Result<()> {
    let op = "merge_batched";
    let (mut plain, mut dora) = (Vec::new(), Vec::new());
    for weight in weights.iter() {
        for adapter in &weight.adapters {
            let AdapterRows { first_row, rows, cols, .. } = adapter.rows;
            let w = adapter.rows.check(op, device, weight.w, adapter.a, adapter.b)?;
            let mut item = item(adapter.rows, w, adapter.a, adapter.b);
            let (start, needed) = (first_row * cols, (first_row + rows) * cols);
            if let Some(out) = &weight.out_f32 {
                length(op, "f32 output", out, device, DType::F32, needed)?;
                item.out_f32 = out.address() + (start * 4) as u64;
            }
            if let Some(out) = &weight.out_bf16 {
                length(op, "bf16 output", out, device, DType::Bf16, needed)?;
                item.out_bf16 = out.address() + (start * 2) as u64;
            }
            match adapter.gain {
                MergeGain::One => plain.push(item),
                MergeGain::Given(gain) => {
                    length(op, "gain", gain, device, DType::F32, rows)?;
                    item.gain = gain.address();
                    plain.push(item);
                }
                MergeGain::Magnitude(magnitude) => {
                    length(op, "magnitude", magnitude, device, DType::F32, rows)?;
                    item.magnitude = magnitude.address();
                    dora.push(item);
                }
            }
        }
    }
    if plain.is_empty() && dora.is_empty() {
        return Err(Error::shape(op, "at least one adapter", 0));
    }
    launch(device, op, "merge_f32", &plain)?;
    launch(device, op, "merge_dora_f32", &dora)
}
