//! Launches the matrix products: kernels/matmul_bf16.cu, matmul_f32.cu and, with adapters, lora_matmul_bf16.cu, lora_matmul_f32.cu.
//!
//! One function for all of them, [`matmul`]: the operands' dtype picks bf16 or f32, the epilogue and the adapters the entry; on
//! Hopper `sm90_matmul` takes the shapes that suit it.

mod operands;

use super::check::dimension;
use super::function;
use super::params::PeftkGemmParams;
use super::sm90_matmul;
use crate::gpu::{Buf, DType, Device, Grid};
use crate::{Error, Result};

/// The most adapters in one linear: q, k and v.
pub const MAX_ADAPTERS: usize = 3;
/// The largest padded rank whose t is made in the product's own loop.
pub const MAX_RANK_IN_LOOP: usize = 32;

// As in kernels/common/gemm_bf16.cuh and gemm_f32.cuh.
const THREADS: u32 = 256;
const TILE: u32 = 128;
const SMALL_TILE: u32 = 32;
const STAGES: u32 = 4;
const STAGE_BYTES: u32 = 2 * 128 * 32 * 2;
const STAGE_RANK_BYTES: u32 = 32 * 32 * 2;
/// Blocks along y.
const MOST_ROW_TILES: u32 = 65_535;

/// Tokens by which the depth of a weight's gradient is cut.
const SPLIT_GRANULE: usize = 256;
/// Blocks that a weight's gradient is cut into, about: enough for any GPU, and the same for all so that the sums are the same.
const SPLIT_BLOCKS: usize = 264;

/// Which of the operands lies transposed. C is `[m, n]`, all are row-major.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// C = A B^T, A `[m, k]`, B `[n, k]`: a linear's forward pass, x W^T.
    Nt,
    /// C = A B, A `[m, k]`, B `[k, n]`: its input's gradient, dy W.
    Nn,
    /// C = A^T B, A `[k, m]`, B `[k, n]`: its weight's gradient, dy^T x. C is f32.
    Tn,
}

/// A matrix within a buffer.
#[derive(Clone, Copy, Debug)]
pub struct Operand<'a> {
    /// Where its elements are.
    pub buf: &'a Buf,
    /// Place of its first element.
    pub first: usize,
    /// Elements from one row to the next.
    pub stride: usize,
}

impl<'a> Operand<'a> {
    /// All of a buffer, as rows of `cols` elements without gaps.
    pub fn dense(buf: &'a Buf, cols: usize) -> Self {
        Self { buf, first: 0, stride: cols }
    }

    fn address(&self) -> u64 {
        self.buf.address() + (self.first * self.buf.dtype().bytes()) as u64
    }
}

/// A second product of its own depth that is added in the same accumulators; operands without gaps.
#[derive(Clone, Copy, Debug)]
pub struct Second<'a> {
    /// Its depth k2.
    pub k: usize,
    /// `[m, k2]`.
    pub a: &'a Buf,
    /// As B is stored: nt `[n, k2]`, nn `[k2, n]`.
    pub b: &'a Buf,
}

/// What becomes of v = g (A B + ...) + bias; u is v rounded to the operands' type.
#[derive(Debug)]
pub enum Epilogue<'a> {
    /// C = u.
    Plain,
    /// aux = u, C = gelu(u); nt.
    Gelu {
        /// The pre-activation `[m, n]`, written.
        aux: &'a mut Buf,
    },
    /// C = residual + gamma u; nt.
    ScaleResidual {
        /// `[m, n]`: bf16 or f32, and C is the same.
        residual: &'a Buf,
        /// LayerScale's gamma `[n]`, f32.
        gamma: &'a Buf,
    },
    /// C = u gelu'(aux); nn.
    GeluBackward {
        /// The pre-activation `[m, n]`.
        aux: &'a Buf,
    },
}

