// What happens to a tile of accumulators: v = g_j acc + bias_j in f32, then by epilogue.
//
// A warp owns 16 rows of each 64 of its warpgroup's rows, and goes through them in pieces of 16 rows of 128 bytes: 64 columns of bf16
// or 32 of f32. A piece is formed in the accumulators' own layout, put into one of the warp's slots of shared memory, and written by
// the copy engine; so is what is read beside the accumulators (residual, pre-activation) fetched by it, some pieces ahead and over
// the end of a tile, into the slot where the result then takes its place. v is rounded to bf16 first, as the separate operations would.
// No other warp takes part: a warpgroup's epilogue runs beside the other's products without a barrier.
#pragma once

#include <cuda_bf16.h>

#include "common/gelu.cuh"
#include "common/sm90.cuh"

namespace sm90 {

enum class Epilogue {
    kStore,             // C = bf16(v)
    kGelu,              // aux = bf16(v), C = bf16(gelu(bf16(v))); aux 0: C alone
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

constexpr unsigned kPieceRows = 16;
constexpr unsigned kPieceBytes = kPieceRows * 128;

template <Epilogue kEpilogue>
constexpr bool kReads = kEpilogue == Epilogue::kScaleResidual || kEpilogue == Epilogue::kScaleResidualF32 ||
                        kEpilogue == Epilogue::kGeluBackward;

template <Epilogue kEpilogue>
constexpr bool kScales = kEpilogue == Epilogue::kScaleResidual || kEpilogue == Epilogue::kScaleResidualF32;

// Which of a resident tile's vectors in shared memory is which.
constexpr unsigned kBiasVector = 0, kGammaVector = 1;
template <Epilogue kEpilogue>
constexpr unsigned kGainVector = kScales<kEpilogue> ? 2 : 1;

template <Epilogue kEpilogue>
constexpr unsigned kPieceColumns = kEpilogue == Epilogue::kScaleResidualF32 ? 32 : 64;

// A warp's way out of the accumulators: its slots, one barrier a slot, and how many pieces went through them.
template <unsigned kSlots_>
struct Outlet {
    static constexpr unsigned kSlots = kSlots_;
    uint32_t slots, full;
    unsigned done;

    __device__ __forceinline__ uint32_t slot(unsigned piece) const { return slots + piece % kSlots * kPieceBytes; }
    __device__ __forceinline__ uint32_t barrier(unsigned piece) const { return full + 8 * (piece % kSlots); }
};

// Asks for piece number `number` of what is read beside the accumulators: of the tile at (row, column), its piece `piece`. One lane does.
template <Epilogue kEpilogue, unsigned kColumns, unsigned kSlots>
__device__ __forceinline__ void fetch_piece(const Outlet<kSlots>& outlet, const PeftkTensorMap* map, unsigned number, unsigned row,
                                            unsigned column, unsigned piece) {
    constexpr unsigned kAcross = kColumns / kPieceColumns<kEpilogue>;
    barrier_expect(outlet.barrier(number), kPieceBytes);
    load_box(outlet.slot(number), map, column + piece % kAcross * kPieceColumns<kEpilogue>,
             row + piece / kAcross * 64 + threadIdx.x / 32 % 4 * kPieceRows, outlet.barrier(number));
}

// Two neighbouring values of a row vector f32 [n], `otherwise` where there is none.
__device__ __forceinline__ float2 two_of(const float* vector, unsigned column, unsigned end, float otherwise) {
    if (vector == nullptr || column >= end) return make_float2(otherwise, otherwise);
    return *reinterpret_cast<const float2*>(vector + column);
}

// Eight values of C, rounded to bf16: two columns of rows r and r + 8, and the same 8 columns further on. values: u = bf16(v) of them;
// beside: what was read; gamma: of the first two columns and the second.
template <Epilogue kEpilogue>
__device__ __forceinline__ void finish(const uint32_t (&values)[4], const uint32_t (&beside)[4], const float2 (&gamma)[2],
                                       uint32_t (&results)[4]) {
    float u[8], x[8];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const float2 two = unpack(values[i]), other = unpack(beside[i]);
        u[2 * i] = two.x, u[2 * i + 1] = two.y;
        x[2 * i] = other.x, x[2 * i + 1] = other.y;
    }
    if constexpr (kEpilogue == Epilogue::kGelu) {
        gelu_for_bf16(u);
    } else if constexpr (kEpilogue == Epilogue::kGeluBackward) {
        gelu_slope_for_bf16(x, u);
    } else if constexpr (kEpilogue == Epilogue::kScaleResidual) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            u[2 * i] = fmaf(gamma[i / 2].x, u[2 * i], x[2 * i]);
            u[2 * i + 1] = fmaf(gamma[i / 2].y, u[2 * i + 1], x[2 * i + 1]);
        }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) results[i] = pack(u[2 * i], u[2 * i + 1]);
}

