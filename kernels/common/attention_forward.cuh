// softmax(scale q k^T) v for one head of 64 columns on the tensor cores: the body of the entries in attention_bf16.cu.
//
// A warp owns 16 * kTiles rows of q and walks over the keys in steps of kStep groups of 16. Scores stay in registers: after the
// exponential, the accumulators of two score tiles are, rounded to bf16, the operand of the product with v. The row maximum that
// the exponents refer to is only raised when a score passes it by more than a factor of 2^8: sums are in f32 and bf16 has
// f32's range, so an older maximum costs no digits and most steps skip the rescaling of the accumulators.
//
// kResident: all of k and v in shared memory, one block an image and head, warps take 16 * kTiles rows by turns. The fetches are
// committed chunk by chunk, and the first turn waits for each chunk only when it needs it.
// Otherwise: one block for kWarps * 16 * kTiles rows, chunks of 64 keys through two buffers.
#pragma once

#include "common/attention_tile.cuh"
#include "params/attention.h"

namespace attention {

// How far, as a power of two, a score may pass the maximum its row refers to.
constexpr float kSlack = 8.0f;

// Where one image and head lies.
struct ForwardHead {
    const PeftkAttentionForwardParams& p;
    unsigned pair, image, head;

    __device__ __forceinline__ ForwardHead(const PeftkAttentionForwardParams& p, unsigned pair)
        : p(p), pair(pair), image(pair / p.heads), head(pair % p.heads) {}

    __device__ __forceinline__ unsigned width() const { return p.heads * kHeadDim; }
    // q, k or v.
    __device__ __forceinline__ Rows rows(unsigned part) const {
        const size_t row = static_cast<size_t>(image) * p.tokens;
        return {reinterpret_cast<const uint16_t*>(p.qkv) + row * 3 * width() + part * width() + head * kHeadDim, 3 * width()};
    }
    __device__ __forceinline__ uint16_t* out() const {
        return reinterpret_cast<uint16_t*>(p.out) + static_cast<size_t>(image) * p.tokens * width() + head * kHeadDim;
    }
    __device__ __forceinline__ float* lse() const { return reinterpret_cast<float*>(p.lse) + static_cast<size_t>(pair) * p.tokens; }
};

template <int kTiles>
struct QueryRows {
    uint32_t q[kTiles][4][4];   // operand
    float out[kTiles][8][4];    // accumulators
    float base[kTiles][2];      // of row g + 8 h: the exponent, of 2, that the sums leave out
    float sum[kTiles][2];       // of this lane's columns
};

// Raises the exponents that the rows' sums leave out, where scores `s` of the next keys ask for it: then true, and `factor` is what the
// accumulators have to be multiplied by.
template <int kTiles, int kColumns>
__device__ __forceinline__ bool raise_base(QueryRows<kTiles>& r, const float (&s)[kTiles][kColumns][4], float exponent_scale,
                                           float (&factor)[kTiles][2]) {
    float most[kTiles][2];  // of this lane's columns until a row has to be raised
    bool raise = false;
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            float m = fmaxf(s[i][0][2 * h], s[i][0][2 * h + 1]);
#pragma unroll
            for (int n = 1; n < kColumns; ++n) m = fmaxf(m, fmaxf(s[i][n][2 * h], s[i][n][2 * h + 1]));
            most[i][h] = m;
            raise |= m * exponent_scale > r.base[i][h] + kSlack;
        }
    }
    if (!__any_sync(kAll, raise)) return false;
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            float m = most[i][h];
            m = fmaxf(m, __shfl_xor_sync(kAll, m, 1));
            m = fmaxf(m, __shfl_xor_sync(kAll, m, 2));
            const float raised = fmaxf(m * exponent_scale, r.base[i][h]);
            factor[i][h] = exp2_approx(r.base[i][h] - raised);
            r.base[i][h] = raised;
            r.sum[i][h] *= factor[i][h];
        }
    }
    return true;
}

template <int kTiles>
__device__ __forceinline__ void rescale(QueryRows<kTiles>& r, const float (&factor)[kTiles][2]) {
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
#pragma unroll
        for (int n = 0; n < 8; ++n) {
#pragma unroll
            for (int e = 0; e < 4; ++e) r.out[i][n][e] *= factor[i][e / 2];
        }
    }
}

template <int kTiles, int kColumns>
__device__ __forceinline__ void raise_base(QueryRows<kTiles>& r, const float (&s)[kTiles][kColumns][4], float exponent_scale) {
    float factor[kTiles][2];
    if (raise_base(r, s, exponent_scale, factor)) rescale(r, factor);
}

