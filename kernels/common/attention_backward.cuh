// dqkv of attention for one head of 64 columns on the tensor cores, in two passes: the bodies of attention_bf16.cu's entries.
//
// With P = exp(scale q k^T - lse), D = rowsum(dout * out) and dS = P * (dout v^T - D):
//   over queries   a warp owns 16 rows of q and walks over the keys: dq = scale dS k
//   over keys      a warp owns 16 rows of k and v and walks over the queries: dv = P^T dout, dk = scale dS^T q
// Every sum has one owner and one order, so nothing is added atomically; the price is that scores and dout v^T are formed twice.
// P and dS are rounded to bf16 where they enter a product. Rows beyond the end are zeros: as queries they add nothing to dk and
// dv; as keys they would meet an exponential that can overflow, so there P is set to zero.
//
// kResident: the pass's pair of matrices is in shared memory whole. Otherwise chunks of 64 rows go through two buffers.
#pragma once

#include "common/attention_tile.cuh"
#include "params/attention.h"

namespace attention {

// Where one image and head lies.
struct Head {
    const PeftkAttentionBackwardParams& p;
    unsigned pair, image, head;

    __device__ __forceinline__ Head(const PeftkAttentionBackwardParams& p, unsigned pair)
        : p(p), pair(pair), image(pair / p.heads), head(pair % p.heads) {}

    __device__ __forceinline__ unsigned width() const { return p.heads * kHeadDim; }
    __device__ __forceinline__ size_t wide(unsigned part) const {
        return static_cast<size_t>(image) * p.tokens * 3 * width() + part * width() + head * kHeadDim;
    }
    __device__ __forceinline__ size_t narrow() const { return static_cast<size_t>(image) * p.tokens * width() + head * kHeadDim; }
    // q, k or v, and the gradient of each.
    __device__ __forceinline__ Rows rows(unsigned part) const {
        return {reinterpret_cast<const uint16_t*>(p.qkv) + wide(part), 3 * width()};
    }
    __device__ __forceinline__ uint16_t* gradient(unsigned part) const { return reinterpret_cast<uint16_t*>(p.dqkv) + wide(part); }
    __device__ __forceinline__ Rows dout() const { return {reinterpret_cast<const uint16_t*>(p.dout) + narrow(), width()}; }
    __device__ __forceinline__ Rows out() const { return {reinterpret_cast<const uint16_t*>(p.out) + narrow(), width()}; }
    __device__ __forceinline__ const float* lse() const {
        return reinterpret_cast<const float*>(p.lse) + static_cast<size_t>(pair) * p.tokens;
    }
    __device__ __forceinline__ float2* stats() const {
        return reinterpret_cast<float2*>(p.workspace) + static_cast<size_t>(pair) * p.tokens;
    }
};

// The sum over 16 bytes of products.
__device__ __forceinline__ float dot_piece(const uint32_t (&a)[4], const uint32_t (&b)[4]) {
    float sum = 0.0f;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        sum = fmaf(low_bf16(a[j]), low_bf16(b[j]), sum);
        sum = fmaf(high_bf16(a[j]), high_bf16(b[j]), sum);
    }
    return sum;
}

// Fetches a pass's two matrices, whole or chunk by chunk; ready(c) returns chunk c's offset once it has arrived.
template <unsigned kThreads, bool kResident>
struct Stream {
    Rows a, b;
    uint32_t shared;
    unsigned rows, groups, chunks;

    __device__ __forceinline__ Stream(Rows a, Rows b, uint32_t shared, unsigned rows)
        : a(a), b(b), shared(shared), rows(rows), groups((rows + kGroup - 1) / kGroup), chunks((groups + kChunk - 1) / kChunk) {}

    __device__ __forceinline__ unsigned groups_of(unsigned c) const { return min(kChunk, groups - c * kChunk); }

    __device__ __forceinline__ uint32_t offset(unsigned c) const { return (kResident ? c : c % 2) * kChunk * kGroupBytes; }

    __device__ __forceinline__ void fetch(unsigned c) const {
        fetch_groups<kThreads>(shared + offset(c), a, b, c * kChunk * kGroup, groups_of(c), rows);
    }
};

