// Position embeddings for another grid, and the transpose of that.
//
//     target[0] = source[0];  forward target[1 + i] = sum_j matrix[i, j] source[1 + j], backward target[1 + j] = sum_i matrix[i, j] source[1 + i]
//
// Shapes    source, target [1 + from or to, width] f32, matrix [to, from] f32.
// Numbers   f32: 8 slices of every 8th term, the slices in order.
// Traffic   the source once for 4 rows of the target, from L2; small, and at most once a step.
// Launch    block 256: 32 columns, 8 slices of the sum, 4 rows of the target. Grid (ceil(width / 32), 1 + ceil(rows of the target / 4));
//           y = 0 copies row 0.

#include "common/elements.cuh"
#include "common/pdl.cuh"
#include "params/tokens.h"

namespace positions {

constexpr unsigned kRows = 4;
constexpr unsigned kSlices = 8;

template <bool kTranspose>
__device__ __forceinline__ void run(const PeftkPositionsParams& p) {
    __shared__ float partial[kSlices][kRows][kWarp];
    const unsigned lane = threadIdx.x % kWarp, slice = threadIdx.x / kWarp, column = blockIdx.x * kWarp + lane;
    const bool inside = column < p.width;
    const float* source = source_of<float>(p.source) + column;
    float* target = target_of<float>(p.target) + column;
    if (blockIdx.y == 0) {
        if (inside && slice == 0) *target = *source;
        return;
    }
    const unsigned rows = kTranspose ? p.from : p.to, depth = kTranspose ? p.to : p.from;
    const unsigned first = (blockIdx.y - 1) * kRows;
    const float* matrix = source_of<float>(p.matrix);
    const size_t row_step = kTranspose ? 1 : p.from, depth_step = kTranspose ? p.from : 1;
    // Rows beyond the end repeat the last one and are not written.
    const float* weights[kRows];
#pragma unroll
    for (unsigned i = 0; i < kRows; ++i) weights[i] = matrix + min(first + i, rows - 1) * row_step;
    float sums[kRows] = {};
#pragma unroll 4
    for (unsigned k = slice; k < depth; k += kSlices) {
        const float value = inside ? source[static_cast<size_t>(1 + k) * p.width] : 0.0f;
#pragma unroll
        for (unsigned i = 0; i < kRows; ++i) sums[i] = fmaf(weights[i][k * depth_step], value, sums[i]);
    }
#pragma unroll
    for (unsigned i = 0; i < kRows; ++i) partial[slice][i][lane] = sums[i];
    __syncthreads();
    if (slice >= kRows || first + slice >= rows || !inside) return;
    float sum = partial[0][slice][lane];
#pragma unroll
    for (unsigned s = 1; s < kSlices; ++s) sum += partial[s][slice][lane];
    target[static_cast<size_t>(1 + first + slice) * p.width] = sum;
}

}  // namespace positions

extern "C" __global__ void __launch_bounds__(256) resample_positions_forward_f32(const PeftkPositionsParams p) {
    pdl::start();
    positions::run<false>(p);
}
extern "C" __global__ void __launch_bounds__(256) resample_positions_backward_f32(const PeftkPositionsParams p) {
    pdl::start();
    positions::run<true>(p);
}
