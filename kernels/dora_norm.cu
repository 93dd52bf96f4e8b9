// DoRA's weight norm: one value for every output row of a linear with an adapter.
//
//     norm[j] = sqrt( sum_c ( W[j,c] + scale * sum_k B[j,k] A[k,c] )^2 )          j < rows, c < cols, k < rank
//     gain[j] = magnitude[j] / norm[j]                                            where the batch's item asks for it
//
// Shapes    W [rows, cols], A [rank, cols], B [rows, rank], norm, magnitude, gain [rows]; all f32, row-major, any size from 1; rank 1
//           to 256.
// Numbers   f32 throughout. V = W + scale B A is formed element by element in registers, never in memory. The expanded form
//           |W|^2 + 2 scale <W, BA> + scale^2 |BA|^2 would save the arithmetic and lose the result: where the adapter opposes W
//           its terms cancel, and half of the digits are gone. The order of every sum is fixed: equal inputs give equal bits.
// Traffic   W is read once: 4 rows cols bytes from device memory. A is read once per block of 8 rows, from L2 (rank * cols * 4
//           bytes: 12 KB at rank 8 and 384 columns); B once, through shared memory.
// Work      2 rank FLOP an element of W against 4 bytes: bound by memory up to rank 40 or so on an H100.
// Launch    one: grid (ceil(rows / 8)); batch: grid (all items' ceil(rows / 8)); block (kThreads); no dynamic shared memory.

#include "common/adapted_rows.cuh"
#include "common/reduce.cuh"
#include "params.h"

namespace {

constexpr unsigned kThreads = 128;
using adapted::kRows;

struct Shared {
    adapted::BColumn b[adapted::kMaxRank];
    float partial[kThreads / kWarp][kRows];
};

// Thread i < kRows gets the norm of row first + i.
__device__ __forceinline__ float norms(Shared& shared, const float* w, const float* a, const float* b, unsigned first, unsigned rows,
                                       unsigned cols, unsigned rank, float scale) {
    adapted::prefetch<4>(w, first, rows, cols);
    adapted::load_b<kThreads>(shared.b, b, first, rows, rank);
    float squares[kRows] = {};
    if (adapted::in_fours(reinterpret_cast<uint64_t>(w) | reinterpret_cast<uint64_t>(a), cols)) {
        adapted::add_squares<kThreads, 4>(squares, w, a, shared.b, first, rows, cols, rank, scale);
    } else {
        adapted::add_squares<kThreads, 1>(squares, w, a, shared.b, first, rows, cols, rank, scale);
    }
    return __fsqrt_rn(block_sums<kRows, kThreads>(squares, shared.partial));
}

}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads, 4) dora_norm_f32(const PeftkDoraNormParams p) {
    __shared__ Shared shared;
    const unsigned first = blockIdx.x * kRows, row = first + threadIdx.x;
    const float norm = norms(shared, reinterpret_cast<const float*>(p.w), reinterpret_cast<const float*>(p.a),
                             reinterpret_cast<const float*>(p.b), first, p.rows, p.cols, p.rank, p.scale);
    if (threadIdx.x < kRows && row < p.rows) reinterpret_cast<float*>(p.norm)[row] = norm;
}

extern "C" __global__ void __launch_bounds__(kThreads, 4) dora_norm_batched_f32(const PeftkDoraNormBatchParams p) {
    __shared__ Shared shared;
    const auto* const items = reinterpret_cast<const PeftkDoraNormItem*>(p.items);
    const PeftkDoraNormItem item = items[adapted::find_item<kThreads>(items, p.count)];
    const unsigned first = (blockIdx.x - item.first_block) * kRows, row = first + threadIdx.x;
    const float norm = norms(shared, reinterpret_cast<const float*>(item.w), reinterpret_cast<const float*>(item.a),
                             reinterpret_cast<const float*>(item.b), first, item.rows, item.cols, item.rank, item.scale);
    if (threadIdx.x >= kRows || row >= item.rows) return;
    reinterpret_cast<float*>(item.norm)[row] = norm;
    if (item.magnitude) {
        reinterpret_cast<float*>(item.gain)[row] = __fdiv_rn(reinterpret_cast<const float*>(item.magnitude)[row], norm);
    }
}
