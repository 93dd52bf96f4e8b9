// What becomes of a bf16 product's accumulators: gain and bias in f32, rounding to bf16, then GELU, LayerScale with the residual,
// or GELU's derivative.
//
// A lane of mma's sum has 2 neighbouring columns of four 8-column pieces. The 4 lanes of a row exchange them, so that each has 8
// neighbouring columns: one 16-byte access to every matrix involved.
#pragma once

#include <type_traits>

#include "common/gemm_bf16.cuh"
#include "common/gemm_columns.cuh"
#include "common/gelu.cuh"

namespace gemm_bf16 {

enum class Epilogue {
    kPlain,             // C = bf16(v), v = g acc + bias
    kGelu,              // aux = bf16(v) where there is one, C = bf16(gelu(bf16(v)))
    kScaleResidual,     // C = bf16(residual + gamma bf16(v))
    kScaleResidualF32,  // the same with residual and C in f32
    kGeluBackward,      // C = bf16(bf16(v) gelu'(aux))
    kPartial,           // C = acc in f32
};

// Lane q of each 4 has word j for lane j; afterwards it has lane j's word q in place j.
__device__ __forceinline__ void transpose_in_quad(uint32_t (&word)[4]) {
    const bool upper = threadIdx.x & 2;
    const bool odd = threadIdx.x & 1;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        const uint32_t got = __shfl_xor_sync(0xffffffffu, upper ? word[i] : word[i + 2], 2);
        if (upper) word[i] = got; else word[i + 2] = got;
    }
#pragma unroll
    for (int i = 0; i < 4; i += 2) {
        const uint32_t got = __shfl_xor_sync(0xffffffffu, odd ? word[i] : word[i + 1], 1);
        if (odd) word[i] = got; else word[i + 1] = got;
    }
}

// 8 neighbouring values as they lie in memory: bf16 or f32.
template <typename T>
struct Eight {
    uint4 raw[sizeof(T) / 2];

    // The first `count`; as whole vectors if `vector`, which needs count 8 and 16-byte alignment.
    __device__ __forceinline__ void read(const T* from, bool vector, unsigned count) {
        if (vector) {
#pragma unroll
            for (unsigned i = 0; i < sizeof(T) / 2; ++i) raw[i] = reinterpret_cast<const uint4*>(from)[i];
        } else {
            T values[8];
#pragma unroll
            for (unsigned i = 0; i < 8; ++i) values[i] = i < count ? from[i] : T(0);
            uint32_t words[2 * sizeof(T)];
#pragma unroll
            for (unsigned i = 0; i < 2 * sizeof(T); ++i) {
                if constexpr (sizeof(T) == 4) words[i] = __float_as_uint(values[i]);
                else words[i] = static_cast<uint32_t>(values[2 * i]) | (static_cast<uint32_t>(values[2 * i + 1]) << 16);
            }
#pragma unroll
            for (unsigned i = 0; i < sizeof(T) / 2; ++i) {
                raw[i] = make_uint4(words[4 * i], words[4 * i + 1], words[4 * i + 2], words[4 * i + 3]);
            }
        }
    }

    __device__ __forceinline__ void widen(float (&to)[8]) const {
        if constexpr (sizeof(T) == 4) {
            to[0] = __uint_as_float(raw[0].x), to[1] = __uint_as_float(raw[0].y);
            to[2] = __uint_as_float(raw[0].z), to[3] = __uint_as_float(raw[0].w);
            to[4] = __uint_as_float(raw[1].x), to[5] = __uint_as_float(raw[1].y);
            to[6] = __uint_as_float(raw[1].z), to[7] = __uint_as_float(raw[1].w);
        } else {
            to[0] = low_bf16(raw[0].x), to[1] = high_bf16(raw[0].x), to[2] = low_bf16(raw[0].y), to[3] = high_bf16(raw[0].y);
            to[4] = low_bf16(raw[0].z), to[5] = high_bf16(raw[0].z), to[6] = low_bf16(raw[0].w), to[7] = high_bf16(raw[0].w);
        }
    }
};

