// dqkv of many heads of 64 columns on Hopper: a block a multiprocessor, which goes on from head to head.
#pragma once

#include "common/attention_sm90_steps.cuh"

namespace attention {

constexpr unsigned kRingWarpgroups = 3, kRingThreads = 128 * kRingWarpgroups + 128;  // and a warpgroup that fetches

// The same for many heads: a block takes heads blockIdx.x, + gridDim.x and so on. Its pairs of matrices, k and v, then q and dout of one
// head after the other, go through a ring of three places (two if shared memory holds no more), fetched by warps of their own: both
// passes read them from there, and the next head's come meanwhile. Warpgroups take a head's units of queries, then its units of keys, by
// turns. Shared memory: the places, a tail's exchange, and for every second head a float2 a row.
template <int kKeys, int kQueries>
__device__ __forceinline__ void backward_ring(const PeftkAttentionBackwardParams& p) {
    extern __shared__ __align__(1024) unsigned char memory[];
    __shared__ __align__(8) uint64_t barriers[8];  // of each place: full; empty; then: the exchange is free, a head's stats are there
    const Cut cut(p.tokens);
    const unsigned rows = cut.groups * kGroup, units = cut.units + (cut.tail ? 1 : 0);
    const uint32_t pair_bytes = cut.groups * kGroupBytes, exchange_bytes = cut.tail ? sizeof(Exchange) : 0;
    const unsigned places = shared_bytes() >= 3 * pair_bytes + exchange_bytes + 2 * rows * sizeof(float2) ? 3 : 2;
    const uint32_t full = shared_address(barriers), empty = full + 24, room = full + 48, known = full + 56;
    if (threadIdx.x == 0) {
        for (unsigned i = 0; i < 3; ++i) {
            sm90::barrier_init(full + 8 * i, 128);
            sm90::barrier_init(empty + 8 * i, 4 * 2 * units);
        }
        sm90::barrier_init(room, 4);
        sm90::barrier_init(known, 4 * units);
    }
    __syncthreads();
    const auto pair_of = [&](unsigned turn) { return block_index() + turn * gridDim.x; };
    const auto place_of = [&](unsigned i) { return shared_address(memory) + i % places * pair_bytes; };

    if (threadIdx.x / 128 == kRingWarpgroups) {
        sm90::registers_shrink<24>();
#pragma unroll 1
        for (unsigned i = 0; pair_of(i / 2) < p.pairs; ++i) {
            if (i >= places) sm90::barrier_wait(empty + 8 * (i % places), (i / places & 1) ^ 1);
            const Head head(p, pair_of(i / 2));
            if (i % 2 == 0) prefetch_rows(head.out(), cut.tokens);
            fetch_groups<128, kSecond>(place_of(i), head.rows(i % 2 ? 0 : 1), i % 2 ? head.dout() : head.rows(2), 0, cut.groups, cut.tokens,
                                       cut.groups * kSecond, threadIdx.x % 128);
            arrive_fetched(full + 8 * (i % places));
        }
    } else {
        sm90::registers_grow<160>();
        const float factor[2] = {p.scale, p.scale}, one[2] = {1.0f, 1.0f};
        const unsigned active = min(kRingWarpgroups, 2 * units);  // each has a unit of every turn: none misses a phase
        unsigned turn = 0, own = threadIdx.x / 128;
        if (own >= active) return;
#pragma unroll 1
        while (true) {
            for (; own >= 2 * units; own -= 2 * units) ++turn;
            if (pair_of(turn) >= p.pairs) break;
            const unsigned unit = own < units ? own : own - units, first = unit_row(cut, unit);
            const uint32_t keys = place_of(2 * turn), queries = place_of(2 * turn + 1), second = cut.groups * kSecond;
            Exchange& exchange = *reinterpret_cast<Exchange*>(memory + places * pair_bytes);
            float2* stats = reinterpret_cast<float2*>(memory + places * pair_bytes + exchange_bytes) + turn % 2 * rows;
            sm90::barrier_wait(full + 8 * (2 * turn % places), 2 * turn / places & 1);
            sm90::barrier_wait(full + 8 * ((2 * turn + 1) % places), (2 * turn + 1) / places & 1);
            asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
            // This warp's rows as operands; those of a group that does not exist are zeros.
            uint32_t a[4][4] = {}, b[4][4] = {};
            if (first < rows) {
                load_shared_operand(a, (own < units ? queries : keys) + first * kRowBytes);
                load_shared_operand(b, (own < units ? queries : keys) + second + first * kRowBytes);
            }
            if (own < units) {
                float lse[2], d[2];
                {
                    UnitRows unit_rows;
                    unit_rows.load(Head(p, pair_of(turn)), first, cut.tokens);
                    unit_rows.stats(Head(p, pair_of(turn)), first, cut.tokens, rows, stats, lse, d);
                    warp_arrive(known);
                }
                if (unit == cut.units) {
                    // The head before is done with the exchange: this one's q came in place of its k.
                    queries_tail(p, cut, a, b, lse, d, pair_of(turn), keys, exchange);
                    warp_arrive(room);
                } else {
                    pin(a);
                    pin(b);
                    float dq[8][4] = {};
                    const Queries pass{dq, a, b, lse, d, rows_at(keys), rows_at(keys + second), cut.tokens, p.exponent_scale};
                    walk_ahead<kKeys>(pass, cut, true);
                    const Head target(p, pair_of(turn));
                    store_rows(target.gradient(0), 3 * target.width(), first, cut.tokens, dq, factor);
                }
            } else {
                sm90::barrier_wait(known, turn & 1);
                if (unit == cut.units) {
                    sm90::barrier_wait(room, 0);
                    keys_tail(p, cut, a, b, stats, pair_of(turn), queries, exchange);
                    warp_arrive(room);
                } else {
                    pin(a);
                    pin(b);
                    float dk[8][4] = {}, dv[8][4] = {};
                    const Keys pass{dk, dv, a, b, stats, rows_at(queries), rows_at(queries + second), p.exponent_scale};
                    walk_ahead<kQueries>(pass, cut, true);
                    const Head target(p, pair_of(turn));
                    store_rows(target.gradient(1), 3 * target.width(), first, cut.tokens, dk, factor);
                    store_rows(target.gradient(2), 3 * target.width(), first, cut.tokens, dv, one);
                }
            }
            warp_arrive(empty + 8 * (2 * turn % places));
            warp_arrive(empty + 8 * ((2 * turn + 1) % places));
            own += active;
        }
    }
}

}  // namespace attention
