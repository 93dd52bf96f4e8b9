// Small operations over whole arrays: additions, scaling, casts, filling, dropout.
//
//     add_assign  acc += x        scale_assign  x *= factor        fill  x = value
//     cast        target[i, j] = source[i, j] for j < cols, 0 for j beyond, with a row stride each
//     dropout     y = x scale where the upper 24 bits of SplitMix64(seed, index) reach the threshold, else 0
//
// Shapes    arrays of any length; names end in the type, where there are two in acc_x or source_target.
// Numbers   one operation in f32, one rounding.
// Traffic   every array once.
// Launch    block 256, 8 elements a thread: grid ceil(count / 2048); cast: of the target's rows * ceil(ld_target / 8) * 8 elements.

#include "common/map.cuh"
#include "common/pdl.cuh"
#include "params/pointwise.h"

namespace elementwise {

using namespace map;

// acc in p.y, x in p.x.
template <typename A, typename X>
__device__ __forceinline__ void add_assign(const PeftkMapParams& p) {
    const uint64_t at = first();
    const unsigned count = present(at, p.count);
    if (count == 0) return;
    const bool whole = count == kElements && aligned16(p.x, p.y);
    float acc[kElements], x[kElements];
    load_some(source_of<A>(p.y) + at, whole, count, acc);
    load_some(source_of<X>(p.x) + at, whole, count, x);
#pragma unroll
    for (unsigned j = 0; j < kElements; ++j) acc[j] += x[j];
    store_some(target_of<A>(p.y) + at, whole, count, acc);
}

template <typename T>
__device__ __forceinline__ void scale_assign(const PeftkScaleParams& p) {
    const uint64_t at = first();
    const unsigned count = present(at, p.count);
    if (count == 0) return;
    const bool whole = count == kElements && aligned16(p.x);
    float x[kElements];
    load_some(source_of<T>(p.x) + at, whole, count, x);
#pragma unroll
    for (unsigned j = 0; j < kElements; ++j) x[j] *= p.factor;
    store_some(target_of<T>(p.x) + at, whole, count, x);
}

template <typename T>
__device__ __forceinline__ void fill(const PeftkScaleParams& p) {
    const uint64_t at = first();
    const unsigned count = present(at, p.count);
    if (count == 0) return;
    float x[kElements];
#pragma unroll
    for (unsigned j = 0; j < kElements; ++j) x[j] = p.factor;
    store_some(target_of<T>(p.x) + at, count == kElements && aligned16(p.x), count, x);
}

template <typename S, typename T>
__device__ __forceinline__ void cast(const PeftkCastParams& p) {
    const unsigned per_row = (p.ld_target + kElements - 1) / kElements;
    const uint64_t chunk = static_cast<uint64_t>(blockIdx.x) * kBlock + threadIdx.x, row = chunk / per_row;
    if (row >= p.rows) return;
    const unsigned column = static_cast<unsigned>(chunk % per_row) * kElements;
    const unsigned count = min(kElements, p.ld_target - column), given = column < p.cols ? min(count, p.cols - column) : 0;
    const bool aligned = aligned16(p.source, p.target);
    float x[kElements];
    load_some(source_of<S>(p.source) + row * p.ld_source + column, given == kElements && aligned && p.ld_source % kElements == 0,
              given, x);
    store_some(target_of<T>(p.target) + row * p.ld_target + column, count == kElements && aligned && p.ld_target % kElements == 0,
               count, x);
}

__device__ __forceinline__ uint32_t mask_bits(uint64_t seed, uint64_t index) {
    uint64_t z = seed + (index + 1) * 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    z ^= z >> 31;
    return static_cast<uint32_t>(z >> 40);
}

template <typename T>
__device__ __forceinline__ void dropout(const PeftkDropoutParams& p) {
    const uint64_t at = first();
    const unsigned count = present(at, p.count);
    if (count == 0) return;
    const bool whole = count == kElements && aligned16(p.x, p.y);
    float x[kElements];
    load_some(source_of<T>(p.x) + at, whole, count, x);
#pragma unroll
    for (unsigned j = 0; j < kElements; ++j) x[j] = mask_bits(p.seed, at + j) >= p.threshold ? x[j] * p.scale : 0.0f;
    store_some(target_of<T>(p.y) + at, whole, count, x);
}

}  // namespace elementwise

#define ENTRY(NAME, PARAMS, BODY, ...)                                               \
    extern "C" __global__ void __launch_bounds__(map::kBlock) NAME(const PARAMS p) { \
        pdl::start();                                                                \
        elementwise::BODY<__VA_ARGS__>(p);                                           \
    }

ENTRY(add_assign_f32_f32, PeftkMapParams, add_assign, float, float)
ENTRY(add_assign_f32_bf16, PeftkMapParams, add_assign, float, Bf16)
ENTRY(add_assign_bf16_f32, PeftkMapParams, add_assign, Bf16, float)
ENTRY(add_assign_bf16_bf16, PeftkMapParams, add_assign, Bf16, Bf16)
ENTRY(scale_assign_f32, PeftkScaleParams, scale_assign, float)
ENTRY(scale_assign_bf16, PeftkScaleParams, scale_assign, Bf16)
ENTRY(fill_f32, PeftkScaleParams, fill, float)
ENTRY(fill_bf16, PeftkScaleParams, fill, Bf16)
ENTRY(cast_f32_f32, PeftkCastParams, cast, float, float)
ENTRY(cast_f32_bf16, PeftkCastParams, cast, float, Bf16)
ENTRY(cast_bf16_f32, PeftkCastParams, cast, Bf16, float)
ENTRY(cast_bf16_bf16, PeftkCastParams, cast, Bf16, Bf16)
ENTRY(dropout_f32, PeftkDropoutParams, dropout, float)
ENTRY(dropout_bf16, PeftkDropoutParams, dropout, Bf16)
#undef ENTRY
