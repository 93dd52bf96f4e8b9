// One tile of C from beginning to end: the main loop over one or two products, what adapters add, the epilogue.
//
// An adapter's t = x A^T [128, rank] comes out of the same loop: A's rows (16 or 32) lie in every stage beside the tile of W, and
// each of the 4 warps that share 64 rows makes t for 16 of them. Rounded to bf16, t is written once, by the adapter's first
// tile; (s t) rounded to bf16 is then the left operand of one or two more steps of 16 whose right operand is B. With t given
// (A = 0) only that last part runs, over the whole rank.
#pragma once

#include "common/cut.cuh"
#include "common/gemm_bf16_epilogue.cuh"

namespace gemm_bf16 {

template <bool kLora>
__host__ __device__ constexpr unsigned product_bf16_shared_bytes() {
    return kStages * (2 * kTileBytes + (kLora ? kRankBytes : 0));
}

// The warp's 16 rows of t, accumulated over one stage.
__device__ __forceinline__ void multiply_rank_tile(
    float (&t)[4][4], uint32_t a_tile, unsigned a_lane, uint32_t rank_tile, unsigned rank_lane, bool upper_half) {
#pragma unroll
    for (unsigned step = 0; step < 2; ++step) {
        uint32_t a[4], b[4];
        load_matrices<false>(a, piece_address<false>(a_tile, a_lane, 0, step));
        load_matrices<false>(b, piece_address<false>(rank_tile, rank_lane, 0, step));
        multiply_add(t[0], a, b[0], b[1]);
        multiply_add(t[1], a, b[2], b[3]);
        if (upper_half) {
            load_matrices<false>(b, piece_address<false>(rank_tile, rank_lane, 1, step));
            multiply_add(t[2], a, b[0], b[1]);
            multiply_add(t[3], a, b[2], b[3]);
        }
    }
}

// Rounds the warp's 16 rows of t, writes them if this is the adapter's first tile, and puts s t where a tile of x lay.
__device__ __forceinline__ void place_rank_product(
    const PeftkGemmParams& p, const ColumnTile& tile, const float (&t)[4][4], uint32_t to, unsigned first_row, unsigned row) {
    const unsigned lane = threadIdx.x % 32;
    auto* const global = reinterpret_cast<uint16_t*>(tile.adapter.t);
#pragma unroll
    for (unsigned j = 0; j < 4; ++j) {
        if (j * 8 >= tile.adapter.rank_padded) break;
#pragma unroll
        for (unsigned half = 0; half < 2; ++half) {
            const unsigned r = row + half * 8 + lane / 4;
            const uint32_t pair = pack_bf16(t[j][2 * half], t[j][2 * half + 1]);
            if (tile.first_of_adapter && global != nullptr && first_row + r < p.m) {
                const size_t at = static_cast<size_t>(first_row + r) * tile.adapter.rank_padded + j * 8 + lane % 4 * 2;
                *reinterpret_cast<uint32_t*>(global + at) = pair;
            }
            const uint32_t scaled = pack_bf16(tile.adapter.scale * low_bf16(pair), tile.adapter.scale * high_bf16(pair));
            asm volatile("st.shared.b32 [%0], %1;" ::"r"(to + along_offset(r, j) + lane % 4 * 4), "r"(scaled) : "memory");
        }
    }
}

// 128 x 32 of (s t) from a given t, from column `depth` on.
__device__ __forceinline__ void place_given_rank_product(
    const PeftkGemmParams& p, const PeftkGemmAdapter& adapter, uint32_t to, unsigned first_row, unsigned depth) {
#pragma unroll
    for (unsigned i = 0; i < 2; ++i) {
        const unsigned row = threadIdx.x / 4 + i * 64, chunk = threadIdx.x % 4, column = depth + chunk * 8;
        uint32_t words[4] = {};
        if (first_row + row < p.m && column < adapter.rank_padded) {
            const auto* from = reinterpret_cast<const uint16_t*>(adapter.t) +
                               static_cast<size_t>(first_row + row) * adapter.rank_padded + column;
            const uint4 all = *reinterpret_cast<const uint4*>(from);
            words[0] = all.x, words[1] = all.y, words[2] = all.z, words[3] = all.w;
        }
#pragma unroll
        for (unsigned j = 0; j < 4; ++j) {
            words[j] = pack_bf16(adapter.scale * low_bf16(words[j]), adapter.scale * high_bf16(words[j]));
        }
        asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to + along_offset(row, chunk)), "r"(words[0]),
                     "r"(words[1]), "r"(words[2]), "r"(words[3])
                     : "memory");
    }
}

