// The gradient of DoRA's gain, dg_j = sum over tokens of dy_tj z_tj with z = (y - b) / g: columns of it from tiles, and z made anew where
// the gain is too small to divide by.
#pragma once

#include <cuda_bf16.h>
#include <stdint.h>

#include "reduce.cuh"

namespace gain_gradient {

// Below it a y in bf16 keeps too little of z (at g = 0 nothing).
constexpr float kSmallGain = 1.0f / 64.0f;
__device__ __forceinline__ bool is_small(float gain) { return fabsf(gain) < kSmallGain; }

__device__ __forceinline__ float widen(float value) { return value; }
__device__ __forceinline__ float widen(__nv_bfloat16 value) { return __bfloat162float(value); }

// One column of a linear with an adapter, from a piece's first token on: z = x w + s t b, multiplied by dy.
template <class T>
struct Column {
    const T* x;   // [tokens, k]
    const T* w;   // [k]
    const T* t;   // [tokens, rank_padded]
    const T* b;   // [rank_padded]
    const T* dy;  // [tokens], ld apart
    unsigned k, rank_padded, ld;
    float scale;
};

// sum over `tokens` of dy z, in thread 0: each warp has a token of its own. Every thread of the block must call it.
template <unsigned kThreads, class T>
__device__ __forceinline__ float exact_sum(const Column<T>& column, unsigned tokens, float (&partial)[kThreads / kWarp][1]) {
    const unsigned warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
    float total = 0.0f;
    for (unsigned token = warp; token < tokens; token += kThreads / kWarp) {
        const T* const x = column.x + size_t(token) * column.k;
        const T* const t = column.t + size_t(token) * column.rank_padded;
        float z = 0.0f, low_rank = 0.0f;
        for (unsigned c = lane; c < column.k; c += kWarp) z = fmaf(widen(x[c]), widen(column.w[c]), z);
        for (unsigned r = lane; r < column.rank_padded; r += kWarp) low_rank = fmaf(widen(t[r]), widen(column.b[r]), low_rank);
        const float sum = warp_sum(fmaf(column.scale, low_rank, z));
        total = fmaf(widen(column.dy[size_t(token) * column.ld]), sum, total);
    }
    const float only[1] = {lane == 0 ? total : 0.0f};
    return block_sums<1, kThreads>(only, partial);
}

// Two bf16 of a word, widened.
__device__ __forceinline__ float low(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float high(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }

// sums += dy (y - bias) over a tile [16 tokens, 16 columns] in shared memory: lane l has token l % 16 and 8 columns from l / 16 * 8 on.
// Strides that are an odd number of 16-byte units keep the 8 lanes that read at once in different banks.
__device__ __forceinline__ void add_tile(float (&sums)[8], const __nv_bfloat16* dy, const __nv_bfloat16* y, const float* bias,
                                         unsigned stride, unsigned lane) {
    const unsigned at = lane % 16 * stride + lane / 16 * 8;
    const uint4 dys = *reinterpret_cast<const uint4*>(dy + at), ys = *reinterpret_cast<const uint4*>(y + at);
    const auto* const biases = reinterpret_cast<const float4*>(bias + lane / 16 * 8);
    const float4 b0 = biases[0], b1 = biases[1];
    sums[0] = fmaf(low(dys.x), low(ys.x) - b0.x, sums[0]);
    sums[1] = fmaf(high(dys.x), high(ys.x) - b0.y, sums[1]);
    sums[2] = fmaf(low(dys.y), low(ys.y) - b0.z, sums[2]);
    sums[3] = fmaf(high(dys.y), high(ys.y) - b0.w, sums[3]);
    sums[4] = fmaf(low(dys.z), low(ys.z) - b1.x, sums[4]);
    sums[5] = fmaf(high(dys.z), high(ys.z) - b1.y, sums[5]);
    sums[6] = fmaf(low(dys.w), low(ys.w) - b1.z, sums[6]);
    sums[7] = fmaf(high(dys.w), high(ys.w) - b1.w, sums[7]);
}

// The sum over the 16 lanes that have one token each, as a tree; valid in lanes 0 and 16.
__device__ __forceinline__ float token_sum(float value) {
#pragma unroll
    for (unsigned offset = 8; offset > 0; offset /= 2) value += __shfl_down_sync(0xffffffffu, value, offset, 16);
    return value;
}

}  // namespace gain_gradient
