//! Launches kernels/attention_bf16.cu, sm90_attention.cu and attention_any.cu: multi-head attention with softmax, and its backward.

use super::check::{dimension, length};
use super::function;
use super::params::{PeftkAttentionBackwardParams, PeftkAttentionForwardParams};
use crate::autograd::AttentionDims;
use crate::gpu::{Arch, Buf, DType, Device, Function, Grid};
use crate::{Error, Result};

/// The widest head the kernels take.
pub const MAX_HEAD_DIM: usize = 128;

/// Blocks of the Hopper backward entry that a multiprocessor holds at once.
const RESIDENT_BLOCKS: u32 = 3;

/// The most tokens of which a head's k and v are kept in shared memory whole, three blocks to an H100's multiprocessor.
const MOST_RESIDENT: u32 = 320;

// As in common/attention_tile.cuh and attention_any.cuh.
const GROUP: u32 = 16;
const GROUP_BYTES: u32 = 4096;
const GROUP_STATS_BYTES: u32 = 128;
const STREAMED_BYTES: u32 = 32_768;
const STREAMED_STATS_BYTES: u32 = 1024;
const ANY_TILE: u32 = 64;
// As in common/attention_sm90_forward.cuh, and what a block may have on Hopper less the 1024 bytes of its barriers.
const SM90_FORWARD_GROUP_BYTES: u32 = 6144;
const SM90_FORWARD_TAIL_BYTES: u32 = 16_896;
const SM90_SHARED_BYTES: u32 = 231_424;

/// One entry and how it is launched.
struct Entry {
    file: &'static str,
    name: &'static str,
    /// Rows that a block of it takes; None: all of an image and head.
    rows: Option<u32>,
    /// Blocks that share those.
    split: u32,
    /// Images times heads that are launched for at once; a block takes those beyond by turns.
    most_heads: u32,
    threads: u32,
    shared_bytes: u32,
}

impl Entry {
    fn load(&self, device: &Device) -> Result<Function> {
        function(device, self.file, self.name)
    }

    /// One row of blocks: image by image, head by head, then the rows.
    fn grid(&self, op: &str, sizes: &Sizes) -> Result<Grid> {
        let blocks = u64::from(sizes.pairs.min(self.most_heads))
            * self.rows.map_or(1, |rows| u64::from(sizes.tokens.div_ceil(rows)));
        let blocks =
            i32::try_from(blocks).map_err(|_| Error::shape(op, format!("at most {} blocks", i32::MAX), blocks))?;
        Ok(Grid {
            blocks: (blocks.unsigned_abs(), self.split, 1),
            threads: self.threads,
            shared_bytes: self.shared_bytes,
        })
    }
}

/// The sizes, checked.
struct Sizes {
    dims: AttentionDims,
    dtype: DType,
    tokens: u32,
    heads: u32,
    head_dim: u32,
    /// Images times heads.
    pairs: u32,
}

impl Sizes {
    fn new(op: &str, dims: AttentionDims, qkv: &Buf) -> Result<Self> {
        if dims.head_dim > MAX_HEAD_DIM {
            return Err(Error::shape(format!("{op} head_dim"), format!("1 to {MAX_HEAD_DIM}"), dims.head_dim));
        }
        let dtype = qkv.dtype();
        if !matches!(dtype, DType::F32 | DType::Bf16) {
            return Err(Error::shape(format!("{op} qkv"), "f32 or bf16", dtype));
        }
        dimension(op, "batch", dims.batch)?;
        let [tokens, heads, head_dim] = [
            dimension(op, "tokens", dims.tokens)?,
            dimension(op, "heads", dims.heads)?,
            dimension(op, "head_dim", dims.head_dim)?,
        ];
        // Row strides are 32 bits in the kernels.
        dimension(op, "3 * heads * head_dim", 3 * dims.heads * dims.head_dim)?;
        let pairs = dimension(op, "batch * heads", dims.batch * dims.heads)?;
        Ok(Self { dims, dtype, tokens, heads, head_dim, pairs })
    }

    fn narrow(&self) -> usize {
        self.dims.batch * self.dims.tokens * self.dims.heads * self.dims.head_dim
    }

    fn rows(&self) -> usize {
        self.dims.batch * self.dims.heads * self.dims.tokens
    }

    fn scales(&self) -> (f32, f32) {
        let scale = 1.0 / f64::from(self.head_dim).sqrt();
        (scale as f32, (scale * std::f64::consts::LOG2_E) as f32)
    }

