// One tile of a product in f32 by fused multiply-adds on the ordinary units: true to f32, for any size and stride.
//
// 256 threads, 16 x 16, have kM / 16 x kN / 16 of the tile each. Both operands go through shared memory with their depth
// outermost, [16][kM] and [16][kN], double-buffered: while one is multiplied, the next is on its way through registers. Elements
// are loaded one by one, neighbouring threads along the operand's contiguous side, so nothing has to be aligned.
#pragma once

#include "common/cut.cuh"
#include "common/gemm_columns.cuh"
#include "common/gelu.cuh"

namespace gemm_f32 {

constexpr unsigned kThreads = 256;
constexpr unsigned kTileK = 16;
constexpr unsigned kRankMost = 32;  // rows of A that fit beside a tile

enum class Epilogue {
    kPlain,          // C = v, v = g acc + bias
    kGelu,           // aux = v (where there is one), C = gelu(v)
    kScaleResidual,  // C = residual + gamma v
    kGeluBackward,   // C = v gelu'(aux)
    kPartial,        // C = acc, one part of the depth
};

// One operand's elements on their way to a tile [16][kRows]. kAcross: stored [k, rows], otherwise [rows, k].
template <unsigned kRows, bool kAcross>
struct Loader {
    static constexpr unsigned kEach = kRows * kTileK / kThreads;
    float held[kEach];

    __device__ __forceinline__ void load(
        const float* from, unsigned stride, unsigned row, unsigned row_end, unsigned k, unsigned k_end) {
#pragma unroll
        for (unsigned i = 0; i < kEach; ++i) {
            const unsigned id = threadIdx.x + i * kThreads;
            const unsigned r = row + (kAcross ? id % kRows : id / kTileK), d = k + (kAcross ? id / kRows : id % kTileK);
            const size_t at = kAcross ? static_cast<size_t>(d) * stride + r : static_cast<size_t>(r) * stride + d;
            held[i] = r < row_end && d < k_end ? from[at] : 0.0f;
        }
    }

