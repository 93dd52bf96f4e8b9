// softmax(scale q k^T) v for one head of 64 columns after the other on Hopper: the body of the forward entries in sm90_attention.cu.
//
// A head's q, k and v lie in shared memory whole; a warpgroup takes a unit of 64 queries and walks over the keys, a step's scores under
// way with the last step's product. The next head comes meanwhile.
#pragma once

#include "common/attention_forward.cuh"
#include "common/attention_sm90.cuh"

namespace attention {

constexpr unsigned kForwardWarpgroups = 3, kForwardThreads = 128 * kForwardWarpgroups + 32;  // and a warp that fetches

// What the four warps that share the tail put together: their accumulators and (base, sum) of each row.
struct ForwardTail {
    Exchange exchange;
    float2 rows[4][kGroup];
};
constexpr unsigned kForwardTailBytes = sizeof(ForwardTail);
static_assert(kForwardTailBytes == 16896, "src/kernels/attention.rs has it");

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

// A head's k, v and q in shared memory, one behind the other.
struct ForwardSlot {
    uint32_t k, v, q;

    __device__ __forceinline__ ForwardSlot(uint32_t at, const Cut& cut)
        : k(at), v(at + cut.groups * kSecond), q(at + 2 * cut.groups * kSecond) {}

    // By one warp: starts fetching them, 8 lanes a row, in wgmma's 128-byte swizzle; `barrier` counts 32 arrivals when they are there.
    __device__ __forceinline__ void fetch(const ForwardHead& head, const Cut& cut, uint32_t barrier) const {
        const unsigned piece = threadIdx.x % 8, first = threadIdx.x % 32 / 8;
        const uint32_t even = first * kRowBytes + (piece ^ first) * 16, odd = (first + 4) * kRowBytes + (piece ^ (first + 4)) * 16;
#pragma unroll 1
        for (unsigned i = 0; i < 3; ++i) {
            const unsigned part = i == 0 ? 1 : i == 1 ? 0 : 2;  // k, q, v
            const Rows from = head.rows(part);
            const uint16_t* source = from.data + first * from.stride + piece * 8;
            uint32_t to = part == 0 ? q : part == 1 ? k : v;
#pragma unroll 4
            for (unsigned row = first; row < cut.groups * kGroup; row += 8, to += 8 * kRowBytes, source += 8 * from.stride) {
                cp_async_16(to + even, row < cut.tokens ? source : from.data, row < cut.tokens);
                const bool valid = row + 4 < cut.tokens;
                cp_async_16(to + odd, valid ? source + 4 * from.stride : from.data, valid);
            }
        }
        arrive_fetched(barrier);
    }

    // This warp's 16 rows of q: a group that does not exist is zeros.
    __device__ __forceinline__ void load(QueryRows<1>& r, unsigned group, const Cut& cut) const {
        if (group < cut.groups) load_shared_operand(r.q[0], q + group * kSecond);
        r.base[0][0] = r.base[0][1] = -INFINITY;
    }
};

// The tail's rows, from `first` on: warp w takes every fourth group of keys from w on, three at a time, all their scores at once.
__device__ __forceinline__ void attend_tail(const PeftkAttentionForwardParams& p, const Cut& cut, unsigned pair, QueryRows<1>& r,
                                            const ForwardSlot& slot, ForwardTail& shared) {
    constexpr unsigned kAtOnce = 3;
    const uint32_t k = lane_address(slot.k), v = lane_address(slot.v);
    const unsigned first = cut.units * 64, warp = threadIdx.x / 32 % 4, t = threadIdx.x % 4;
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

    const unsigned g = threadIdx.x % 32 / 4;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        float sum = r.sum[0][h];
        sum += __shfl_xor_sync(kAll, sum, 1);
        sum += __shfl_xor_sync(kAll, sum, 2);
        if (t == 0) shared.rows[warp][g + 8 * h] = make_float2(r.base[0][h], sum);
    }
    shared.exchange.put(r.out[0]);
    sm90::named_sync(1 + threadIdx.x / 128, 128);
    const ForwardHead target(p, pair);
    float factor[4][2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        float base = -INFINITY, sum = 0.0f;
#pragma unroll
        for (int w = 0; w < 4; ++w) base = fmaxf(base, shared.rows[w][g + 8 * h].x);
#pragma unroll
        for (int w = 0; w < 4; ++w) {
            const float2 row = shared.rows[w][g + 8 * h];
            factor[w][h] = exp2_approx(row.x - base);
            sum = fmaf(row.y, factor[w][h], sum);
        }
        const float whole = __fdividef(1.0f, sum);
#pragma unroll
        for (int w = 0; w < 4; ++w) factor[w][h] *= whole;
        const unsigned row = first + g + 8 * h;
        if (warp == 0 && t == 0 && row < cut.tokens) target.lse()[row] = base * kLn2 + logf(sum);
    }
    shared.exchange.store_sum(target.out(), target.width(), first, cut.tokens, factor);
}

