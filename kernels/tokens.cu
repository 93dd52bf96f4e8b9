// The token sequences from patch embeddings, and the gradients of their parts.
//
//     x[b] = cls + pos[0] | registers | patches[b] + pos[1..]
//     dpatches = dx of the patch rows; dcls = sum over b of dx[b, 0]; dpos = sums of CLS and patch rows; dregisters likewise
//
// Shapes    patches [batch patches, width] T, cls [width], pos [1 + patches, width], registers [registers, width] f32,
//           x [batch (1 + registers + patches), width] R. Names end in T_R.
// Numbers   one f32 addition and one rounding; the sums over the batch in f32, image after image, upon what was there where asked.
// Traffic   forward |T| + |R| bytes an element (positions come from L2); backward the same.
// Launch    forward: block 256, grid ceil(batch tokens ceil(width / 8) / 256), 8 columns a thread.
//           backward: block 128, grid ceil(tokens ceil(width / 4) / 128), 4 columns of one token a thread, images in a loop.

#include "common/elements.cuh"
#include "common/pdl.cuh"
#include "params/tokens.h"

namespace tokens {

template <typename T, typename R>
__device__ __forceinline__ void forward(const PeftkTokensParams& p) {
    constexpr unsigned kColumns = 8;
    const unsigned per_row = (p.width + kColumns - 1) / kColumns, count_tokens = 1 + p.register_count + p.patch_count;
    const uint64_t chunk = static_cast<uint64_t>(blockIdx.x) * 256 + threadIdx.x;
    const uint64_t row = chunk / per_row;
    if (row >= static_cast<uint64_t>(p.batch) * count_tokens) return;
    const unsigned column = static_cast<unsigned>(chunk % per_row) * kColumns;
    const unsigned token = static_cast<unsigned>(row % count_tokens), image = static_cast<unsigned>(row / count_tokens);
    const unsigned count = min(kColumns, p.width - column);
    const bool whole = p.width % kColumns == 0 && aligned16(p.patches, p.cls, p.pos, p.registers, p.x);

    float value[kColumns], pos[kColumns];
    if (token == 0) {
        load_some(source_of<float>(p.cls) + column, whole, count, value);
        load_some(source_of<float>(p.pos) + column, whole, count, pos);
    } else if (token <= p.register_count) {
        load_some(source_of<float>(p.registers) + static_cast<size_t>(token - 1) * p.width + column, whole, count, value);
#pragma unroll
        for (unsigned j = 0; j < kColumns; ++j) pos[j] = 0.0f;
    } else {
        const size_t patch = token - 1 - p.register_count;
        const size_t from = (static_cast<size_t>(image) * p.patch_count + patch) * p.width + column;
        load_some(source_of<T>(p.patches) + from, whole, count, value);
        load_some(source_of<float>(p.pos) + (1 + patch) * p.width + column, whole, count, pos);
    }
#pragma unroll
    for (unsigned j = 0; j < kColumns; ++j) value[j] += pos[j];
    store_some(target_of<R>(p.x) + row * p.width + column, whole, count, value);
}

template <typename T, typename R>
__device__ __forceinline__ void backward(const PeftkTokensParams& p) {
    constexpr unsigned kColumns = 4;
    const unsigned per_row = (p.width + kColumns - 1) / kColumns, count_tokens = 1 + p.register_count + p.patch_count;
    const unsigned chunk = blockIdx.x * 128 + threadIdx.x;
    const unsigned token = chunk / per_row, column = chunk % per_row * kColumns;
    if (token >= count_tokens) return;
    const unsigned count = min(kColumns, p.width - column);
    const bool whole = p.width % kColumns == 0 && aligned16(p.patches, p.cls, p.pos, p.registers, p.x);
    const bool is_patch = token > p.register_count;
    const size_t patch = is_patch ? token - 1 - p.register_count : 0;
    const R* __restrict__ dx = source_of<R>(p.x) + static_cast<size_t>(token) * p.width + column;
    T* __restrict__ dpatches = target_of<T>(p.patches) + patch * p.width + column;
    const size_t stride = static_cast<size_t>(count_tokens) * p.width;
    const size_t patches_stride = static_cast<size_t>(p.patch_count) * p.width;
    const bool writes = is_patch && p.patches != 0;

    // What the sums over images begin with; CLS has two of them, its token's and its position's.
    const bool has_pos = (token == 0 || is_patch) && p.pos != 0, has_cls = token == 0 && p.cls != 0;
    const bool has_register = token != 0 && !is_patch && p.registers != 0;
    float* const pos = target_of<float>(p.pos) + (is_patch ? 1 + patch : 0) * p.width + column;
    float* const cls = target_of<float>(p.cls) + column;
    float* const own_register = target_of<float>(p.registers) + static_cast<size_t>(token - 1) * p.width + column;
    float sum[kColumns] = {}, cls_sum[kColumns] = {};
    if (p.add != 0) {
        if (has_pos) load_some(pos, whole, count, sum);
        if (has_register) load_some(own_register, whole, count, sum);
        if (has_cls) load_some(cls, whole, count, cls_sum);
    }
    specialized(whole, [&](auto whole) {
        constexpr unsigned kAhead = 8;  // images whose loads are under way at once
        for (unsigned first = 0; first < p.batch; first += kAhead) {
            float value[kAhead][kColumns];
#pragma unroll
            for (unsigned i = 0; i < kAhead; ++i) {
                const bool there = first + i < p.batch;
                load_some(dx + static_cast<size_t>(first + i) * stride, whole.value && there, there ? count : 0, value[i]);
            }
#pragma unroll
            for (unsigned i = 0; i < kAhead; ++i) {
                if (writes && first + i < p.batch) {
                    store_some(dpatches + (first + i) * patches_stride, whole.value, count, value[i]);
                }
#pragma unroll
                for (unsigned j = 0; j < kColumns; ++j) {
                    sum[j] += value[i][j];
                    cls_sum[j] += value[i][j];
                }
            }
        }
    });
    if (has_cls) store_some(cls, whole, count, cls_sum);
    if (has_pos) store_some(pos, whole, count, sum);
    if (has_register) store_some(own_register, whole, count, sum);
}

}  // namespace tokens

#define ENTRIES(NAME, T, R)                                                                                            \
    extern "C" __global__ void __launch_bounds__(256) assemble_tokens_forward_##NAME(const PeftkTokensParams p) {      \
        pdl::start();                                                                                                  \
        tokens::forward<T, R>(p);                                                                                      \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(128) assemble_tokens_backward_##NAME(const PeftkTokensParams p) {     \
        pdl::start();                                                                                                  \
        tokens::backward<T, R>(p);                                                                                     \
    }

ENTRIES(f32_f32, float, float)
ENTRIES(bf16_f32, Bf16, float)
ENTRIES(bf16_bf16, Bf16, Bf16)
#undef ENTRIES