/// t = x A^T `[m, rank_padded]` of an adapter.
#[derive(Debug)]
pub enum RankProduct<'a> {
    /// Made in the product's own loop, for a padded rank of 16 or 32.
    InLoop {
        /// A `[rank_padded, k]`, zero beyond the rank.
        a: &'a Buf,
        /// Where t is wanted.
        t: Option<&'a mut Buf>,
    },
    /// There already.
    Given(&'a Buf),
}

/// A low-rank adapter on columns `first_row .. first_row + rows` of C.
#[derive(Debug)]
pub struct LoraAdapter<'a> {
    /// First column of C, which is the first row of W that it changes.
    pub first_row: usize,
    /// Their number.
    pub rows: usize,
    /// The rank rounded up to a multiple of 16.
    pub rank_padded: usize,
    /// s.
    pub scale: f32,
    /// B `[rows, rank_padded]`, zero beyond the rank.
    pub b: &'a Buf,
    /// DoRA's g `[rows]`, f32.
    pub gain: Option<&'a Buf>,
    /// t.
    pub t: RankProduct<'a>,
}

/// A product with everything that is fused into it.
#[derive(Debug)]
pub struct Matmul<'a> {
    /// How the operands lie.
    pub layout: Layout,
    /// Rows of C.
    pub m: usize,
    /// Columns of C.
    pub n: usize,
    /// Depth.
    pub k: usize,
    /// A.
    pub a: Operand<'a>,
    /// B, of A's dtype.
    pub b: Operand<'a>,
    /// A second product; nt and nn.
    pub second: Option<Second<'a>>,
    /// bias `[n]`, f32; nt and nn.
    pub bias: Option<&'a Buf>,
    /// Adapters by `first_row`, apart from each other; nt.
    pub adapters: Vec<LoraAdapter<'a>>,
    /// What follows.
    pub epilogue: Epilogue<'a>,
}

impl<'a> Matmul<'a> {
    /// The product alone of operands without gaps.
    pub fn new(layout: Layout, (m, n, k): (usize, usize, usize), a: &'a Buf, b: &'a Buf) -> Self {
        let a = Operand::dense(a, if layout == Layout::Tn { m } else { k });
        let b = Operand::dense(b, if layout == Layout::Nt { k } else { n });
        let epilogue = Epilogue::Plain;
        Self { layout, m, n, k, a, b, second: None, bias: None, adapters: Vec::new(), epilogue }
    }

