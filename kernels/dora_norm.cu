// DoRA's weight norm: one value for every output row of a linear with an adapter.
//
//     norm[j] = sqrt( sum_c ( W[j,c] + scale * sum_k B[j,k] A[k,c] )^2 )          j < rows, c < cols, k < rank
//
// Shapes    W [rows, cols], A [rank, cols], B [rows, rank], norm [rows]; all f32, row-major, any size from 1; rank 1 to 256.
// Numbers   f32 throughout. V = W + scale B A is formed element by element in registers, never in memory. The expanded form
//           |W|^2 + 2 scale <W, BA> + scale^2 |BA|^2 would save the arithmetic and lose the result: where the adapter opposes W
//           its terms cancel, and half of the digits are gone. The order of every sum is fixed: equal inputs give equal bits.
// Traffic   W is read once: 4 rows cols bytes from device memory. A is read once per block of kRows rows, from L2 (rank * cols
//           * 4 bytes: 12 KB at rank 8 and 384 columns); B once, through shared memory.
// Work      2 rank FLOP an element of W against 4 bytes: bound by memory up to rank 40 or so on an H100.
// Launch    grid (ceil(rows / kRows)), block (kThreads); no dynamic shared memory.

#include "common/reduce.cuh"
#include "params.h"

namespace {

constexpr unsigned kThreads = 128;
constexpr unsigned kRows = 4;  // rows of W a block: each value of A is used this often once it is in a register
constexpr unsigned kMaxRank = 256;

}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads) dora_norm_f32(const PeftkDoraNormParams p) {
    __shared__ float4 b_tile[kMaxRank];  // [rank] of kRows values: B transposed, so that one load serves all rows
    __shared__ float partial[kThreads / kWarp][kRows];
    static_assert(kRows == 4, "a row of b_tile is one float4");

    const auto* __restrict__ w = reinterpret_cast<const float*>(p.w);
    const auto* __restrict__ a = reinterpret_cast<const float*>(p.a);
    const auto* __restrict__ b = reinterpret_cast<const float*>(p.b);
    auto* __restrict__ norm = reinterpret_cast<float*>(p.norm);

    // In the last block rows may be left over: those read the last row again and write nothing, so no thread leaves early.
    const unsigned first = blockIdx.x * kRows;
    size_t row[kRows];
#pragma unroll
    for (unsigned i = 0; i < kRows; ++i) row[i] = min(first + i, p.rows - 1);

    for (unsigned k = threadIdx.x; k < p.rank; k += kThreads) {
        b_tile[k] = make_float4(b[row[0] * p.rank + k], b[row[1] * p.rank + k], b[row[2] * p.rank + k], b[row[3] * p.rank + k]);
    }
    __syncthreads();

    float squares[kRows] = {};
    for (unsigned c = threadIdx.x; c < p.cols; c += kThreads) {
        float weight[kRows];
#pragma unroll
        for (unsigned i = 0; i < kRows; ++i) weight[i] = w[row[i] * p.cols + c];

        float delta[kRows] = {};
#pragma unroll 8
        for (unsigned k = 0; k < p.rank; ++k) {
            const float value = a[static_cast<size_t>(k) * p.cols + c];
            const float4 column = b_tile[k];
            delta[0] = fmaf(column.x, value, delta[0]);
            delta[1] = fmaf(column.y, value, delta[1]);
            delta[2] = fmaf(column.z, value, delta[2]);
            delta[3] = fmaf(column.w, value, delta[3]);
        }
#pragma unroll
        for (unsigned i = 0; i < kRows; ++i) {
            const float v = fmaf(p.scale, delta[i], weight[i]);
            squares[i] = fmaf(v, v, squares[i]);
        }
    }

    const float sum = block_sums<kRows, kThreads>(squares, partial);
    if (threadIdx.x < kRows && first + threadIdx.x < p.rows) norm[first + threadIdx.x] = __fsqrt_rn(sum);
}