    __device__ __forceinline__ void store(float (*to)[kRows + 4]) const {
#pragma unroll
        for (unsigned i = 0; i < kEach; ++i) {
            const unsigned id = threadIdx.x + i * kThreads;
            if constexpr (kAcross) to[id / kRows][id % kRows] = held[i];
            else to[id % kTileK][id / kTileK] = held[i];
        }
    }
};

// The place in a tile of this thread's i-th row (with `part` its y) or column (its x): runs of 4, half a tile apart.
template <unsigned kSize>
__device__ __forceinline__ unsigned place_in_tile(unsigned part, unsigned i) {
    if constexpr (kSize == 128) return i / 4 * 64 + part * 4 + i % 4;
    return part * (kSize / 16) + i;
}

// This thread's values of one line of a tile.
template <unsigned kSize>
__device__ __forceinline__ void read_line(float (&to)[kSize / 16], const float* line, unsigned part) {
    if constexpr (kSize == 128) {
        const float4 low = *reinterpret_cast<const float4*>(line + part * 4);
        const float4 high = *reinterpret_cast<const float4*>(line + 64 + part * 4);
        to[0] = low.x, to[1] = low.y, to[2] = low.z, to[3] = low.w;
        to[4] = high.x, to[5] = high.y, to[6] = high.z, to[7] = high.w;
    } else {
#pragma unroll
        for (unsigned i = 0; i < kSize / 16; ++i) to[i] = line[part * (kSize / 16) + i];
    }
}

template <Epilogue kEpilogue>
__device__ __forceinline__ void finish_f32(
    const PeftkGemmParams& p, const ColumnTile& tile, float* c, unsigned row, unsigned column, float value) {
    const size_t at = static_cast<size_t>(row) * p.n + column;
    if constexpr (kEpilogue != Epilogue::kPartial) {
        const bool gained = tile.adapted && tile.adapter.gain != 0;
        const float gain = gained ? reinterpret_cast<const float*>(tile.adapter.gain)[column - tile.adapter.first_row] : 1.0f;
        value = fmaf(gain, value, p.bias != 0 ? reinterpret_cast<const float*>(p.bias)[column] : 0.0f);
    }
    if constexpr (kEpilogue == Epilogue::kGelu) {
        if (p.aux != 0) reinterpret_cast<float*>(p.aux)[at] = value;
        value = gelu(value);
    } else if constexpr (kEpilogue == Epilogue::kScaleResidual) {
        value = fmaf(reinterpret_cast<const float*>(p.gamma)[column], value, reinterpret_cast<const float*>(p.residual)[at]);
    } else if constexpr (kEpilogue == Epilogue::kGeluBackward) {
        value *= gelu_slope(reinterpret_cast<const float*>(p.aux)[at]);
    }
    c[at] = value;
}

// A block's whole work. Grid (column tiles, row tiles, pieces). Adapters (kLora, tiles of 128): as in the bf16 product, t = x A^T
// is accumulated beside the tile, 8 rows by 2 columns a thread, and then (s t) B^T added; or, with t given, only the latter.
template <unsigned kM, unsigned kN, bool kAAcross, bool kBAcross, bool kLora, Epilogue kEpilogue>
__device__ __forceinline__ void product_f32(const PeftkGemmParams& p) {
    constexpr unsigned kRows = kM / 16, kColumns = kN / 16;
    // Two buffers of 16 each; for the adapters' last part one tile of 32.
    __shared__ __align__(16) float a_tile[2 * kTileK][kM + 4];
    __shared__ __align__(16) float b_tile[2 * kTileK][kN + 4];
    __shared__ float rank_tile[kLora ? 2 * kTileK : 1][kRankMost + 4];
    static_assert(!kLora || (kM == 128 && kN == 128), "t is cut into 8 x 2 a thread");

    ColumnTile tile = {};
    if constexpr (kLora) {
        tile = column_tile<kN>(p, blockIdx.x);
    } else {
        tile.first = blockIdx.x * kN;
        tile.end = min(tile.first + kN, p.n);
    }
    const unsigned first_row = blockIdx.y * kM, x = threadIdx.x % 16, y = threadIdx.x / 16;
    const bool rank_in_loop = kLora && tile.adapted && tile.adapter.a != 0;
    unsigned k_begin = 0, k_end = p.k;
    if constexpr (kEpilogue == Epilogue::kPartial) {
        k_begin = cut::first_row(p.cut, blockIdx.z);
        k_end = cut::end_row(p.cut, blockIdx.z);
    }
    const unsigned first_steps = (k_end - k_begin + kTileK - 1) / kTileK;
    const unsigned steps = first_steps + (p.a2 != 0 ? (p.k2 + kTileK - 1) / kTileK : 0);

    Loader<kM, kAAcross> a;
    Loader<kN, kBAcross> b;
    Loader<kRankMost, false> rank;
    const auto load = [&](unsigned step) {
        const bool first = step < first_steps;
        const unsigned k = first ? k_begin + step * kTileK : (step - first_steps) * kTileK, end = first ? k_end : p.k2;
        a.load(reinterpret_cast<const float*>(first ? p.a : p.a2), first ? p.lda : p.k2, first_row, p.m, k, end);
        const unsigned stride = first ? p.ldb : (kBAcross ? p.n : p.k2);
        b.load(reinterpret_cast<const float*>(first ? p.b : p.b2), stride, tile.first, tile.end, k, end);
        if (kLora && rank_in_loop) {
            const auto* from = reinterpret_cast<const float*>(tile.adapter.a);
            rank.load(from, p.k, 0, first ? tile.adapter.rank_padded : 0, k, end);
        }
    };
    const auto store = [&](unsigned buffer) {
        a.store(a_tile + buffer * kTileK);
        b.store(b_tile + buffer * kTileK);
        if (kLora && rank_in_loop) rank.store(rank_tile + (kLora ? buffer * kTileK : 0));
    };

    float sum[kRows][kColumns] = {};
    float t[kRows][2] = {};
    // By 4, a transposed A's loop would spill at 128 registers on Hopper.
    constexpr unsigned kUnroll = kAAcross && kM == 128 ? 8 : 4;
    const auto multiply = [&](unsigned from, unsigned depth, bool with_rank) {
#pragma unroll kUnroll
        for (unsigned d = from; d < from + depth; ++d) {
            float left[kRows], right[kColumns];
            read_line<kM>(left, a_tile[d], y);
            read_line<kN>(right, b_tile[d], x);
#pragma unroll
            for (unsigned i = 0; i < kRows; ++i) {
#pragma unroll
                for (unsigned j = 0; j < kColumns; ++j) sum[i][j] = fmaf(left[i], right[j], sum[i][j]);
            }
            if (kLora && with_rank) {
                const float low = rank_tile[kLora ? d : 0][2 * x], high = rank_tile[kLora ? d : 0][2 * x + 1];
#pragma unroll
                for (unsigned i = 0; i < kRows; ++i) {
                    t[i][0] = fmaf(left[i], low, t[i][0]);
                    t[i][1] = fmaf(left[i], high, t[i][1]);
                }
            }
        }
    };

    if (steps > 0) {
        load(0);
        store(0);
    }
    for (unsigned step = 0; step < steps; ++step) {
        __syncthreads();
        const bool more = step + 1 < steps;
        if (more) load(step + 1);
        multiply(step % 2 * kTileK, kTileK, rank_in_loop);
        if (more) store((step + 1) % 2);
    }

    if constexpr (kLora) {
        const PeftkGemmAdapter& adapter = tile.adapter;
        const unsigned rank_end = tile.adapted ? adapter.rank_padded : 0;
        for (unsigned depth = 0; depth < rank_end; depth += 2 * kTileK) {
            __syncthreads();
            const unsigned row = tile.first - adapter.first_row;
            for (unsigned half = 0; half < 2; ++half) {
                const unsigned k = depth + half * kTileK;
                b.load(reinterpret_cast<const float*>(adapter.b), rank_end, row, row + (tile.end - tile.first), k, rank_end);
                b.store(b_tile + half * kTileK);
                if (!rank_in_loop) {
                    a.load(reinterpret_cast<const float*>(adapter.t), rank_end, first_row, p.m, k, rank_end);
#pragma unroll
                    for (float& value : a.held) value *= adapter.scale;
                    a.store(a_tile + half * kTileK);
                }
            }
            if (rank_in_loop) {
                auto* const global = reinterpret_cast<float*>(adapter.t);
#pragma unroll
                for (unsigned i = 0; i < kRows; ++i) {
                    const unsigned r = place_in_tile<kM>(y, i);
                    const bool write = tile.first_of_adapter && global != nullptr && first_row + r < p.m;
#pragma unroll
                    for (unsigned j = 0; j < 2; ++j) {
                        const unsigned column = 2 * x + j;
                        a_tile[column][r] = adapter.scale * t[i][j];
                        if (write && column < rank_end) global[static_cast<size_t>(first_row + r) * rank_end + column] = t[i][j];
                    }
                }
            }
            __syncthreads();
            multiply(0, min(rank_end - depth, 2 * kTileK), false);
        }
    }

    float* c = reinterpret_cast<float*>(p.c);
    if constexpr (kEpilogue == Epilogue::kPartial) c += static_cast<size_t>(blockIdx.z) * p.m * p.n;
#pragma unroll
    for (unsigned i = 0; i < kRows; ++i) {
        const unsigned row = first_row + place_in_tile<kM>(y, i);
#pragma unroll
        for (unsigned j = 0; j < kColumns; ++j) {
            const unsigned column = tile.first + place_in_tile<kN>(x, j);
            if (row < p.m && column < tile.end) finish_f32<kEpilogue>(p, tile, c, row, column, sum[i][j]);
        }
    }
}

}  // namespace gemm_f32
