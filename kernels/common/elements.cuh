// f32 and bf16 elements read and written as f32: one at a time, or 4 or 8 that lie side by side as vectors of 8 or 16 bytes.
#pragma once

#include <stdint.h>

#include "reduce.cuh"

// A bfloat16: the upper half of an f32.
struct Bf16 {
    uint16_t bits;
};

__device__ __forceinline__ float widen(float value) { return value; }
__device__ __forceinline__ float widen(Bf16 value) { return __uint_as_float(static_cast<uint32_t>(value.bits) << 16); }

// `low` and `high` rounded to nearest even, in the lower and upper half.
__device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
    uint32_t packed;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
}

__device__ __forceinline__ void put(float* target, float value) { *target = value; }
__device__ __forceinline__ void put(Bf16* target, float value) {
    target->bits = static_cast<uint16_t>(pack_bf16(value, 0.0f));
}

// What reading the value back from memory of type T would give.
template <typename T>
__device__ __forceinline__ float rounded(float value) {
    if constexpr (sizeof(T) == 2) return __uint_as_float(pack_bf16(value, 0.0f) << 16);
    return value;
}

// N elements from an address that is a multiple of N elements.
template <int N>
__device__ __forceinline__ void load(const float* source, float (&values)[N]) {
    static_assert(N % 4 == 0);
#pragma unroll
    for (int i = 0; i < N; i += 4) {
        const float4 four = *reinterpret_cast<const float4*>(source + i);
        values[i] = four.x;
        values[i + 1] = four.y;
        values[i + 2] = four.z;
        values[i + 3] = four.w;
    }
}

__device__ __forceinline__ void unpack_bf16(uint32_t pair, float& low, float& high) {
    low = __uint_as_float(pair << 16);
    high = __uint_as_float(pair & 0xffff0000u);
}

template <int N>
__device__ __forceinline__ void load(const Bf16* source, float (&values)[N]) {
    static_assert(N == 4 || N == 8);
    if constexpr (N == 8) {
        const uint4 eight = *reinterpret_cast<const uint4*>(source);
        unpack_bf16(eight.x, values[0], values[1]);
        unpack_bf16(eight.y, values[2], values[3]);
        unpack_bf16(eight.z, values[4], values[5]);
        unpack_bf16(eight.w, values[6], values[7]);
    } else {
        const uint2 four = *reinterpret_cast<const uint2*>(source);
        unpack_bf16(four.x, values[0], values[1]);
        unpack_bf16(four.y, values[2], values[3]);
    }
}

template <int N>
__device__ __forceinline__ void store(float* target, const float (&values)[N]) {
    static_assert(N % 4 == 0);
#pragma unroll
    for (int i = 0; i < N; i += 4) {
        *reinterpret_cast<float4*>(target + i) = make_float4(values[i], values[i + 1], values[i + 2], values[i + 3]);
    }
}

template <int N>
__device__ __forceinline__ void store(Bf16* target, const float (&values)[N]) {
    static_assert(N == 4 || N == 8);
    if constexpr (N == 8) {
        *reinterpret_cast<uint4*>(target) = make_uint4(pack_bf16(values[0], values[1]), pack_bf16(values[2], values[3]),
                                                       pack_bf16(values[4], values[5]), pack_bf16(values[6], values[7]));
    } else {
        *reinterpret_cast<uint2*>(target) = make_uint2(pack_bf16(values[0], values[1]), pack_bf16(values[2], values[3]));
    }
}

// As load and store, for the first `count` of N elements and any address; what is beyond is read as 0. `whole` says that all N are
// there and aligned: it must be the same for the warp to be fast, not to be right.
template <int N, typename T>
__device__ __forceinline__ void load_some(const T* source, bool whole, unsigned count, float (&values)[N]) {
    if (whole) {
        load(source, values);
    } else {
#pragma unroll
        for (unsigned i = 0; i < N; ++i) values[i] = i < count ? widen(source[i]) : 0.0f;
    }
}

template <int N, typename T>
__device__ __forceinline__ void store_some(T* target, bool whole, unsigned count, const float (&values)[N]) {
    if (whole) {
        store(target, values);
    } else {
#pragma unroll
        for (unsigned i = 0; i < N; ++i) {
            if (i < count) put(target + i, values[i]);
        }
    }
}

// Calls `work` with `condition` as a compile-time constant, `.value`: a loop inside can then load several steps ahead.
template <bool kValue>
struct Constant {
    static constexpr bool value = kValue;
};
template <typename Work>
__device__ __forceinline__ void specialized(bool condition, Work&& work) {
    if (condition) work(Constant<true>{});
    else work(Constant<false>{});
}

// Whether every address is a multiple of 16 bytes.
template <typename... Addresses>
__device__ __forceinline__ bool aligned16(Addresses... addresses) {
    return ((addresses | ...) & 15u) == 0;
}

template <typename T>
__device__ __forceinline__ const T* source_of(uint64_t address) {
    return reinterpret_cast<const T*>(address);
}
template <typename T>
__device__ __forceinline__ T* target_of(uint64_t address) {
    return reinterpret_cast<T*>(address);
}

// The sum over the warp, the same bits in every lane: a butterfly adds the same pairs on both sides.
__device__ __forceinline__ float warp_all_sum(float value) {
#pragma unroll
    for (unsigned offset = kWarp / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
    return value;
}

// The sum over a block of at most 32 warps, in every thread. `partial` is shared memory of one float a warp that nobody else uses
// until the block's next synchronisation.
__device__ __forceinline__ float block_all_sum(float value, float* partial) {
    value = warp_all_sum(value);
    if (threadIdx.x % kWarp == 0) partial[threadIdx.x / kWarp] = value;
    __syncthreads();
    float total = 0.0f;
    for (unsigned w = 0; w < blockDim.x / kWarp; ++w) total += partial[w];
    return total;
}
