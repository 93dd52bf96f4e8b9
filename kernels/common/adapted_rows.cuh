// V = W + (s B) A, a few rows a warp in its lanes' registers: what DoRA's norm and merging are made of.
#pragma once

#include <stdint.h>

#include "reduce.cuh"

namespace adapted {

constexpr unsigned kMaxRank = 256;
constexpr unsigned kMostRows = 4;  // of a warp
constexpr unsigned kWarps = 4;     // of a block; each goes its own way
constexpr unsigned kThreads = kWarps * kWarp;

// s B of each warp's rows, transposed, so that one load serves a warp's rows.
struct Shared {
    alignas(16) float b[kWarps][kMaxRank * kMostRows];
};

// kRows rows of a weight with an adapter from row `first` on. Rows past the last one are that one again: no lane leaves early.
template <unsigned kRows>
struct Rows {
    const float* w;
    const float* a;
    const float* b;
    float* shared;  // [rank, kRows]
    unsigned first, rows, cols, rank;
    float scale;

    __device__ __forceinline__ unsigned row(unsigned i) const { return min(first + i, rows - 1); }
};

// kRows rows by kChunks chunks of 32 lanes' kWidth columns each, the first at `start`.
template <unsigned kRows, unsigned kChunks, unsigned kWidth>
struct Tile {
    static constexpr unsigned kColumns = kChunks * kWarp * kWidth;
    float v[kRows][kChunks][kWidth];

    static __device__ __forceinline__ unsigned column(unsigned start, unsigned chunk) {
        return start + (chunk * kWarp + threadIdx.x % kWarp) * kWidth;
    }
};

template <unsigned kWidth>
__device__ __forceinline__ void load(float (&to)[kWidth], const float* from, bool valid) {
    if constexpr (kWidth == 4) {
        const float4 four = valid ? *reinterpret_cast<const float4*>(from) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        to[0] = four.x, to[1] = four.y, to[2] = four.z, to[3] = four.w;
    } else {
        to[0] = valid ? *from : 0.0f;
    }
}

// The tile as W has it, zeros beyond its columns: asked for long before it is needed, so that it is on its way while B is read.
template <unsigned kRows, unsigned kChunks, unsigned kWidth>
__device__ __forceinline__ void load_weight(Tile<kRows, kChunks, kWidth>& tile, const Rows<kRows>& of, unsigned start) {
#pragma unroll
    for (unsigned i = 0; i < kRows; ++i) {
        const float* const from = of.w + size_t(of.row(i)) * of.cols;
#pragma unroll
        for (unsigned chunk = 0; chunk < kChunks; ++chunk) {
            const unsigned c = tile.column(start, chunk);
            load<kWidth>(tile.v[i][chunk], from + c, c < of.cols);
        }
    }
}

// s B of the warp's rows to its part of shared memory.
template <unsigned kRows>
__device__ __forceinline__ void load_b(const Rows<kRows>& of) {
    for (unsigned at = threadIdx.x % kWarp; at < of.rank * kRows; at += kWarp) {
        const unsigned i = at / of.rank, k = at % of.rank;
        of.shared[k * kRows + i] = of.scale * of.b[size_t(of.row(i)) * of.rank + k];
    }
    __syncwarp();
}

// The tile += (s B) A.
template <unsigned kRows, unsigned kChunks, unsigned kWidth>
__device__ __forceinline__ void add_product(Tile<kRows, kChunks, kWidth>& tile, const Rows<kRows>& of, unsigned start) {
    const float* a = of.a;
    constexpr unsigned kUnroll = kChunks > 4 ? 1 : 2;  // many chunks have loads enough on their way
#pragma unroll kUnroll
    for (unsigned k = 0; k < of.rank; ++k, a += of.cols) {
        float factor[kRows];
        if constexpr (kRows == 4) {
            load<4>(factor, of.shared + k * 4, true);
        } else {
#pragma unroll
            for (unsigned i = 0; i < kRows; ++i) factor[i] = of.shared[k * kRows + i];
        }
#pragma unroll
        for (unsigned chunk = 0; chunk < kChunks; ++chunk) {
            const unsigned c = tile.column(start, chunk);
            float value[kWidth];
            load<kWidth>(value, a + c, c < of.cols);
#pragma unroll
            for (unsigned i = 0; i < kRows; ++i) {
#pragma unroll
                for (unsigned x = 0; x < kWidth; ++x) tile.v[i][chunk][x] = fmaf(factor[i], value[x], tile.v[i][chunk][x]);
            }
        }
    }
}

template <unsigned kRows, unsigned kChunks, unsigned kWidth>
__device__ __forceinline__ void add_squares(float (&squares)[kRows], const Tile<kRows, kChunks, kWidth>& tile) {
#pragma unroll
    for (unsigned i = 0; i < kRows; ++i) {
#pragma unroll
        for (unsigned chunk = 0; chunk < kChunks; ++chunk) {
#pragma unroll
            for (unsigned x = 0; x < kWidth; ++x) squares[i] = fmaf(tile.v[i][chunk][x], tile.v[i][chunk][x], squares[i]);
        }
    }
}

// The norms of the rows, in every lane. A lane has the same columns in the same order whatever kChunks: the same bits.
template <unsigned kRows>
__device__ __forceinline__ void norms_of(float (&squares)[kRows]) {
#pragma unroll
    for (unsigned i = 0; i < kRows; ++i) squares[i] = __fsqrt_rn(__shfl_sync(0xffffffffu, warp_sum(squares[i]), 0));
}

// Whether rows of `cols` values can be read 4 at a time.
__device__ __forceinline__ bool in_fours(uint64_t addresses, unsigned cols) { return addresses % 16 == 0 && cols % 4 == 0; }

// Which of `count` items this block belongs to: the last that begins at it or before it.
template <class Item>
__device__ __forceinline__ unsigned find_item(const Item* items, unsigned count) {
    unsigned low = 0, high = count;
    while (high - low > 1) {
        const unsigned middle = (low + high) / 2;
        if (items[middle].first_block <= blockIdx.x) low = middle;
        else high = middle;
    }
    return low;
}

}  // namespace adapted
