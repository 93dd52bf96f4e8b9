// DoRA's weight norm: one value for every output row of a linear with an adapter.
//
//     norm[j] = sqrt( sum_c ( W[j,c] + scale * sum_k B[j,k] A[k,c] )^2 )          j < rows, c < cols, k < rank
//     gain[j] = magnitude[j] / norm[j]                                            where the batch's item asks for it
//
// Shapes    W [rows, cols], A [rank, cols], B [rows, rank], norm, magnitude, gain [rows]; all f32, row-major, any size from 1; rank 1
//           to 256.
// Numbers   f32 throughout. V = W + (scale B) A is formed element by element in registers, never in memory. The expanded form
//           |W|^2 + 2 scale <W, BA> + scale^2 |BA|^2 would save the arithmetic and lose the result: where the adapter opposes W
//           its terms cancel, and half of the digits are gone. The order of every sum is fixed: equal inputs give equal bits.
// Traffic   W is read once: 4 rows cols bytes from device memory, asked for before anything else. A is read by each warp of 4 rows,
//           a block's 4 warps from L1, blocks from L2 (rank * cols * 4 bytes: 12 KB at rank 8 and 384 columns); B once, through shared
//           memory. The adapters of a batch are described in the launch's parameters: nothing has to be copied to the device before.
// Work      2 rank FLOP an element of W against 4 bytes: bound by memory up to rank 40 or so on an H100.
// Launch    one: grid (ceil(rows / 16)); batch: grid (all items' ceil(rows / 16)); block (kThreads); no dynamic shared memory.

#include "common/adapted_rows.cuh"
#include "common/pdl.cuh"
#include "params.h"

namespace {

using adapted::kThreads;
constexpr unsigned kRows = adapted::kMostRows;               // of a warp
constexpr unsigned kBlockRows = kRows * adapted::kWarps;     // each value of A is used by a warp's rows once it is in a register
constexpr unsigned kChunks = 3;                              // of 128 columns, when they are read 4 at a time

template <unsigned kWidth>
__device__ __forceinline__ void norms_of(float (&norms)[kRows], const adapted::Rows<kRows>& of) {
    using Tile = adapted::Tile<kRows, kChunks, kWidth>;
    Tile tile;
    adapted::load_weight(tile, of, 0);
    adapted::load_b(of);
    for (unsigned start = 0;;) {
        adapted::add_product(tile, of, start);
        adapted::add_squares(norms, tile);
        start += Tile::kColumns;
        if (start >= of.cols) break;
        adapted::load_weight(tile, of, start);
    }
    adapted::norms_of(norms);
}

// The norms of this warp's rows, in every lane.
__device__ __forceinline__ void norms(float (&norms)[kRows], const adapted::Rows<kRows>& of) {
    if (adapted::in_fours(reinterpret_cast<uint64_t>(of.w) | reinterpret_cast<uint64_t>(of.a), of.cols)) norms_of<4>(norms, of);
    else norms_of<1>(norms, of);
}

// The rows of this warp, from those of its block.
template <class Params>
__device__ __forceinline__ adapted::Rows<kRows> rows_of(adapted::Shared& shared, const Params& p, unsigned block) {
    const unsigned warp = threadIdx.x / kWarp;
    return {reinterpret_cast<const float*>(p.w), reinterpret_cast<const float*>(p.a), reinterpret_cast<const float*>(p.b), shared.b[warp],
            block * kBlockRows + warp * kRows,   p.rows,                              p.cols,                              p.rank,
            p.scale};
}

}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads, 5) dora_norm_f32(const PeftkDoraNormParams p) {
    pdl::start();
    __shared__ adapted::Shared shared;
    const adapted::Rows<kRows> of = rows_of(shared, p, blockIdx.x);
    if (of.first >= of.rows) return;
    float norm[kRows] = {};
    norms(norm, of);
#pragma unroll
    for (unsigned i = 0; i < kRows; ++i) {
        if (threadIdx.x % kWarp == i && of.first + i < of.rows) reinterpret_cast<float*>(p.norm)[of.first + i] = norm[i];
    }
}

extern "C" __global__ void __launch_bounds__(kThreads, 5)
    dora_norm_batched_f32(const __grid_constant__ PeftkDoraNormBatchParams p) {
    pdl::start();
    __shared__ adapted::Shared shared;
    const PeftkDoraNormItem& item = p.items[adapted::find_item(p.items, p.count)];
    const adapted::Rows<kRows> of = rows_of(shared, item, blockIdx.x - item.first_block);
    if (of.first >= of.rows) return;
    float norm[kRows] = {};
    norms(norm, of);
#pragma unroll
    for (unsigned i = 0; i < kRows; ++i) {
        const unsigned row = of.first + i;
        if (threadIdx.x % kWarp != i || row >= of.rows) continue;
        reinterpret_cast<float*>(item.norm)[row] = norm[i];
        if (item.magnitude) {
            reinterpret_cast<float*>(item.gain)[row] = __fdiv_rn(reinterpret_cast<const float*>(item.magnitude)[row], norm[i]);
        }
    }
}
