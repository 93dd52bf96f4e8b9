// Attention in plain f32 arithmetic for heads of any width up to 128: the bodies of the entries in attention_any.cu.
//
// A block owns 64 rows (queries, or keys in the pass over keys) and walks over the other side 64 rows at a time. Tiles lie in shared
// memory as f32 whatever their type in memory; a row's pitch is an odd number of float4, so that 8 rows read at one column lie in
// different banks. Of a 64 x 64 tile of scores thread (y, x) holds rows y + 16 i and columns x + 16 j, so the 16 threads of a row
// are half a warp; of a 64 x head_dim result it holds the float4 columns x and x + 16.
#pragma once

#include "common/mma.cuh"
#include "params/attention.h"

namespace attention_any {

constexpr unsigned kTile = 64, kThreads = 256, kWarps = kThreads / 32, kMaxHeadDim = 128;
constexpr unsigned kScorePitch = kTile + 4;
constexpr unsigned kAll = 0xffffffffu;

using Scores = float[4][4];
using Result = float4[4][2];

__device__ __forceinline__ float widen(float value) { return value; }
__device__ __forceinline__ float widen(uint16_t value) { return low_bf16(value); }
__device__ __forceinline__ void store(float* place, float value) { *place = value; }
__device__ __forceinline__ void store(uint16_t* place, float value) { *place = static_cast<uint16_t>(pack_bf16(value, 0.0f)); }

__device__ __forceinline__ unsigned pitch_of(unsigned head_dim) { return ((head_dim + 3) / 4 | 1) * 4; }
__device__ __forceinline__ unsigned thread_x() { return threadIdx.x % 16; }
__device__ __forceinline__ unsigned thread_y() { return threadIdx.x / 16; }

// The sum, or the maximum, over the 16 threads of a row.
__device__ __forceinline__ float row_sum(float value) {
#pragma unroll
    for (int offset = 8; offset > 0; offset /= 2) value += __shfl_xor_sync(kAll, value, offset);
    return value;
}
__device__ __forceinline__ float row_max(float value) {
#pragma unroll
    for (int offset = 8; offset > 0; offset /= 2) value = fmaxf(value, __shfl_xor_sync(kAll, value, offset));
    return value;
}

// Rows first .. first + 64 of one head; zeros from `rows` on and beyond head_dim.
template <class T>
__device__ __forceinline__ void load_tile(float* tile, const T* data, size_t stride, unsigned first, unsigned rows, unsigned head_dim) {
    const unsigned pitch = pitch_of(head_dim);
#pragma unroll 4
    for (unsigned i = threadIdx.x / 32; i < kTile; i += kWarps) {
        const bool valid = first + i < rows;
        const T* row = data + (valid ? (first + i) * stride : 0);
        for (unsigned d = threadIdx.x % 32; d < pitch; d += 32) {
            tile[i * pitch + d] = valid && d < head_dim ? widen(row[d]) : 0.0f;
        }
    }
}

// scores = a b^T over two tiles of `pitch`.
__device__ __forceinline__ void multiply_transposed(Scores& scores, const float* a, const float* b, unsigned pitch) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) scores[i][j] = 0.0f;
    }
    a += thread_y() * pitch;
    b += thread_x() * pitch;
#pragma unroll 2
    for (unsigned d = 0; d < pitch; d += 4) {
        float4 left[4], right[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) left[i] = *reinterpret_cast<const float4*>(a + 16 * i * pitch + d);
#pragma unroll
        for (int j = 0; j < 4; ++j) right[j] = *reinterpret_cast<const float4*>(b + 16 * j * pitch + d);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                float sum = fmaf(left[i].x, right[j].x, scores[i][j]);
                sum = fmaf(left[i].y, right[j].y, sum);
                sum = fmaf(left[i].z, right[j].z, sum);
                scores[i][j] = fmaf(left[i].w, right[j].w, sum);
            }
        }
    }
}

__device__ __forceinline__ void put_scores(float* tile, const Scores& scores) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) tile[(thread_y() + 16 * i) * kScorePitch + thread_x() + 16 * j] = scores[i][j];
    }
}

__device__ __forceinline__ void add_scaled(float4& sum, float factor, const float4& value) {
    sum.x = fmaf(factor, value.x, sum.x);
    sum.y = fmaf(factor, value.y, sum.y);
    sum.z = fmaf(factor, value.z, sum.z);
    sum.w = fmaf(factor, value.w, sum.w);
}