    fn tensor_cores(&self) -> bool {
        self.dtype == DType::Bf16 && self.head_dim == 64
    }

    fn resident(&self) -> bool {
        self.tensor_cores() && self.tokens <= MOST_RESIDENT
    }

    fn any(&self, f32_name: &'static str, bf16_name: &'static str, tiles: u32) -> Entry {
        let pitch = (self.head_dim.div_ceil(4) | 1) * 4;
        Entry {
            file: "attention_any",
            name: if self.dtype == DType::F32 { f32_name } else { bf16_name },
            rows: Some(ANY_TILE),
            split: 1,
            most_heads: u32::MAX,
            threads: 256,
            shared_bytes: (tiles * ANY_TILE * pitch + ANY_TILE * (ANY_TILE + 4)) * 4,
        }
    }

    /// Whether two blocks an image and head find places at once where one would leave some empty. The results are the same bits.
    fn split(&self, device: &Device, resident_blocks: u32) -> bool {
        2 * u64::from(self.pairs) <= u64::from(resident_blocks) * u64::from(device.multiprocessors())
    }

    /// Of a Hopper forward entry: two heads' k, v and q where they fit, otherwise one's, and room for the sums over a tail of 1 to 16 rows.
    fn sm90_forward_bytes(&self) -> u32 {
        let slot = self.tokens.div_ceil(GROUP) * SM90_FORWARD_GROUP_BYTES;
        let tail =
            if self.tokens > 64 && (1..=GROUP).contains(&(self.tokens % 64)) { SM90_FORWARD_TAIL_BYTES } else { 0 };
        if 2 * slot + tail <= SM90_SHARED_BYTES { 2 * slot + tail } else { slot + tail }
    }

    fn forward_entry(&self, device: &Device) -> Entry {
        let shared_bytes = self.tokens.div_ceil(GROUP) * GROUP_BYTES;
        let file = "attention_bf16";
        if !self.tensor_cores() {
            self.any("attention_forward_f32", "attention_forward_any_bf16", 3)
        } else if !self.resident() {
            let name = "attention_forward_streamed_bf16";
            Entry {
                file,
                name,
                rows: Some(128),
                split: 1,
                most_heads: u32::MAX,
                threads: 256,
                shared_bytes: STREAMED_BYTES,
            }
        } else if device.arch() == Arch::Sm90a {
            let (name, split) = match self.split(device, 1) {
                true => ("sm90_attention_forward_split_bf16", 2),
                false => ("sm90_attention_forward_bf16", 1),
            };
            let (most_heads, shared_bytes) = (device.multiprocessors(), self.sm90_forward_bytes());
            Entry { file: "sm90_attention", name, rows: None, split, most_heads, threads: 416, shared_bytes }
        } else {
            Entry {
                file,
                name: "attention_forward_bf16",
                rows: None,
                split: 1,
                most_heads: u32::MAX,
                threads: 160,
                shared_bytes,
            }
        }
    }

    /// The one that does it all, or the pass over queries and then the one over keys.
    fn backward_entries(&self, device: &Device) -> (Entry, Option<Entry>) {
        let shared_bytes = self.tokens.div_ceil(GROUP) * (GROUP_BYTES + GROUP_STATS_BYTES);
        let file = "attention_bf16";
        if !self.tensor_cores() {
            (
                self.any("attention_backward_queries_f32", "attention_backward_queries_any_bf16", 4),
                Some(self.any("attention_backward_keys_f32", "attention_backward_keys_any_bf16", 4)),
            )
        } else if !self.resident() {
            let pass = |name, shared_bytes| Entry {
                file,
                name,
                rows: Some(96),
                split: 1,
                most_heads: u32::MAX,
                threads: 192,
                shared_bytes,
            };
            (
                pass("attention_backward_queries_bf16", STREAMED_BYTES),
                Some(pass("attention_backward_keys_bf16", STREAMED_BYTES + STREAMED_STATS_BYTES)),
            )
        } else if device.arch() == Arch::Sm90a {
            let (name, split) = match self.split(device, RESIDENT_BLOCKS) {
                true => ("sm90_attention_backward_split_bf16", 2),
                false => ("sm90_attention_backward_bf16", 1),
            };
            (
                Entry {
                    file: "sm90_attention",
                    name,
                    rows: None,
                    split,
                    most_heads: u32::MAX,
                    threads: 128,
                    shared_bytes,
                },
                None,
            )
        } else {
            (
                Entry {
                    file,
                    name: "attention_backward_bf16",
                    rows: None,
                    split: 1,
                    most_heads: u32::MAX,
                    threads: 192,
                    shared_bytes,
                },
                None,
            )
        }
    }
}

