// Rows cut into granules and pieces (params/cut.h), and the order in which their sums are added up.
#pragma once

#include "params/cut.h"

namespace cut {

__device__ __forceinline__ unsigned first_row(const PeftkCut& c, unsigned piece) {
    return piece / c.per_granule * c.granule + piece % c.per_granule * c.piece;
}

__device__ __forceinline__ unsigned end_row(const PeftkCut& c, unsigned piece) {
    const unsigned granule_end = (piece / c.per_granule + 1) * c.granule;
    return min(min(first_row(c, piece) + c.piece, granule_end), c.rows);
}

// The sum of a column's pieces, for kWidth columns by kRuns threads each (thread = run * kWidth + lane): within a granule in kRuns runs, the runs in
// order, then the granules one after the other upon `start`. `load(piece)` gives a piece's value, `finish(sum)` what of a granule's sum is
// added. Every thread of the block must call it; run 0 has the result.
template <unsigned kWidth, unsigned kRuns, class Load, class Finish>
__device__ __forceinline__ float add_up(const PeftkCut& c, bool there, float start, Load load, Finish finish) {
    __shared__ float runs[kRuns][kWidth + 1];
    const unsigned lane = threadIdx.x % kWidth, run = threadIdx.x / kWidth;
    float total = start;
    for (unsigned begin = 0; begin < c.pieces; begin += c.per_granule) {
        const unsigned count = min(c.per_granule, c.pieces - begin), length = (count + kRuns - 1) / kRuns;
        const unsigned from = begin + min(run * length, count), to = begin + min((run + 1) * length, count);
        float sum = 0.0f;
        if (there) {
#pragma unroll 8
            for (unsigned piece = from; piece < to; ++piece) sum += load(piece);
        }
        __syncthreads();
        runs[run][lane] = sum;
        __syncthreads();
        if (run == 0) {
#pragma unroll
            for (unsigned i = 1; i < kRuns; ++i) sum += runs[i][lane];
            total += finish(sum);
        }
    }
    return total;
}

}  // namespace cut
