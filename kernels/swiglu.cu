// SwiGLU, forward and backward.
//
//     y = gate s up with s = sigmoid(gate);   dgate = dy up s (1 + gate (1 - s)),  dup = dy gate s
//
// Shapes    h = gate | up, dh [rows, 2 width], y, dy [rows, width], T.
// Numbers   f32 inside, one rounding.
// Traffic   3 |T| bytes an element of y forward, 5 |T| backward.
// Launch    block 256, grid ceil(rows ceil(width / 8) / 256), 8 columns of a row a thread.

#include "common/map.cuh"
#include "common/pdl.cuh"
#include "params/pointwise.h"

namespace swiglu {

using namespace map;

__device__ __forceinline__ float sigmoid(float x) { return __fdividef(1.0f, 1.0f + __expf(-x)); }

template <typename T, bool kBackward>
__device__ __forceinline__ void run(const PeftkSwigluParams& p) {
    const unsigned per_row = (p.width + kElements - 1) / kElements;
    const uint64_t chunk = static_cast<uint64_t>(blockIdx.x) * kBlock + threadIdx.x, row = chunk / per_row;
    if (row >= p.rows) return;
    const unsigned column = static_cast<unsigned>(chunk % per_row) * kElements, count = min(kElements, p.width - column);
    const bool whole = p.width % kElements == 0 && aligned16(p.h, p.out, kBackward ? p.dy : 0);
    const T* h = source_of<T>(p.h) + row * 2 * p.width + column;
    float gate[kElements], up[kElements];
    load_some(h, whole, count, gate);
    load_some(h + p.width, whole, count, up);
    if constexpr (kBackward) {
        float dy[kElements];
        load_some(source_of<T>(p.dy) + row * p.width + column, whole, count, dy);
#pragma unroll
        for (unsigned j = 0; j < kElements; ++j) {
            const float s = sigmoid(gate[j]), silu = gate[j] * s;
            gate[j] = dy[j] * up[j] * fmaf(silu, 1.0f - s, s);
            up[j] = dy[j] * silu;
        }
        T* out = target_of<T>(p.out) + row * 2 * p.width + column;
        store_some(out, whole, count, gate);
        store_some(out + p.width, whole, count, up);
    } else {
#pragma unroll
        for (unsigned j = 0; j < kElements; ++j) up[j] *= gate[j] * sigmoid(gate[j]);
        store_some(target_of<T>(p.out) + row * p.width + column, whole, count, up);
    }
}

}  // namespace swiglu

#define ENTRIES(NAME, T)                                                                                          \
    extern "C" __global__ void __launch_bounds__(map::kBlock) swiglu_forward_##NAME(const PeftkSwigluParams p) {  \
        pdl::start();                                                                                             \
        swiglu::run<T, false>(p);                                                                                 \
    }                                                                                                             \
    extern "C" __global__ void __launch_bounds__(map::kBlock) swiglu_backward_##NAME(const PeftkSwigluParams p) { \
        pdl::start();                                                                                             \
        swiglu::run<T, true>(p);                                                                                  \
    }

ENTRIES(f32, float)
ENTRIES(bf16, Bf16)
#undef ENTRIES
