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
const PIECE_ROWS: u32 = 16;
const PIECE_BYTES: u32 = PIECE_ROWS * 128;
const RESIDENT_DEPTH: u32 = 384;
/// Places of C and of what lies beside it in `PeftkSm90GemmParams::maps`.
const MAP_C: usize = 8;
const MAP_BESIDE: usize = 9;

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
    /// Whether B's tile is kept for all of the depth, up to [`RESIDENT_DEPTH`].
    resident: bool,
}

impl Shape {
    fn shared_bytes(self) -> u32 {
        let block = (self.columns + self.rank) * TILE_DEPTH * 2;
        let stage = TILE_ROWS * TILE_DEPTH * 2 + if self.resident { 0 } else { block };
        let blocks = if self.resident { RESIDENT_DEPTH / TILE_DEPTH } else { 0 };
        let slots = if self.resident { 2 } else { 4 };
        let buffers = if self.rank == 16 && !self.resident { 2 } else { 1 };
        let adapter_b = self.columns * self.rank * 2;
        let barriers = 16 * (self.stages + buffers) + WARPS * 8 * slots + 8 * blocks;
        let vectors = match (self.resident, self.rank) {
            (false, _) => 0,
            (true, 0) => 2,
            (true, _) => 3,
        };
        let pieces = WARPS * slots * PIECE_BYTES;
        1024 + self.stages * stage
            + blocks * block
            + buffers * adapter_b
            + pieces
            + barriers
            + vectors * self.columns * 4
    }

    /// Tiles across C.
    fn across(self, params: &PeftkGemmParams) -> u32 {
        params.n.div_ceil(self.columns)
    }

    /// Tiles of C.
    fn tiles(self, params: &PeftkGemmParams) -> u32 {
        params.m.div_ceil(TILE_ROWS) * self.across(params)
    }
}

