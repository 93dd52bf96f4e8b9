// One function over all elements of an array: 8 of them a thread, in vectors where all 8 are there.
#pragma once

#include "elements.cuh"

namespace map {

constexpr unsigned kBlock = 256;
constexpr unsigned kElements = 8;

// The first element of this thread. Grid: ceil(count / (kBlock kElements)) blocks along x.
__device__ __forceinline__ uint64_t first() {
    return (static_cast<uint64_t>(blockIdx.x) * kBlock + threadIdx.x) * kElements;
}

// How many of the thread's elements there are.
__device__ __forceinline__ unsigned present(uint64_t at, uint64_t count) {
    return at >= count ? 0u : count - at < kElements ? static_cast<unsigned>(count - at) : kElements;
}

}  // namespace map
