//! Launches kernels/sm90_matmul.cu: the matrix products of [`super::matmul`] on Hopper, for the shapes that its copy engine takes.

use super::function;
use super::matmul::{Epilogue, Layout, LoraAdapter, Matmul, RankProduct, reduce};
use super::params::{PeftkGemmParams, PeftkSm90GemmParams, PeftkTensorMap};
use crate::Result;
use crate::gpu::{Arch, Buf, DType, Device, Grid, MatrixMap};

const FILE: &str = "sm90_matmul";

// As in kernels/common/sm90_gemm.cuh.
const THREADS: u32 = 384;
const TILE_ROWS: u32 = 128;
const TILE_DEPTH: u32 = 64;
const WARPS: u32 = 8;

/// Blocks that a weight's gradient is cut for. Sizes alone decide, never the GPU, so that the sums are the same on all.
const SPLIT_BLOCKS: u32 = 132;
const MOST_PIECES: u32 = 64;
/// Depth of one wgmma: where a granule ends inside one, the general kernels have to cut.
const STEP: usize = 16;

/// An entry's tile, as `Shape` in the kernel file.
#[derive(Clone, Copy, Debug)]
struct Shape {
    /// Columns of C.
    columns: u32,
    /// Slots of the ring.
    stages: u32,
    /// Rows of an adapter's A beside B's tile.
    rank: u32,
}

impl Shape {
    fn shared_bytes(self) -> u32 {
        let stage = (TILE_ROWS + self.columns + self.rank) * TILE_DEPTH * 2;
        let corner = 16 * (self.columns * 2 + 16);
        let buffers = if self.rank == 16 { 2 } else { 1 };
        let adapter_b = self.columns * self.rank * 2;
        1024 + self.stages * stage + buffers * adapter_b + WARPS * corner + 16 * (self.stages + buffers)
    }

    /// Tiles of C.
    fn tiles(self, params: &PeftkGemmParams) -> u32 {
        params.m.div_ceil(TILE_ROWS) * params.n.div_ceil(self.columns)
    }
}

const PLAIN: Shape = Shape { columns: 192, stages: 4, rank: 0 };
const ADAPTED: Shape = Shape { columns: 128, stages: 5, rank: 0 };

/// How a product's adapters come to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Adapters {
    None,
    /// t made in the loop, for padded ranks up to this.
    InLoop(u32),
    /// t read.
    Given,
}

/// None: adapters that no entry takes.
fn adapters(args: &Matmul<'_>, columns: usize) -> Option<Adapters> {
    // A tile lies in one adapter or in none.
    let whole = |a: &LoraAdapter<'_>| {
        a.first_row.is_multiple_of(columns) && (a.rows.is_multiple_of(columns) || a.first_row + a.rows == args.n)
    };
    let given = args.adapters.iter().filter(|a| matches!(a.t, RankProduct::Given(_))).count();
    let rank = args.adapters.iter().map(|a| a.rank_padded).max();
    match rank {
        None => Some(Adapters::None),
        Some(_) if args.second.is_some() || !args.adapters.iter().all(whole) => None,
        Some(_) if given == args.adapters.len() => Some(Adapters::Given),
        Some(rank) if given == 0 && rank <= 16 => Some(Adapters::InLoop(16)),
        Some(rank) if given == 0 && rank <= 32 => Some(Adapters::InLoop(32)),
        Some(_) => None,
    }
}

