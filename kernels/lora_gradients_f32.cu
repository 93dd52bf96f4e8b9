// The gradients of low-rank adapters in f32: kernels/lora_gradients.cu has the maths; its lora_gradients_reduce ends these too.
//
// Shapes    as there, all f32; rank_padded a multiple of 16, any number of slices.
// Numbers   f32 products and sums: tokens of a piece in order, then pieces as common/cut.cuh says.
// Traffic   dy and x once for every 32 ranks, Q and the partial sums twice: this is the exact mode, not the fast one.
// Work      on the FP32 units, from tiles in shared memory.
// Launch    project: grid (ceil(m / 64), ceil(most rank_padded / 32), adapters); input: grid (pieces, ceil(k / 64),
//           ceil(q_columns / 32)); outer_output: grid (pieces, ceil(most rows / 64), adapters * ceil(most rank_padded / 32));
//           256 threads each, no dynamic shared memory.

#include "common/cut.cuh"
#include "common/pdl.cuh"
#include "params.h"

namespace {

constexpr unsigned kThreads = 256;
constexpr unsigned kRanks = 32;    // ranks a block
constexpr unsigned kDepth = 32;    // terms of a sum that are in shared memory at once
constexpr unsigned kColumns = 64;  // columns, or tokens, a block

// out [kRanks, kColumns] = sum over `tokens` of factor^T input: thread (y, x) has ranks y and y + 16 and columns x + 16 i.
__device__ __forceinline__ void outer_products(const float* factor, unsigned ld_factor, unsigned ranks, const float* input,
                                               unsigned ld_input, unsigned cols, unsigned tokens, float* partial) {
    __shared__ float factors[kDepth][kRanks + 1];
    __shared__ float inputs[kDepth][kColumns];
    const unsigned x = threadIdx.x % 16, y = threadIdx.x / 16, start_column = blockIdx.y * kColumns;
    float acc[2][4] = {};
    for (unsigned start = 0; start < tokens; start += kDepth) {
        for (unsigned i = threadIdx.x; i < kDepth * kRanks; i += kThreads) {
            const unsigned token = i / kRanks, rank = i % kRanks;
            factors[token][rank] = start + token < tokens && rank < ranks ? factor[size_t(start + token) * ld_factor + rank] : 0.0f;
        }
        for (unsigned i = threadIdx.x; i < kDepth * kColumns; i += kThreads) {
            const unsigned token = i / kColumns, column = start_column + i % kColumns;
            inputs[token][i % kColumns] =
                start + token < tokens && column < cols ? input[size_t(start + token) * ld_input + column] : 0.0f;
        }
        __syncthreads();
#pragma unroll 8
        for (unsigned token = 0; token < kDepth; ++token) {
            const float low = factors[token][y], high = factors[token][y + 16];
#pragma unroll
            for (unsigned i = 0; i < 4; ++i) {
                const float value = inputs[token][x + 16 * i];
                acc[0][i] = fmaf(low, value, acc[0][i]);
                acc[1][i] = fmaf(high, value, acc[1][i]);
            }
        }
        __syncthreads();
    }
#pragma unroll
    for (unsigned i = 0; i < 4; ++i) {
        const unsigned column = start_column + x + 16 * i;
        if (column >= cols) continue;
        if (y < ranks) partial[size_t(y) * cols + column] = acc[0][i];
        if (y + 16 < ranks) partial[size_t(y + 16) * cols + column] = acc[1][i];
    }
}

}  // namespace