// result += scores b for the score tile in shared memory.
__device__ __forceinline__ void multiply(Result& result, const float* scores, const float* b, unsigned pitch) {
    scores += thread_y() * kScorePitch;
#pragma unroll
    for (int c = 0; c < 2; ++c) {
        const unsigned column = 4 * (thread_x() + 16 * c);
        if (column >= pitch) break;
#pragma unroll 2
        for (unsigned k = 0; k < kTile; k += 4) {
            float4 left[4], right[4];
#pragma unroll
            for (int i = 0; i < 4; ++i) left[i] = *reinterpret_cast<const float4*>(scores + 16 * i * kScorePitch + k);
#pragma unroll
            for (int j = 0; j < 4; ++j) right[j] = *reinterpret_cast<const float4*>(b + (k + j) * pitch + column);
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                add_scaled(result[i][c], left[i].x, right[0]);
                add_scaled(result[i][c], left[i].y, right[1]);
                add_scaled(result[i][c], left[i].z, right[2]);
                add_scaled(result[i][c], left[i].w, right[3]);
            }
        }
    }
}

// Writes the block's rows of `result`, row i times factor[i].
template <class T>
__device__ __forceinline__ void store_result(T* data, size_t stride, unsigned first, unsigned rows, unsigned head_dim,
                                             const Result& result, const float (&factor)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const unsigned row = first + thread_y() + 16 * i;
        if (row >= rows) continue;
#pragma unroll
        for (int c = 0; c < 2; ++c) {
            const float values[4] = {result[i][c].x, result[i][c].y, result[i][c].z, result[i][c].w};
#pragma unroll
            for (unsigned e = 0; e < 4; ++e) {
                const unsigned d = 4 * (thread_x() + 16 * c) + e;
                if (d < head_dim) store(data + row * stride + d, values[e] * factor[i]);
            }
        }
    }
}

// Where a block works: 64 rows from `first` of one image and head, and where that head starts in arrays [rows, width] and
// [rows, 3 width].
struct Place {
    size_t pair, width, narrow, wide;
    unsigned first;

    __device__ __forceinline__ Place(unsigned tokens, unsigned heads, unsigned head_dim) {
        const unsigned blocks = (tokens + kTile - 1) / kTile;
        pair = blockIdx.x / blocks;
        first = blockIdx.x % blocks * kTile;
        width = static_cast<size_t>(heads) * head_dim;
        const size_t image = pair / heads, head = pair % heads;
        narrow = image * tokens * width + head * head_dim;
        wide = image * tokens * 3 * width + head * head_dim;
    }
};

template <class T>
__device__ __forceinline__ void forward(const PeftkAttentionForwardParams& p) {
    extern __shared__ __align__(16) float any_tiles[];
    const unsigned pitch = pitch_of(p.head_dim);
    float *q = any_tiles, *k = q + kTile * pitch, *v = k + kTile * pitch, *scores = v + kTile * pitch;
    const Place at(p.tokens, p.heads, p.head_dim);
    const T* qkv = reinterpret_cast<const T*>(p.qkv) + at.wide;

    load_tile(q, qkv, 3 * at.width, at.first, p.tokens, p.head_dim);
    Result out = {};
    float max[4], sum[4] = {};
#pragma unroll
    for (int i = 0; i < 4; ++i) max[i] = -INFINITY;
    for (unsigned key = 0; key < p.tokens; key += kTile) {
        __syncthreads();  // the tiles of the step before are no longer read
        load_tile(k, qkv + at.width, 3 * at.width, key, p.tokens, p.head_dim);
        load_tile(v, qkv + 2 * at.width, 3 * at.width, key, p.tokens, p.head_dim);
        __syncthreads();
        Scores s;
        multiply_transposed(s, q, k, pitch);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            float most = -INFINITY;
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                s[i][j] = key + thread_x() + 16 * j < p.tokens ? s[i][j] * p.scale : -INFINITY;
                most = fmaxf(most, s[i][j]);
            }
            most = fmaxf(max[i], row_max(most));
            const float factor = expf(max[i] - most);
            max[i] = most;
            float part = 0.0f;
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                s[i][j] = expf(s[i][j] - most);
                part += s[i][j];
            }
            sum[i] = fmaf(sum[i], factor, row_sum(part));
#pragma unroll
            for (int c = 0; c < 2; ++c) {
                out[i][c].x *= factor;
                out[i][c].y *= factor;
                out[i][c].z *= factor;
                out[i][c].w *= factor;
            }
        }
        put_scores(scores, s);
        __syncthreads();
        multiply(out, scores, v, pitch);
    }
    float factor[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        factor[i] = 1.0f / sum[i];
        const unsigned row = at.first + thread_y() + 16 * i;
        if (thread_x() == 0 && row < p.tokens) reinterpret_cast<float*>(p.lse)[at.pair * p.tokens + row] = max[i] + logf(sum[i]);
    }
    store_result(reinterpret_cast<T*>(p.out) + at.narrow, at.width, at.first, p.tokens, p.head_dim, out, factor);
}