/// The entry for a product and its tile; None where the general kernels have to do it.
fn entry(device: &Device, args: &Matmul<'_>, params: &PeftkGemmParams) -> Option<(&'static str, Shape)> {
    // The copy engine reads rows that begin at multiples of 16 bytes; the epilogue moves 8 columns at once.
    let rows_fit = [args.n, args.a.stride, args.b.stride].iter().all(|size| size.is_multiple_of(8))
        && args.second.is_none_or(|second| second.k.is_multiple_of(8))
        && params.a.is_multiple_of(16)
        && params.b.is_multiple_of(16);
    // A granule's last products end where a wgmma does, or at the end of all.
    let depth_fits = args.layout != Layout::Tn || args.granule() == args.k || args.granule().is_multiple_of(STEP);
    if device.arch() != Arch::Sm90a || args.a.buf.dtype() != DType::Bf16 || !rows_fit || !depth_fits {
        return None;
    }
    let adapters = adapters(args, ADAPTED.columns as usize)?;
    let stream_f32 =
        matches!(&args.epilogue, Epilogue::ScaleResidual { residual, .. } if residual.dtype() == DType::F32);
    let name = match (args.layout, adapters, &args.epilogue) {
        (Layout::Tn, _, Epilogue::Plain) => "matmul_tn_f32",
        (Layout::Nn, _, Epilogue::Plain) => "matmul_nn_bf16",
        (Layout::Nn, _, Epilogue::GeluBackward { .. }) => "matmul_nn_bf16_gelu_backward",
        (Layout::Nt, Adapters::None, Epilogue::Plain) => "matmul_nt_bf16",
        (Layout::Nt, Adapters::None, Epilogue::Gelu { .. }) => "matmul_nt_bf16_gelu",
        (Layout::Nt, Adapters::None, Epilogue::ScaleResidual { .. }) if stream_f32 => {
            "matmul_nt_bf16_scale_residual_f32res"
        }
        (Layout::Nt, Adapters::None, Epilogue::ScaleResidual { .. }) => "matmul_nt_bf16_scale_residual",
        (Layout::Nt, Adapters::InLoop(16), Epilogue::Plain) => "lora_matmul_bf16_r16",
        (Layout::Nt, Adapters::InLoop(16), Epilogue::Gelu { .. }) => "lora_matmul_bf16_gelu_r16",
        (Layout::Nt, Adapters::InLoop(16), Epilogue::ScaleResidual { .. }) if stream_f32 => {
            "lora_matmul_bf16_scale_residual_f32res_r16"
        }
        (Layout::Nt, Adapters::InLoop(16), Epilogue::ScaleResidual { .. }) => "lora_matmul_bf16_scale_residual_r16",
        (Layout::Nt, Adapters::InLoop(_), Epilogue::Plain) => "lora_matmul_bf16_r32",
        (Layout::Nt, Adapters::InLoop(_), Epilogue::Gelu { .. }) => "lora_matmul_bf16_gelu_r32",
        (Layout::Nt, Adapters::InLoop(_), Epilogue::ScaleResidual { .. }) if stream_f32 => {
            "lora_matmul_bf16_scale_residual_f32res_r32"
        }
        (Layout::Nt, Adapters::InLoop(_), Epilogue::ScaleResidual { .. }) => "lora_matmul_bf16_scale_residual_r32",
        (Layout::Nt, Adapters::Given, Epilogue::Plain) => "lora_matmul_bf16_given",
        (Layout::Nt, Adapters::Given, Epilogue::Gelu { .. }) => "lora_matmul_bf16_gelu_given",
        (Layout::Nt, Adapters::Given, Epilogue::ScaleResidual { .. }) if stream_f32 => {
            "lora_matmul_bf16_scale_residual_f32res_given"
        }
        (Layout::Nt, Adapters::Given, Epilogue::ScaleResidual { .. }) => "lora_matmul_bf16_scale_residual_given",
        _ => return None,
    };
    let shape = match adapters {
        Adapters::None => PLAIN,
        Adapters::Given => ADAPTED,
        Adapters::InLoop(rank) => Shape { rank, ..ADAPTED },
    };
    Some((name, shape))
}

/// Depth of a piece of a weight's gradient of `tiles` tiles, where `parts` granules are seen at once: where rounds of blocks, their ends and the
/// pieces' traffic cost least.
fn piece_depth(tiles: u32, shape: Shape, params: &PeftkGemmParams, granule: u32, parts: u32) -> u32 {
    let blocks = granule.div_ceil(TILE_DEPTH);
    let c = u64::from(params.m) * u64::from(params.n);
    let cost = |pieces: u32| {
        let rounds = u64::from((tiles * pieces * parts).div_ceil(SPLIT_BLOCKS));
        // Cycles: 64 of K at about 0.8 of wgmma's rate, 1500 for a tile's end, 8 bytes of traffic for an element of a piece.
        let each = u64::from(blocks.div_ceil(pieces));
        rounds * (each * u64::from(shape.columns) * 5 + 1500) + u64::from(pieces * parts) * c * 8 / 1500
    };
    let exact = |pieces: &u32| blocks.div_ceil(blocks.div_ceil(*pieces)) == *pieces;
    let pieces = (1..=MOST_PIECES.min(blocks)).filter(exact).min_by_key(|pieces| cost(*pieces)).unwrap_or(1);
    blocks.div_ceil(pieces) * TILE_DEPTH
}

