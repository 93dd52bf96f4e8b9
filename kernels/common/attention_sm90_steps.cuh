// What the backward pass of attention on Hopper is made of: a unit of 64 queries on its way over the keys, which gives dq, one of 64 keys
// on its way over the queries, which gives dk and dv, and the tail of either.
//
// Both form the scores and dout v^T; no sum then leaves its owner.
#pragma once

#include "common/attention_backward.cuh"
#include "common/attention_sm90.cuh"

namespace attention {

// dq of a warpgroup's 64 rows, on its way over the keys: see walk. dq leaves out the scale.
struct Queries {
    template <int kGroups>
    using Operand = Operands<kGroups>;

    float (&dq)[8][4];
    const uint32_t (&q)[4][4];
    const uint32_t (&dout)[4][4];
    const float (&lse)[2];
    const float (&d)[2];
    uint32_t keys_at, values_at;  // see rows_at
    unsigned tokens;
    float exponent_scale;

    template <int kNow, int kBefore, int kGiven>
    __device__ __forceinline__ void step(Operands<kNow>& now, const Operands<kGiven>& before, unsigned at) const {
        float s[2 * kNow][4], dp[2 * kNow][4];
        pin(dq);
        sm90::wgmma_fence();
        issue_scores(s, q, keys_at + at * kRowsOfGroup);
        sm90::wgmma_commit();
        issue_scores(dp, dout, values_at + at * kRowsOfGroup);
        sm90::wgmma_commit();
        if constexpr (kBefore > 0) {
            issue_product(dq, before.a, keys_at + (at - kBefore) * kRowsOfGroup);
            sm90::wgmma_commit();
        }
        sm90::wgmma_wait<kBefore ? 2 : 1>();
        pin(s);
#pragma unroll
        for (int n = 0; n < 2 * kNow; ++n) {
#pragma unroll
            for (int e = 0; e < 4; ++e) s[n][e] = exp2_approx(fmaf(s[n][e], exponent_scale, -lse[e / 2]));
        }
        const unsigned keys = tokens - at * kGroup;  // from here on
        if (keys < kNow * kGroup) {
            const unsigned t = threadIdx.x % 4;
#pragma unroll
            for (unsigned n = 2 * kNow - 2; n < 2 * kNow; ++n) {
#pragma unroll
                for (unsigned e = 0; e < 4; ++e) {
                    if (8 * n + 2 * t + e % 2 >= keys) s[n][e] = 0.0f;
                }
            }
        }
        sm90::wgmma_wait<kBefore ? 1 : 0>();
        pin(dp);
#pragma unroll
        for (int n = 0; n < 2 * kNow; ++n) {
#pragma unroll
            for (int e = 0; e < 4; ++e) s[n][e] *= dp[n][e] - d[e / 2];
        }
        if constexpr (kBefore > 0) {
            sm90::wgmma_wait<0>();
            pin(dq);
        }
#pragma unroll
        for (unsigned g = 0; g < kNow; ++g) pack_operand(now.a[g], s[2 * g], s[2 * g + 1]);
    }

    template <int kGroups>
    __device__ __forceinline__ void last(const Operands<kGroups>& ds, unsigned at) const {
        pin(dq);
        sm90::wgmma_fence();
        issue_product(dq, ds.a, keys_at + at * kRowsOfGroup);
        sm90::wgmma_commit();
        sm90::wgmma_wait<0>();
        pin(dq);
    }
};

// dk, which leaves out the scale, and dv of a warpgroup's 64 rows, on its way over the queries: see walk.
struct Keys {
    template <int kGroups>
    struct Operand {
        Operands<kGroups> p, ds;
    };

    float (&dk)[8][4];
    float (&dv)[8][4];
    const uint32_t (&k)[4][4];
    const uint32_t (&v)[4][4];
    const float2* stats;
    uint32_t queries_at, dout_at;  // see rows_at
    float exponent_scale;

