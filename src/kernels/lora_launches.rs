//! Which entries of kernels/lora_gradients.cu and lora_gradients_f32.cu a launch of [`super::lora_gradients`] takes, and with what.

use super::params::PeftkLoraGradientsParams;
use crate::gpu::{Arch, DType, Grid};

// As in the kernels.
const THREADS: u32 = 256;
pub(super) const SLICE: u32 = 16;
const BLOCK_COLUMNS: u32 = 384;
const MOST_FUSED_ROWS: u32 = 1536;
const MOST_DORA_ROWS: u32 = 1024;
const STAGES: u32 = 3;
const PROJECT_BYTES: u32 = 76_800;
const F32_COLUMNS: u32 = 64;
const F32_RANKS: u32 = 32;

/// One entry, and its grid.
#[derive(Debug)]
pub(super) struct Launch {
    pub(super) file: &'static str,
    pub(super) entry: &'static str,
    pub(super) grid: Grid,
}

/// Shared memory of the output kernels, in bytes, and what a block may have: 227 KB on Hopper, on every other GPU at least 99 KB.
fn output_bytes(rows: u32) -> u32 {
    let (tokens, warps) = if rows <= BLOCK_COLUMNS { (32, 8) } else { (16, 16) };
    STAGES * tokens * 2 * (rows.next_multiple_of(16) + 8 + SLICE + 8) + warps * SLICE * (tokens + 4) * 4
}
fn most_shared_bytes(arch: Arch) -> u32 {
    match arch {
        Arch::Sm80 => 99 << 10,
        Arch::Sm90a => 227 << 10,
    }
}

/// The most rows of an adapter.
fn most_rows(p: &PeftkLoraGradientsParams) -> u32 {
    p.adapters.iter().take(p.count as usize).map(|adapter| adapter.rows).max().unwrap_or(1)
}

/// Shared memory of the output kernels that make dg too, in bytes.
fn dora_bytes(rows: u32) -> u32 {
    let (padded, warps) = (rows.next_multiple_of(16), if rows <= BLOCK_COLUMNS { 8 } else { 16 });
    STAGES * 16 * 2 * (2 * (padded + 8) + SLICE + 8) + warps * SLICE * 20 * 4 + padded * 4
}

/// The output kernel that makes dg too and its threads, where there is one.
pub(super) fn dora_output(arch: Arch, dtype: DType, p: &PeftkLoraGradientsParams) -> Option<(&'static str, u32)> {
    let rows = most_rows(p);
    if dtype != DType::Bf16 || rows > MOST_DORA_ROWS || dora_bytes(rows) > most_shared_bytes(arch) {
        None
    } else if rows <= BLOCK_COLUMNS {
        Some(("lora_gradients_output_dora_384_bf16", THREADS))
    } else {
        Some(("lora_gradients_output_dora_1024_bf16", 2 * THREADS))
    }
}

/// The launches that make Q and, with `gradients`, dA and dB, which may name the entry that makes dg on the way.
pub(super) fn launches(
    arch: Arch,
    dtype: DType,
    p: &PeftkLoraGradientsParams,
    gradients: Option<Option<(&'static str, u32)>>,
) -> Vec<Launch> {
    let (gradients, dora) = (gradients.is_some(), gradients.flatten());
    let adapters = || p.adapters.iter().take(p.count as usize);
    let rows = most_rows(p);
    let rank = adapters().map(|adapter| adapter.rank).max().unwrap_or(1);
    let padded = adapters().map(|adapter| adapter.rank_padded).max().unwrap_or(SLICE);
    let mut list = Vec::new();
    let mut add = |file, entry, blocks, threads, shared_bytes| {
        list.push(Launch { file, entry, grid: Grid { blocks, threads, shared_bytes } });
    };
    if dtype == DType::F32 {
        let file = "lora_gradients_f32";
        let groups = padded.div_ceil(F32_RANKS);
        add(file, "lora_gradients_project_f32", (p.m.div_ceil(F32_COLUMNS), groups, p.count), THREADS, 0);
        if gradients {
            let blocks = (p.cut.pieces, rows.div_ceil(F32_COLUMNS), p.count * groups);
            add(file, "lora_gradients_outer_output_f32", blocks, THREADS, 0);
            let blocks = (p.cut.pieces, p.k.div_ceil(F32_COLUMNS), p.q_columns.div_ceil(F32_RANKS));
            add(file, "lora_gradients_input_f32", blocks, THREADS, 0);
        }
    } else {
        let file = "lora_gradients";
        let blocks = (p.slices * p.cut.pieces, 1, 1);
        let shared = output_bytes(rows);
        let outer_bytes = |ranks: u32| STAGES * 32 * 2 * (BLOCK_COLUMNS + 8 + ranks + 8);
        if let Some((entry, threads)) = dora {
            add(file, entry, blocks, threads, dora_bytes(rows));
        } else if gradients && rows <= BLOCK_COLUMNS {
            add(file, "lora_gradients_output_384_bf16", blocks, THREADS, shared);
        } else if gradients && rows <= MOST_FUSED_ROWS && shared <= most_shared_bytes(arch) {
            add(file, "lora_gradients_output_1536_bf16", blocks, 2 * THREADS, shared);
        } else {
            add(file, "lora_gradients_project_bf16", blocks, THREADS, PROJECT_BYTES);
            if gradients {
                let blocks = (p.cut.pieces, rows.div_ceil(BLOCK_COLUMNS), p.slices);
                add(file, "lora_gradients_outer_output_bf16", blocks, THREADS, outer_bytes(SLICE));
            }
        }
        if gradients {
            let (slices, entry) = match p.slices {
                1 => (1, "lora_gradients_input_16_bf16"),
                2 | 4 => (2, "lora_gradients_input_32_bf16"),
                _ => (3, "lora_gradients_input_48_bf16"),
            };
            let blocks = (p.cut.pieces, p.k.div_ceil(BLOCK_COLUMNS), p.slices.div_ceil(slices));
            add(file, entry, blocks, THREADS, outer_bytes(slices * SLICE));
        }
    }
    if gradients {
        let most = u64::from(rank) * u64::from(p.k.max(rows));
        add("lora_gradients", "lora_gradients_reduce", (most.div_ceil(32) as u32, 3 * p.count, 1), THREADS, 0);
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_memory_fits() {
        assert_eq!(output_bytes(384), 98_304);
        assert!(output_bytes(384) <= most_shared_bytes(Arch::Sm80));
        assert!(output_bytes(MOST_FUSED_ROWS) <= most_shared_bytes(Arch::Sm90a));
        assert_eq!((dora_bytes(384), dora_bytes(1024)), (89_344, 225_024));
        assert!(dora_bytes(384) <= most_shared_bytes(Arch::Sm80));
        assert!(dora_bytes(MOST_DORA_ROWS) <= most_shared_bytes(Arch::Sm90a));
    }
}
