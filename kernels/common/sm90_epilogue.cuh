// What happens to a tile of accumulators: v = g_j acc + bias_j in f32, then by epilogue, stored in 16-byte pieces.
//
// A warp owns 16 rows of each half of a warpgroup's 128 rows. v is rounded to bf16 (every epilogue rounds there first, as the
// separate operations would), goes through the warp's own corner of shared memory, and comes back as pieces of 8 columns, so
// that residual, pre-activation and result move as whole 16-byte pieces of a row. No other warp takes part: a warpgroup's
// epilogue runs beside the other's products without a barrier.
#pragma once

#include <cuda_bf16.h>

#include "common/gelu.cuh"
#include "common/sm90.cuh"

namespace sm90 {

enum class Epilogue {
    kStore,             // C = bf16(v)
    kGelu,              // aux = bf16(v), C = bf16(gelu(aux))
    kScaleResidual,     // C = bf16(residual + gamma_j bf16(v))
    kScaleResidualF32,  // the same, residual and C f32
    kGeluBackward,      // C = bf16(bf16(acc) gelu'(aux))
    kStoreF32,          // C = acc, f32
};

// Where a tile lies in C.
struct Place {
    unsigned row;      // its first row
    unsigned column;   // its first column
    unsigned end;      // one past its last column
    const float* gain; // of `column`; null: 1
    size_t part;       // first element of C: the split's result
};

__device__ __forceinline__ uint32_t pack(float low, float high) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<const uint32_t*>(&pair);
}

__device__ __forceinline__ float2 unpack(uint32_t pair) {
    return make_float2(__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u));
}

// The thread's lane, read anew: what is computed from it does not live in registers from one tile to the next.
__device__ __forceinline__ unsigned fresh_lane() {
    unsigned lane;
    asm volatile("mov.u32 %0, %%laneid;" : "=r"(lane));
    return lane;
}

// Bytes of a warp's corner: 16 rows, each 16 bytes longer than its columns, so that 8 rows meet no bank twice.
constexpr unsigned corner_bytes(unsigned columns) { return 16 * (columns * 2 + 16); }

template <Epilogue kEpilogue>
__device__ __forceinline__ uint4 finish(const PeftkGemmParams& p, uint4 value, uint4 other, unsigned column) {
    uint32_t in[4] = {value.x, value.y, value.z, value.w};
    const uint32_t with[4] = {other.x, other.y, other.z, other.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const float2 u = unpack(in[i]);
        if constexpr (kEpilogue == Epilogue::kGelu) {
            in[i] = pack(gelu(u.x), gelu(u.y));
        } else if constexpr (kEpilogue == Epilogue::kGeluBackward) {
            const float2 x = unpack(with[i]);
            in[i] = pack(u.x * gelu_slope(x.x), u.y * gelu_slope(x.y));
        } else if constexpr (kEpilogue == Epilogue::kScaleResidual) {
            const float2 r = unpack(with[i]);
            const float2 gamma = reinterpret_cast<const float2*>(reinterpret_cast<const float*>(p.gamma) + column)[i];
            in[i] = pack(fmaf(gamma.x, u.x, r.x), fmaf(gamma.y, u.y, r.y));
        }
    }
    return make_uint4(in[0], in[1], in[2], in[3]);
}

// kGains: place.gain may be there.
template <int kColumns, Epilogue kEpilogue, bool kGains, int kSize>
__device__ __forceinline__ void epilogue(const PeftkGemmParams& p, const Place& place, float (&acc)[2][kSize], uint32_t corner) {
    const unsigned lane = fresh_lane();
    const unsigned warp = threadIdx.x / 32 % 4;
    const unsigned pair = lane % 4 * 2;
    const size_t n = p.n;

    if constexpr (kEpilogue == Epilogue::kStoreF32) {
        // Four lanes write one 32-byte sector: nothing to gain from a way through shared memory.
        float* c = reinterpret_cast<float*>(p.c) + place.part;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const unsigned row = place.row + half * 64 + warp * 16 + lane / 4;
#pragma unroll
            for (int j = 0; j < kColumns / 8; ++j) {
                const unsigned column = place.column + 8 * j + pair;
                if (column < place.end) {
                    const float* d = &acc[half][4 * j];
                    if (row < p.m) *reinterpret_cast<float2*>(c + row * n + column) = make_float2(d[0], d[1]);
                    if (row + 8 < p.m) *reinterpret_cast<float2*>(c + (row + 8) * n + column) = make_float2(d[2], d[3]);
                }
            }
        }
        return;
    }

    constexpr unsigned kPitch = kColumns * 2 + 16;
    constexpr unsigned kPieces = kColumns / 8;        // of a row
    constexpr unsigned kSteps = 16 * kPieces / 32;    // pieces a lane
    constexpr bool kScales = kEpilogue == Epilogue::kScaleResidual || kEpilogue == Epilogue::kScaleResidualF32;
    constexpr unsigned kBatch = kEpilogue == Epilogue::kScaleResidualF32 ? 2 : kScales && kColumns > 128 ? 2 : 4;  // pieces whose operands are in flight together
    static_assert(kSteps % kBatch == 0);
    const float* bias = reinterpret_cast<const float*>(p.bias);
    const uint32_t write_to = corner + (lane % 16) * kPitch + lane / 16 * 16;