/// The maps of a product's operands, in the order of `PeftkSm90GemmParams::maps`.
fn maps(device: &Device, args: &Matmul<'_>, params: &PeftkGemmParams, shape: Shape) -> Result<[PeftkTensorMap; 8]> {
    let map = |address: u64, (rows, cols, stride): (u32, u32, u32), (box_rows, box_cols): (u32, u32)| {
        let map = MatrixMap {
            address,
            dtype: DType::Bf16,
            rows: rows.into(),
            cols: cols.into(),
            row_bytes: u64::from(stride) * 2,
            box_rows,
            box_cols,
            swizzle: box_cols * 2,
        };
        Ok::<_, crate::Error>(PeftkTensorMap { words: map.encode(device)? })
    };
    let PeftkGemmParams { m, n, k, k2, lda, ldb, .. } = *params;
    let left = |address: u64, depth: u32, stride: u32| match args.layout {
        Layout::Tn => map(address, (depth, m, stride), (TILE_DEPTH, 64)),
        _ => map(address, (m, depth, stride), (TILE_ROWS, TILE_DEPTH)),
    };
    let right = |address: u64, columns: u32, depth: u32, stride: u32| match args.layout {
        Layout::Nt => map(address, (columns, depth, stride), (shape.columns, TILE_DEPTH)),
        _ => map(address, (depth, columns, stride), (TILE_DEPTH, 64)),
    };
    let mut maps = [<PeftkTensorMap as bytemuck::Zeroable>::zeroed(); 8];
    maps[0] = left(params.a, k, lda)?;
    maps[1] = right(params.b, n, k, ldb)?;
    if args.second.is_some() {
        maps[2] = left(params.a2, k2, k2)?;
        maps[3] = right(params.b2, n, k2, if args.layout == Layout::Nt { k2 } else { n })?;
    }
    for (i, adapter) in params.adapters.iter().enumerate().filter(|(_, adapter)| adapter.rank_padded > 0) {
        let rank = adapter.rank_padded;
        (maps[2 + 2 * i], maps[3 + 2 * i]) = if shape.rank == 0 {
            (left(adapter.t, rank, rank)?, right(adapter.b, adapter.rows, rank, rank)?)
        } else {
            (
                map(adapter.a, (rank, k, k), (shape.rank, TILE_DEPTH))?,
                map(adapter.b, (adapter.rows, rank, rank), (shape.columns, shape.rank))?,
            )
        };
    }
    Ok(maps)
}

/// Queues a product whose arguments are checked (`args` against `c`, and as `params`), or says false: then the general kernels have to.
///
/// # Errors
/// As [`super::matmul::matmul`].
pub(super) fn matmul(device: &Device, args: &Matmul<'_>, params: &PeftkGemmParams, c: &mut Buf) -> Result<bool> {
    let Some((name, shape)) = entry(device, args, params) else { return Ok(false) };
    let mut gemm = *params;
    let mut tiles = shape.tiles(&gemm);
    let mut parts = None;
    if args.layout == Layout::Tn {
        let granule = args.granule();
        // At most k, which fits.
        let piece = piece_depth(tiles, shape, &gemm, granule as u32, args.usual_granules() as u32);
        parts = args.cut(device, &mut gemm, piece as usize)?;
        tiles *= gemm.cut.pieces;
    }
    let launch = PeftkSm90GemmParams { maps: maps(device, args, &gemm, shape)?, gemm, reserved: [0; 7] };
    let blocks = tiles.min(device.multiprocessors()).max(1);
    let grid = Grid { blocks: (blocks, 1, 1), threads: THREADS, shared_bytes: shape.shared_bytes() };
    // SAFETY: every entry but the reduction takes a PeftkSm90GemmParams. The caller has compared every buffer's dtype, length and device
    // with what the product reads and writes; what is written (c or the workspace, aux, t) is borrowed mutably or owned, so it is none of
    // the operands, and the maps have the operands' extents. The blocks step through all tiles.
    unsafe { function(device, FILE, name)?.launch(grid, &launch)? };

    if let Some(parts) = parts {
        reduce(device, args, &gemm, &parts, c)?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_whole_tiles() {
        let shape = PLAIN;
        for (m, n) in [(8, 8), (384, 384), (1152, 384), (384, 1536), (3072, 768), (8192, 8192)] {
            for k in [1, 63, 64, 65, 257, 4112, 8224, 65_792, 1_000_003] {
                for parts in [1, 2] {
                    let mut params = <PeftkGemmParams as bytemuck::Zeroable>::zeroed();
                    (params.m, params.n, params.k) = (m, n, k);
                    let piece = piece_depth(shape.tiles(&params), shape, &params, k, parts);
                    assert!(
                        piece.is_multiple_of(TILE_DEPTH) && k.div_ceil(piece) <= MOST_PIECES,
                        "m {m} n {n} k {k}: {piece}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_block_has_the_shared_memory() {
        for shape in [PLAIN, ADAPTED, Shape { rank: 16, ..ADAPTED }, Shape { rank: 32, ..ADAPTED }] {
            assert!(shape.shared_bytes() <= 227 * 1024, "{shape:?}");
        }
    }
}