__device__ __forceinline__ void write8(uint16_t* to, const uint32_t (&words)[4], bool vector, unsigned count) {
    if (vector) {
        *reinterpret_cast<uint4*>(to) = make_uint4(words[0], words[1], words[2], words[3]);
    } else {
#pragma unroll
        for (unsigned i = 0; i < 8; ++i) {
            if (i < count) to[i] = static_cast<uint16_t>(words[i / 2] >> (i % 2 * 16));
        }
    }
}

__device__ __forceinline__ void write8(uint16_t* to, const float (&v)[8], bool vector, unsigned count) {
    const uint32_t words[4] = {pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]), pack_bf16(v[4], v[5]), pack_bf16(v[6], v[7])};
    write8(to, words, vector, count);
}

__device__ __forceinline__ void write8(float* to, const float (&v)[8], bool vector, unsigned count) {
    if (vector) {
        reinterpret_cast<float4*>(to)[0] = make_float4(v[0], v[1], v[2], v[3]);
        reinterpret_cast<float4*>(to)[1] = make_float4(v[4], v[5], v[6], v[7]);
    } else {
#pragma unroll
        for (unsigned i = 0; i < 8; ++i) {
            if (i < count) to[i] = v[i];
        }
    }
}

// What an epilogue reads beside the accumulators: the residual, or the pre-activation.
template <Epilogue kEpilogue>
using Beside = Eight<std::conditional_t<kEpilogue == Epilogue::kScaleResidualF32, float, uint16_t>>;

template <Epilogue kEpilogue>
constexpr bool kReadsBeside = kEpilogue == Epilogue::kScaleResidual || kEpilogue == Epilogue::kScaleResidualF32 ||
                              kEpilogue == Epilogue::kGeluBackward;

// 8 columns of one row, `words` being their values rounded to bf16.
template <Epilogue kEpilogue>
__device__ __forceinline__ void finish8(
    const PeftkGemmParams& p, size_t at, const uint32_t (&words)[4], const Beside<kEpilogue>& beside,
    const float (&gamma)[8], bool vector, unsigned count) {
    auto* const c = reinterpret_cast<uint16_t*>(p.c) + at;
    if constexpr (kEpilogue == Epilogue::kPlain) {
        write8(c, words, vector, count);
    } else {
        float v[8], other[8];
        Eight<uint16_t>{{make_uint4(words[0], words[1], words[2], words[3])}}.widen(v);
        if constexpr (kReadsBeside<kEpilogue>) beside.widen(other);
        if constexpr (kEpilogue == Epilogue::kGelu) {
            if (p.aux != 0) write8(reinterpret_cast<uint16_t*>(p.aux) + at, words, vector, count);
            gelu_for_bf16(v);
            write8(c, v, vector, count);
        } else if constexpr (kEpilogue == Epilogue::kGeluBackward) {
            gelu_slope_for_bf16(other, v);
            write8(c, v, vector, count);
        } else {
#pragma unroll
            for (unsigned i = 0; i < 8; ++i) v[i] = fmaf(gamma[i], v[i], other[i]);
            if constexpr (kEpilogue == Epilogue::kScaleResidualF32) {
                write8(reinterpret_cast<float*>(p.c) + at, v, vector, count);
            } else {
                write8(c, v, vector, count);
            }
        }
    }
}