    template <int kNow, int kBefore, class Now, class Given>
    __device__ __forceinline__ void step(Now& now, const Given& before, unsigned at) const {
        float s[2 * kNow][4], dp[2 * kNow][4];
        pin(dk);
        pin(dv);
        sm90::wgmma_fence();
        issue_scores(s, k, queries_at + at * kRowsOfGroup);
        sm90::wgmma_commit();
        issue_scores(dp, v, dout_at + at * kRowsOfGroup);
        sm90::wgmma_commit();
        if constexpr (kBefore > 0) {
            issue_product(dv, before.p.a, dout_at + (at - kBefore) * kRowsOfGroup);
            issue_product(dk, before.ds.a, queries_at + (at - kBefore) * kRowsOfGroup);
            sm90::wgmma_commit();
        }
        const float4* row = reinterpret_cast<const float4*>(stats + at * kGroup) + threadIdx.x % 4;
        sm90::wgmma_wait<kBefore ? 2 : 1>();
        pin(s);
#pragma unroll
        for (int n = 0; n < 2 * kNow; ++n) {
            const float4 two = row[4 * n];  // (lse, D) of queries 8 n + 2 t and the next
#pragma unroll
            for (int e = 0; e < 4; ++e) s[n][e] = exp2_approx(fmaf(s[n][e], exponent_scale, -(e % 2 ? two.z : two.x)));
        }
        sm90::wgmma_wait<kBefore ? 1 : 0>();
        pin(dp);
#pragma unroll
        for (int n = 0; n < 2 * kNow; ++n) {
            const float4 two = row[4 * n];
#pragma unroll
            for (int e = 0; e < 4; ++e) dp[n][e] = s[n][e] * (dp[n][e] - (e % 2 ? two.w : two.y));
        }
        if constexpr (kBefore > 0) {
            sm90::wgmma_wait<0>();
            pin(dk);
            pin(dv);
        }
#pragma unroll
        for (unsigned g = 0; g < kNow; ++g) {
            pack_operand(now.p.a[g], s[2 * g], s[2 * g + 1]);
            pack_operand(now.ds.a[g], dp[2 * g], dp[2 * g + 1]);
        }
    }

    template <class Given>
    __device__ __forceinline__ void last(const Given& given, unsigned at) const {
        pin(dk);
        pin(dv);
        sm90::wgmma_fence();
        issue_product(dv, given.p.a, dout_at + at * kRowsOfGroup);
        issue_product(dk, given.ds.a, queries_at + at * kRowsOfGroup);
        sm90::wgmma_commit();
        sm90::wgmma_wait<0>();
        pin(dk);
        pin(dv);
    }
};

// A unit's rows of dout and out as they come, on their way to an operand, lse and D.
struct UnitRows {
    uint32_t dout[2][2][4], out[2][2][4];

    __device__ __forceinline__ void load(const Head& head, unsigned first, unsigned tokens) {
        load_pieces(dout, head.dout(), first, tokens);
        load_pieces(out, head.out(), first, tokens);
    }

    // lse in base 2 and D of this lane's rows first + g and first + g + 8, to `stats` too where this warp writes them (of the four that
    // share a tail's rows, one), below row `rows`.
    __device__ __forceinline__ void stats(const Head& head, unsigned first, unsigned tokens, unsigned rows, bool writes, float2* stats,
                                          float (&lse)[2], float (&d)[2]) const {
        const unsigned g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const unsigned row = first + g + 8 * h;
            lse[h] = row < tokens ? head.lse()[row] * kLog2e : 0.0f;
            d[h] = dot_piece(dout[h][0], out[h][0]) + dot_piece(dout[h][1], out[h][1]);
            d[h] += __shfl_xor_sync(kAll, d[h], 1);
            d[h] += __shfl_xor_sync(kAll, d[h], 2);
            if (writes && t == 0 && row < rows) stats[row] = make_float2(lse[h], d[h]);
        }
    }
};

// The first of this warp's rows of a unit; all four warps take the same of the tail.
__device__ __forceinline__ unsigned unit_row(const Cut& cut, unsigned unit) {
    return unit * 64 + (unit < cut.units ? threadIdx.x / 32 % 4 * kGroup : 0);
}

// Whether this warp writes its rows of a unit's lse and D.
__device__ __forceinline__ bool writes_stats(const Cut& cut, unsigned unit) { return unit < cut.units || threadIdx.x / 32 % 4 == 0; }