// One step over `groups` groups of keys at `lane`. kLast: only the first `keys` keys exist, groups may be less than kStep.
template <int kTiles, int kStep, bool kLast>
__device__ __forceinline__ void attend(QueryRows<kTiles>& r, uint32_t lane, unsigned groups, unsigned keys,
                                       float exponent_scale) {
    float s[kTiles][2 * kStep][4] = {};
#pragma unroll
    for (unsigned g = 0; g < kStep; ++g) {
        if (kLast && g >= groups) break;
#pragma unroll
        for (unsigned c = 0; c < 4; ++c) {
            uint32_t b[4];
            ldmatrix_x4(b, (lane ^ 32 * c) + g * kGroupBytes);
#pragma unroll
            for (int i = 0; i < kTiles; ++i) {
                mma_bf16(s[i][2 * g], r.q[i][c], b[0], b[2]);
                mma_bf16(s[i][2 * g + 1], r.q[i][c], b[1], b[3]);
            }
        }
    }
    if (kLast) {
        const unsigned t = threadIdx.x % 4;
#pragma unroll
        for (unsigned n = 0; n < 2 * kStep; ++n) {
#pragma unroll
            for (unsigned e = 0; e < 4; ++e) {
                if (8 * n + 2 * t + e % 2 >= keys) {
#pragma unroll
                    for (int i = 0; i < kTiles; ++i) s[i][n][e] = -INFINITY;
                }
            }
        }
    }

    raise_base(r, s, exponent_scale);
#pragma unroll
    for (unsigned g = 0; g < kStep; ++g) {
        if (kLast && g >= groups) break;
        uint32_t p[kTiles][4];
#pragma unroll
        for (int i = 0; i < kTiles; ++i) {
#pragma unroll
            for (unsigned n = 2 * g; n < 2 * g + 2; ++n) {
#pragma unroll
                for (int e = 0; e < 4; ++e) {
                    s[i][n][e] = exp2_approx(fmaf(s[i][n][e], exponent_scale, -r.base[i][e / 2]));
                    r.sum[i][e / 2] += s[i][n][e];
                }
            }
            pack_operand(p[i], s[i][2 * g], s[i][2 * g + 1]);
        }
#pragma unroll
        for (unsigned c = 0; c < 4; ++c) {
            uint32_t b[4];
            ldmatrix_x4_trans(b, (lane ^ 32 * c) + g * kGroupBytes + kSecond);
#pragma unroll
            for (int i = 0; i < kTiles; ++i) {
                mma_bf16(r.out[i][2 * c], p[i], b[0], b[1]);
                mma_bf16(r.out[i][2 * c + 1], p[i], b[2], b[3]);
            }
        }
    }
}

// Writes the result and the log-sum-exp of 16 rows.
template <int kTiles>
__device__ __forceinline__ void store_result(const QueryRows<kTiles>& r, int i, const ForwardHead& target, unsigned first) {
    float factor[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        float sum = r.sum[i][h];
        sum += __shfl_xor_sync(kAll, sum, 1);
        sum += __shfl_xor_sync(kAll, sum, 2);
        factor[h] = __fdividef(1.0f, sum);
        const unsigned row = first + threadIdx.x % 32 / 4 + 8 * h;
        if (threadIdx.x % 4 == 0 && row < target.p.tokens) target.lse()[row] = r.base[i][h] * kLn2 + logf(sum);
    }
    store_rows(target.out(), target.width(), first, target.p.tokens, r.out[i], factor);
}

template <unsigned kWarps, int kTiles, int kStep, bool kResident>
__device__ __forceinline__ void forward(const PeftkAttentionForwardParams& p) {
    constexpr unsigned kThreads = 32 * kWarps, kTurn = kGroup * kTiles;
    static_assert(kChunk % kStep == 0);
    extern __shared__ __align__(1024) unsigned char memory[];
    const uint32_t shared = shared_address(memory), lane = lane_address(shared);
    const unsigned tokens = p.tokens;
    const unsigned blocks = kResident ? 1 : (tokens + kWarps * kTurn - 1) / (kWarps * kTurn);  // of one image and head
    const unsigned groups = (tokens + kGroup - 1) / kGroup, chunks = (groups + kChunk - 1) / kChunk;

    const ForwardHead source(p, blockIdx.x / blocks);
    const auto fetch = [&](unsigned c, uint32_t place) {
        fetch_groups<kThreads>(shared + place, source.rows(1), source.rows(2), c * kChunk * kGroup, min(kChunk, groups - c * kChunk),
                               tokens);
        cp_async_commit();
    };
    for (unsigned c = 0; c < (kResident ? chunks : 1); ++c) fetch(c, c * kChunk * kGroupBytes);

    unsigned first = (blockIdx.x % blocks * kWarps + threadIdx.x / 32) * kTurn;
    for (bool first_turn = true; first_turn || (kResident && first < tokens); first_turn = false, first += kWarps * kTurn) {
        QueryRows<kTiles> r = {};
        const Rows q = ForwardHead(p, block_index() / blocks).rows(0);
#pragma unroll
        for (int i = 0; i < kTiles; ++i) {
            load_operand(r.q[i], q, first + i * kGroup, tokens);
            r.base[i][0] = r.base[i][1] = -INFINITY;
        }
#pragma unroll 1
        for (unsigned c = 0; c < chunks; ++c) {
            uint32_t offset = c * kChunk * kGroupBytes;
            if (!kResident) {
                offset = c % 2 * kChunk * kGroupBytes;
                cp_async_wait<0>();
                __syncthreads();
                if (c + 1 < chunks) fetch(c + 1, kChunk * kGroupBytes - offset);
            } else if (first_turn) {
                cp_async_wait(chunks - 1 - c);
                __syncthreads();
            }
            const unsigned keys = tokens - c * kChunk * kGroup;
            if (keys >= kChunk * kGroup) {
#pragma unroll
                for (unsigned i = 0; i < kChunk / kStep; ++i) {
                    attend<kTiles, kStep, false>(r, lane + offset + i * kStep * kGroupBytes, kStep, 0, p.exponent_scale);
                }
            } else {
#pragma unroll 1
                for (unsigned done = 0; done < keys; done += kStep * kGroup) {
                    const unsigned left = keys - done;
                    attend<kTiles, kStep, true>(r, lane + offset + done / kGroup * kGroupBytes, (left + kGroup - 1) / kGroup, left,
                                                p.exponent_scale);
                }
            }
        }
        const ForwardHead target(p, block_index() / blocks);
#pragma unroll
        for (int i = 0; i < kTiles; ++i) {
            store_result(r, i, target, first + i * kGroup);
        }
    }
}

}  // namespace attention