    /// Kernel file and entry; the second for a small product.
    fn entry(&self) -> Result<(&'static str, &'static str, Option<&'static str>)> {
        let bf16 = self.a.buf.dtype() == DType::Bf16;
        let stream_f32 =
            matches!(&self.epilogue, Epilogue::ScaleResidual { residual, .. } if residual.dtype() == DType::F32);
        let lora = !self.adapters.is_empty();
        let file = match (bf16, lora) {
            (true, false) => "matmul_bf16",
            (true, true) => "lora_matmul_bf16",
            (false, false) => "matmul_f32",
            (false, true) => "lora_matmul_f32",
        };
        let (entry, small) = match (self.layout, bf16, lora, &self.epilogue) {
            (Layout::Nt, true, false, Epilogue::Plain) => ("matmul_nt_bf16", None),
            (Layout::Nt, true, false, Epilogue::Gelu { .. }) => ("matmul_nt_bf16_gelu", None),
            (Layout::Nt, true, false, Epilogue::ScaleResidual { .. }) if stream_f32 => {
                ("matmul_nt_bf16_scale_residual_f32", None)
            }
            (Layout::Nt, true, false, Epilogue::ScaleResidual { .. }) => ("matmul_nt_bf16_scale_residual", None),
            (Layout::Nt, true, true, Epilogue::Plain) => ("lora_matmul_bf16", None),
            (Layout::Nt, true, true, Epilogue::Gelu { .. }) => ("lora_matmul_bf16_gelu", None),
            (Layout::Nt, true, true, Epilogue::ScaleResidual { .. }) if stream_f32 => {
                ("lora_matmul_bf16_scale_residual_f32", None)
            }
            (Layout::Nt, true, true, Epilogue::ScaleResidual { .. }) => ("lora_matmul_bf16_scale_residual", None),
            (Layout::Nn, true, false, Epilogue::Plain) => ("matmul_nn_bf16", None),
            (Layout::Nn, true, false, Epilogue::GeluBackward { .. }) => ("matmul_nn_bf16_gelu_backward", None),
            (Layout::Tn, true, false, Epilogue::Plain) => ("matmul_tn_bf16", None),
            (Layout::Nt, false, false, Epilogue::Plain) => ("matmul_nt_f32", Some("matmul_nt_f32_small")),
            (Layout::Nt, false, false, Epilogue::Gelu { .. }) => ("matmul_nt_f32_gelu", None),
            (Layout::Nt, false, false, Epilogue::ScaleResidual { .. }) => ("matmul_nt_f32_scale_residual", None),
            (Layout::Nt, false, true, Epilogue::Plain) => ("lora_matmul_f32", None),
            (Layout::Nt, false, true, Epilogue::Gelu { .. }) => ("lora_matmul_f32_gelu", None),
            (Layout::Nt, false, true, Epilogue::ScaleResidual { .. }) => ("lora_matmul_f32_scale_residual", None),
            (Layout::Nn, false, false, Epilogue::Plain) => ("matmul_nn_f32", Some("matmul_nn_f32_small")),
            (Layout::Nn, false, false, Epilogue::GeluBackward { .. }) => ("matmul_nn_f32_gelu_backward", None),
            (Layout::Tn, false, false, Epilogue::Plain) => ("matmul_tn_f32", Some("matmul_tn_f32_small")),
            _ => return Err(Error::Internal(format!("matmul {:?}: no such entry", self.layout))),
        };
        Ok((file, entry, small))
    }
}

/// Tiles along n: with adapters each segment is cut on its own, as in kernels/common/gemm_columns.cuh.
fn column_tiles(params: &PeftkGemmParams, tile: u32) -> u32 {
    let (mut tiles, mut at) = (0, 0);
    for adapter in params.adapters.iter().filter(|adapter| adapter.rank_padded > 0) {
        tiles += (adapter.first_row - at).div_ceil(tile) + adapter.rows.div_ceil(tile);
        at = adapter.first_row + adapter.rows;
    }
    tiles + (params.n - at).div_ceil(tile)
}

/// (splits, depth of one) of a weight's gradient whose C has `tiles` tiles: by the sizes alone, never by the GPU.
fn split_depth(tiles: usize, k: usize) -> (usize, usize) {
    let wanted = (SPLIT_BLOCKS / tiles).max(1);
    let each = k.div_ceil(wanted).next_multiple_of(SPLIT_GRANULE);
    (k.div_ceil(each), each)
}

