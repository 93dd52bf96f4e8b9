// softmax(scale q k^T) v for one head of 64 columns on Hopper: the body of the forward entries in sm90_attention.cu.
//
// k and v lie in shared memory whole; a warpgroup walks over the units of queries and for each over the chunks of keys. The next
// unit's q is on its way to registers meanwhile: its latency, 2 us when all multiprocessors load, was a third of the time.
#pragma once

#include "common/attention_forward.cuh"
#include "common/attention_sm90.cuh"

namespace attention {

// The exponentials of a step's scores in their place; their sums go to the rows'.
template <int kTiles>
__device__ __forceinline__ void exponentials(QueryRows<1>& r, float (&s)[kTiles][4], float exponent_scale) {
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
            s[n][e] = exp2_approx(fmaf(s[n][e], exponent_scale, -r.base[0][e / 2]));
            r.sum[0][e / 2] += s[n][e];
        }
    }
}

// A warpgroup's way over the keys: see walk.
struct Attend {
    template <int kGroups>
    using Operand = Operands<kGroups>;

    QueryRows<1>& r;
    uint32_t keys_at, values_at;  // see rows_at
    unsigned tokens;
    float exponent_scale;

    template <int kNow, int kBefore, int kGiven>
    __device__ __forceinline__ void step(Operands<kNow>& now, const Operands<kGiven>& before, unsigned at) const {
        float s[1][2 * kNow][4];
        pin(r.out[0]);
        sm90::wgmma_fence();
        issue_scores(s[0], r.q[0], keys_at + at * kRowsOfGroup);
        sm90::wgmma_commit();
        if constexpr (kBefore > 0) {
            issue_product(r.out[0], before.a, values_at + (at - kBefore) * kRowsOfGroup);
            sm90::wgmma_commit();
        }
        sm90::wgmma_wait<kBefore ? 1 : 0>();
        pin(s[0]);
        const unsigned keys = tokens - at * kGroup;  // from here on
        if (keys < kNow * kGroup) {
            const unsigned t = threadIdx.x % 4;
#pragma unroll
            for (unsigned n = 2 * kNow - 2; n < 2 * kNow; ++n) {
#pragma unroll
                for (unsigned e = 0; e < 4; ++e) {
                    if (8 * n + 2 * t + e % 2 >= keys) s[0][n][e] = -INFINITY;
                }
            }
        }
        float factor[1][2];
        const bool raised = raise_base(r, s, exponent_scale, factor);
        exponentials(r, s[0], exponent_scale);
        if constexpr (kBefore > 0) {
            sm90::wgmma_wait<0>();
            pin(r.out[0]);
            if (raised) rescale(r, factor);
        }
#pragma unroll
        for (unsigned g = 0; g < kNow; ++g) pack_operand(now.a[g], s[0][2 * g], s[0][2 * g + 1]);
    }

    template <int kGroups>
    __device__ __forceinline__ void last(const Operands<kGroups>& p, unsigned at) const {
        pin(r.out[0]);
        sm90::wgmma_fence();
        issue_product(r.out[0], p.a, values_at + at * kRowsOfGroup);
        sm90::wgmma_commit();
        sm90::wgmma_wait<0>();
        pin(r.out[0]);
    }
};

