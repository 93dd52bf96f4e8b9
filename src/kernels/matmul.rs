//! Launches the matrix products: kernels/matmul_bf16.cu, matmul_f32.cu and, with adapters, lora_matmul_bf16.cu, lora_matmul_f32.cu.
//!
//! One function for all of them, [`matmul`]: the operands' dtype picks bf16 or f32, the epilogue and the adapters the entry; on
//! Hopper `sm90_matmul` takes the shapes that suit it.

mod operands;

use super::check::dimension;
use super::cut::Rows;
use super::function;
use super::params::{PeftkGemmParams, PeftkGemmReduceParams};
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
const SPLIT_UNIT: usize = 256;
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
        /// The pre-activation `[m, n]`, written where it is wanted.
        aux: Option<&'a mut Buf>,
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
    /// How the depth is summed and what becomes of it; tn.
    pub sum: WeightSum<'a>,
}

/// What a weight's gradient C is made of the product over the depth.
#[derive(Clone, Copy, Debug, Default)]
pub struct WeightSum<'a> {
    /// Rows of a granule of the depth, summed on their own ([`super::cut::Rows::granule`]); none: all of them.
    pub granule: Option<usize>,
    /// Whether it is added to what is in C, or written over it.
    pub add: bool,
    /// (rows, columns) of C, which may be fewer than the product's.
    pub size: Option<(usize, usize)>,
    /// A factor.
    pub scale: Option<f32>,
    /// A factor a row, `[rows]` f32.
    pub gain: Option<&'a Buf>,
}

impl<'a> Matmul<'a> {
    /// The product alone of operands without gaps.
    pub fn new(layout: Layout, (m, n, k): (usize, usize, usize), a: &'a Buf, b: &'a Buf) -> Self {
        let a = Operand::dense(a, if layout == Layout::Tn { m } else { k });
        let b = Operand::dense(b, if layout == Layout::Nt { k } else { n });
        let epilogue = Epilogue::Plain;
        Self {
            layout,
            m,
            n,
            k,
            a,
            b,
            second: None,
            bias: None,
            adapters: Vec::new(),
            epilogue,
            sum: WeightSum::default(),
        }
    }

    /// Rows and columns of C.
    fn size(&self) -> (usize, usize) {
        self.sum.size.unwrap_or((self.m, self.n))
    }

    /// Rows of a granule of the depth.
    pub(super) fn granule(&self) -> usize {
        self.sum.granule.unwrap_or(self.k).max(1)
    }

    /// How many granules a pass has where its batch is cut small: what the cut of one is made for.
    pub(super) fn usual_granules(&self) -> usize {
        if self.sum.granule.is_some() { 2 } else { 1 }
    }

    /// Cuts the depth, and takes a workspace for the pieces where they are not C at once.
    pub(super) fn cut(&self, device: &Device, params: &mut PeftkGemmParams, piece: usize) -> Result<Option<Buf>> {
        let WeightSum { add, scale, gain, .. } = self.sum;
        params.cut = Rows { count: self.k, granule: self.granule(), add }.cut("matmul", piece)?;
        if params.cut.pieces == 1 && !add && scale.is_none() && gain.is_none() && self.size() == (self.m, self.n) {
            return Ok(None);
        }
        let workspace = Buf::uninit(device, DType::F32, params.cut.pieces as usize * self.m * self.n)?;
        params.c = workspace.address();
        Ok(Some(workspace))
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

/// Depth of a piece of a weight's gradient whose C has `tiles` tiles: by the sizes alone, never by the GPU. `parts` granules are seen at once, about.
fn piece_depth(tiles: usize, granule: usize, parts: usize) -> usize {
    let wanted = (SPLIT_BLOCKS / tiles / parts).max(1);
    granule.div_ceil(wanted).next_multiple_of(SPLIT_UNIT)
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
    let few = large_tiles < 32 && (args.layout != Layout::Tn || args.granule() < 4096);
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
        let granule = args.granule();
        let tiles = columns as usize * rows as usize;
        let piece = piece_depth(tiles, granule, args.usual_granules());
        parts = args.cut(device, &mut params, piece)?;
    }
    let shared_bytes = match (args.a.buf.dtype(), args.adapters.is_empty()) {
        (DType::F32, _) => 0,
        (_, true) => STAGES * STAGE_BYTES,
        (_, false) => STAGES * (STAGE_BYTES + STAGE_RANK_BYTES),
    };
    let grid = Grid {
        blocks: (columns, rows, if args.layout == Layout::Tn { params.cut.pieces } else { 1 }),
        threads: THREADS,
        shared_bytes,
    };
    // SAFETY: every matmul entry takes a PeftkGemmParams. `check` has compared every buffer's dtype, length and device with what the entry
    // of this layout, dtype and epilogue reads and writes; what is written (c or the workspace, aux, t) is borrowed mutably or owned, so
    // it is none of the operands; the grid covers every tile and part once.
    unsafe { function(device, file, entry)?.launch(grid, &params)? };

    match parts {
        Some(parts) => reduce(device, &args, &params, &parts, c),
        None => Ok(()),
    }
}

/// The pieces of a weight's gradient as C.
pub(super) fn reduce(device: &Device, args: &Matmul<'_>, params: &PeftkGemmParams, parts: &Buf, c: &Buf) -> Result<()> {
    let (rows, cols) = args.size();
    let params = PeftkGemmReduceParams {
        parts: parts.address(),
        c: c.address(),
        gain: args.sum.gain.map_or(0, Buf::address),
        scale: args.sum.scale.unwrap_or(1.0),
        m: params.m,
        n: params.n,
        rows: dimension("matmul", "rows", rows)?,
        cols: dimension("matmul", "columns", cols)?,
        padding: 0,
        cut: params.cut,
    };
    let blocks = u32::try_from((rows * cols).div_ceil(THREADS as usize))
        .map_err(|_| Error::shape("matmul's C", "fewer elements", rows * cols))?;
    let grid = Grid { blocks: (blocks, 1, 1), threads: THREADS, shared_bytes: 0 };
    // SAFETY: the entry takes a PeftkGemmReduceParams, reads a matrix of m n values a piece, which the workspace has, and writes rows cols
    // values to c, whose length was checked. The workspace is freed in stream order, so after this launch.
    unsafe { function(device, "matmul_f32", "matmul_reduce_f32")?.launch(grid, &params) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_follow_from_sizes() {
        for tiles in [1, 2, 9, 27, 36, 264, 5000] {
            for k in [1_usize, 255, 256, 257, 4112, 65_792, 1_000_003] {
                for parts in [1, 2] {
                    let pieces = k.div_ceil(piece_depth(tiles, k, parts));
                    assert!(pieces == 1 || pieces * tiles * parts <= SPLIT_BLOCKS, "{tiles} tiles, k {k}: {pieces}");
                }
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
