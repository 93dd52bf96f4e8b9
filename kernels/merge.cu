// Merging: the weight that has its adapter in it, for one adapter or for all of a model in one launch.
//
//     merge_f32         out_j = g_j (W_j + s (B A)_j)
//     merge_dora_f32    n_j = || W_j + s (B A)_j ||,  g_j = m_j / n_j,  out_j = g_j (W_j + s (B A)_j)
//
// Shapes    W [rows, cols], A [rank, cols], B [rows, rank], g, m, n [rows] f32; out f32 and/or bf16 [rows, cols]; rank 1 to 256. out
//           may be W itself.
// Numbers   f32 throughout, one rounding where the output is bf16. Sums have a fixed order.
// Traffic   W read once and out written once (merge_dora reads W twice, the second time from L1 or L2); A once per block of 8 rows from
//           L2. All linears of ViT-S/14: 85 MB read, 42 MB written in bf16.
// Launch    grid (all items' ceil(rows / 8)), block (kThreads); no dynamic shared memory.

#include <cuda_bf16.h>

#include "common/adapted_rows.cuh"
#include "common/reduce.cuh"
#include "params.h"

namespace {

constexpr unsigned kThreads = 128;
using adapted::kRows;

template <unsigned kWidth>
__device__ __forceinline__ void store(const PeftkMergeItem& item, size_t at, const float (&v)[kWidth], float gain) {
    float out[kWidth];
#pragma unroll
    for (unsigned x = 0; x < kWidth; ++x) out[x] = gain * v[x];
    if (item.out_f32) {
        float* const to = reinterpret_cast<float*>(item.out_f32) + at;
        if constexpr (kWidth == 4) *reinterpret_cast<float4*>(to) = make_float4(out[0], out[1], out[2], out[3]);
        else *to = out[0];
    }
    if (item.out_bf16) {
        auto* const to = reinterpret_cast<__nv_bfloat16*>(item.out_bf16) + at;
        if constexpr (kWidth == 4) {
            const __nv_bfloat162 low = __floats2bfloat162_rn(out[0], out[1]), high = __floats2bfloat162_rn(out[2], out[3]);
            *reinterpret_cast<uint2*>(to) =
                make_uint2(reinterpret_cast<const uint32_t&>(low), reinterpret_cast<const uint32_t&>(high));
        } else {
            *to = __float2bfloat16(out[0]);
        }
    }
}

// The block's rows, multiplied by `gain` [kRows] in shared memory.
template <unsigned kWidth>
__device__ __forceinline__ void merge_rows(const PeftkMergeItem& item, const adapted::BColumn* b, const float* gain, unsigned first) {
    for (unsigned c = threadIdx.x * kWidth; c < item.cols; c += kThreads * kWidth) {
        float v[kRows][kWidth];
        adapted::rows<kWidth>(v, reinterpret_cast<const float*>(item.w), reinterpret_cast<const float*>(item.a), b, first, item.rows,
                              item.cols, item.rank, item.scale, c);
#pragma unroll
        for (unsigned i = 0; i < kRows; ++i) {
            if (first + i < item.rows) store<kWidth>(item, size_t(first + i) * item.cols + c, v[i], gain[i]);
        }
    }
}

template <bool kDora>
__device__ __forceinline__ void merge(const PeftkMergeParams& p) {
    __shared__ adapted::BColumn b_tile[adapted::kMaxRank];
    __shared__ float partial[kThreads / kWarp][kRows];
    __shared__ float gains[kRows];
    const auto* const items = reinterpret_cast<const PeftkMergeItem*>(p.items);
    const PeftkMergeItem& item = items ? items[adapted::find_item<kThreads>(items, p.count)] : p.item;
    const unsigned first = (blockIdx.x - item.first_block) * kRows, row = first + threadIdx.x;
    adapted::prefetch<4>(reinterpret_cast<const float*>(item.w), first, item.rows, item.cols);
    // bf16 rows of 4 values need 8 bytes, which 16 covers.
    const bool fours = adapted::in_fours(item.w | item.a | item.out_f32 | item.out_bf16, item.cols);
    adapted::load_b<kThreads>(b_tile, reinterpret_cast<const float*>(item.b), first, item.rows, item.rank);
    auto* const gain = reinterpret_cast<float*>(item.gain);
    if constexpr (kDora) {
        const auto* const w = reinterpret_cast<const float*>(item.w);
        const auto* const a = reinterpret_cast<const float*>(item.a);
        float squares[kRows] = {};
        if (fours) adapted::add_squares<kThreads, 4>(squares, w, a, b_tile, first, item.rows, item.cols, item.rank, item.scale);
        else adapted::add_squares<kThreads, 1>(squares, w, a, b_tile, first, item.rows, item.cols, item.rank, item.scale);
        const float norm = __fsqrt_rn(block_sums<kRows, kThreads>(squares, partial));
        if (threadIdx.x < kRows && row < item.rows) {
            gains[threadIdx.x] = __fdiv_rn(reinterpret_cast<const float*>(item.magnitude)[row], norm);
            if (item.norm) reinterpret_cast<float*>(item.norm)[row] = norm;
            if (gain) gain[row] = gains[threadIdx.x];
        }
    } else if (threadIdx.x < kRows && row < item.rows) {
        gains[threadIdx.x] = gain ? gain[row] : 1.0f;
    }
    __syncthreads();
    if (fours) merge_rows<4>(item, b_tile, gains, first);
    else merge_rows<1>(item, b_tile, gains, first);
}

}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads, 4) merge_f32(const __grid_constant__ PeftkMergeParams p) { merge<false>(p); }

extern "C" __global__ void __launch_bounds__(kThreads, 4) merge_dora_f32(const __grid_constant__ PeftkMergeParams p) { merge<true>(p); }