// The tail's rows, from `first` on: warp w takes every fourth group of keys from w on, five at a time, all their scores at once.
__device__ __forceinline__ void attend_tail(const PeftkAttentionForwardParams& p, const Cut& cut, QueryRows<1>& r, unsigned char* memory) {
    constexpr unsigned kAtOnce = 5;
    const uint32_t k = lane_address(shared_address(memory)), v = k + cut.groups * kSecond;
    const unsigned first = cut.units * 64, warp = threadIdx.x / 32, t = threadIdx.x % 4;
#pragma unroll 1
    for (unsigned from = warp; from < cut.groups; from += 4 * kAtOnce) {
        float s[1][2 * kAtOnce][4] = {};
#pragma unroll
        for (unsigned i = 0; i < kAtOnce; ++i) {
            const unsigned group = from + 4 * i;
            if (group < cut.groups) multiply_transposed(s[0][2 * i], s[0][2 * i + 1], r.q[0], k + group * kSecond);
            if (group + 1 < cut.groups) continue;
#pragma unroll
            for (unsigned n = 2 * i; n < 2 * i + 2; ++n) {
#pragma unroll
                for (unsigned e = 0; e < 4; ++e) {
                    if (group * kGroup + n % 2 * 8 + 2 * t + e % 2 >= cut.tokens) s[0][n][e] = -INFINITY;
                }
            }
        }
        raise_base(r, s, p.exponent_scale);
        exponentials(r, s[0], p.exponent_scale);
#pragma unroll
        for (unsigned i = 0; i < kAtOnce; ++i) {
            const unsigned group = from + 4 * i;
            if (group >= cut.groups) break;
            uint32_t probability[4];
            pack_operand(probability, s[0][2 * i], s[0][2 * i + 1]);
            multiply(r.out[0], probability, v + group * kSecond);
        }
    }

    // (base, sum) of each warp's rows, then their accumulators.
    __syncthreads();  // all are done with k and v
    Exchange& exchange = *reinterpret_cast<Exchange*>(memory);
    float2* rows = reinterpret_cast<float2*>(memory + sizeof(Exchange));
    const unsigned g = threadIdx.x % 32 / 4;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        float sum = r.sum[0][h];
        sum += __shfl_xor_sync(kAll, sum, 1);
        sum += __shfl_xor_sync(kAll, sum, 2);
        if (t == 0) rows[warp * kGroup + g + 8 * h] = make_float2(r.base[0][h], sum);
    }
    exchange.put(r.out[0]);
    __syncthreads();
    const ForwardHead target(p, block_index());
    float factor[4][2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        float base = -INFINITY, sum = 0.0f;
#pragma unroll
        for (int w = 0; w < 4; ++w) base = fmaxf(base, rows[w * kGroup + g + 8 * h].x);
#pragma unroll
        for (int w = 0; w < 4; ++w) {
            const float2 row = rows[w * kGroup + g + 8 * h];
            factor[w][h] = exp2_approx(row.x - base);
            sum = fmaf(row.y, factor[w][h], sum);
        }
        const float whole = __fdividef(1.0f, sum);
#pragma unroll
        for (int w = 0; w < 4; ++w) factor[w][h] *= whole;
        const unsigned row = first + g + 8 * h;
        if (warp == 0 && t == 0 && row < cut.tokens) target.lse()[row] = base * kLn2 + logf(sum);
    }
    exchange.store_sum(target.out(), target.width(), first, cut.tokens, factor);
}

// kSplit: two blocks a head (grid y), which take the units by turns. A row's numbers are the same bits either way.
template <bool kSplit>
__device__ __forceinline__ void forward_sm90(const PeftkAttentionForwardParams& p) {
    extern __shared__ __align__(1024) unsigned char memory[];
    const uint32_t shared = shared_address(memory);
    const Cut cut(p.tokens);
    constexpr unsigned kStep = kSplit ? 2 : 1;
    unsigned unit = kSplit ? blockIdx.y : 0;
    const bool has_tail = cut.tail && (!kSplit || cut.units % 2 == unit);
    if (unit >= cut.units && !has_tail) return;

    // This warp's rows of a unit; all four warps take the same of the tail.
    uint32_t pieces[2][2][4];
    const auto load_unit = [&](unsigned u) {
        load_pieces(pieces, ForwardHead(p, block_index()).rows(0), u * 64 + (u < cut.units ? threadIdx.x / 32 * kGroup : 0), cut.tokens);
    };
    load_unit(unit);
    {
        const ForwardHead source(p, blockIdx.x);
        fetch_chunks(shared, source.rows(1), source.rows(2), cut);
    }
    bool arrived = false;
#pragma unroll 1
    for (; unit < cut.units; unit += kStep, arrived = true) {
        QueryRows<1> r = {};
        to_operand(r.q[0], pieces);
        load_unit(unit + kStep);
        r.base[0][0] = r.base[0][1] = -INFINITY;
        const Attend pass{r, rows_at(shared), rows_at(shared + cut.groups * kSecond), cut.tokens, p.exponent_scale};
        walk<kChunk>(pass, cut, arrived);
        store_result(r, 0, ForwardHead(p, block_index()), unit * 64 + threadIdx.x / 32 * kGroup);
    }
    if (!has_tail) return;
    if (!arrived) arrive_chunk(cut.chunks - 1, cut.chunks);
    QueryRows<1> r = {};
    to_operand(r.q[0], pieces);
    r.base[0][0] = r.base[0][1] = -INFINITY;
    attend_tail(p, cut, r, memory);
}

}  // namespace attention