const PLAIN: Shape = Shape { columns: 192, stages: 4, rank: 0, resident: false };
const PLAIN_RESIDENT: Shape = Shape { columns: 128, stages: 6, rank: 0, resident: true };
/// Narrow tiles, and adapters whose t is given.
const NARROW: Shape = Shape { columns: 128, stages: 5, rank: 0, resident: false };
/// Adapters in the loop, `rank` aside.
const ADAPTED: Shape = Shape { stages: 4, ..NARROW };
const ADAPTED_RESIDENT: Shape = Shape { rank: 16, resident: true, ..NARROW };

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
        && [params.a, params.b, params.c, params.aux, params.residual].iter().all(|address| address.is_multiple_of(16));
    // A granule's last products end where a wgmma does, or at the end of all.
    let depth_fits = args.layout != Layout::Tn || args.granule() == args.k || args.granule().is_multiple_of(STEP);
    if device.arch() != Arch::Sm90a || args.a.buf.dtype() != DType::Bf16 || !rows_fit || !depth_fits {
        return None;
    }
    let adapters = adapters(args, ADAPTED.columns as usize)?;
    let stream_f32 =
        matches!(&args.epilogue, Epilogue::ScaleResidual { residual, .. } if residual.dtype() == DType::F32);
    let narrow = Shape { rank: 16, ..ADAPTED };
    let wide = Shape { rank: 32, ..ADAPTED };
    // Tiles of the usual width that would leave a third of the GPU empty are cut narrower, if they still are one to a multiprocessor.
    let scarce =
        PLAIN.tiles(params) * 3 <= device.multiprocessors() * 2 && NARROW.tiles(params) <= device.multiprocessors();
    // Where a tile's B fits, it stays.
    let keeps = args.second.is_none()
        && params.k <= RESIDENT_DEPTH
        && ADAPTED_RESIDENT.across(params) <= device.multiprocessors();
    Some(match (args.layout, adapters, &args.epilogue) {
        (Layout::Tn, _, Epilogue::Plain) => ("matmul_tn_f32", PLAIN),
        (Layout::Nn, _, Epilogue::Plain) if scarce => ("matmul_nn_bf16_narrow", NARROW),
        (Layout::Nn, _, Epilogue::Plain) => ("matmul_nn_bf16", PLAIN),
        (Layout::Nn, _, Epilogue::GeluBackward { .. }) => ("matmul_nn_bf16_gelu_backward", PLAIN),
        (Layout::Nt, Adapters::None, Epilogue::Plain) if keeps => ("matmul_nt_bf16_resident", PLAIN_RESIDENT),
        (Layout::Nt, Adapters::None, Epilogue::Gelu { .. }) if keeps => {
            ("matmul_nt_bf16_gelu_resident", PLAIN_RESIDENT)
        }
        (Layout::Nt, Adapters::None, Epilogue::ScaleResidual { .. }) if keeps && stream_f32 => {
            ("matmul_nt_bf16_scale_residual_f32res_resident", PLAIN_RESIDENT)
        }
        (Layout::Nt, Adapters::None, Epilogue::Plain) => ("matmul_nt_bf16", PLAIN),
        (Layout::Nt, Adapters::None, Epilogue::Gelu { .. }) => ("matmul_nt_bf16_gelu", PLAIN),
        (Layout::Nt, Adapters::None, Epilogue::ScaleResidual { .. }) if stream_f32 && scarce => {
            ("matmul_nt_bf16_scale_residual_f32res_narrow", NARROW)
        }
        (Layout::Nt, Adapters::None, Epilogue::ScaleResidual { .. }) if stream_f32 => {
            ("matmul_nt_bf16_scale_residual_f32res", PLAIN)
        }
        (Layout::Nt, Adapters::None, Epilogue::ScaleResidual { .. }) => ("matmul_nt_bf16_scale_residual", PLAIN),
        (Layout::Nt, Adapters::InLoop(16), Epilogue::Plain) if keeps => {
            ("lora_matmul_bf16_r16_resident", ADAPTED_RESIDENT)
        }
        (Layout::Nt, Adapters::InLoop(16), Epilogue::Gelu { .. }) if keeps => {
            ("lora_matmul_bf16_gelu_r16_resident", ADAPTED_RESIDENT)
        }
        (Layout::Nt, Adapters::InLoop(16), Epilogue::ScaleResidual { .. }) if keeps && stream_f32 => {
            ("lora_matmul_bf16_scale_residual_f32res_r16_resident", ADAPTED_RESIDENT)
        }
        (Layout::Nt, Adapters::InLoop(16), Epilogue::Plain) => ("lora_matmul_bf16_r16", narrow),
        (Layout::Nt, Adapters::InLoop(16), Epilogue::Gelu { .. }) => ("lora_matmul_bf16_gelu_r16", narrow),
        (Layout::Nt, Adapters::InLoop(16), Epilogue::ScaleResidual { .. }) if stream_f32 => {
            ("lora_matmul_bf16_scale_residual_f32res_r16", narrow)
        }
        (Layout::Nt, Adapters::InLoop(16), Epilogue::ScaleResidual { .. }) => {
            ("lora_matmul_bf16_scale_residual_r16", narrow)
        }
        (Layout::Nt, Adapters::InLoop(_), Epilogue::Plain) => ("lora_matmul_bf16_r32", wide),
        (Layout::Nt, Adapters::InLoop(_), Epilogue::Gelu { .. }) => ("lora_matmul_bf16_gelu_r32", wide),
        (Layout::Nt, Adapters::InLoop(_), Epilogue::ScaleResidual { .. }) if stream_f32 => {
            ("lora_matmul_bf16_scale_residual_f32res_r32", wide)
        }
        (Layout::Nt, Adapters::InLoop(_), Epilogue::ScaleResidual { .. }) => {
            ("lora_matmul_bf16_scale_residual_r32", wide)
        }
        (Layout::Nt, Adapters::Given, Epilogue::Plain) => ("lora_matmul_bf16_given", NARROW),
        (Layout::Nt, Adapters::Given, Epilogue::Gelu { .. }) => ("lora_matmul_bf16_gelu_given", NARROW),
        (Layout::Nt, Adapters::Given, Epilogue::ScaleResidual { .. }) if stream_f32 => {
            ("lora_matmul_bf16_scale_residual_f32res_given", NARROW)
        }
        (Layout::Nt, Adapters::Given, Epilogue::ScaleResidual { .. }) => {
            ("lora_matmul_bf16_scale_residual_given", NARROW)
        }
        _ => return None,
    })
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
fn maps(device: &Device, args: &Matmul<'_>, params: &PeftkGemmParams, shape: Shape) -> Result<[PeftkTensorMap; 10]> {
    let map_of = |dtype: DType, address: u64, (rows, cols, stride): (u32, u32, u32), (box_rows, box_cols)| {
        let bytes = dtype.bytes() as u32;
        let map = MatrixMap {
            address,
            dtype,
            rows: rows.into(),
            cols: cols.into(),
            row_bytes: u64::from(stride * bytes),
            box_rows,
            box_cols,
            swizzle: box_cols * bytes,
        };
        Ok::<_, crate::Error>(PeftkTensorMap { words: map.encode(device)? })
    };
    let map = |address, size, of_box| map_of(DType::Bf16, address, size, of_box);
    let PeftkGemmParams { m, n, k, k2, lda, ldb, .. } = *params;
    let left = |address: u64, depth: u32, stride: u32| match args.layout {
        Layout::Tn => map(address, (depth, m, stride), (TILE_DEPTH, 64)),
        _ => map(address, (m, depth, stride), (TILE_ROWS, TILE_DEPTH)),
    };
    let right = |address: u64, columns: u32, depth: u32, stride: u32| match args.layout {
        Layout::Nt => map(address, (columns, depth, stride), (shape.columns, TILE_DEPTH)),
        _ => map(address, (depth, columns, stride), (TILE_DEPTH, 64)),
    };
    let mut maps = [<PeftkTensorMap as bytemuck::Zeroable>::zeroed(); 10];
    maps[0] = left(params.a, k, lda)?;
    maps[1] = right(params.b, n, k, ldb)?;
    if args.layout != Layout::Tn {
        let (beside, dtype) = match &args.epilogue {
            Epilogue::Plain => (0, DType::Bf16),
            Epilogue::Gelu { .. } | Epilogue::GeluBackward { .. } => (params.aux, DType::Bf16),
            Epilogue::ScaleResidual { residual, .. } => (params.residual, residual.dtype()),
        };
        let pieces = |address| map_of(dtype, address, (m, n, n), (PIECE_ROWS, 128 / dtype.bytes() as u32));
        maps[MAP_C] = pieces(params.c)?;
        if beside != 0 {
            maps[MAP_BESIDE] = pieces(beside)?;
        }
    }
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
    let mut blocks = tiles.min(device.multiprocessors()).max(1);
    if shape.resident {
        // Every block keeps to one tile across.
        let across = shape.across(&gemm);
        blocks = blocks / across * across;
    }
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
        let adapted = |rank, resident| Shape { rank, resident, ..ADAPTED };
        for shape in [PLAIN, PLAIN_RESIDENT, NARROW, adapted(16, false), adapted(32, false), adapted(16, true)] {
            assert!(shape.shared_bytes() <= 227 * 1024, "{shape:?}");
        }
    }
}