// A block takes heads blockIdx.x, + gridDim.x and so on. A warp of its own fetches them, ahead where shared memory has two slots: copies
// wait in their warp for room among those under way, and would hold up the products. Warpgroups take the units and the tail of one head
// after the other by turns. kSplit: two blocks a head (grid y), of which each takes every second unit. A row's numbers are the same bits
// either way.
template <bool kSplit>
__device__ __forceinline__ void forward_sm90(const PeftkAttentionForwardParams& p) {
    extern __shared__ __align__(1024) unsigned char memory[];
    __shared__ __align__(8) uint64_t barriers[5];  // of each slot: full; empty; then: the tail's room is free
    const Cut cut(p.tokens);
    const uint32_t slot_bytes = 3 * cut.groups * kSecond;
    const unsigned slots = shared_bytes() >= 2 * slot_bytes + (cut.tail ? kForwardTailBytes : 0) ? 2 : 1;
    const unsigned all_units = cut.units + (cut.tail ? 1 : 0), units = kSplit ? (all_units + 1 - blockIdx.y) / 2 : all_units;  // a turn
    if (units == 0) return;
    const uint32_t full = shared_address(barriers), empty = full + 16, room = full + 32;
    if (threadIdx.x == 0) {
        for (unsigned i = 0; i < 2; ++i) {
            sm90::barrier_init(full + 8 * i, 32);
            sm90::barrier_init(empty + 8 * i, 4 * units);
        }
        sm90::barrier_init(room, 4);
    }
    __syncthreads();
    const auto pair_of = [&](unsigned turn) { return block_index() + turn * gridDim.x; };
    const auto index_of = [&](unsigned turn) { return turn & (slots - 1); };
    const auto phase_of = [&](unsigned turn) { return turn / slots & 1; };
    const auto slot_of = [&](unsigned turn) { return ForwardSlot(shared_address(memory) + index_of(turn) * slot_bytes, cut); };

    if (threadIdx.x >= 128 * kForwardWarpgroups) {
#pragma unroll 1
        for (unsigned turn = 0; pair_of(turn) < p.pairs; ++turn) {
            if (turn >= slots) sm90::barrier_wait(empty + 8 * index_of(turn), phase_of(turn) ^ 1);
            slot_of(turn).fetch(ForwardHead(p, pair_of(turn)), cut, full + 8 * index_of(turn));
        }
        return;
    }
    const unsigned warp = threadIdx.x / 32 % 4;
    const unsigned active = min(kForwardWarpgroups, units);  // each has a unit of every turn: none misses a phase
    unsigned turn = 0, own = threadIdx.x / 128;  // the unit's place among this turn's
    if (own >= active) return;
#pragma unroll 1
    while (true) {
        for (; own >= units; own -= units) ++turn;
        if (pair_of(turn) >= p.pairs) break;
        const unsigned unit = kSplit ? 2 * own + blockIdx.y : own;
        const ForwardSlot here = slot_of(turn);
        sm90::barrier_wait(full + 8 * index_of(turn), phase_of(turn));
        asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
        QueryRows<1> r = {};
        if (unit < cut.units) {
            here.load(r, unit * 4 + warp, cut);
            const Attend pass{r, rows_at(here.k), rows_at(here.v), cut.tokens, p.exponent_scale};
            walk<kChunk>(pass, cut, true);
            store_result(r, 0, ForwardHead(p, pair_of(turn)), unit * 64 + warp * kGroup);
        } else {
            here.load(r, unit * 4, cut);
            if (turn > 0) sm90::barrier_wait(room, (turn - 1) & 1);
            attend_tail(p, cut, pair_of(turn), r, here, *reinterpret_cast<ForwardTail*>(memory + slots * slot_bytes));
            warp_arrive(room);
        }
        warp_arrive(empty + 8 * index_of(turn));
        own += active;
    }
}

}  // namespace attention
