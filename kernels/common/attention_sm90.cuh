// Attention for one head of 64 columns by Hopper's wgmma: the bodies of the entries in sm90_attention.cu.
//
// As attention_forward.cuh and attention_backward.cuh, resident form, with a warpgroup's 64 rows in place of a warp's 16: each warp
// holds its 16 rows as operand and accumulators in just the same registers, while the other operand's descriptor names rows in
// shared memory that all four warps read at once. That takes ldmatrix, and three quarters of the traffic from shared memory, away.
// The two matrices of a pass lie one behind the other, each in wgmma's 128-byte swizzle (which is fetch_groups's).
#pragma once

#include "common/attention_backward.cuh"
#include "common/attention_forward.cuh"
#include "common/sm90.cuh"

namespace attention {

// acc [64, 8 kTiles] (= or +=) a [64, 16] b [16, 8 kTiles]; kRowsOfK: b's rows in memory are k, otherwise they are its columns.
template <int kTiles, bool kRowsOfK, bool kAdd>
__device__ __forceinline__ void wgmma(float (&d)[kTiles][4], const uint32_t (&a)[4], uint64_t b) {
#define ATTENTION_D(i) "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])
    if constexpr (kTiles == 8) {
        asm volatile(
            "{\n .reg .pred p;\n setp.ne.u32 p, %37, 0;\n wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
            "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
            "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
            "}, {%32, %33, %34, %35}, %36, p, 1, 1, %38;\n}"
            : ATTENTION_D(0), ATTENTION_D(1), ATTENTION_D(2), ATTENTION_D(3), ATTENTION_D(4), ATTENTION_D(5), ATTENTION_D(6),
              ATTENTION_D(7)
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(kAdd ? 1 : 0), "n"(kRowsOfK ? 1 : 0));
    } else if constexpr (kTiles == 4) {
        asm volatile(
            "{\n .reg .pred p;\n setp.ne.u32 p, %21, 0;\n wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 {"
            "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
            "}, {%16, %17, %18, %19}, %20, p, 1, 1, %22;\n}"
            : ATTENTION_D(0), ATTENTION_D(1), ATTENTION_D(2), ATTENTION_D(3)
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(kAdd ? 1 : 0), "n"(kRowsOfK ? 1 : 0));
    } else {
        static_assert(kTiles == 2);
        asm volatile(
            "{\n .reg .pred p;\n setp.ne.u32 p, %13, 0;\n wgmma.mma_async.sync.aligned.m64n16k16.f32.bf16.bf16 {"
            "%0, %1, %2, %3, %4, %5, %6, %7}, {%8, %9, %10, %11}, %12, p, 1, 1, %14;\n}"
            : ATTENTION_D(0), ATTENTION_D(1)
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(kAdd ? 1 : 0), "n"(kRowsOfK ? 1 : 0));
    }
#undef ATTENTION_D
}

// Rows at `address` (a multiple of 1024, plus 32 for every 16 columns further right) as operand b, in either orientation.
__device__ __forceinline__ uint64_t rows_descriptor(uint32_t address) { return sm90::descriptor(address, 1024, 1024); }

// Keeps the compiler from moving reads of accumulators above the wait that they depend on, or writes below the fence.
template <int kTiles>
__device__ __forceinline__ void pin(float (&d)[kTiles][4]) {
#pragma unroll
    for (int i = 0; i < kTiles; ++i) asm volatile("" : "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])::"memory");
}

// scores = a rows^T, all 64 columns of both, for 8 kTiles rows at `address`.
template <int kTiles>
__device__ __forceinline__ void issue_scores(float (&s)[kTiles][4], const uint32_t (&a)[4][4], uint32_t address) {
    wgmma<kTiles, false, false>(s, a[0], rows_descriptor(address));
    wgmma<kTiles, false, true>(s, a[1], rows_descriptor(address + 32));
    wgmma<kTiles, false, true>(s, a[2], rows_descriptor(address + 64));
    wgmma<kTiles, false, true>(s, a[3], rows_descriptor(address + 96));
}

// acc [64, 64] += a rows for 16 kGroups rows at `address`.
template <int kGroups>
__device__ __forceinline__ void issue_product(float (&acc)[8][4], const uint32_t (&a)[kGroups][4], uint32_t address) {
#pragma unroll
    for (unsigned g = 0; g < kGroups; ++g) wgmma<8, true, true>(acc, a[g], rows_descriptor(address + g * kSecond));
}

// Waits for chunk c of `chunks` that were committed one by one, and shows it to wgmma.
__device__ __forceinline__ void arrive_chunk(unsigned c, unsigned chunks) {
    cp_async_wait(chunks - 1 - c);
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    __syncthreads();
}

// One step over 16 kGroups keys at `k`, their v at `v`, of which the first `keys` exist.
template <int kGroups>
__device__ __forceinline__ void attend_sm90(QueryRows<1>& r, uint32_t k, uint32_t v, unsigned keys, float exponent_scale) {
    float s[1][2 * kGroups][4];
    pin(s[0]);
    sm90::wgmma_fence();
    issue_scores(s[0], r.q[0], k);
    sm90::wgmma_commit();
    sm90::wgmma_wait<0>();
    pin(s[0]);
    pin(r.out[0]);
    if (keys < kGroups * kGroup) {
        const unsigned t = threadIdx.x % 4;
#pragma unroll
        for (unsigned n = 0; n < 2 * kGroups; ++n) {
#pragma unroll
            for (unsigned e = 0; e < 4; ++e) {
                if (8 * n + 2 * t + e % 2 >= keys) s[0][n][e] = -INFINITY;
            }
        }
    }
    raise_base(r, s, exponent_scale);
    uint32_t p[kGroups][4];
#pragma unroll
    for (unsigned g = 0; g < kGroups; ++g) {
#pragma unroll
        for (unsigned n = 2 * g; n < 2 * g + 2; ++n) {
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                s[0][n][e] = exp2_approx(fmaf(s[0][n][e], exponent_scale, -r.base[0][e / 2]));
                r.sum[0][e / 2] += s[0][n][e];
            }
        }
        pack_operand(p[g], s[0][2 * g], s[0][2 * g + 1]);
    }
    pin(r.out[0]);
    sm90::wgmma_fence();
    issue_product(r.out[0], p, v);
    sm90::wgmma_commit();  // the next step's wait, or the caller's, covers it
}

// kSplit: two blocks a head (grid y), which take 64 rows by turns. A row's numbers are the same bits either way.
template <unsigned kWarpgroups, bool kSplit>
__device__ __forceinline__ void forward_sm90(const PeftkAttentionForwardParams& p) {
    constexpr unsigned kThreads = 128 * kWarpgroups;
    extern __shared__ __align__(1024) unsigned char memory[];
    const uint32_t shared = shared_address(memory);
    const unsigned tokens = p.tokens, groups = (tokens + kGroup - 1) / kGroup, chunks = (groups + kChunk - 1) / kChunk;
    const uint32_t second = groups * kSecond;
    {
        const ForwardHead source(p, blockIdx.x);
        for (unsigned c = 0; c < chunks; ++c) {
            fetch_groups<kThreads, kSecond>(shared + c * kChunk * kSecond, source.rows(1), source.rows(2), c * kChunk * kGroup,
                                            min(kChunk, groups - c * kChunk), tokens, second);
            cp_async_commit();
        }
    }
    // Warpgroups take 64 rows by turns; a warp whose rows do not exist goes along with zeros.
    constexpr unsigned kStep = kWarpgroups * 64 * (kSplit ? 2 : 1);
    const unsigned start = (threadIdx.x / 128 + (kSplit ? blockIdx.y * kWarpgroups : 0)) * 64;
    for (unsigned turn = 0, base = start; turn == 0 || base < tokens; ++turn, base += kStep) {
        const unsigned first = base + threadIdx.x / 32 % 4 * kGroup;
        QueryRows<1> r = {};
        load_operand(r.q[0], ForwardHead(p, block_index()).rows(0), first, tokens);
        r.base[0][0] = r.base[0][1] = -INFINITY;
#pragma unroll 1
        for (unsigned c = 0; c < chunks; ++c) {
            if (turn == 0) arrive_chunk(c, chunks);
            uint32_t k = shared + c * kChunk * kSecond;
            unsigned keys = tokens - c * kChunk * kGroup, here = min(kChunk, groups - c * kChunk);
            if (here == kChunk) {
                attend_sm90<kChunk>(r, k, k + second, keys, p.exponent_scale);
            } else {
#pragma unroll 1
                for (; here > 0; --here, k += kSecond, keys -= kGroup) attend_sm90<1>(r, k, k + second, keys, p.exponent_scale);
            }
        }
        sm90::wgmma_wait<0>();
        pin(r.out[0]);
        store_result(r, 0, ForwardHead(p, block_index()), first);
    }
}

// dq of this warpgroup's 64 rows += one step over 16 kGroups keys.
template <int kGroups>
__device__ __forceinline__ void queries_step(float (&dq)[8][4], const uint32_t (&q)[4][4], const uint32_t (&dout)[4][4], uint32_t k,
                                             uint32_t v, unsigned keys, const float (&lse)[2], const float (&d)[2],
                                             float exponent_scale) {
    float s[2 * kGroups][4], dp[2 * kGroups][4];
    pin(s);
    pin(dp);
    sm90::wgmma_fence();
    issue_scores(s, q, k);
    issue_scores(dp, dout, v);
    sm90::wgmma_commit();
    sm90::wgmma_wait<0>();
    pin(s);
    pin(dp);
    const unsigned t = threadIdx.x % 4;
    uint32_t ds[kGroups][4];
#pragma unroll
    for (unsigned g = 0; g < kGroups; ++g) {
#pragma unroll
        for (unsigned n = 2 * g; n < 2 * g + 2; ++n) {
#pragma unroll
            for (unsigned e = 0; e < 4; ++e) {
                float probability = exp2_approx(fmaf(s[n][e], exponent_scale, -lse[e / 2]));
                if (keys < kGroups * kGroup && 8 * n + 2 * t + e % 2 >= keys) probability = 0.0f;
                s[n][e] = probability * (dp[n][e] - d[e / 2]);
            }
        }
        pack_operand(ds[g], s[2 * g], s[2 * g + 1]);
    }
    pin(dq);
    sm90::wgmma_fence();
    issue_product(dq, ds, k);
    sm90::wgmma_commit();
}

// dk and dv of this warpgroup's 64 rows += one step over 16 kGroups queries.
template <int kGroups>
__device__ __forceinline__ void keys_step(float (&dk)[8][4], float (&dv)[8][4], const uint32_t (&k)[4][4], const uint32_t (&v)[4][4],
                                          uint32_t q, uint32_t dout, const float4* row, float exponent_scale) {
    float s[2 * kGroups][4], dp[2 * kGroups][4];
    pin(s);
    pin(dp);
    sm90::wgmma_fence();
    issue_scores(s, k, q);
    issue_scores(dp, v, dout);
    sm90::wgmma_commit();
    sm90::wgmma_wait<0>();
    pin(s);
    pin(dp);
    uint32_t probability[kGroups][4], ds[kGroups][4];
#pragma unroll
    for (unsigned g = 0; g < kGroups; ++g) {
#pragma unroll
        for (unsigned n = 2 * g; n < 2 * g + 2; ++n) {
            const float4 two = row[4 * n];  // (lse, D) of queries 8 n + 2 t and the next
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                s[n][e] = exp2_approx(fmaf(s[n][e], exponent_scale, -(e % 2 ? two.z : two.x)));
                dp[n][e] = s[n][e] * (dp[n][e] - (e % 2 ? two.w : two.y));
            }
        }
        pack_operand(probability[g], s[2 * g], s[2 * g + 1]);
        pack_operand(ds[g], dp[2 * g], dp[2 * g + 1]);
    }
    pin(dk);
    pin(dv);
    sm90::wgmma_fence();
    issue_product(dv, probability, dout);
    issue_product(dk, ds, q);
    sm90::wgmma_commit();
}

