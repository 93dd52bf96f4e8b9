// GELU in its erf form, forward and backward.
//
//     y = x cdf(x);   dx = dy (cdf(x) + x density(x))              cdf, density of the standard normal
//
// Shapes    arrays of any length, T.
// Numbers   f32 inside and one rounding: f32 within 1e-6 of the erf form, bf16 before rounding within 5e-4 of y
//           or 1e-6 and within 5e-6 of dx / dy (common/gelu.cuh).
// Traffic   2 |T| bytes an element forward, 3 |T| backward.
// Launch    block 256, grid ceil(count / 2048).

#include "common/gelu.cuh"
#include "common/map.cuh"
#include "common/pdl.cuh"
#include "params/pointwise.h"

namespace gelu_map {

using namespace map;

template <typename T>
__device__ __forceinline__ void forward(const PeftkMapParams& p) {
    const uint64_t at = first();
    const unsigned count = present(at, p.count);
    if (count == 0) return;
    const bool whole = count == kElements && aligned16(p.x, p.y);
    float x[kElements];
    load_some(source_of<T>(p.x) + at, whole, count, x);
    if constexpr (sizeof(T) == 2) {
        gelu_for_bf16(x);
    } else {
#pragma unroll
        for (unsigned j = 0; j < kElements; ++j) x[j] = gelu(x[j]);
    }
    store_some(target_of<T>(p.y) + at, whole, count, x);
}

template <typename T>
__device__ __forceinline__ void backward(const PeftkMapBackwardParams& p) {
    const uint64_t at = first();
    const unsigned count = present(at, p.count);
    if (count == 0) return;
    const bool whole = count == kElements && aligned16(p.x, p.dy, p.dx);
    float x[kElements], dy[kElements];
    load_some(source_of<T>(p.x) + at, whole, count, x);
    load_some(source_of<T>(p.dy) + at, whole, count, dy);
    if constexpr (sizeof(T) == 2) {
        gelu_slope_for_bf16(x, dy);
    } else {
#pragma unroll
        for (unsigned j = 0; j < kElements; ++j) dy[j] *= gelu_slope(x[j]);
    }
    store_some(target_of<T>(p.dx) + at, whole, count, dy);
}

}  // namespace gelu_map

#define ENTRIES(NAME, T)                                                                                       \
    extern "C" __global__ void __launch_bounds__(map::kBlock) gelu_forward_##NAME(const PeftkMapParams p) {    \
        pdl::start();                                                                                          \
        gelu_map::forward<T>(p);                                                                               \
    }                                                                                                          \
    extern "C" __global__ void __launch_bounds__(map::kBlock)                                                  \
        gelu_backward_##NAME(const PeftkMapBackwardParams p) {                                                 \
        pdl::start();                                                                                          \
        gelu_map::backward<T>(p);                                                                              \
    }

ENTRIES(f32, float)
ENTRIES(bf16, Bf16)
#undef ENTRIES
