// The gradients of DoRA's gain g = m / n, which dora_norm.cu makes, and the gain's own gradient from a linear's output.
//
//     backward    dm = dg / n,  dn = -dg m / n^2
//     gradient    dg_j = sum over tokens of dy_tj z_tj,   z = x W^T + s t B^T = (y - b) / g
//
// Shapes    m, n, g and their gradients: f32, any number. y, dy [m, any] from a first column on, x [m, k], W [n, k], t
//           [m, rank_padded], B [rows, rank_padded]: bf16 or f32; bias, gain, dg f32.
// Numbers   f32, divisions rounded to nearest. The gradient reads y, which was saved anyway. Where |g| < 1 / 64 that y keeps too little
//           of z (at g = 0 nothing), so there z is made anew from x: slow, right, and rare. Tokens are summed a piece at a time,
//           pieces as common/cut.cuh says.
// Traffic   backward: 3 values each, with dn 5. gradient: y and dy once: m 65792, 384 rows: 101 MB in bf16, 34 us at 2.96 TB/s; where
//           lora_gradients.cu reads dy anyway and y beside it, this one is not launched.
// Launch    backward: grid (ceil(most count / 256), adapters), 256 threads; gradient: grid (ceil(rows / 64), pieces), 256 threads;
//           its reduction: grid (ceil(rows / 32)), 256 threads. No dynamic shared memory.

#include <cuda_bf16.h>

#include "common/cut.cuh"
#include "common/gain_gradient.cuh"
#include "common/pdl.cuh"
#include "common/reduce.cuh"
#include "params.h"

