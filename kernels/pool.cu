// The head's input: CLS, or CLS beside the mean of the patch tokens; and its gradient.
//
//     pooled[b] = x[b, 0] | sum of x[b, patches] / patches
//     dx[b, 0] = dpooled[b, ..width], dx[b, patch] = dpooled[b, width..] / patches (0 without the mean), registers 0
//
// Shapes    x, dx [batch (1 + registers + patches), width] T, pooled [batch, width or 2 width] f32.
// Numbers   f32; the mean in 16 slots of every 16th patch, the slots in order.
// Traffic   forward the CLS rows, with the mean all rows, once; backward all rows written.
// Launch    forward: grid (ceil(width / 128), batch), block 256. backward: block 256, grid ceil(batch tokens ceil(width / 8) / 256).

#include "common/column_tile.cuh"
#include "common/pdl.cuh"
#include "params/tokens.h"

namespace pool {

using namespace column_tile;

template <typename T>
__device__ __forceinline__ void forward(const PeftkPoolParams& p) {
    __shared__ __align__(16) float slots[kRowSlots][kTileColumns];
    const unsigned lane = threadIdx.x % kColumnLanes, slot = threadIdx.x / kColumnLanes;
    const unsigned column = blockIdx.x * kTileColumns + lane * kColumns;
    const unsigned count = column < p.width ? min(kColumns, p.width - column) : 0;
    const bool whole = count == kColumns && p.width % kColumns == 0 && aligned16(p.x);
    const size_t tokens = 1 + p.register_count + p.patch_count;
    const T* x = source_of<T>(p.x) + blockIdx.y * tokens * p.width;
    float* pooled = target_of<float>(p.pooled) + static_cast<size_t>(blockIdx.y) * p.width * (p.with_mean != 0 ? 2 : 1);

    if (slot == 0) {
        float cls[kColumns];
        load_some(x + column, whole, count, cls);
        store_some(pooled + column, false, count, cls);
    }
    if (p.with_mean == 0) return;
    float sums[kColumns] = {};
    const T* patches = x + (1 + static_cast<size_t>(p.register_count)) * p.width + column;
    specialized(whole, [&](auto whole) {
#pragma unroll 4
        for (unsigned patch = slot; patch < p.patch_count; patch += kRowSlots) {
            float values[kColumns];
            load_some(patches + static_cast<size_t>(patch) * p.width, whole.value, count, values);
#pragma unroll
            for (unsigned j = 0; j < kColumns; ++j) sums[j] += values[j];
        }
    });
    store(&slots[slot][lane * kColumns], sums);
    __syncthreads();
    const unsigned mine = blockIdx.x * kTileColumns + threadIdx.x;
    if (threadIdx.x >= kTileColumns || mine >= p.width) return;
    float sum = slots[0][threadIdx.x];
#pragma unroll
    for (unsigned s = 1; s < kRowSlots; ++s) sum += slots[s][threadIdx.x];
    pooled[p.width + mine] = sum / static_cast<float>(p.patch_count);
}

template <typename T>
__device__ __forceinline__ void backward(const PeftkPoolParams& p) {
    const unsigned per_row = (p.width + kColumns - 1) / kColumns, tokens = 1 + p.register_count + p.patch_count;
    const uint64_t chunk = static_cast<uint64_t>(blockIdx.x) * 256 + threadIdx.x, row = chunk / per_row;
    if (row >= static_cast<uint64_t>(p.batch) * tokens) return;
    const unsigned column = static_cast<unsigned>(chunk % per_row) * kColumns, count = min(kColumns, p.width - column);
    const unsigned token = static_cast<unsigned>(row % tokens);
    const bool whole = p.width % kColumns == 0 && aligned16(p.x, p.pooled);
    const size_t image = row / tokens;
    const float* dy = source_of<float>(p.pooled) + image * p.width * (p.with_mean != 0 ? 2 : 1) + column;

    float out[kColumns] = {};
    if (token == 0) {
        load_some(dy, whole, count, out);
    } else if (token > p.register_count && p.with_mean != 0) {
        load_some(dy + p.width, whole, count, out);
        const float share = 1.0f / static_cast<float>(p.patch_count);
#pragma unroll
        for (unsigned j = 0; j < kColumns; ++j) out[j] *= share;
    }
    store_some(target_of<T>(p.x) + row * p.width + column, whole, count, out);
}

}  // namespace pool

extern "C" __global__ void __launch_bounds__(256) pool_forward_f32(const PeftkPoolParams p) {
    pdl::start();
    pool::forward<float>(p);
}
extern "C" __global__ void __launch_bounds__(256) pool_forward_bf16(const PeftkPoolParams p) {
    pdl::start();
    pool::forward<Bf16>(p);
}
extern "C" __global__ void __launch_bounds__(256) pool_backward_f32(const PeftkPoolParams p) {
    pdl::start();
    pool::backward<float>(p);
}
extern "C" __global__ void __launch_bounds__(256) pool_backward_bf16(const PeftkPoolParams p) {
    pdl::start();
    pool::backward<Bf16>(p);
}