// One block's share of dq, of `blocks` to an image and head: a group of 16 queries a warp, with kResident by turns. Leaves
// (lse log2 e, D) of its rows in the workspace if kWorkspace, and otherwise in `stats`: shared memory, all groups of rows.
template <unsigned kWarps, bool kResident, bool kWorkspace>
__device__ __forceinline__ void backward_queries(const PeftkAttentionBackwardParams& p, unsigned blocks, uint32_t shared,
                                                 float2* stats) {
    const Head source(p, blockIdx.x / blocks);
    const Stream<32 * kWarps, kResident> keys(source.rows(1), source.rows(2), shared, p.tokens);
    for (unsigned c = 0; c < (kResident ? keys.chunks : 1); ++c) {
        keys.fetch(c);
        cp_async_commit();
    }
    const uint32_t lane = lane_address(shared);
    const unsigned g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;

    unsigned first = (blockIdx.x % blocks * kWarps + threadIdx.x / 32) * kGroup;
    for (bool first_turn = true; first_turn || (kResident && first < p.tokens); first_turn = false, first += kWarps * kGroup) {
        uint32_t q[4][4], dout[4][4];
        float lse[2], d[2];
        const Head head(p, block_index() / blocks);
        load_operand(q, head.rows(0), first, p.tokens);
        {
            uint32_t dout_pieces[2][2][4], out_pieces[2][2][4];
            load_pieces(dout_pieces, head.dout(), first, p.tokens);
            load_pieces(out_pieces, head.out(), first, p.tokens);
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const unsigned row = first + g + 8 * h;
                lse[h] = row < p.tokens ? head.lse()[row] * kLog2e : 0.0f;
                d[h] = dot_piece(dout_pieces[h][0], out_pieces[h][0]) + dot_piece(dout_pieces[h][1], out_pieces[h][1]);
                d[h] += __shfl_xor_sync(kAll, d[h], 1);
                d[h] += __shfl_xor_sync(kAll, d[h], 2);
                if (t == 0 && row < (kWorkspace ? p.tokens : keys.groups * kGroup)) {
                    (kWorkspace ? head.stats() : stats)[row] = make_float2(lse[h], d[h]);
                }
            }
            to_operand(dout, dout_pieces);
        }
        float dq[8][4] = {};
#pragma unroll 1
        for (unsigned c = 0; c < keys.chunks; ++c) {
            if (!kResident) {
                cp_async_wait<0>();
                __syncthreads();
                if (c + 1 < keys.chunks) {
                    keys.fetch(c + 1);
                    cp_async_commit();
                }
            } else if (first_turn) {
                cp_async_wait(keys.chunks - 1 - c);
                __syncthreads();
            }
            uint32_t place = lane + keys.offset(c);
            const unsigned groups = keys.groups_of(c), left = p.tokens - c * kChunk * kGroup;
#pragma unroll 2
            for (unsigned i = 0; i < groups; ++i, place += kGroupBytes) {
                float s[2][4] = {}, dp[2][4] = {};
                multiply_transposed(s[0], s[1], q, place);
                multiply_transposed(dp[0], dp[1], dout, place + kSecond);
                const bool whole = (i + 1) * kGroup <= left;
#pragma unroll
                for (unsigned n = 0; n < 2; ++n) {
#pragma unroll
                    for (unsigned e = 0; e < 4; ++e) {
                        float probability = exp2_approx(fmaf(s[n][e], p.exponent_scale, -lse[e / 2]));
                        if (!whole && i * kGroup + 8 * n + 2 * t + e % 2 >= left) probability = 0.0f;
                        s[n][e] = probability * (dp[n][e] - d[e / 2]);
                    }
                }
                uint32_t ds[4];
                pack_operand(ds, s[0], s[1]);
                multiply(dq, ds, place);
            }
        }
        const float factor[2] = {p.scale, p.scale};
        const Head target(p, block_index() / blocks);
        store_rows(target.gradient(0), 3 * target.width(), first, p.tokens, dq, factor);
    }
}