// dq of the tail's rows: warp w takes every fourth group of keys from w on.
__device__ __forceinline__ void queries_tail(const PeftkAttentionBackwardParams& p, const Cut& cut, const uint32_t (&q)[4][4],
                                             const uint32_t (&dout)[4][4], const float (&lse)[2], const float (&d)[2],
                                             unsigned pair, uint32_t keys_and_values, Exchange& exchange) {
    const uint32_t k = lane_address(keys_and_values), v = k + cut.groups * kSecond;
    const unsigned t = threadIdx.x % 4;
    float dq[8][4] = {};
#pragma unroll 2
    for (unsigned group = threadIdx.x / 32 % 4; group < cut.groups; group += 4) {
        float s[2][4] = {}, dp[2][4] = {};
        multiply_transposed(s[0], s[1], q, k + group * kSecond);
        multiply_transposed(dp[0], dp[1], dout, v + group * kSecond);
#pragma unroll
        for (unsigned n = 0; n < 2; ++n) {
#pragma unroll
            for (unsigned e = 0; e < 4; ++e) {
                float probability = exp2_approx(fmaf(s[n][e], p.exponent_scale, -lse[e / 2]));
                if (group * kGroup + 8 * n + 2 * t + e % 2 >= cut.tokens) probability = 0.0f;
                s[n][e] = probability * (dp[n][e] - d[e / 2]);
            }
        }
        uint32_t ds[4];
        pack_operand(ds, s[0], s[1]);
        multiply(dq, ds, k + group * kSecond);
    }
    sm90::named_sync(1 + threadIdx.x / 128, 128);  // the exchange may lie over k and v
    exchange.put(dq);
    sm90::named_sync(1 + threadIdx.x / 128, 128);
    const float factor[4][2] = {{p.scale, p.scale}, {p.scale, p.scale}, {p.scale, p.scale}, {p.scale, p.scale}};
    const Head target(p, pair);
    exchange.store_sum(target.gradient(0), 3 * target.width(), cut.units * 64, cut.tokens, factor);
}

// dk and dv of the tail's rows: warp w takes every fourth group of queries from w on.
__device__ __forceinline__ void keys_tail(const PeftkAttentionBackwardParams& p, const Cut& cut, const uint32_t (&k)[4][4],
                                          const uint32_t (&v)[4][4], const float2* stats, unsigned pair, uint32_t queries_and_dout,
                                          Exchange& exchange) {
    const uint32_t q = lane_address(queries_and_dout), dout = q + cut.groups * kSecond;
    float dk[8][4] = {}, dv[8][4] = {};
#pragma unroll 1
    for (unsigned group = threadIdx.x / 32 % 4; group < cut.groups; group += 4) {
        const float4* row = reinterpret_cast<const float4*>(stats + group * kGroup) + threadIdx.x % 4;
        float s[2][4] = {}, dp[2][4] = {};
        multiply_transposed(s[0], s[1], k, q + group * kSecond);
        multiply_transposed(dp[0], dp[1], v, dout + group * kSecond);
#pragma unroll
        for (unsigned n = 0; n < 2; ++n) {
            const float4 two = row[4 * n];
#pragma unroll
            for (unsigned e = 0; e < 4; ++e) {
                s[n][e] = exp2_approx(fmaf(s[n][e], p.exponent_scale, -(e % 2 ? two.z : two.x)));
                dp[n][e] = s[n][e] * (dp[n][e] - (e % 2 ? two.w : two.y));
            }
        }
        uint32_t a[4];
        pack_operand(a, s[0], s[1]);
        multiply(dv, a, dout + group * kSecond);
        pack_operand(a, dp[0], dp[1]);
        multiply(dk, a, q + group * kSecond);
    }
    sm90::named_sync(1 + threadIdx.x / 128, 128);  // the exchange may lie over q and dout
    exchange.put(dk);
    sm90::named_sync(1 + threadIdx.x / 128, 128);
    const float factor[4][2] = {{p.scale, p.scale}, {p.scale, p.scale}, {p.scale, p.scale}, {p.scale, p.scale}};
    const float one[4][2] = {{1.0f, 1.0f}, {1.0f, 1.0f}, {1.0f, 1.0f}, {1.0f, 1.0f}};
    const Head target(p, pair);
    exchange.store_sum(target.gradient(1), 3 * target.width(), cut.units * 64, cut.tokens, factor);
    sm90::named_sync(1 + threadIdx.x / 128, 128);
    exchange.put(dv);
    sm90::named_sync(1 + threadIdx.x / 128, 128);
    exchange.store_sum(target.gradient(2), 3 * target.width(), cut.units * 64, cut.tokens, one);
}

}  // namespace attention
