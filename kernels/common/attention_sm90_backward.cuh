// dqkv for one head of 64 columns on Hopper by one warpgroup or, split, by two.
//
// Two passes: over units of queries with k and v in shared memory, then over units of keys with q and dout there. What later units and
// the second pass read is asked into L2 at the start.
#pragma once

#include "common/attention_sm90_steps.cuh"

namespace attention {

// kKeys, kQueries: groups of keys a step in the pass over queries, and of queries in the other. Shared memory: the pair of matrices,
// then a float2 a row. kSplit: two blocks a head (grid y), one a pass; the second makes lse and D for itself. The numbers are the
// same bits either way.
template <int kKeys, int kQueries, bool kSplit>
__device__ __forceinline__ void backward_sm90(const PeftkAttentionBackwardParams& p) {
    extern __shared__ __align__(1024) unsigned char memory[];
    const uint32_t shared = shared_address(memory);
    const Cut cut(p.tokens);
    const unsigned tokens = cut.tokens, rows = cut.groups * kGroup;
    float2* stats = reinterpret_cast<float2*>(memory + cut.groups * kGroupBytes);
    const float factor[2] = {p.scale, p.scale}, one[2] = {1.0f, 1.0f};
    const unsigned all_units = cut.units + (cut.tail ? 1 : 0);

    if (!kSplit || blockIdx.y == 0) {
        uint32_t q_pieces[2][2][4];
        UnitRows unit_rows;
        const auto load_unit = [&](unsigned unit) {
            const Head head(p, block_index());
            load_pieces(q_pieces, head.rows(0), unit_row(cut, unit), tokens);
            unit_rows.load(head, unit_row(cut, unit), tokens);
        };
        load_unit(0);
        {
            const Head head(p, block_index());
            fetch_chunks(shared, head.rows(1), head.rows(2), cut);
            prefetch_rows(head.rows(0), tokens);
            prefetch_rows(head.dout(), tokens);
            prefetch_rows(head.out(), tokens);
        }
#pragma unroll 1
        for (unsigned unit = 0; unit < all_units; ++unit) {
            const unsigned first = unit_row(cut, unit);
            uint32_t q[4][4], dout[4][4];
            float lse[2], d[2];
            unit_rows.stats(Head(p, block_index()), first, tokens, rows, writes_stats(cut, unit), stats, lse, d);
            to_operand(q, q_pieces);
            to_operand(dout, unit_rows.dout);
            if (unit == cut.units) {
                queries_tail(p, cut, q, dout, lse, d, block_index(), shared, *reinterpret_cast<Exchange*>(memory));
                break;
            }
            pin(q);
            pin(dout);
            float dq[8][4] = {};
            const Queries pass{dq, q, dout, lse, d, rows_at(shared), rows_at(shared + cut.groups * kSecond), tokens, p.exponent_scale};
            walk<kKeys>(pass, cut, unit > 0);
            load_unit(unit + 1);
            const Head target(p, block_index());
            store_rows(target.gradient(0), 3 * target.width(), first, tokens, dq, factor);
        }

        if (kSplit) return;
        __syncthreads();  // k and v are no longer read, and all of stats is written
    }

    uint32_t k_pieces[2][2][4], v_pieces[2][2][4];
    const auto load_unit = [&](unsigned unit) {
        const Head head(p, block_index());
        load_pieces(k_pieces, head.rows(1), unit_row(cut, unit), tokens);
        load_pieces(v_pieces, head.rows(2), unit_row(cut, unit), tokens);
    };
    load_unit(0);
    {
        const Head head(p, block_index());
        fetch_chunks(shared, head.rows(0), head.dout(), cut);
        if (kSplit) {
            prefetch_rows(head.rows(1), tokens);
            prefetch_rows(head.rows(2), tokens);
        }
    }
    if (kSplit) {
#pragma unroll 1
        for (unsigned unit = 0; unit < all_units; ++unit) {
            UnitRows unit_rows;
            float lse[2], d[2];
            const Head head(p, block_index());
            unit_rows.load(head, unit_row(cut, unit), tokens);
            unit_rows.stats(head, unit_row(cut, unit), tokens, rows, writes_stats(cut, unit), stats, lse, d);
        }
        // The first chunk's barrier shows them to all.
    }
#pragma unroll 1
    for (unsigned unit = 0; unit < all_units; ++unit) {
        uint32_t k[4][4], v[4][4];
        to_operand(k, k_pieces);
        to_operand(v, v_pieces);
        if (unit == cut.units) {
            keys_tail(p, cut, k, v, stats, block_index(), shared, *reinterpret_cast<Exchange*>(memory));
            break;
        }
        pin(k);
        pin(v);
        float dk[8][4] = {}, dv[8][4] = {};
        const Keys pass{dk, dv, k, v, stats, rows_at(shared), rows_at(shared + cut.groups * kSecond), p.exponent_scale};
        walk<kQueries>(pass, cut, unit > 0);
        load_unit(unit + 1);
        const Head target(p, block_index());
        const unsigned first = unit_row(cut, unit);
        store_rows(target.gradient(1), 3 * target.width(), first, tokens, dk, factor);
        store_rows(target.gradient(2), 3 * target.width(), first, tokens, dv, one);
    }
}

}  // namespace attention