// One block's share of dk and dv: a group of 16 keys a warp, with kResident by turns. `stats`:
// shared memory, filled with that of all rows, or if kWorkspace room for as many chunks of it as fit beside the matrices.
template <unsigned kWarps, bool kResident, bool kWorkspace>
__device__ __forceinline__ void backward_keys(const PeftkAttentionBackwardParams& p, unsigned blocks, uint32_t shared, float2* stats) {
    const Head source(p, blockIdx.x / blocks);
    const Stream<32 * kWarps, kResident> queries(source.rows(0), source.dout(), shared, p.tokens);
    const uint32_t stats_address = shared_address(stats);
    constexpr unsigned kRows = kChunk * kGroup;
    const auto fetch = [&](unsigned c) {
        queries.fetch(c);
        if (kWorkspace) {
            for (unsigned i = threadIdx.x; i < kRows; i += 32 * kWarps) {
                const unsigned row = c * kRows + i;
                const bool valid = row < p.tokens;
                const uint32_t place = stats_address + ((kResident ? c : c % 2) * kRows + i) * sizeof(float2);
                cp_async_8(place, source.stats() + (valid ? row : 0), valid);
            }
        }
        cp_async_commit();
    };
    for (unsigned c = 0; c < (kResident ? queries.chunks : 1); ++c) fetch(c);
    const uint32_t lane = lane_address(shared);
    const unsigned t = threadIdx.x % 4;

    unsigned first = (blockIdx.x % blocks * kWarps + threadIdx.x / 32) * kGroup;
    for (bool first_turn = true; first_turn || (kResident && first < p.tokens); first_turn = false, first += kWarps * kGroup) {
        uint32_t k[4][4], v[4][4];
        const Head head(p, block_index() / blocks);
        load_operand(k, head.rows(1), first, p.tokens);
        load_operand(v, head.rows(2), first, p.tokens);
        float dk[8][4] = {}, dv[8][4] = {};
#pragma unroll 1
        for (unsigned c = 0; c < queries.chunks; ++c) {
            if (!kResident) {
                cp_async_wait<0>();
                __syncthreads();
                if (c + 1 < queries.chunks) fetch(c + 1);
            } else if (first_turn) {
                cp_async_wait(queries.chunks - 1 - c);
                __syncthreads();
            }
            uint32_t place = lane + queries.offset(c);
            const unsigned groups = queries.groups_of(c);
            const float4* row = reinterpret_cast<const float4*>(stats + (kResident ? c : c % 2) * kRows) + t;
#pragma unroll 1
            for (unsigned i = 0; i < groups; ++i, place += kGroupBytes, row += kGroup / 2) {
                float s[2][4] = {}, dp[2][4] = {};
                multiply_transposed(s[0], s[1], k, place);
                multiply_transposed(dp[0], dp[1], v, place + kSecond);
#pragma unroll
                for (int n = 0; n < 2; ++n) {
                    const float4 two = row[4 * n];  // (lse, D) of queries 8 n + 2 t and the next
#pragma unroll
                    for (int e = 0; e < 4; ++e) {
                        s[n][e] = exp2_approx(fmaf(s[n][e], p.exponent_scale, -(e % 2 ? two.z : two.x)));
                        dp[n][e] = s[n][e] * (dp[n][e] - (e % 2 ? two.w : two.y));
                    }
                }
                uint32_t a[4];
                pack_operand(a, s[0], s[1]);
                multiply(dv, a, place + kSecond);
                pack_operand(a, dp[0], dp[1]);
                multiply(dk, a, place);
            }
        }
        const float factor[2] = {p.scale, p.scale}, one[2] = {1.0f, 1.0f};
        const Head target(p, block_index() / blocks);
        store_rows(target.gradient(1), 3 * target.width(), first, p.tokens, dk, factor);
        store_rows(target.gradient(2), 3 * target.width(), first, p.tokens, dv, one);
    }
}

// Both passes by one block an image and head. Shared memory: the groups of a pair of matrices, then a float2 a row.
template <unsigned kWarps>
__device__ __forceinline__ void backward_resident(const PeftkAttentionBackwardParams& p) {
    extern __shared__ __align__(1024) unsigned char memory[];
    const unsigned groups = (p.tokens + kGroup - 1) / kGroup;
    float2* stats = reinterpret_cast<float2*>(memory + groups * kGroupBytes);
    backward_queries<kWarps, true, false>(p, 1, shared_address(memory), stats);
    __syncthreads();  // k and v are no longer read, and all of stats is written
    backward_keys<kWarps, true, false>(p, 1, shared_address(memory), stats);
}

// One pass alone. Resident: one block an image and head, shared memory as above, but for keys of whole chunks of rows. Otherwise
// blocks of kWarps * 16 rows; shared memory: two chunks, then for keys a float2 a row of theirs.
template <unsigned kWarps, bool kResident, bool kKeys>
__device__ __forceinline__ void backward_pass(const PeftkAttentionBackwardParams& p) {
    extern __shared__ __align__(1024) unsigned char memory[];
    const unsigned blocks = kResident ? 1 : (p.tokens + kWarps * kGroup - 1) / (kWarps * kGroup);
    const unsigned groups = kResident ? (p.tokens + kGroup - 1) / kGroup : 2 * kChunk;
    float2* stats = reinterpret_cast<float2*>(memory + groups * kGroupBytes);
    if (kKeys) {
        backward_keys<kWarps, kResident, true>(p, blocks, shared_address(memory), stats);
    } else {
        backward_queries<kWarps, kResident, true>(p, blocks, shared_address(memory), nullptr);
    }
}

}  // namespace attention
