// Sums over a warp and over a block in a fixed order: the same inputs give the same bits on every launch.
#pragma once

constexpr unsigned kWarp = 32;

// The sum of `value` over the warp's 32 lanes, as a tree; valid in lane 0. Every lane must call it.
__device__ __forceinline__ float warp_sum(float value) {
#pragma unroll
    for (unsigned offset = kWarp / 2; offset > 0; offset /= 2) {
        value += __shfl_down_sync(0xffffffffu, value, offset);
    }
    return value;
}

// N sums over a block of kThreads threads at once. Thread i < N returns sum i; what other threads return has no meaning.
// `partial` is shared memory that nobody else uses in between; the block is synchronised once inside, after the warps' sums.
template <int N, unsigned kThreads>
__device__ __forceinline__ float block_sums(const float (&values)[N], float (&partial)[kThreads / kWarp][N]) {
    static_assert(kThreads % kWarp == 0 && N <= kThreads);
    const unsigned warp = threadIdx.x / kWarp;
#pragma unroll
    for (int i = 0; i < N; ++i) {
        const float sum = warp_sum(values[i]);
        if (threadIdx.x % kWarp == 0) partial[warp][i] = sum;
    }
    __syncthreads();
    float total = 0.0f;
    if (threadIdx.x < N) {
        for (unsigned w = 0; w < kThreads / kWarp; ++w) total += partial[w][threadIdx.x];
    }
    return total;
}