/// Queues softmax(q k^T / sqrt head_dim) v: `qkv` `[batch * tokens, 3 * heads * head_dim]` with q, k and v side by side and heads inside
/// each, `out` `[batch * tokens, heads * head_dim]` of qkv's type, `log_sum_exp` `[batch, heads, tokens]` f32: of each row of the
/// scaled scores, natural.
///
/// # Errors
/// [`Error::Shape`] for a size of 0 or beyond 31 bits, a head wider than [`MAX_HEAD_DIM`], a buffer that is too short or of another
/// type than f32 or bf16.
pub fn attention_forward(
    device: &Device,
    dims: AttentionDims,
    qkv: &Buf,
    out: &mut Buf,
    log_sum_exp: &mut Buf,
) -> Result<()> {
    let op = "attention";
    let sizes = Sizes::new(op, dims, qkv)?;
    length(op, "qkv", qkv, device, sizes.dtype, 3 * sizes.narrow())?;
    length(op, "out", out, device, sizes.dtype, sizes.narrow())?;
    length(op, "log_sum_exp", log_sum_exp, device, DType::F32, sizes.rows())?;
    let (scale, exponent_scale) = sizes.scales();
    let params = PeftkAttentionForwardParams {
        qkv: qkv.address(),
        out: out.address(),
        lse: log_sum_exp.address(),
        scale,
        exponent_scale,
        tokens: sizes.tokens,
        heads: sizes.heads,
        head_dim: sizes.head_dim,
        pairs: sizes.pairs,
    };
    let entry = sizes.forward_entry(device);
    let grid = entry.grid(op, &sizes)?;
    // SAFETY: every entry named takes a PeftkAttentionForwardParams; the buffers are on the device and as long as these sizes need,
    // those written are borrowed mutably; the grid covers every row of every image and head, with the shared memory it takes.
    unsafe { entry.load(device)?.launch(grid, &params) }
}

/// Queues dqkv, laid out as `qkv` and written whole, from what [`attention_forward`] read and wrote and from `dout`, laid out as `out`.
///
/// # Errors
/// As [`attention_forward`]; as [`Buf::uninit`] for the workspace, 8 bytes a row and head, that the two-launch forms take.
pub fn attention_backward(
    device: &Device,
    dims: AttentionDims,
    qkv: &Buf,
    out: &Buf,
    log_sum_exp: &Buf,
    dout: &Buf,
    dqkv: &mut Buf,
) -> Result<()> {
    let op = "attention_backward";
    let sizes = Sizes::new(op, dims, qkv)?;
    length(op, "qkv", qkv, device, sizes.dtype, 3 * sizes.narrow())?;
    length(op, "out", out, device, sizes.dtype, sizes.narrow())?;
    length(op, "log_sum_exp", log_sum_exp, device, DType::F32, sizes.rows())?;
    length(op, "dout", dout, device, sizes.dtype, sizes.narrow())?;
    length(op, "dqkv", dqkv, device, sizes.dtype, 3 * sizes.narrow())?;
    let (first, second) = sizes.backward_entries(device);
    let workspace = match second {
        Some(_) => Some(Buf::uninit(device, DType::F32, 2 * sizes.rows())?),
        None => None,
    };
    let (scale, exponent_scale) = sizes.scales();
    let params = PeftkAttentionBackwardParams {
        qkv: qkv.address(),
        out: out.address(),
        lse: log_sum_exp.address(),
        dout: dout.address(),
        dqkv: dqkv.address(),
        workspace: workspace.as_ref().map_or(0, Buf::address),
        scale,
        exponent_scale,
        tokens: sizes.tokens,
        heads: sizes.heads,
        head_dim: sizes.head_dim,
        pairs: sizes.pairs,
    };
    for entry in [Some(first), second].into_iter().flatten() {
        let grid = entry.grid(op, &sizes)?;
        // SAFETY: every entry named takes a PeftkAttentionBackwardParams; the buffers are on the device and as long as these sizes
        // need, dqkv and the workspace are nobody else's; the second pass reads what the first left in the workspace, which is
        // freed in stream order, so after it.
        unsafe { entry.load(device)?.launch(grid, &params)? };
    }
    Ok(())
}