namespace {

using bf16 = __nv_bfloat16;
using gain_gradient::widen;
constexpr unsigned kThreads = 256;
constexpr unsigned kColumns = 64;  // columns a block: in bf16 8 threads side by side, the others further down

template <class T, unsigned kWidth>
struct alignas(kWidth * sizeof(T)) Vector {
    T value[kWidth];
};

// Column sums of dy (y - b) over one piece; thread (down, across) has kWidth columns.
template <class T, unsigned kWidth>
__device__ __forceinline__ void column_sums(const PeftkMagnitudeGradientParams& p, unsigned first, unsigned tokens,
                                            float (&sums)[kThreads / kWarp * 4][kColumns + 1]) {
    constexpr unsigned kAcross = kColumns / kWidth, kDown = kThreads / kAcross, kKept = kThreads / kWarp * 4;
    const unsigned across = threadIdx.x % kAcross, down = threadIdx.x / kAcross, j = blockIdx.x * kColumns + across * kWidth;
    const T* const dy = reinterpret_cast<const T*>(p.dy) + size_t(first) * p.ld + p.first_row + j;
    const T* const y = reinterpret_cast<const T*>(p.y) + size_t(first) * p.ld_y + p.y_column + j;
    float bias[kWidth] = {}, sum[kWidth] = {};
    if (j < p.rows) {
#pragma unroll
        for (unsigned i = 0; i < kWidth; ++i) {
            if (p.bias && j + i < p.rows) bias[i] = reinterpret_cast<const float*>(p.bias)[p.first_row + j + i];
        }
#pragma unroll 4
        for (unsigned token = down; token < tokens; token += kDown) {
            const auto dys = *reinterpret_cast<const Vector<T, kWidth>*>(dy + size_t(token) * p.ld);
            const auto ys = *reinterpret_cast<const Vector<T, kWidth>*>(y + size_t(token) * p.ld_y);
#pragma unroll
            for (unsigned i = 0; i < kWidth; ++i) sum[i] = fmaf(widen(dys.value[i]), widen(ys.value[i]) - bias[i], sum[i]);
        }
    }
    // Narrow loads leave fewer rows of threads: the rest of `sums` is zero.
    if (kDown < kKept) {
        for (unsigned i = threadIdx.x; i < kKept * kColumns; i += kThreads) sums[i / kColumns][i % kColumns] = 0.0f;
        __syncthreads();
    }
#pragma unroll
    for (unsigned i = 0; i < kWidth; ++i) sums[down][across * kWidth + i] = sum[i];
}

template <class T>
__device__ __forceinline__ void gradient(const PeftkMagnitudeGradientParams& p) {
    constexpr unsigned kWidth = 16 / sizeof(T), kKept = kThreads / kWarp * 4;
    static_assert(kThreads / (kColumns / kWidth) <= kKept);
    __shared__ float sums[kKept][kColumns + 1];
    __shared__ float partial[kThreads / kWarp][1];
    const unsigned first = cut::first_row(p.cut, blockIdx.y), tokens = cut::end_row(p.cut, blockIdx.y) - first;
    const bool vectors = (p.ld | p.ld_y | p.first_row | p.y_column | p.rows) % kWidth == 0 && (p.y | p.dy) % 16 == 0;
    if (vectors) column_sums<T, kWidth>(p, first, tokens, sums);
    else column_sums<T, 1>(p, first, tokens, sums);
    __syncthreads();
    const auto* const gain = reinterpret_cast<const float*>(p.gain);
    auto* const out = reinterpret_cast<float*>(p.partial) + size_t(blockIdx.y) * p.rows;
    const unsigned start = blockIdx.x * kColumns, columns = min(kColumns, p.rows - start);
    if (threadIdx.x < columns) {
        float sum = 0.0f;
#pragma unroll
        for (unsigned i = 0; i < kKept; ++i) sum += sums[i][threadIdx.x];
        const float g = gain ? gain[start + threadIdx.x] : 1.0f;
        if (!gain_gradient::is_small(g)) out[start + threadIdx.x] = __fdiv_rn(sum, g);
    }
    for (unsigned i = 0; gain && i < columns; ++i) {
        if (!gain_gradient::is_small(gain[start + i])) continue;
        const unsigned j = start + i;
        const gain_gradient::Column<T> column = {reinterpret_cast<const T*>(p.x) + size_t(first) * p.k,
                                                 reinterpret_cast<const T*>(p.w) + size_t(p.first_row + j) * p.ld_w,
                                                 reinterpret_cast<const T*>(p.t) + size_t(first) * p.rank_padded,
                                                 reinterpret_cast<const T*>(p.b) + size_t(j) * p.rank_padded,
                                                 reinterpret_cast<const T*>(p.dy) + size_t(first) * p.ld + p.first_row + j,
                                                 p.k,
                                                 p.rank_padded,
                                                 p.ld,
                                                 p.scale};
        const float sum = gain_gradient::exact_sum<kThreads>(column, tokens, partial);
        if (threadIdx.x == 0) out[start + i] = sum;
        __syncthreads();
    }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads)
    magnitude_rescale_backward_f32(const __grid_constant__ PeftkMagnitudeBackwardParams p) {
    pdl::start();
    const PeftkMagnitudeBackwardItem& item = p.items[blockIdx.y];
    const unsigned i = blockIdx.x * kThreads + threadIdx.x;
    if (i >= item.count) return;
    const float n = reinterpret_cast<const float*>(item.norm)[i];
    const float over = __fdiv_rn(reinterpret_cast<const float*>(item.dgain)[i], n);
    float* const dmagnitude = reinterpret_cast<float*>(item.dmagnitude) + i;
    *dmagnitude = item.add ? *dmagnitude + over : over;
    if (item.dnorm) {
        reinterpret_cast<float*>(item.dnorm)[i] = -over * __fdiv_rn(reinterpret_cast<const float*>(item.magnitude)[i], n);
    }
}

extern "C" __global__ void __launch_bounds__(kThreads)
    magnitude_gradient_bf16(const __grid_constant__ PeftkMagnitudeGradientParams p) {
    pdl::start();
    gradient<bf16>(p);
}
extern "C" __global__ void __launch_bounds__(kThreads)
    magnitude_gradient_f32(const __grid_constant__ PeftkMagnitudeGradientParams p) {
    pdl::start();
    gradient<float>(p);
}

// Adds the pieces up.
extern "C" __global__ void __launch_bounds__(kThreads)
    magnitude_gradient_reduce(const __grid_constant__ PeftkMagnitudeGradientParams p) {
    pdl::start();
    const unsigned j = blockIdx.x * 32 + threadIdx.x % 32;
    const bool there = j < p.rows;
    const auto* const partial = reinterpret_cast<const float*>(p.partial);
    auto* const to = reinterpret_cast<float*>(p.dgain) + j;
    const float sum = cut::add_up<32, 8>(
        p.cut, there, there && p.cut.add ? *to : 0.0f, [&](unsigned piece) { return partial[size_t(piece) * p.rows + j]; },
        [](float sum) { return sum; });
    if (there && threadIdx.x < 32) *to = sum;
}