// Q = dy (s g B): thread (y, x) has tokens y + 16 i and ranks x and x + 16.
extern "C" __global__ void __launch_bounds__(kThreads) lora_gradients_project_f32(const __grid_constant__ PeftkLoraGradientsParams p) {
    pdl::start();
    __shared__ float dys[kColumns][kDepth + 1];
    __shared__ float weights[kDepth][kRanks];
    const PeftkLoraAdapter& adapter = p.adapters[blockIdx.z];
    const unsigned x = threadIdx.x % 16, y = threadIdx.x / 16, first = blockIdx.x * kColumns, first_rank = blockIdx.y * kRanks;
    if (first_rank >= adapter.rank_padded) return;
    const unsigned ranks = min(kRanks, adapter.rank_padded - first_rank);
    const float* const dy = reinterpret_cast<const float*>(p.dy) + adapter.first_row;
    const float* const bg = reinterpret_cast<const float*>(adapter.bg) + first_rank;
    float acc[4][2] = {};
    for (unsigned start = 0; start < adapter.rows; start += kDepth) {
        for (unsigned i = threadIdx.x; i < kColumns * kDepth; i += kThreads) {
            const unsigned token = first + i / kDepth, row = start + i % kDepth;
            dys[i / kDepth][i % kDepth] = token < p.m && row < adapter.rows ? dy[size_t(token) * p.ld_dy + row] : 0.0f;
        }
        for (unsigned i = threadIdx.x; i < kDepth * kRanks; i += kThreads) {
            const unsigned row = start + i / kRanks, rank = i % kRanks;
            weights[i / kRanks][rank] = row < adapter.rows && rank < ranks ? bg[size_t(row) * adapter.rank_padded + rank] : 0.0f;
        }
        __syncthreads();
#pragma unroll 8
        for (unsigned row = 0; row < kDepth; ++row) {
            const float low = weights[row][x], high = weights[row][x + 16];
#pragma unroll
            for (unsigned i = 0; i < 4; ++i) {
                const float value = dys[y + 16 * i][row];
                acc[i][0] = fmaf(value, low, acc[i][0]);
                acc[i][1] = fmaf(value, high, acc[i][1]);
            }
        }
        __syncthreads();
    }
    float* const q = reinterpret_cast<float*>(p.q) + adapter.q_column + first_rank;
#pragma unroll
    for (unsigned i = 0; i < 4; ++i) {
        const unsigned token = first + y + 16 * i;
        if (token >= p.m) continue;
        if (x < ranks) q[size_t(token) * p.ld_q + x] = acc[i][0];
        if (x + 16 < ranks) q[size_t(token) * p.ld_q + x + 16] = acc[i][1];
    }
}

// dA's partial sums.
extern "C" __global__ void __launch_bounds__(kThreads) lora_gradients_input_f32(const __grid_constant__ PeftkLoraGradientsParams p) {
    pdl::start();
    const unsigned piece = blockIdx.x, first = cut::first_row(p.cut, piece), column = blockIdx.z * kRanks;
    outer_products(reinterpret_cast<const float*>(p.q) + size_t(first) * p.ld_q + p.q_first + column, p.ld_q,
                   min(kRanks, p.q_columns - column), reinterpret_cast<const float*>(p.x) + size_t(first) * p.k, p.k, p.k,
                   cut::end_row(p.cut, piece) - first,
                   reinterpret_cast<float*>(p.partial_a) + (size_t(piece) * p.q_columns + column) * p.k);
}

// dB's partial sums.
extern "C" __global__ void __launch_bounds__(kThreads)
    lora_gradients_outer_output_f32(const __grid_constant__ PeftkLoraGradientsParams p) {
    pdl::start();
    const unsigned groups = gridDim.z / p.count;
    const PeftkLoraAdapter& adapter = p.adapters[blockIdx.z / groups];
    const unsigned piece = blockIdx.x, first = cut::first_row(p.cut, piece), rank = blockIdx.z % groups * kRanks;
    if (rank >= adapter.rank_padded || blockIdx.y * kColumns >= adapter.rows) return;
    outer_products(reinterpret_cast<const float*>(adapter.t) + size_t(first) * adapter.rank_padded + rank, adapter.rank_padded,
                   min(kRanks, adapter.rank_padded - rank),
                   reinterpret_cast<const float*>(p.dy) + size_t(first) * p.ld_dy + adapter.first_row, p.ld_dy, adapter.rows,
                   cut::end_row(p.cut, piece) - first,
                   reinterpret_cast<float*>(adapter.partial_b) + (size_t(piece) * adapter.rank_padded + rank) * adapter.rows);
}
