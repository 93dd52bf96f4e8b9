// LayerScale with its residual, forward and backward.
//
//     y = x + gamma h;   dh = gamma dy,  dgamma = sum over rows of dy h       (dx is dy itself)
//
// Shapes    x, y, dy [rows, cols] R (residual stream), h, dh [rows, cols] T, gamma [cols] f32. Names end in R_T.
// Numbers   one fma and one rounding. dgamma: f32 sums of granules of 128 rows, which column_sum.cu's reduce_partials adds up.
// Traffic   forward rows cols (2 |R| + |T|) bytes; backward |R| + |T| for dh, |T| more with dgamma.
// Launch    forward: block 256, grid ceil(rows cols / 2048) (elements in 8s, or where cols is no multiple of 8 one a step);
//           backward: grid ceil(rows / 128) * ceil(cols / 128), block 256.

#include "common/column_tile.cuh"
#include "common/pdl.cuh"
#include "params/norm.h"

namespace layer_scale {

using namespace column_tile;

constexpr unsigned kBlock = 256;

template <typename R, typename T>
__device__ __forceinline__ void forward(const PeftkLayerScaleParams& p) {
    const R* x = source_of<R>(p.x);
    const T* h = source_of<T>(p.h);
    const float* gamma = source_of<float>(p.gamma);
    R* y = target_of<R>(p.y);
    const size_t total = static_cast<size_t>(p.rows) * p.cols;
    if (p.cols % kColumns == 0 && aligned16(p.x, p.h, p.gamma, p.y)) {
        const size_t chunk = static_cast<size_t>(blockIdx.x) * kBlock + threadIdx.x, at = chunk * kColumns;
        if (at >= total) return;
        const unsigned per_row = p.cols / kColumns;
        const unsigned column = (chunk >> 32 == 0 ? static_cast<unsigned>(chunk) % per_row : chunk % per_row) * kColumns;
        float in[kColumns], branch[kColumns], scale[kColumns];
        load(x + at, in);
        load(h + at, branch);
        load(gamma + column, scale);
#pragma unroll
        for (unsigned j = 0; j < kColumns; ++j) in[j] = fmaf(scale[j], branch[j], in[j]);
        store(y + at, in);
        return;
    }
    const size_t first = static_cast<size_t>(blockIdx.x) * kBlock * kColumns + threadIdx.x;
    for (unsigned j = 0; j < kColumns; ++j) {
        const size_t at = first + j * kBlock;
        if (at < total) put(y + at, fmaf(gamma[at % p.cols], widen(h[at]), widen(x[at])));
    }
}

template <typename R, typename T>
__device__ __forceinline__ void backward(const PeftkLayerScaleBackwardParams& p) {
    const Tile tile(p.cut, p.cols);
    const bool whole = tile.count == kColumns && aligned16(p.h, p.gamma, p.dy, p.dh) && p.cols % kColumns == 0;
    float gamma[kColumns], sums[kColumns] = {};
    load_some(source_of<float>(p.gamma) + tile.column, whole, tile.count, gamma);
    specialized(whole, [&](auto whole) {
#pragma unroll 1
        for (unsigned row = tile.first_row; row < tile.end_row; row += kRowSlots) {
            const size_t at = static_cast<size_t>(row) * p.cols + tile.column;
            float dy[kColumns];
            load_some(source_of<R>(p.dy) + at, whole.value, tile.count, dy);
            if (p.partial != 0) {
                float h[kColumns];
                load_some(source_of<T>(p.h) + at, whole.value, tile.count, h);
#pragma unroll
                for (unsigned j = 0; j < kColumns; ++j) sums[j] = fmaf(dy[j], h[j], sums[j]);
            }
            if (p.dh != 0) {
#pragma unroll
                for (unsigned j = 0; j < kColumns; ++j) dy[j] *= gamma[j];
                store_some(target_of<T>(p.dh) + at, whole.value, tile.count, dy);
            }
        }
    });
    if (p.partial != 0) write_sums(sums, p.cols, target_of<float>(p.partial));
}

}  // namespace layer_scale

#define ENTRIES(NAME, R, T)                                                                                                   \
    extern "C" __global__ void __launch_bounds__(256) layer_scale_forward_##NAME(const PeftkLayerScaleParams p) {             \
        pdl::start();                                                                                                         \
        layer_scale::forward<R, T>(p);                                                                                        \
    }                                                                                                                         \
    extern "C" __global__ void __launch_bounds__(256) layer_scale_backward_##NAME(const PeftkLayerScaleBackwardParams p) {    \
        pdl::start();                                                                                                         \
        layer_scale::backward<R, T>(p);                                                                                       \
    }

ENTRIES(f32_f32, float, float)
ENTRIES(f32_bf16, float, Bf16)
ENTRIES(bf16_bf16, Bf16, Bf16)
#undef ENTRIES