template <class T>
__device__ __forceinline__ void backward_queries(const PeftkAttentionBackwardParams& p) {
    extern __shared__ __align__(16) float any_tiles[];
    const unsigned pitch = pitch_of(p.head_dim);
    float *q = any_tiles, *dout = q + kTile * pitch, *k = dout + kTile * pitch, *v = k + kTile * pitch, *scores = v + kTile * pitch;
    const Place at(p.tokens, p.heads, p.head_dim);
    const T* qkv = reinterpret_cast<const T*>(p.qkv) + at.wide;
    const T* out = reinterpret_cast<const T*>(p.out) + at.narrow;

    load_tile(q, qkv, 3 * at.width, at.first, p.tokens, p.head_dim);
    load_tile(dout, reinterpret_cast<const T*>(p.dout) + at.narrow, at.width, at.first, p.tokens, p.head_dim);
    __syncthreads();
    float lse[4], delta[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const unsigned row = at.first + thread_y() + 16 * i;
        float part = 0.0f;
        lse[i] = 0.0f;
        if (row < p.tokens) {
            lse[i] = reinterpret_cast<const float*>(p.lse)[at.pair * p.tokens + row];
            for (unsigned d = thread_x(); d < p.head_dim; d += 16) {
                part = fmaf(dout[(thread_y() + 16 * i) * pitch + d], widen(out[row * at.width + d]), part);
            }
        }
        delta[i] = row_sum(part);
        if (thread_x() == 0 && row < p.tokens) {
            reinterpret_cast<float2*>(p.workspace)[at.pair * p.tokens + row] = make_float2(lse[i], delta[i]);
        }
    }
    Result dq = {};
    for (unsigned key = 0; key < p.tokens; key += kTile) {
        __syncthreads();
        load_tile(k, qkv + at.width, 3 * at.width, key, p.tokens, p.head_dim);
        load_tile(v, qkv + 2 * at.width, 3 * at.width, key, p.tokens, p.head_dim);
        __syncthreads();
        Scores s, dp;
        multiply_transposed(s, q, k, pitch);
        multiply_transposed(dp, dout, v, pitch);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                const bool valid = key + thread_x() + 16 * j < p.tokens;
                s[i][j] = valid ? expf(fmaf(s[i][j], p.scale, -lse[i])) * (dp[i][j] - delta[i]) : 0.0f;
            }
        }
        put_scores(scores, s);
        __syncthreads();
        multiply(dq, scores, k, pitch);
    }
    const float factor[4] = {p.scale, p.scale, p.scale, p.scale};
    store_result(reinterpret_cast<T*>(p.dqkv) + at.wide, 3 * at.width, at.first, p.tokens, p.head_dim, dq, factor);
}

template <class T>
__device__ __forceinline__ void backward_keys(const PeftkAttentionBackwardParams& p) {
    extern __shared__ __align__(16) float any_tiles[];
    __shared__ float2 stats[kTile];
    const unsigned pitch = pitch_of(p.head_dim);
    float *k = any_tiles, *v = k + kTile * pitch, *q = v + kTile * pitch, *dout = q + kTile * pitch, *scores = dout + kTile * pitch;
    const Place at(p.tokens, p.heads, p.head_dim);
    const T* qkv = reinterpret_cast<const T*>(p.qkv) + at.wide;

    load_tile(k, qkv + at.width, 3 * at.width, at.first, p.tokens, p.head_dim);
    load_tile(v, qkv + 2 * at.width, 3 * at.width, at.first, p.tokens, p.head_dim);
    Result dk = {}, dv = {};
    for (unsigned query = 0; query < p.tokens; query += kTile) {
        __syncthreads();
        load_tile(q, qkv, 3 * at.width, query, p.tokens, p.head_dim);
        load_tile(dout, reinterpret_cast<const T*>(p.dout) + at.narrow, at.width, query, p.tokens, p.head_dim);
        if (threadIdx.x < kTile && query + threadIdx.x < p.tokens) {
            stats[threadIdx.x] = reinterpret_cast<const float2*>(p.workspace)[at.pair * p.tokens + query + threadIdx.x];
        }
        __syncthreads();
        Scores s, dp;  // of keys and queries
        multiply_transposed(s, k, q, pitch);
        multiply_transposed(dp, v, dout, pitch);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            const unsigned column = thread_x() + 16 * j;
            const bool valid = query + column < p.tokens;
            const float2 row = valid ? stats[column] : make_float2(0.0f, 0.0f);
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                s[i][j] = valid ? expf(fmaf(s[i][j], p.scale, -row.x)) : 0.0f;
                dp[i][j] = s[i][j] * (dp[i][j] - row.y);
            }
        }
        put_scores(scores, s);
        __syncthreads();
        multiply(dv, scores, dout, pitch);
        __syncthreads();
        put_scores(scores, dp);
        __syncthreads();
        multiply(dk, scores, q, pitch);
    }
    const float factor[4] = {p.scale, p.scale, p.scale, p.scale}, one[4] = {1.0f, 1.0f, 1.0f, 1.0f};
    T* dqkv = reinterpret_cast<T*>(p.dqkv) + at.wide;
    store_result(dqkv + at.width, 3 * at.width, at.first, p.tokens, p.head_dim, dk, factor);
    store_result(dqkv + 2 * at.width, 3 * at.width, at.first, p.tokens, p.head_dim, dv, one);
}

}  // namespace attention_any
