// What the matrix products read of an adapter, made from its f32 masters once a step; and g W, what dx is made with.
//
//     A [rank_padded, k], B [rows, rank_padded], s g B [rows, rank_padded]      zeros beyond rank
//     out_j = g_j W_j on the rows under a gain, W_j on the others               [n, k]
//
// Shapes    masters A [rank, k], B [rows, rank], g [rows] f32; outputs bf16 or f32, any size from 1.
// Numbers   everything in f32, one rounding to the output's type; s g B is (s g) B.
// Traffic   masters once (B twice, from cache), outputs once: ViT-S/14, q and v of 12 blocks at rank 8: 0.6 MB read, 1.8 MB written.
//           weight_rescale: W read, g W written, 21 MB for all qkv of ViT-S/14 in bf16.
// Launch    pack: grid (any, adapters), 256 threads, the blocks of x stride over the elements; weight_rescale: grid (any, weights),
//           256 threads, a warp a row. No dynamic shared memory.

#include <cuda_bf16.h>

#include "common/pdl.cuh"
#include "params.h"

namespace {

using bf16 = __nv_bfloat16;
constexpr unsigned kThreads = 256;

__device__ __forceinline__ float widen(float value) { return value; }
__device__ __forceinline__ float widen(bf16 value) { return __bfloat162float(value); }
__device__ __forceinline__ void store(float* to, float value) { *to = value; }
__device__ __forceinline__ void store(bf16* to, float value) { *to = __float2bfloat16(value); }

template <class T>
__device__ __forceinline__ void pack(const PeftkAdapterPackParams& p) {
    const PeftkAdapterPackItem& item =
        p.items ? reinterpret_cast<const PeftkAdapterPackItem*>(p.items)[blockIdx.y] : p.adapters[blockIdx.y];
    const auto* const a = reinterpret_cast<const float*>(item.a);
    const auto* const b = reinterpret_cast<const float*>(item.b);
    const auto* const gain = reinterpret_cast<const float*>(item.gain);
    auto* const a_packed = reinterpret_cast<T*>(item.a_packed);
    auto* const a_joined = reinterpret_cast<T*>(item.a_joined);
    auto* const b_packed = reinterpret_cast<T*>(item.b_packed);
    auto* const bg_packed = reinterpret_cast<T*>(item.bg_packed);
    const unsigned rank = item.rank, padded = item.rank_padded;
    const size_t in_a = size_t(padded) * item.k, in_b = size_t(padded) * item.rows, filled = size_t(rank) * item.k;
    for (size_t i = size_t(blockIdx.x) * kThreads + threadIdx.x; i < in_a + in_b; i += size_t(gridDim.x) * kThreads) {
        if (i < in_a) {
            const float value = i < filled ? a[i] : 0.0f;
            if (a_packed) store(a_packed + i, value);
            if (a_joined) store(a_joined + i, value);
            continue;
        }
        const size_t at = i - in_a, row = at / padded;
        const unsigned column = at % padded;
        const float value = column < rank ? b[row * rank + column] : 0.0f;
        if (b_packed) store(b_packed + at, value);
        if (bg_packed) store(bg_packed + at, item.scale * (gain ? gain[row] : 1.0f) * value);
    }
}

// 4 values at a time.
template <class T>
struct alignas(4 * sizeof(T)) Four {
    T value[4];
};

template <class In, class Out>
__device__ __forceinline__ void rescale(const PeftkWeightRescaleParams& p) {
    const PeftkWeightRescaleItem& item = p.items ? reinterpret_cast<const PeftkWeightRescaleItem*>(p.items)[blockIdx.y] : p.item;
    const unsigned k = item.k, lane = threadIdx.x % 32;
    for (unsigned row = blockIdx.x * (kThreads / 32) + threadIdx.x / 32; row < item.n; row += gridDim.x * (kThreads / 32)) {
        float gain = 1.0f;
#pragma unroll
        for (unsigned i = 0; i < 3; ++i) {
            const unsigned at = row - item.first_row[i];  // wraps above every count for rows before the first
            if (item.gain[i] && at < item.rows[i]) gain = reinterpret_cast<const float*>(item.gain[i])[at];
        }
        const In* const w = reinterpret_cast<const In*>(item.w) + size_t(row) * k;
        Out* const out = reinterpret_cast<Out*>(item.out) + size_t(row) * k;
        if (k % 4 == 0) {
            for (unsigned c = lane * 4; c < k; c += 128) {
                const auto in = *reinterpret_cast<const Four<In>*>(w + c);
                Four<Out> scaled;
#pragma unroll
                for (unsigned i = 0; i < 4; ++i) store(&scaled.value[i], gain * widen(in.value[i]));
                *reinterpret_cast<Four<Out>*>(out + c) = scaled;
            }
        } else {
            for (unsigned c = lane; c < k; c += 32) store(out + c, gain * widen(w[c]));
        }
    }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads) adapter_pack_bf16(const __grid_constant__ PeftkAdapterPackParams p) {
    pdl::start();
    pack<bf16>(p);
}
extern "C" __global__ void __launch_bounds__(kThreads) adapter_pack_f32(const __grid_constant__ PeftkAdapterPackParams p) {
    pdl::start();
    pack<float>(p);
}
// W and g W in bf16.
extern "C" __global__ void __launch_bounds__(kThreads) weight_rescale_bf16(const __grid_constant__ PeftkWeightRescaleParams p) {
    pdl::start();
    rescale<bf16, bf16>(p);
}
// W in f32, g W in bf16: one rounding in all.
extern "C" __global__ void __launch_bounds__(kThreads) weight_rescale_f32_bf16(const __grid_constant__ PeftkWeightRescaleParams p) {
    pdl::start();
    rescale<float, bf16>(p);
}
extern "C" __global__ void __launch_bounds__(kThreads) weight_rescale_f32(const __grid_constant__ PeftkWeightRescaleParams p) {
    pdl::start();
    rescale<float, float>(p);
}
