// DoRA under dropout, as peft defines it: y = x W^T + b + (g - 1) drop(x) W^T + g s t B^T, t = drop(x) A^T.
//
//     z = drop(x) W^T + s t B^T,  u = drop(x) W^T        two matrix products on the adapter's rows of W
//     y[t, first + j] += g[j] z[t, j] - u[t, j]           here; z is kept, for dg[j] = sum_t dy[t, first + j] z[t, j]
//
// Shapes    y [m, n], z and u [m, rows], g [rows] f32; y, z, u bf16 or f32, any size from 1.
// Numbers   f32 arithmetic, y rounded once more. g - 1 in f32: in bf16 it is 0 for most rows.
// Traffic   3 reads and a write of m rows values; the columns of y that are not the adapter's stay untouched.
// Launch    dora_dropout_*: grid (ceil(m rows / kThreads)); gain_minus_one_f32: grid (ceil(count / kThreads)); block (kThreads).

#include <cuda_bf16.h>

#include "common/pdl.cuh"
#include "params.h"

namespace {

constexpr unsigned kThreads = 256;

__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ float widen(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ __forceinline__ void store(float* at, float x) { *at = x; }
__device__ __forceinline__ void store(__nv_bfloat16* at, float x) { *at = __float2bfloat16_rn(x); }

template <typename T>
__device__ __forceinline__ void mix(const PeftkDoraDropoutParams& p) {
    const size_t at = static_cast<size_t>(blockIdx.x) * kThreads + threadIdx.x;
    if (at >= static_cast<size_t>(p.m) * p.rows) return;
    const size_t token = at / p.rows;
    const unsigned j = static_cast<unsigned>(at % p.rows);
    T* y = reinterpret_cast<T*>(p.y) + token * p.n + p.first_row + j;
    const float z = widen(reinterpret_cast<const T*>(p.z)[at]);
    const float u = widen(reinterpret_cast<const T*>(p.u)[at]);
    const float g = reinterpret_cast<const float*>(p.gain)[j];
    store(y, widen(*y) + (fmaf(g, z, -u)));
}

}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads) dora_dropout_bf16(const PeftkDoraDropoutParams p) {
    pdl::start();
    mix<__nv_bfloat16>(p);
}

extern "C" __global__ void __launch_bounds__(kThreads) dora_dropout_f32(const PeftkDoraDropoutParams p) {
    pdl::start();
    mix<float>(p);
}

extern "C" __global__ void __launch_bounds__(kThreads) gain_minus_one_f32(const PeftkGainMinusOneParams p) {
    pdl::start();
    const size_t at = static_cast<size_t>(blockIdx.x) * kThreads + threadIdx.x;
    if (at < p.count) reinterpret_cast<float*>(p.out)[at] = reinterpret_cast<const float*>(p.gain)[at] - 1.0f;
}