// Writes the warp's 64 x 32 of the tile at (row, tile.first). `row` and `column` are the warp's first.
template <Epilogue kEpilogue>
__device__ __forceinline__ void finish_bf16(
    const PeftkGemmParams& p, const ColumnTile& tile, const Accumulator& sum, unsigned row, unsigned column) {
    const unsigned lane = threadIdx.x % 32, quad = lane / 4, place = lane % 4;

    float gain[8], bias[8];  // of this lane's columns in the accumulator
#pragma unroll
    for (unsigned j = 0; j < 8; ++j) {
        const unsigned c = column + j / 2 * 8 + 2 * place + j % 2;
        const bool here = c < tile.end;
        gain[j] = 1.0f;
        if (tile.adapted && tile.adapter.gain != 0 && here) {
            gain[j] = reinterpret_cast<const float*>(tile.adapter.gain)[c - tile.adapter.first_row];
        }
        bias[j] = p.bias != 0 && here ? reinterpret_cast<const float*>(p.bias)[c] : 0.0f;
    }

    const unsigned first = column + 8 * place;  // of this lane's 8 columns after the exchange
    const unsigned count = first < tile.end ? min(tile.end - first, 8u) : 0;
    const bool vector = count == 8 && p.n % 8 == 0 && first % 8 == 0;
    float gamma[8] = {};
    if constexpr (kEpilogue == Epilogue::kScaleResidual || kEpilogue == Epilogue::kScaleResidualF32) {
#pragma unroll
        for (unsigned i = 0; i < 8; ++i) gamma[i] = i < count ? reinterpret_cast<const float*>(p.gamma)[first + i] : 0.0f;
    }

    // What is read beside is on its way for several rows at once.
    constexpr unsigned kAhead = kEpilogue == Epilogue::kScaleResidualF32 ? 2 : 4;
#pragma unroll
    for (unsigned group = 0; group < 8; group += kAhead) {
        Beside<kEpilogue> beside[kAhead];
        if constexpr (kReadsBeside<kEpilogue>) {
            using Element = std::conditional_t<kEpilogue == Epilogue::kScaleResidualF32, float, uint16_t>;
            const uint64_t base = kEpilogue == Epilogue::kGeluBackward ? p.aux : p.residual;
#pragma unroll
            for (unsigned i = group; i < group + kAhead; ++i) {
                const unsigned r = row + i / 2 * 16 + i % 2 * 8 + quad;
                if (r >= p.m || count == 0) continue;
                const Element* const from = reinterpret_cast<const Element*>(base) + static_cast<size_t>(r) * p.n + first;
                beside[i - group].read(from, vector, count);
            }
        }
#pragma unroll
        for (unsigned i = group; i < group + kAhead; ++i) {
            const unsigned r = row + i / 2 * 16 + i % 2 * 8 + quad;
            uint32_t words[4];
#pragma unroll
            for (unsigned j = 0; j < 4; ++j) {
                const float* value = &sum[i / 2][j][i % 2 * 2];
                words[j] = pack_bf16(fmaf(gain[2 * j], value[0], bias[2 * j]), fmaf(gain[2 * j + 1], value[1], bias[2 * j + 1]));
            }
            transpose_in_quad(words);
            if (r >= p.m || count == 0) continue;
            finish8<kEpilogue>(p, static_cast<size_t>(r) * p.n + first, words, beside[i - group], gamma, vector, count);
        }
    }
}

// Writes the warp's accumulators as they are to `c`, [m, n] in f32.
__device__ __forceinline__ void finish_f32(
    const PeftkGemmParams& p, float* c, const Accumulator& sum, unsigned row, unsigned column) {
    const unsigned lane = threadIdx.x % 32;
#pragma unroll
    for (unsigned i = 0; i < 8; ++i) {
        const unsigned r = row + i / 2 * 16 + i % 2 * 8 + lane / 4;
        if (r >= p.m) continue;
        float* const to = c + static_cast<size_t>(r) * p.n;
#pragma unroll
        for (unsigned j = 0; j < 4; ++j) {
            const unsigned first = column + j * 8 + lane % 4 * 2;
            const float* value = &sum[i / 2][j][i % 2 * 2];
            if (p.n % 2 == 0 && first < p.n) {
                *reinterpret_cast<float2*>(to + first) = make_float2(value[0], value[1]);
            } else {
                if (first < p.n) to[first] = value[0];
                if (first + 1 < p.n) to[first + 1] = value[1];
            }
        }
    }
}

}  // namespace gemm_bf16
