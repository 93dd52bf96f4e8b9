// V = W + scale B A, a few rows by a few columns a thread, in registers: what DoRA's norm and merging are made of.
#pragma once

#include <stdint.h>

namespace adapted {

constexpr unsigned kRows = 8;  // rows of W a block: each value of A is used this often once it is in a register
constexpr unsigned kMaxRank = 256;

// B's rows of a block, transposed, so that two loads of 16 bytes serve all rows.
struct alignas(16) BColumn {
    float row[kRows];
};

// Rows past the last one read that one again: no thread leaves early.
__device__ __forceinline__ unsigned row_of(unsigned first, unsigned i, unsigned rows) { return min(first + i, rows - 1); }

template <unsigned kThreads>
__device__ __forceinline__ void load_b(BColumn* tile, const float* b, unsigned first, unsigned rows, unsigned rank) {
    for (unsigned at = threadIdx.x; at < rank * kRows; at += kThreads) {
        const unsigned i = at / rank, k = at % rank;
        tile[k].row[i] = b[size_t(row_of(first, i, rows)) * rank + k];
    }
    __syncthreads();
}

// Which of `count` items this block belongs to: the one whose blocks, ceil(rows / kRows) from first_block on, hold it. The block is
// synchronised inside.
template <unsigned kThreads, class Item>
__device__ __forceinline__ unsigned find_item(const Item* items, unsigned count) {
    __shared__ unsigned found;
    for (unsigned i = threadIdx.x; i < count; i += kThreads) {
        if (blockIdx.x - items[i].first_block < (items[i].rows + kRows - 1) / kRows) found = i;
    }
    __syncthreads();
    return found;
}

// Asks for this thread's first columns of the block's rows of W, so that they are on their way while B is read.
template <unsigned kWidth>
__device__ __forceinline__ void prefetch(const float* w, unsigned first, unsigned rows, unsigned cols) {
    if (threadIdx.x * kWidth >= cols) return;
#pragma unroll
    for (unsigned i = 0; i < kRows; ++i) {
        asm volatile("prefetch.global.L2 [%0];" ::"l"(w + size_t(row_of(first, i, rows)) * cols + threadIdx.x * kWidth));
    }
}

// Whether rows of `cols` values can be read 4 at a time.
__device__ __forceinline__ bool in_fours(uint64_t addresses, unsigned cols) { return addresses % 16 == 0 && cols % 4 == 0; }

template <unsigned kWidth>
__device__ __forceinline__ void load(float (&to)[kWidth], const float* from) {
    if constexpr (kWidth == 4) {
        const float4 four = *reinterpret_cast<const float4*>(from);
        to[0] = four.x, to[1] = four.y, to[2] = four.z, to[3] = four.w;
    } else {
        to[0] = *from;
    }
}

// v[i][x] = V[row i of the block][c + x].
template <unsigned kWidth>
__device__ __forceinline__ void rows(float (&v)[kRows][kWidth], const float* w, const float* a, const BColumn* b, unsigned first,
                                     unsigned rows, unsigned cols, unsigned rank, float scale, unsigned c) {
    float weight[kRows][kWidth];
#pragma unroll
    for (unsigned i = 0; i < kRows; ++i) load<kWidth>(weight[i], w + size_t(row_of(first, i, rows)) * cols + c);
#pragma unroll
    for (unsigned i = 0; i < kRows; ++i) {
#pragma unroll
        for (unsigned x = 0; x < kWidth; ++x) v[i][x] = 0.0f;
    }
#pragma unroll 2
    for (unsigned k = 0; k < rank; ++k) {
        float value[kWidth];
        load<kWidth>(value, a + size_t(k) * cols + c);
        const BColumn column = b[k];
#pragma unroll
        for (unsigned i = 0; i < kRows; ++i) {
#pragma unroll
            for (unsigned x = 0; x < kWidth; ++x) v[i][x] = fmaf(column.row[i], value[x], v[i][x]);
        }
    }
#pragma unroll
    for (unsigned i = 0; i < kRows; ++i) {
#pragma unroll
        for (unsigned x = 0; x < kWidth; ++x) v[i][x] = fmaf(scale, v[i][x], weight[i][x]);
    }
}

// Adds this thread's squares of V to `squares`.
template <unsigned kThreads, unsigned kWidth>
__device__ __forceinline__ void add_squares(float (&squares)[kRows], const float* w, const float* a, const BColumn* b, unsigned first,
                                            unsigned n, unsigned cols, unsigned rank, float scale) {
    for (unsigned c = threadIdx.x * kWidth; c < cols; c += kThreads * kWidth) {
        float v[kRows][kWidth];
        rows<kWidth>(v, w, a, b, first, n, cols, rank, scale, c);
#pragma unroll
        for (unsigned i = 0; i < kRows; ++i) {
#pragma unroll
            for (unsigned x = 0; x < kWidth; ++x) squares[i] = fmaf(v[i][x], v[i][x], squares[i]);
        }
    }
}

}  // namespace adapted
