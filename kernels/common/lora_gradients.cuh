// What the kernels of the adapters' gradients are made of (lora_gradients.cu): slices of ranks, the pass over dy that gives Q, dB's and dg's
// partial sums, and the outer products that give dA's and, where t and dy are read apart, dB's.
#pragma once

#include "common/cut.cuh"
#include "common/gain_gradient.cuh"
#include "common/lora_tiles.cuh"
#include "common/pdl.cuh"
#include "params.h"

namespace {

using bf16 = __nv_bfloat16;
using namespace lora;

constexpr unsigned kRanks = 16;          // ranks a slice: one mma's rows
constexpr unsigned kBlockColumns = 384;  // columns a block of the input and project kernels: 8 warps of 3 tiles of 16
constexpr unsigned kThreads = 256;
constexpr unsigned kPiece = 256;         // columns a step of the project kernel
constexpr unsigned kProjectStages = 2;

__host__ __device__ constexpr unsigned ceil_to(unsigned n, unsigned unit) { return (n + unit - 1) / unit * unit; }
// Row stride of the warps' shares of Q^T in shared memory, for tiles of `tokens`.
__host__ __device__ constexpr unsigned share_stride(unsigned tokens) { return tokens + 4; }

// Dynamic shared memory, in bytes:
//   output   kStages * tokens * 2 * (ceil_to(rows, 16) + 8 + 24) + warps * 16 * (tokens + 4) * 4; tokens 32, 8 warps up to 384 rows (96
//            KB at most), then 16 tokens, 16 warps (171 KB at most)
//   output, dora   kStages * 16 * 2 * (2 * (ceil_to(rows, 16) + 8) + 24) + warps * 16 * 20 * 4 + ceil_to(rows, 16) * 4; 8 warps up to 384
//            rows (87 KB at most), then 16 warps, up to 1024 rows (220 KB at most)
//   project  2 * 2 * (32 * 264 + 256 * 24) + 8 * 16 * 36 * 4 = 76800
//   input    kStages * 32 * 2 * (392 + ranks + 8), 86016 at most; outer_output: ranks 16

// The adapter and its first rank of slice `slice`, counted over all adapters.
struct Slice {
    unsigned adapter, rank;
};
__device__ __forceinline__ Slice find_slice(const PeftkLoraGradientsParams& p, unsigned slice) {
    unsigned rank = slice * kRanks, adapter = 0;
    while (adapter + 1 < p.count && rank >= p.adapters[adapter].rank_padded) rank -= p.adapters[adapter++].rank_padded;
    return {adapter, rank};
}

// A warp's Q^T [16, kTile tokens] += (s g B)^T dy^T over 16 columns of the tile.
template <unsigned kTile>
__device__ __forceinline__ void project_columns(float (&q)[kTile / 8][4], const uint32_t (&weight)[4], const bf16* tile, unsigned stride,
                                                unsigned lane) {
#pragma unroll
    for (unsigned part = 0; part < kTile / 16; ++part) {
        uint32_t b[4];
        transposed_operand_b(b, tile + part * 16 * stride, stride, lane);
        multiply(q[2 * part], weight, b[0], b[1]);
        multiply(q[2 * part + 1], weight, b[2], b[3]);
    }
}

// acc [16, 16 columns] += factor^T [16, kTile tokens] tile [kTile tokens, 16 columns].
template <unsigned kTile>
__device__ __forceinline__ void outer_columns(float (&acc)[2][4], const uint32_t (&factor)[kTile / 16][4], const bf16* tile,
                                              unsigned stride, unsigned lane) {
#pragma unroll
    for (unsigned part = 0; part < kTile / 16; ++part) {
        uint32_t b[4];
        operand_b(b, tile + part * 16 * stride, stride, lane);
        multiply(acc[0], factor[part], b[0], b[1]);
        multiply(acc[1], factor[part], b[2], b[3]);
    }
}

template <unsigned kTile>
__device__ __forceinline__ void store_share(float* share, const float (&q)[kTile / 8][4], unsigned lane) {
    constexpr unsigned kStride = share_stride(kTile);
    const unsigned rank = lane / 4, token = lane % 4 * 2;
#pragma unroll
    for (unsigned n = 0; n < kTile / 8; ++n) {
        *reinterpret_cast<float2*>(share + rank * kStride + n * 8 + token) = make_float2(q[n][0], q[n][1]);
        *reinterpret_cast<float2*>(share + (rank + 8) * kStride + n * 8 + token) = make_float2(q[n][2], q[n][3]);
    }
}

// Adds the warps' shares in order and writes kTile tokens of one slice of Q.
template <unsigned kTile, unsigned kWarps>
__device__ __forceinline__ void write_q(bf16* q, unsigned ld, const float* shares, unsigned valid) {
    constexpr unsigned kStride = share_stride(kTile);
    if (threadIdx.x >= kTile * kRanks / 2) return;
    const unsigned token = threadIdx.x / 8, rank = threadIdx.x % 8 * 2;
    float low = 0.0f, high = 0.0f;
#pragma unroll
    for (unsigned w = 0; w < kWarps; ++w) {
        low += shares[(w * kRanks + rank) * kStride + token];
        high += shares[(w * kRanks + rank + 1) * kStride + token];
    }
    if (token < valid) *reinterpret_cast<__nv_bfloat162*>(q + size_t(token) * ld + rank) = __floats2bfloat162_rn(low, high);
}

// A warp's [16, 16 columns] of partial sums, rows `ld` apart.
__device__ __forceinline__ void write_partial(float* partial, size_t ld, unsigned column, unsigned cols, const float (&acc)[2][4],
                                              unsigned lane) {
#pragma unroll
    for (unsigned n = 0; n < 2; ++n) {
#pragma unroll
        for (unsigned i = 0; i < 4; ++i) {
            const unsigned c = column + n * 8 + lane % 4 * 2 + i % 2;
            if (c < cols) partial[(lane / 4 + i / 2 * 8) * ld + c] = acc[n][i];
        }
    }
}

// dg's sums of one piece: what the lanes have of each column, and z made anew for columns of small gain. `partial` is shared memory that
// nobody else uses any more.
template <unsigned kThreads, unsigned kTiles>
__device__ __forceinline__ void finish_gain(const PeftkLoraGradientsParams& p, const PeftkLoraAdapter& adapter,
                                            const float (&sums)[kTiles][8], unsigned piece, unsigned first, unsigned tokens,
                                            float (&partial)[kThreads / kWarp][1]) {
    const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const auto* const gain = reinterpret_cast<const float*>(adapter.gain);
    float* const out = reinterpret_cast<float*>(adapter.partial_gain) + size_t(piece) * adapter.rows;
#pragma unroll
    for (unsigned i = 0; i < kTiles; ++i) {
#pragma unroll
        for (unsigned e = 0; e < 8; ++e) {
            const float sum = gain_gradient::token_sum(sums[i][e]);
            const unsigned row = (warp + i * (kThreads / 32)) * 16 + lane / 16 * 8 + e;
            if (lane % 16 == 0 && row < adapter.rows && !gain_gradient::is_small(gain[row])) out[row] = __fdiv_rn(sum, gain[row]);
        }
    }
    bool small = false;
    for (unsigned row = threadIdx.x; row < adapter.rows; row += kThreads) small |= gain_gradient::is_small(gain[row]);
    if (!__syncthreads_or(small)) return;
    for (unsigned row = 0; row < adapter.rows; ++row) {
        if (!gain_gradient::is_small(gain[row])) continue;
        const gain_gradient::Column<bf16> column = {
            reinterpret_cast<const bf16*>(p.x) + size_t(first) * p.k,
            reinterpret_cast<const bf16*>(adapter.w) + size_t(adapter.first_row + row) * adapter.ld_w,
            reinterpret_cast<const bf16*>(adapter.t) + size_t(first) * adapter.rank_padded,
            reinterpret_cast<const bf16*>(adapter.b) + size_t(row) * adapter.rank_padded,
            reinterpret_cast<const bf16*>(p.dy) + size_t(first) * p.ld_dy + adapter.first_row + row,
            p.k,
            adapter.rank_padded,
            p.ld_dy,
            adapter.scale};
        const float sum = gain_gradient::exact_sum<kThreads>(column, tokens, partial);
        if (threadIdx.x == 0) out[row] = sum;
        __syncthreads();
    }
}

// Q and dB's partial sums of one piece and one slice of ranks, with kDora also dg's; a warp owns kTiles tiles of 16 columns of dy, with
// their rows of s g B in registers.
template <unsigned kTile, unsigned kWarps, unsigned kTiles, bool kDora>
__device__ __forceinline__ void output_gradients(const PeftkLoraGradientsParams& p) {
    static_assert(!kDora || kTile == 16);
    extern __shared__ __align__(16) unsigned char memory[];
    constexpr unsigned kShares = kWarps * kRanks * share_stride(kTile);
    const unsigned piece = blockIdx.x / p.slices, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const Slice slice = find_slice(p, blockIdx.x % p.slices);
    const PeftkLoraAdapter& adapter = p.adapters[slice.adapter];
    const unsigned rows = adapter.rows, padded = ceil_to(rows, 16), stride = tile_stride(padded);
    const unsigned first = cut::first_row(p.cut, piece), tokens = cut::end_row(p.cut, piece) - first, tiles = (tokens + kTile - 1) / kTile;
    const bool with_gain = kDora && adapter.y && slice.rank == 0;

    auto* const dy_tiles = reinterpret_cast<bf16*>(memory);
    bf16* const t_tiles = dy_tiles + kStages * kTile * stride;
    auto* const shares = reinterpret_cast<float*>(t_tiles + kStages * kTile * tile_stride(kRanks));
    float* const bias = shares + kShares;                               // kDora: [padded]
    auto* const y_tiles = reinterpret_cast<bf16*>(bias + padded);       // kDora: as dy_tiles
    const bf16* const dy = reinterpret_cast<const bf16*>(p.dy) + size_t(first) * p.ld_dy + adapter.first_row;
    const bf16* const y = reinterpret_cast<const bf16*>(adapter.y) + size_t(first) * p.ld_dy + adapter.first_row;
    const bf16* const t = reinterpret_cast<const bf16*>(adapter.t) + size_t(first) * adapter.rank_padded + slice.rank;
    bf16* const q = reinterpret_cast<bf16*>(p.q) + size_t(first) * p.ld_q + adapter.q_column + slice.rank;
    const bool vectors = in_vectors(dy, p.ld_dy, rows), y_vectors = in_vectors(y, p.ld_dy, rows);

    auto load = [&](unsigned tile) {
        if (tile < tiles) {
            const unsigned stage = tile % kStages, start = tile * kTile;
            load_tile<kWarps * 32>(dy_tiles + stage * kTile * stride, dy + size_t(start) * p.ld_dy, p.ld_dy, kTile, tokens - start,
                                   rows, padded, vectors);
            if (with_gain) {
                load_tile<kWarps * 32>(y_tiles + stage * kTile * stride, y + size_t(start) * p.ld_dy, p.ld_dy, kTile, tokens - start,
                                       rows, padded, y_vectors);
            }
            load_tile<kWarps * 32>(t_tiles + stage * kTile * tile_stride(kRanks), t + size_t(start) * adapter.rank_padded,
                                   adapter.rank_padded, kTile, tokens - start, kRanks, kRanks, true);
        }
        copy_commit();
    };
#pragma unroll
    for (unsigned stage = 0; stage + 1 < kStages; ++stage) load(stage);

    uint32_t weight[kTiles][4];
    float acc[kTiles][2][4] = {};
    float gain_sums[kDora ? kTiles : 1][8] = {};
    const auto* const bg = reinterpret_cast<const unsigned short*>(adapter.bg) + slice.rank;
#pragma unroll
    for (unsigned i = 0; i < kTiles; ++i) {
#pragma unroll
        for (unsigned r = 0; r < 4; ++r) {
            const unsigned rank = lane / 4 + r % 2 * 8, row = (warp + i * kWarps) * 16 + lane % 4 * 2 + r / 2 * 8;
            const uint32_t low = row < rows ? bg[size_t(row) * adapter.rank_padded + rank] : 0;
            const uint32_t high = row + 1 < rows ? bg[size_t(row + 1) * adapter.rank_padded + rank] : 0;
            weight[i][r] = high << 16 | low;
        }
    }
    if (with_gain) {  // read once a tile has come, behind the loop's first barrier
        const auto* const from = reinterpret_cast<const float*>(adapter.bias);
        for (unsigned row = threadIdx.x; row < padded; row += kWarps * 32) {
            bias[row] = from && row < rows ? from[adapter.first_row + row] : 0.0f;
        }
    }

    for (unsigned tile = 0; tile < tiles; ++tile) {
        copy_wait<kStages - 2>();
        __syncthreads();  // this tile is there, and nobody reads the one before, whose place the next load takes
        load(tile + kStages - 1);
        const bf16* const dy_tile = dy_tiles + tile % kStages * kTile * stride;
        const bf16* const t_tile = t_tiles + tile % kStages * kTile * tile_stride(kRanks);
        const bf16* const y_tile = y_tiles + tile % kStages * kTile * stride;
        uint32_t factor[kTile / 16][4];
#pragma unroll
        for (unsigned part = 0; part < kTile / 16; ++part) {
            transposed_operand_a(factor[part], t_tile + part * 16 * tile_stride(kRanks), tile_stride(kRanks), lane);
        }
        float share[kTile / 8][4] = {};
#pragma unroll
        for (unsigned i = 0; i < kTiles; ++i) {
            const unsigned column = (warp + i * kWarps) * 16;
            if (column < padded) {
                project_columns<kTile>(share, weight[i], dy_tile + column, stride, lane);
                outer_columns<kTile>(acc[i], factor, dy_tile + column, stride, lane);
                if constexpr (kDora) {
                    if (with_gain) gain_gradient::add_tile(gain_sums[i], dy_tile + column, y_tile + column, bias + column, stride, lane);
                }
            }
        }
        store_share<kTile>(shares + warp * kRanks * share_stride(kTile), share, lane);
        __syncthreads();
        write_q<kTile, kWarps>(q + size_t(tile) * kTile * p.ld_q, p.ld_q, shares, tokens - tile * kTile);
    }
    copy_wait<0>();

    float* const partial =
        reinterpret_cast<float*>(adapter.partial_b) + (size_t(piece) * adapter.rank_padded + slice.rank) * rows;
#pragma unroll
    for (unsigned i = 0; i < kTiles; ++i) write_partial(partial, rows, (warp + i * kWarps) * 16, rows, acc[i], lane);
    if constexpr (kDora) {
        // The shares of Q are read up to write_q; finish_gain writes over them behind a barrier.
        auto& partial_sums = *reinterpret_cast<float(*)[kWarps][1]>(shares);
        if (with_gain) finish_gain<kWarps * 32>(p, adapter, gain_sums, piece, first, tokens, partial_sums);
    }
}

// Partial sums of factor^T input, kSlices * 16 ranks by kBlockColumns columns, over one piece. The pointers are at its first token.
template <unsigned kSlices>
__device__ __forceinline__ void outer_products(const bf16* factor, unsigned ld_factor, unsigned ranks, const bf16* input,
                                               unsigned ld_input, unsigned cols, unsigned tokens, float* partial) {
    constexpr unsigned kTiles = kBlockColumns / 128, kStride = tile_stride(kBlockColumns), kFactorStride = tile_stride(kSlices * kRanks);
    extern __shared__ __align__(16) unsigned char memory[];
    auto* const tiles_of_input = reinterpret_cast<bf16*>(memory);
    bf16* const tiles_of_factor = tiles_of_input + kStages * kTokens * kStride;
    const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32, tiles = (tokens + kTokens - 1) / kTokens;
    const unsigned start_column = blockIdx.y * kBlockColumns, width = min(kBlockColumns, cols - start_column);
    const bool vectors = in_vectors(input, ld_input, cols), factor_vectors = in_vectors(factor, ld_factor, ranks);

    auto load = [&](unsigned tile) {
        if (tile < tiles) {
            const unsigned stage = tile % kStages, start = tile * kTokens;
            load_tile<kThreads>(tiles_of_input + stage * kTokens * kStride, input + size_t(start) * ld_input + start_column, ld_input,
                                kTokens, tokens - start, width, kBlockColumns, vectors);
            load_tile<kThreads>(tiles_of_factor + stage * kTokens * kFactorStride, factor + size_t(start) * ld_factor, ld_factor,
                                kTokens, tokens - start, ranks, kSlices * kRanks, factor_vectors);
        }
        copy_commit();
    };
#pragma unroll
    for (unsigned stage = 0; stage + 1 < kStages; ++stage) load(stage);

    float acc[kSlices][kTiles][2][4] = {};
    for (unsigned tile = 0; tile < tiles; ++tile) {
        copy_wait<kStages - 2>();
        __syncthreads();
        load(tile + kStages - 1);
        const bf16* const input_tile = tiles_of_input + tile % kStages * kTokens * kStride;
        const bf16* const factor_tile = tiles_of_factor + tile % kStages * kTokens * kFactorStride;
#pragma unroll
        for (unsigned s = 0; s < kSlices; ++s) {
            uint32_t a[2][4];
            transposed_operand_a(a[0], factor_tile + s * kRanks, kFactorStride, lane);
            transposed_operand_a(a[1], factor_tile + s * kRanks + 16 * kFactorStride, kFactorStride, lane);
#pragma unroll
            for (unsigned i = 0; i < kTiles; ++i) outer_columns<kTokens>(acc[s][i], a, input_tile + (warp + i * 8) * 16, kStride, lane);
        }
    }
    copy_wait<0>();
#pragma unroll
    for (unsigned s = 0; s < kSlices; ++s) {
        if (s * kRanks >= ranks) continue;
#pragma unroll
        for (unsigned i = 0; i < kTiles; ++i) {
            write_partial(partial + size_t(s) * kRanks * cols, cols, start_column + (warp + i * 8) * 16, cols, acc[s][i], lane);
        }
    }
}

// dA's partial sums: Q^T x for kSlices slices of the piece's Q.
template <unsigned kSlices>
__device__ __forceinline__ void input_gradients(const PeftkLoraGradientsParams& p) {
    const unsigned piece = blockIdx.x, first = cut::first_row(p.cut, piece), column = blockIdx.z * kSlices * kRanks;
    outer_products<kSlices>(reinterpret_cast<const bf16*>(p.q) + size_t(first) * p.ld_q + p.q_first + column, p.ld_q,
                            min(kSlices * kRanks, p.q_columns - column), reinterpret_cast<const bf16*>(p.x) + size_t(first) * p.k, p.k,
                            p.k, cut::end_row(p.cut, piece) - first,
                            reinterpret_cast<float*>(p.partial_a) + (size_t(piece) * p.q_columns + column) * p.k);
}

}  // namespace