#pragma unroll
    for (int half = 0; half < 2; ++half) {
        __syncwarp();  // what the last half left there has been read
#pragma unroll
        for (int j = 0; j < kColumns / 8; j += 2) {
            uint32_t packed[4];
#pragma unroll
            for (int side = 0; side < 2; ++side) {
                const float* d = &acc[half][4 * (j + side)];
                const unsigned column = 8 * (j + side) + pair;
                float2 g = make_float2(1.0f, 1.0f);
                float2 b = make_float2(0.0f, 0.0f);
                if constexpr (kEpilogue != Epilogue::kGeluBackward) {
                    const bool inside = place.column + column < place.end;
                    if (kGains && place.gain != nullptr && inside) g = *reinterpret_cast<const float2*>(place.gain + column);
                    if (bias != nullptr && inside) b = *reinterpret_cast<const float2*>(bias + place.column + column);
                }
                packed[2 * side] = pack(fmaf(g.x, d[0], b.x), fmaf(g.y, d[1], b.y));
                packed[2 * side + 1] = pack(fmaf(g.x, d[2], b.x), fmaf(g.y, d[3], b.y));
            }
            store_matrices(write_to + j * 16, packed[0], packed[1], packed[2], packed[3]);
        }
        __syncwarp();

        const unsigned first_row = place.row + half * 64 + warp * 16;
        const unsigned piece_lane = fresh_lane();
#pragma unroll 1  // unrolled, its addresses would take registers from the accumulators
        for (unsigned batch = 0; batch < kSteps; batch += kBatch) {
            uint4 other[kBatch][kEpilogue == Epilogue::kScaleResidualF32 ? 2 : 1];
            if constexpr (kScales || kEpilogue == Epilogue::kGeluBackward) {
#pragma unroll
                for (unsigned i = 0; i < kBatch; ++i) {
                    const unsigned piece = (batch + i) * 32 + piece_lane;
                    const unsigned row = first_row + piece / kPieces;
                    const unsigned column = place.column + piece % kPieces * 8;
                    if (row >= p.m || column >= place.end) continue;
                    const size_t at = row * n + column;
                    if constexpr (kEpilogue == Epilogue::kScaleResidualF32) {
                        const auto* from = reinterpret_cast<const uint4*>(reinterpret_cast<const float*>(p.residual) + at);
                        other[i][0] = from[0];
                        other[i][1] = from[1];
                    } else {
                        const uint64_t base = kEpilogue == Epilogue::kGeluBackward ? p.aux : p.residual;
                        other[i][0] = *reinterpret_cast<const uint4*>(reinterpret_cast<const __nv_bfloat16*>(base) + at);
                    }
                }
            }
#pragma unroll
            for (unsigned i = 0; i < kBatch; ++i) {
                const unsigned piece = (batch + i) * 32 + piece_lane;
                const unsigned local = piece / kPieces;
                const unsigned row = first_row + local;
                const unsigned column = place.column + piece % kPieces * 8;
                if (row >= p.m || column >= place.end) continue;
                const size_t at = row * n + column;
                const uint4 value = load_shared(corner + local * kPitch + piece % kPieces * 16);
                if constexpr (kEpilogue == Epilogue::kScaleResidualF32) {
                    const auto* gamma = reinterpret_cast<const float4*>(reinterpret_cast<const float*>(p.gamma) + column);
                    auto* c = reinterpret_cast<float4*>(reinterpret_cast<float*>(p.c) + at);
                    const uint32_t u[4] = {value.x, value.y, value.z, value.w};
#pragma unroll
                    for (int part = 0; part < 2; ++part) {
                        const float2 low = unpack(u[2 * part]);
                        const float2 high = unpack(u[2 * part + 1]);
                        const float4 g = gamma[part];
                        const uint4 r = other[i][part];
                        c[part] = make_float4(fmaf(g.x, low.x, __uint_as_float(r.x)), fmaf(g.y, low.y, __uint_as_float(r.y)),
                                              fmaf(g.z, high.x, __uint_as_float(r.z)), fmaf(g.w, high.y, __uint_as_float(r.w)));
                    }
                } else {
                    if constexpr (kEpilogue == Epilogue::kGelu) {
                        *reinterpret_cast<uint4*>(reinterpret_cast<__nv_bfloat16*>(p.aux) + at) = value;
                    }
                    const uint4 result = finish<kEpilogue>(p, value, other[i][0], column);
                    *reinterpret_cast<uint4*>(reinterpret_cast<__nv_bfloat16*>(p.c) + at) = result;
                }
            }
        }
    }
}

}  // namespace sm90
