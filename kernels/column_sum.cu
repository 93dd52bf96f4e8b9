// Sums over the rows of a matrix, column by column, in two stages of fixed order.
//
//     column_sum   partial[piece, j] = sum over the piece's rows of a[i, j]                           (bias gradients)
//     column_dot   partial[piece, j] = sum over the piece's rows of a[i, j] (b[i, j] - bias[j])       (DoRA's dg)
//     reduce       out[j] (+)= sum over pieces of partial[piece, j], granule by granule               (stage two of both)
//
// DoRA's dg is sum dy (y - bias) / g where y = g z + bias: reduce divides by g, and gives 0 where g is 0; there z has to be made and
// its sum taken by column_dot of dy and z without a bias.
// Shapes    a, b T, rows of any stride; bias, gain [cols] f32; partial [pieces, cols] f32.
// Numbers   f32 sums: each of 16 row slots in steps of 16 rows, the slots in order, a granule's pieces in 32 runs, the runs in order, then
//           the granules one after the other (common/cut.cuh).
// Traffic   the columns once; partials 2 * 4 / 128 bytes an element.
// Launch    column_sum, column_dot: grid pieces * ceil(cols / 128), block 256. reduce: grid ceil(cols / 8), block 256.

#include "common/column_tile.cuh"
#include "common/pdl.cuh"
#include "params/norm.h"

namespace column_sum {

using namespace column_tile;

template <typename T>
__device__ __forceinline__ void sum(const PeftkColumnSumParams& p) {
    const Tile tile(p.cut, p.cols);
    const T* a = source_of<T>(p.a) + tile.column;
    const bool whole = tile.count == kColumns && aligned16(p.a) && p.lda % kColumns == 0;
    float sums[kColumns] = {};
    specialized(whole, [&](auto whole) {
#pragma unroll 4
        for (unsigned row = tile.first_row; row < tile.end_row; row += kRowSlots) {
            float values[kColumns];
            load_some(a + static_cast<size_t>(row) * p.lda, whole.value, tile.count, values);
#pragma unroll
            for (unsigned j = 0; j < kColumns; ++j) sums[j] += values[j];
        }
    });
    write_sums(sums, p.cols, target_of<float>(p.partial));
}

template <typename T>
__device__ __forceinline__ void dot(const PeftkColumnSumParams& p) {
    const Tile tile(p.cut, p.cols);
    const T *a = source_of<T>(p.a) + tile.column, *b = source_of<T>(p.b) + tile.column;
    const bool whole = tile.count == kColumns && aligned16(p.a, p.b) && (p.lda | p.ldb) % kColumns == 0;
    float bias[kColumns] = {}, sums[kColumns] = {};
    if (p.bias != 0) load_some(source_of<float>(p.bias) + tile.column, false, tile.count, bias);
    specialized(whole, [&](auto whole) {
#pragma unroll 2
        for (unsigned row = tile.first_row; row < tile.end_row; row += kRowSlots) {
            float left[kColumns], right[kColumns];
            load_some(a + static_cast<size_t>(row) * p.lda, whole.value, tile.count, left);
            load_some(b + static_cast<size_t>(row) * p.ldb, whole.value, tile.count, right);
#pragma unroll
            for (unsigned j = 0; j < kColumns; ++j) sums[j] = fmaf(left[j], right[j] - bias[j], sums[j]);
        }
    });
    write_sums(sums, p.cols, target_of<float>(p.partial));
}

constexpr unsigned kReduceColumns = 8;  // 32 bytes of a row of partials: one sector
constexpr unsigned kRuns = 32;

__device__ __forceinline__ void reduce(const PeftkReducePartialsParams& p) {
    const unsigned column = blockIdx.x * kReduceColumns + threadIdx.x % kReduceColumns;
    const bool there = column < p.cols;
    float* const out = !there              ? nullptr
                       : column < p.split ? target_of<float>(p.out) + column
                                          : target_of<float>(p.out_rest) + (column - p.split);
    const float* const partial = source_of<float>(p.partial) + column;
    const float gain = there && p.gain != 0 ? source_of<float>(p.gain)[column] : 1.0f;
    const float sum = cut::add_up<kReduceColumns, kRuns>(
        p.cut, there, there && p.cut.add ? *out : 0.0f, [&](unsigned piece) { return partial[size_t(piece) * p.cols]; },
        [&](float sum) { return gain == 0.0f ? 0.0f : p.gain != 0 ? sum / gain : sum; });
    if (there && threadIdx.x < kReduceColumns) *out = sum;
}

}  // namespace column_sum

#define ENTRIES(NAME, T)                                                                                                      \
    extern "C" __global__ void __launch_bounds__(column_tile::kThreads) column_sum_##NAME(const PeftkColumnSumParams p) {     \
        pdl::start();                                                                                                         \
        column_sum::sum<T>(p);                                                                                                \
    }                                                                                                                         \
    extern "C" __global__ void __launch_bounds__(column_tile::kThreads) column_dot_##NAME(const PeftkColumnSumParams p) {     \
        pdl::start();                                                                                                         \
        column_sum::dot<T>(p);                                                                                                \
    }

ENTRIES(f32, float)
ENTRIES(bf16, Bf16)
#undef ENTRIES

extern "C" __global__ void __launch_bounds__(256) reduce_partials_f32(const PeftkReducePartialsParams p) {
    pdl::start();
    column_sum::reduce(p);
}