// Writes a tile's f32 sums as they are. Four lanes write one 32-byte sector: nothing to gain from a way through shared memory.
template <int kColumns, int kSize>
__device__ __forceinline__ void store_sums(const PeftkGemmParams& p, const Place& place, const float (&acc)[2][kSize]) {
    const unsigned lane = fresh_lane();
    const size_t n = p.n;
    float* c = reinterpret_cast<float*>(p.c) + place.part;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const unsigned row = place.row + half * 64 + threadIdx.x / 32 % 4 * 16 + lane / 4;
#pragma unroll
        for (int j = 0; j < kColumns / 8; ++j) {
            const unsigned column = place.column + 8 * j + lane % 4 * 2;
            if (column < place.end) {
                const float* d = &acc[half][4 * j];
                if (row < p.m) *reinterpret_cast<float2*>(c + row * n + column) = make_float2(d[0], d[1]);
                if (row + 8 < p.m) *reinterpret_cast<float2*>(c + (row + 8) * n + column) = make_float2(d[2], d[3]);
            }
        }
    }
}

// kGains: place.gain may be there. kShared: what the columns need lies in `vectors` (load_vectors). next_tile(row, column): where the
// warp's next tile begins, if there is one.
template <int kColumns, Epilogue kEpilogue, bool kGains, bool kShared, int kSize, unsigned kSlots, class NextTile>
__device__ __forceinline__ void epilogue(const PeftkSm90GemmParams& params, const Place& place, float (&acc)[2][kSize],
                                         const float* vectors, Outlet<kSlots>& outlet, const NextTile& next_tile) {
    const PeftkGemmParams& p = params.gemm;
    if constexpr (kEpilogue == Epilogue::kStoreF32) {
        store_sums<kColumns>(p, place, acc);
        return;
    }
    constexpr bool kF32 = kEpilogue == Epilogue::kScaleResidualF32;
    constexpr unsigned kWide = kPieceColumns<kEpilogue>;
    constexpr unsigned kSteps = kWide / 8;  // of 8 columns
    constexpr unsigned kAcross = kColumns / kWide, kPieces = 2 * kAcross;
    constexpr unsigned kAhead = kSlots - 1;  // pieces that are fetched before they are needed
    static_assert(kAhead <= kPieces);
    const float* bias = reinterpret_cast<const float*>(p.bias);
    const float* gamma = reinterpret_cast<const float*>(p.gamma);
    const unsigned lane = fresh_lane();
    const unsigned pair = lane % 4 * 2;
    const unsigned row = place.row + threadIdx.x / 32 % 4 * kPieceRows;
    // Where this lane's row and 16 bytes of four 8 x 8 matrices lie in a slot; columns 8 c further on: exclusive or 16 c.
    const uint32_t spot = lane % 16 * 128 + ((lane / 16 ^ lane % 8) << 4);
    // Where its two f32 of row lane / 4 lie; 8 rows further down 1024 bytes on, columns 8 c further on: exclusive or 32 c.
    const uint32_t spot_f32 = lane / 4 * 128 + ((lane % 4 / 2 ^ lane / 4) << 4) + lane % 2 * 8;

    // The piece before `now` has most likely been read out: its slot takes the one kAhead after `now`, which may be the next tile's.
    bool more = true;
    unsigned next_row = place.row, next_column = place.column;
    const auto fetch = [&](unsigned now) {
        if (now + kAhead == kPieces) more = next_tile(next_row, next_column);
        if (more && lane == 0) {
            stores_wait_read<0>();
            fetch_piece<kEpilogue, kColumns>(outlet, &params.maps[9], outlet.done + kAhead, next_row, next_column,
                                             (now + kAhead) % kPieces);
        }
    };
    // Waits until a slot is free to be written: those written since it was may still be read.
    const auto await_slot = [&] {
        if (lane == 0) stores_wait_read<kSlots - 1>();
        __syncwarp();
    };
    // Hands a slot that is written to the copy engine.
    const auto send = [&](const PeftkTensorMap* map, unsigned column, unsigned half) {
        show_to_copies();
        __syncwarp();
        if (lane == 0) {
            store_box(outlet.slot(outlet.done), map, place.column + column, row + half * 64);
            stores_commit();
        }
        ++outlet.done;
    };
    // Two neighbouring columns of a vector, in shared memory or not.
    const auto two = [&](unsigned which, const float* vector, unsigned column, unsigned end, float otherwise) {
        if constexpr (kShared) return *reinterpret_cast<const float2*>(vectors + which * kColumns + column);
        return two_of(vector, column, end, otherwise);
    };
    const auto bias_of = [&](unsigned column) {
        return two(kBiasVector, bias == nullptr ? bias : bias + place.column, column, place.end - place.column, 0.0f);
    };
    const auto gamma_of = [&](unsigned column) { return two(kGammaVector, gamma + place.column, column, place.end - place.column, 0.0f); };
    // v of two columns of a row, `d` their sums.
    const auto value = [&](const float* d, unsigned column) {
        if constexpr (kEpilogue == Epilogue::kGeluBackward) return pack(d[0], d[1]);
        const float2 b = bias_of(column);
        if constexpr (!kGains) return pack(d[0] + b.x, d[1] + b.y);
        const float2 g = two(kGainVector<kEpilogue>, place.gain, column, place.end - place.column, 1.0f);
        return pack(fmaf(g.x, d[0], b.x), fmaf(g.y, d[1], b.y));
    };

    // GELU's code once for both halves: twice as long, it would not stay where instructions are fetched from.
    constexpr bool kLong = kEpilogue == Epilogue::kGelu;
    constexpr int kUnroll = kLong ? 1 : 2;
#pragma unroll kUnroll
    for (unsigned half = 0; half < 2; ++half) {
        if constexpr (kLong) {
            if (half == 1) {
#pragma unroll
                for (int i = 0; i < kColumns / 2; ++i) acc[0][i] = acc[1][i];
            }
        }
#pragma unroll
        for (unsigned across = 0; across < kAcross; ++across) {
            const unsigned first = across * kWide;  // column within the tile
            const float* sums = &acc[kLong ? 0 : half][first / 2];
            if constexpr (kReads<kEpilogue>) {
                barrier_wait(outlet.barrier(outlet.done), outlet.done / kSlots % 2);
            } else if (kEpilogue != Epilogue::kGelu) {
                await_slot();
            }
            const uint32_t slot = outlet.slot(outlet.done);

            if constexpr (kF32) {
#pragma unroll
                for (unsigned j = 0; j < kSteps; ++j) {
                    if (j == kSteps / 2) fetch(half * kAcross + across);
                    const unsigned column = first + 8 * j + pair;
                    const float2 g = gamma_of(column);
#pragma unroll
                    for (unsigned low = 0; low < 2; ++low) {
                        const float2 u = unpack(value(sums + 4 * j + 2 * low, column));
                        const uint32_t at = slot + (spot_f32 ^ 32 * j) + 1024 * low;  // no other lane reads or writes there
                        const float2 r = load_shared(at);
                        store_shared(at, make_float2(fmaf(g.x, u.x, r.x), fmaf(g.y, u.y, r.y)));
                    }
                }
                send(&params.maps[8], first, half);
            } else {
                uint32_t values[kSteps / 2][4], results[kSteps / 2][4];
                const auto form = [&](unsigned j) {
#pragma unroll
                    for (unsigned i = 0; i < 4; ++i) {
                        values[j / 2][i] = value(sums + 4 * (j + i / 2) + i % 2 * 2, first + 8 * (j + i / 2) + pair);
                    }
                };
                if constexpr (!kScales<kEpilogue>) {
#pragma unroll
                    for (unsigned j = 0; j < kSteps; j += 2) form(j);
                }
                const auto put = [&](uint32_t to, unsigned j, const uint32_t(&r)[4]) {
                    store_matrices(to + (spot ^ 16 * j), r[0], r[1], r[2], r[3]);
                };
                if (kEpilogue == Epilogue::kStore || (kEpilogue == Epilogue::kGelu && p.aux != 0)) {
                    if (kEpilogue == Epilogue::kGelu) await_slot();
#pragma unroll
                    for (unsigned j = 0; j < kSteps; j += 2) put(slot, j, values[j / 2]);
                    send(&params.maps[kEpilogue == Epilogue::kGelu ? 9 : 8], first, half);
                }
                if constexpr (kEpilogue != Epilogue::kStore) {
                    // Read, formed and written step by step where gamma takes registers too; else each of these of all first, for the
                    // compiler to interleave.
#pragma unroll
                    for (unsigned j = 0; j < kSteps; j += 2) {
                        if (kScales<kEpilogue> && j == kSteps / 2) fetch(half * kAcross + across);
                        uint32_t beside[4] = {};
                        if constexpr (kReads<kEpilogue>) load_matrices(beside, slot + (spot ^ 16 * j));
                        float2 g[2] = {};
                        if constexpr (kScales<kEpilogue>) {
#pragma unroll
                            for (unsigned side = 0; side < 2; ++side) {
                                g[side] = gamma_of(first + 8 * (j + side) + pair);
                            }
                        }
                        if constexpr (kScales<kEpilogue>) form(j);
                        finish<kEpilogue>(values[j / 2], beside, g, results[j / 2]);
                        if constexpr (kScales<kEpilogue>) put(slot, j, results[j / 2]);
                    }
                    if constexpr (!kScales<kEpilogue>) {
                        if constexpr (kReads<kEpilogue>) {
                            fetch(half * kAcross + across);
                        } else {
                            await_slot();
                        }
                        const uint32_t to = outlet.slot(outlet.done);
#pragma unroll
                        for (unsigned j = 0; j < kSteps; j += 2) put(to, j, results[j / 2]);
                    }
                    send(&params.maps[8], first, half);
                }
            }
        }
    }
}

}  // namespace sm90
