// Merging: the weight that has its adapter in it, for one adapter or for all of a model in one launch.
//
//     merge_f32         out_j = g_j (W_j + s (B A)_j)
//     merge_dora_f32    n_j = || W_j + s (B A)_j ||,  g_j = m_j / n_j,  out_j = g_j (W_j + s (B A)_j)
//
// Shapes    W [rows, cols], A [rank, cols], B [rows, rank], g, m, n [rows] f32; out f32 and/or bf16 [rows, cols]; rank 1 to 256. out
//           may be W itself.
// Numbers   f32 throughout, V = W + (s B) A as in dora_norm.cu, one rounding where the output is bf16. Sums have a fixed order.
// Traffic   W read once and out written once: V stays in registers while its rows' norms are summed, up to 1536 columns that can be read
//           4 at a time; else merge_dora reads W twice, the second time from L2. A by each warp, a block's 4 warps from L1: a warp has 4
//           rows of up to 384 columns, 2 of up to 768, 1 of up to 1536, 4 of more. All linears of ViT-S/14: 85 MB read, 42 MB written in
//           bf16.
// Launch    grid (all items' ceil(rows / block_rows)), block (kThreads); no dynamic shared memory.

#include <cuda_bf16.h>

#include "common/adapted_rows.cuh"
#include "common/pdl.cuh"
#include "params.h"

namespace {

using adapted::kThreads;

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

template <unsigned kRows, unsigned kChunks, unsigned kWidth>
__device__ __forceinline__ void store_tile(const PeftkMergeItem& item, const adapted::Tile<kRows, kChunks, kWidth>& tile,
                                           const float (&gains)[kRows], unsigned first, unsigned start) {
#pragma unroll
    for (unsigned i = 0; i < kRows; ++i) {
        if (first + i >= item.rows) continue;
#pragma unroll
        for (unsigned chunk = 0; chunk < kChunks; ++chunk) {
            const unsigned c = tile.column(start, chunk);
            if (c < item.cols) store<kWidth>(item, size_t(first + i) * item.cols + c, tile.v[i][chunk], gains[i]);
        }
    }
}

// The rows' gains, in every lane: from the sums of their squares, in `gains`, or as they are given.
template <bool kDora, unsigned kRows>
__device__ __forceinline__ void make_gains(float (&gains)[kRows], const PeftkMergeItem& item, const adapted::Rows<kRows>& of) {
    const auto* const given = reinterpret_cast<const float*>(item.gain);
    if constexpr (kDora) adapted::norms_of(gains);
#pragma unroll
    for (unsigned i = 0; i < kRows; ++i) {
        const unsigned row = of.row(i);
        if constexpr (kDora) gains[i] = __fdiv_rn(reinterpret_cast<const float*>(item.magnitude)[row], gains[i]);
        else gains[i] = given ? given[row] : 1.0f;
    }
}

// kRows rows of up to kChunks * 128 columns, in registers from the first read to the write.
template <bool kDora, unsigned kRows, unsigned kChunks>
__device__ __forceinline__ void merge_held(const PeftkMergeItem& item, const adapted::Rows<kRows>& of) {
    adapted::Tile<kRows, kChunks, 4> tile;
    float gains[kRows] = {};
    adapted::load_weight(tile, of, 0);
    adapted::load_b(of);
    adapted::add_product(tile, of, 0);
    if constexpr (kDora) adapted::add_squares(gains, tile);
    make_gains<kDora>(gains, item, of);
    store_tile(item, tile, gains, of.first, 0);
}

// Rows of any width: V is made once for the norms and again for the output. Every element is read for the last time by the lane that writes
// it.
template <bool kDora, unsigned kRows, unsigned kChunks, unsigned kWidth>
__device__ __forceinline__ void merge_again(const PeftkMergeItem& item, const adapted::Rows<kRows>& of) {
    using Tile = adapted::Tile<kRows, kChunks, kWidth>;
    Tile tile;
    float gains[kRows] = {};
    adapted::load_b(of);
    for (unsigned start = 0; kDora && start < of.cols; start += Tile::kColumns) {
        adapted::load_weight(tile, of, start);
        adapted::add_product(tile, of, start);
        adapted::add_squares(gains, tile);
    }
    make_gains<kDora>(gains, item, of);
    for (unsigned start = 0; start < of.cols; start += Tile::kColumns) {
        adapted::load_weight(tile, of, start);
        adapted::add_product(tile, of, start);
        store_tile(item, tile, gains, of.first, start);
    }
}

template <bool kDora>
__device__ __forceinline__ void merge(const PeftkMergeParams& p) {
    __shared__ adapted::Shared shared;
    const PeftkMergeItem& item = p.items[adapted::find_item(p.items, p.count)];
    const unsigned warp = threadIdx.x / kWarp, rows = item.block_rows / adapted::kWarps;
    const unsigned first = (blockIdx.x - item.first_block) * item.block_rows + warp * rows;
    if (first >= item.rows) return;
    const auto* const w = reinterpret_cast<const float*>(item.w);
    const auto* const a = reinterpret_cast<const float*>(item.a);
    const auto* const b = reinterpret_cast<const float*>(item.b);
    float* const to = shared.b[warp];
    // bf16 rows of 4 values need 8 bytes, which 16 covers.
    if (!adapted::in_fours(item.w | item.a | item.out_f32 | item.out_bf16, item.cols)) {
        for (unsigned row = first; row < min(first + rows, item.rows); ++row) {
            merge_again<kDora, 1, 4, 1>(item, {w, a, b, to, row, item.rows, item.cols, item.rank, item.scale});
            __syncwarp();  // before the next row's B
        }
    } else if (rows == 1) {
        merge_held<kDora, 1, 12>(item, {w, a, b, to, first, item.rows, item.cols, item.rank, item.scale});
    } else if (rows == 2) {
        merge_held<kDora, 2, 6>(item, {w, a, b, to, first, item.rows, item.cols, item.rank, item.scale});
    } else if (item.cols <= 384) {
        merge_held<kDora, 4, 3>(item, {w, a, b, to, first, item.rows, item.cols, item.rank, item.scale});
    } else {
        merge_again<kDora, 4, 3, 4>(item, {w, a, b, to, first, item.rows, item.cols, item.rank, item.scale});
    }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads, 4) merge_f32(const __grid_constant__ PeftkMergeParams p) {
    pdl::start();
    merge<false>(p);
}

extern "C" __global__ void __launch_bounds__(kThreads, 4) merge_dora_f32(const __grid_constant__ PeftkMergeParams p) {
    pdl::start();
    merge<true>(p);
}