// A block's whole work. Grid (column tiles, row tiles, pieces).
template <bool kAAcross, bool kBAcross, bool kLora, Epilogue kEpilogue>
__device__ __forceinline__ void product_bf16(const PeftkGemmParams& p) {
    extern __shared__ __align__(128) unsigned char stages[];
    constexpr unsigned kStageBytes = 2 * kTileBytes + (kLora ? kRankBytes : 0);
    const uint32_t shared = shared_address(stages);

    ColumnTile tile = {};
    if constexpr (kLora) {
        tile = column_tile<kTileN>(p, blockIdx.x);
    } else {
        tile.first = blockIdx.x * kTileN;
        tile.end = min(tile.first + kTileN, p.n);
    }
    const unsigned first_row = blockIdx.y * kTileM;
    const unsigned warp = threadIdx.x / 32, warp_row = warp / 4 * 64, warp_column = warp % 4 * 32;
    const bool rank_in_loop = kLora && tile.adapted && tile.adapter.a != 0;

    unsigned k_begin = 0, k_end = p.k;
    if constexpr (kEpilogue == Epilogue::kPartial) {
        k_begin = cut::first_row(p.cut, blockIdx.z);
        k_end = cut::end_row(p.cut, blockIdx.z);
    }
    const unsigned first_steps = (k_end - k_begin + kTileK - 1) / kTileK;
    const unsigned steps = first_steps + (p.a2 != 0 ? (p.k2 + kTileK - 1) / kTileK : 0);

    TileLoader<kAAcross> a_loader;
    TileLoader<kBAcross> b_loader;
    a_loader.begin(p.a, p.lda, first_row, p.m);
    b_loader.begin(p.b, p.ldb, tile.first, tile.end);
    const unsigned rank_granule = rank_in_loop ? copy_granule(tile.adapter.a, p.k) : 16;

    // Called for every step in order.
    const auto load = [&](unsigned step) {
        const uint32_t to = shared + step % kStages * kStageBytes;
        unsigned k = k_begin + step * kTileK, end = k_end;
        if (step >= first_steps) {
            if (step == first_steps) {
                a_loader.begin(p.a2, p.k2, first_row, p.m);
                b_loader.begin(p.b2, kBAcross ? p.n : p.k2, tile.first, tile.end);
            }
            k = (step - first_steps) * kTileK;
            end = p.k2;
        }
        a_loader.load(to, k, end);
        b_loader.load(to + kTileBytes, k, end);
        if (rank_in_loop && threadIdx.x < kRankMost * 4) {
            const unsigned row = threadIdx.x / 4, chunk = threadIdx.x % 4, at = k + chunk * 8;
            const bool here = step < first_steps && row < tile.adapter.rank_padded && at < p.k;
            const auto* from = reinterpret_cast<const uint16_t*>(tile.adapter.a) + static_cast<size_t>(row) * p.k + at;
            copy_chunk(to + 2 * kTileBytes + along_offset(row, chunk), from, here ? min(p.k - at, 8u) : 0, rank_granule);
        }
    };

    const unsigned a_lane = first_operand_offset<kAAcross>(warp_row);
    const unsigned b_lane = second_operand_offset<kBAcross>(warp_column);
    const unsigned rank_row = warp_row + warp % 4 * 16;
    const unsigned t_lane = first_operand_offset<false>(rank_row);
    const unsigned rank_lane = second_operand_offset<false>(0);

    Accumulator sum = {};
    float t[4][4] = {};
#pragma unroll
    for (unsigned step = 0; step < kStages - 1; ++step) {
        if (step < steps) load(step);
        copy_async_commit();
    }
    for (unsigned step = 0; step < steps; ++step) {
        copy_async_wait<kStages - 2>();
        __syncthreads();  // this stage is there for all, and all are done with the one that is overwritten next
        if (step + kStages - 1 < steps) load(step + kStages - 1);
        copy_async_commit();
        const uint32_t from = shared + step % kStages * kStageBytes;
        multiply_tiles<kAAcross, kBAcross>(sum, from, a_lane, from + kTileBytes, b_lane);
        if (kLora && rank_in_loop) {
            multiply_rank_tile(t, from, t_lane, from + 2 * kTileBytes, rank_lane, tile.adapter.rank_padded > 16);
        }
    }

    if constexpr (kLora) {
        if (tile.adapted) {
            const unsigned left_lane = first_operand_offset<false>(warp_row);
            const unsigned right_lane = second_operand_offset<false>(warp_column);
            TileLoader<false> loader;
            const unsigned row = tile.first - tile.adapter.first_row;
            loader.begin(tile.adapter.b, tile.adapter.rank_padded, row, row + (tile.end - tile.first));
            for (unsigned depth = 0; depth < tile.adapter.rank_padded; depth += kTileK) {
                __syncthreads();
                loader.load(shared + kTileBytes, depth, tile.adapter.rank_padded);
                copy_async_commit();
                if (rank_in_loop) {
                    place_rank_product(p, tile, t, shared, first_row, rank_row);
                } else {
                    place_given_rank_product(p, tile.adapter, shared, first_row, depth);
                }
                copy_async_wait<0>();
                __syncthreads();
                const unsigned deep = min(tile.adapter.rank_padded - depth, kTileK) / 16;
                multiply_tiles<false, false>(sum, shared, left_lane, shared + kTileBytes, right_lane, deep);
            }
        }
    }

    if constexpr (kEpilogue == Epilogue::kPartial) {
        float* const c = reinterpret_cast<float*>(p.c) + static_cast<size_t>(blockIdx.z) * p.m * p.n;
        finish_f32(p, c, sum, first_row + warp_row, tile.first + warp_column);
    } else {
        finish_bf16<kEpilogue>(p, tile, sum, first_row + warp_row, tile.first + warp_column);
    }
}

}  // namespace gemm_bf16
