// The gradients of DoRA's row norms. With V = W + s B A and c_j = dn_j / n_j:
//
//     dB = s (c V) A^T   [rows, rank]           dA = s B^T (c V)   [rank, cols]
//
// Shapes    W [rows, cols], A [rank, cols], B [rows, rank], n, dn [rows]; f32, row-major, any size from 1; rank 1 to 256. A row whose
//           norm is 0 takes no gradient.
// Numbers   f32 throughout. A block makes a tile of s c V, 32 rows by 128 columns, in shared memory; its part of dB (128 columns) and of
//           dA (32 rows) goes to memory and is added in order by the second kernel: no atomics, the same bits every time.
// Traffic   W once; A once per 32 rows, from L2; partial sums rank (cols rows / 32 + rows cols / 128) * 4 bytes written and read.
// Work      6 rank FLOP an element of W.
// Launch    partial: grid (ceil(most cols / 128), ceil(most rows / 32), items), block 128; reduce: grid (ceil(most outputs / 256), 1,
//           items), block 256, outputs = rank (rows + cols). No dynamic shared memory.

#include "common/pdl.cuh"
#include "common/reduce.cuh"
#include "params.h"

namespace {

constexpr unsigned kThreads = 128;  // columns of a tile
constexpr unsigned kRows = 32;      // rows of a tile
constexpr unsigned kRanks = 32;     // columns of B in shared memory at once
constexpr unsigned kReduceThreads = 256;

__device__ __forceinline__ const PeftkDoraNormBackwardItem& find_item(const PeftkDoraNormBackwardParams& p) {
    return p.items ? reinterpret_cast<const PeftkDoraNormBackwardItem*>(p.items)[blockIdx.z] : p.item;
}

}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads)
    dora_norm_backward_f32(const __grid_constant__ PeftkDoraNormBackwardParams p) {
    pdl::start();
    __shared__ float tile[kRows][kThreads];
    __shared__ float b_tile[kRows][kRanks];
    __shared__ float factor[kRows];
    const PeftkDoraNormBackwardItem& item = find_item(p);
    const unsigned first = blockIdx.y * kRows, start = blockIdx.x * kThreads, c = start + threadIdx.x;
    if (first >= item.rows || start >= item.cols) return;
    const unsigned rows = min(kRows, item.rows - first), rank = item.rank, cols = item.cols;
    const auto* const w = reinterpret_cast<const float*>(item.w) + size_t(first) * cols;
    const auto* const a = reinterpret_cast<const float*>(item.a);
    const auto* const b = reinterpret_cast<const float*>(item.b) + size_t(first) * rank;
    const bool inside = c < cols;

    if (threadIdx.x < kRows) {
        float value = 0.0f;
        if (threadIdx.x < rows) {
            const float n = reinterpret_cast<const float*>(item.norm)[first + threadIdx.x];
            if (n != 0.0f) value = item.scale * __fdiv_rn(reinterpret_cast<const float*>(item.dnorm)[first + threadIdx.x], n);
        }
        factor[threadIdx.x] = value;
    }

    // B A of this thread's column, all rows at once.
    float v[kRows] = {};
    for (unsigned from = 0; from < rank; from += kRanks) {
        const unsigned ranks = min(kRanks, rank - from);
        __syncthreads();
        for (unsigned i = threadIdx.x; i < kRows * kRanks; i += kThreads) {
            const unsigned row = i / kRanks, k = i % kRanks;
            b_tile[row][k] = row < rows && k < ranks ? b[size_t(row) * rank + from + k] : 0.0f;
        }
        __syncthreads();
        for (unsigned k = 0; k < ranks; ++k) {
            const float value = inside ? a[size_t(from + k) * cols + c] : 0.0f;
#pragma unroll
            for (unsigned row = 0; row < kRows; ++row) v[row] = fmaf(b_tile[row][k], value, v[row]);
        }
    }
#pragma unroll
    for (unsigned row = 0; row < kRows; ++row) {
        const float weight = inside && row < rows ? w[size_t(row) * cols + c] : 0.0f;
        v[row] = inside && row < rows ? factor[row] * fmaf(item.scale, v[row], weight) : 0.0f;
        tile[row][threadIdx.x] = v[row];
    }

    // dA: this thread's column, over the rows of the tile in order.
    auto* const partial_a = reinterpret_cast<float*>(item.partial_a) + size_t(blockIdx.y) * rank * cols;
    for (unsigned from = 0; from < rank; from += kRanks) {
        const unsigned ranks = min(kRanks, rank - from);
        if (rank > kRanks) {  // else B's tile is still there
            __syncthreads();
            for (unsigned i = threadIdx.x; i < kRows * kRanks; i += kThreads) {
                const unsigned row = i / kRanks, k = i % kRanks;
                b_tile[row][k] = row < rows && k < ranks ? b[size_t(row) * rank + from + k] : 0.0f;
            }
            __syncthreads();
        }
        for (unsigned k = 0; inside && k < ranks; ++k) {
            float sum = 0.0f;
#pragma unroll
            for (unsigned row = 0; row < kRows; ++row) sum = fmaf(b_tile[row][k], v[row], sum);
            partial_a[size_t(from + k) * cols + c] = sum;
        }
    }
    __syncthreads();

    // dB: a warp has 8 rows of the tile, a lane 4 columns of each.
    auto* const partial_b = reinterpret_cast<float*>(item.partial_b) + (size_t(blockIdx.x) * item.rows + first) * rank;
    const unsigned warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
    for (unsigned k = 0; k < rank; ++k) {
        float value[4];
#pragma unroll
        for (unsigned i = 0; i < 4; ++i) {
            const unsigned column = start + i * kWarp + lane;
            value[i] = column < cols ? a[size_t(k) * cols + column] : 0.0f;
        }
#pragma unroll
        for (unsigned i = 0; i < kRows / 4; ++i) {
            const unsigned row = warp * (kRows / 4) + i;
            float sum = 0.0f;
#pragma unroll
            for (unsigned x = 0; x < 4; ++x) sum = fmaf(tile[row][x * kWarp + lane], value[x], sum);
            sum = warp_sum(sum);
            if (lane == 0 && row < rows) partial_b[size_t(row) * rank + k] = sum;
        }
    }
}

// dA over the groups of 32 rows, dB over the groups of 128 columns.
extern "C" __global__ void __launch_bounds__(kReduceThreads)
    dora_norm_backward_reduce_f32(const __grid_constant__ PeftkDoraNormBackwardParams p) {
    pdl::start();
    const PeftkDoraNormBackwardItem& item = find_item(p);
    const size_t in_a = size_t(item.rank) * item.cols, in_b = size_t(item.rank) * item.rows;
    const size_t at = size_t(blockIdx.x) * kReduceThreads + threadIdx.x;
    if (at >= in_a + in_b) return;
    const bool is_b = at >= in_a;
    const size_t element = is_b ? at - in_a : at, stride = is_b ? in_b : in_a;
    const unsigned parts = is_b ? (item.cols + kThreads - 1) / kThreads : (item.rows + kRows - 1) / kRows;
    const auto* const partial = reinterpret_cast<const float*>(is_b ? item.partial_b : item.partial_a) + element;
    float sum = 0.0f;
#pragma unroll 4
    for (unsigned i = 0; i < parts; ++i) sum += partial[i * stride];
    auto* const out = reinterpret_cast<float*>(is_b ? item.db : item.da) + element;
    *out = item.accumulate ? *out + sum : sum;
}