// lse in base 2 and D of this lane's rows first + g and first + g + 8, also to `stats`; their pieces of dout on the way.
__device__ __forceinline__ void row_stats(const Head& head, unsigned first, unsigned tokens, unsigned rows, float2* stats,
                                          uint32_t (&dout_pieces)[2][2][4], float (&lse)[2], float (&d)[2]) {
    const unsigned g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    uint32_t out_pieces[2][2][4];
    load_pieces(dout_pieces, head.dout(), first, tokens);
    load_pieces(out_pieces, head.out(), first, tokens);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        const unsigned row = first + g + 8 * h;
        lse[h] = row < tokens ? head.lse()[row] * kLog2e : 0.0f;
        d[h] = dot_piece(dout_pieces[h][0], out_pieces[h][0]) + dot_piece(dout_pieces[h][1], out_pieces[h][1]);
        d[h] += __shfl_xor_sync(kAll, d[h], 1);
        d[h] += __shfl_xor_sync(kAll, d[h], 2);
        if (t == 0 && row < rows) stats[row] = make_float2(lse[h], d[h]);
    }
}

// kKeys, kQueries: groups of keys a step in the pass over queries, and of queries in the other; 1, 2 or 4. Shared memory: the pair
// of matrices, then a float2 a row. kSplit: two blocks a head (grid y), one a pass; the second makes lse and D for itself. The numbers are the
// same bits either way.
template <unsigned kWarpgroups, unsigned kKeys, unsigned kQueries, bool kSplit>
__device__ __forceinline__ void backward_sm90(const PeftkAttentionBackwardParams& p) {
    constexpr unsigned kThreads = 128 * kWarpgroups;
    extern __shared__ __align__(1024) unsigned char memory[];
    const uint32_t shared = shared_address(memory);
    const unsigned tokens = p.tokens, groups = (tokens + kGroup - 1) / kGroup, chunks = (groups + kChunk - 1) / kChunk;
    const uint32_t second = groups * kSecond;
    float2* stats = reinterpret_cast<float2*>(memory + groups * kGroupBytes);
    const unsigned t = threadIdx.x % 4;
    const float factor[2] = {p.scale, p.scale}, one[2] = {1.0f, 1.0f};
    const auto fetch = [&](Rows a, Rows b) {
        for (unsigned c = 0; c < chunks; ++c) {
            fetch_groups<kThreads, kSecond>(shared + c * kChunk * kSecond, a, b, c * kChunk * kGroup, min(kChunk, groups - c * kChunk),
                                            tokens, second);
            cp_async_commit();
        }
    };

    if (!kSplit || blockIdx.y == 0) {
        fetch(Head(p, block_index()).rows(1), Head(p, block_index()).rows(2));
        for (unsigned turn = 0, base = threadIdx.x / 128 * 64; turn == 0 || base < tokens; ++turn, base += kWarpgroups * 64) {
            const unsigned first = base + threadIdx.x / 32 % 4 * kGroup;
            uint32_t q[4][4], dout[4][4];
            float lse[2], d[2];
            const Head head(p, block_index());
            load_operand(q, head.rows(0), first, tokens);
            {
                uint32_t dout_pieces[2][2][4];
                row_stats(head, first, tokens, groups * kGroup, stats, dout_pieces, lse, d);
                to_operand(dout, dout_pieces);
            }
            float dq[8][4] = {};
#pragma unroll 1
            for (unsigned c = 0; c < chunks; ++c) {
                if (turn == 0) arrive_chunk(c, chunks);
                uint32_t k = shared + c * kChunk * kSecond;
                unsigned keys = tokens - c * kChunk * kGroup, here = min(kChunk, groups - c * kChunk);
#pragma unroll 1
                for (; here >= kKeys; here -= kKeys, k += kKeys * kSecond, keys -= kKeys * kGroup) {
                    queries_step<kKeys>(dq, q, dout, k, k + second, keys, lse, d, p.exponent_scale);
                }
#pragma unroll 1
                for (; here > 0; --here, k += kSecond, keys -= kGroup) {
                    queries_step<1>(dq, q, dout, k, k + second, keys, lse, d, p.exponent_scale);
                }
            }
            sm90::wgmma_wait<0>();
            pin(dq);
            const Head target(p, block_index());
            store_rows(target.gradient(0), 3 * target.width(), first, tokens, dq, factor);
        }

        if (kSplit) return;
        __syncthreads();  // k and v are no longer read, and all of stats is written
    }

    fetch(Head(p, block_index()).rows(0), Head(p, block_index()).dout());
    if (kSplit) {
#pragma unroll 1
        for (unsigned base = threadIdx.x / 128 * 64; base < groups * kGroup; base += kWarpgroups * 64) {
            uint32_t dout_pieces[2][2][4];
            float lse[2], d[2];
            const unsigned first = base + threadIdx.x / 32 % 4 * kGroup;
            row_stats(Head(p, block_index()), first, tokens, groups * kGroup, stats, dout_pieces, lse, d);
        }
        // The first chunk's barrier shows them to all.
    }
    for (unsigned turn = 0, base = threadIdx.x / 128 * 64; turn == 0 || base < tokens; ++turn, base += kWarpgroups * 64) {
        const unsigned first = base + threadIdx.x / 32 % 4 * kGroup;
        uint32_t k[4][4], v[4][4];
        const Head head(p, block_index());
        load_operand(k, head.rows(1), first, tokens);
        load_operand(v, head.rows(2), first, tokens);
        float dk[8][4] = {}, dv[8][4] = {};
#pragma unroll 1
        for (unsigned c = 0; c < chunks; ++c) {
            if (turn == 0) arrive_chunk(c, chunks);
            uint32_t q = shared + c * kChunk * kSecond;
            const float4* row = reinterpret_cast<const float4*>(stats + c * kChunk * kGroup) + t;
            unsigned here = min(kChunk, groups - c * kChunk);
#pragma unroll 1
            for (; here >= kQueries; here -= kQueries, q += kQueries * kSecond, row += kQueries * kGroup / 2) {
                keys_step<kQueries>(dk, dv, k, v, q, q + second, row, p.exponent_scale);
            }
#pragma unroll 1
            for (; here > 0; --here, q += kSecond, row += kGroup / 2) {
                keys_step<1>(dk, dv, k, v, q, q + second, row, p.exponent_scale);
            }
        }
        sm90::wgmma_wait<0>();
        pin(dk);
        pin(dv);
        const Head target(p, block_index());
        store_rows(target.gradient(1), 3 * target.width(), first, tokens, dk, factor);
        store_rows(target.gradient(2), 3 * target.width(), first, tokens, dv, one);
    }
}

}  // namespace attention