/// Queues C = A B with everything that is fused into it. `c` is `[m, n]`: of the operands' dtype, for tn f32, and with a residual of the
/// residual's. A weight's gradient takes a workspace of a few times C while it is queued.
///
/// # Errors
/// [`Error::Shape`] for a size of 0 or beyond 32 bits, a dtype or a buffer that does not fit; [`Error::Internal`] for a fusion that no kernel
/// has, [`Error::Input`] when the device's memory is full.
pub fn matmul(device: &Device, args: Matmul<'_>, c: &mut Buf) -> Result<()> {
    for (name, size) in [("m", args.m), ("n", args.n), ("k", args.k)] {
        dimension("matmul", name, size)?;
    }
    args.check(device, c)?;
    let mut params = args.params(c)?;
    if sm90_matmul::matmul(device, &args, &params, c)? {
        return Ok(());
    }
    let (file, large, small) = args.entry()?;

    // Products too small to fill a GPU with large tiles: a classifier's head.
    let large_tiles = u64::from(params.m.div_ceil(TILE)) * u64::from(params.n.div_ceil(TILE));
    let few = large_tiles < 32 && (args.layout != Layout::Tn || args.k < 4096);
    let (entry, tile) = match small {
        Some(small) if few => (small, SMALL_TILE),
        _ => (large, TILE),
    };
    let columns = column_tiles(&params, tile);
    let rows = params.m.div_ceil(tile);
    if rows > MOST_ROW_TILES {
        return Err(Error::shape("matmul m", format!("at most {}", MOST_ROW_TILES * tile), args.m));
    }
    let mut parts = None;
    if args.layout == Layout::Tn {
        let (splits, each) = split_depth(columns as usize * rows as usize, args.k);
        if splits > 1 {
            let workspace = Buf::uninit(device, DType::F32, splits * args.m * args.n)?;
            params.c = workspace.address();
            (params.splits, params.k_per_split) = (splits as u32, each as u32);
            parts = Some(workspace);
        }
    }
    let shared_bytes = match (args.a.buf.dtype(), args.adapters.is_empty()) {
        (DType::F32, _) => 0,
        (_, true) => STAGES * STAGE_BYTES,
        (_, false) => STAGES * (STAGE_BYTES + STAGE_RANK_BYTES),
    };
    let grid = Grid { blocks: (columns, rows, params.splits), threads: THREADS, shared_bytes };
    // SAFETY: every matmul entry takes a PeftkGemmParams. `check` has compared every buffer's dtype, length and device with what the entry
    // of this layout, dtype and epilogue reads and writes; what is written (c or the workspace, aux, t) is borrowed mutably or owned, so
    // it is none of the operands; the grid covers every tile and part once.
    unsafe { function(device, file, entry)?.launch(grid, &params)? };

    if let Some(parts) = parts {
        let blocks = u32::try_from((args.m * args.n).div_ceil(THREADS as usize * 4))
            .map_err(|_| Error::shape("matmul's C", "fewer elements", args.m * args.n))?;
        params.a = parts.address();
        params.c = c.address();
        let grid = Grid { blocks: (blocks, 1, 1), threads: THREADS, shared_bytes: 0 };
        // SAFETY: the entry takes a PeftkGemmParams, reads `splits` matrices of m n values from `a`, which is the workspace, and writes
        // one to c. The workspace is freed in stream order, so after this launch.
        unsafe { function(device, "matmul_f32", "matmul_reduce_f32")?.launch(grid, &params)? };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_the_depth_and_follow_from_sizes() {
        for tiles in [1, 2, 9, 27, 36, 264, 5000] {
            for k in [1, 255, 256, 257, 8224, 65_792, 1_000_003] {
                let (splits, each) = split_depth(tiles, k);
                assert!(
                    splits >= 1 && (splits - 1) * each < k && splits * each >= k,
                    "{tiles} tiles, k {k}: {splits} of {each}"
                );
                assert!(
                    each % SPLIT_GRANULE == 0 && (splits == 1 || splits * tiles <= SPLIT_BLOCKS),
                    "{tiles} tiles, k {k}"
                );
            }
        }
    }

    #[test]
    fn adapters_cut_the_columns() {
        let mut params = <PeftkGemmParams as bytemuck::Zeroable>::zeroed();
        params.n = 1152;
        assert_eq!(column_tiles(&params, 128), 9);
        for (i, first_row) in [(0, 0), (1, 768)] {
            params.adapters[i].first_row = first_row;
            (params.adapters[i].rows, params.adapters[i].rank_padded) = (384, 16);
        }
        assert_eq!(column_tiles(&params, 128), 9);
        params.adapters[1].first_row = 700;
        // 384 = 3 tiles, 316 = 3, 384 = 3, 68 = 1.
        assert_eq!(column_tiles(&params, 128), 10);
    }
}
