// The gradients of low-rank adapters in bf16, without the dense dW. For an adapter on columns j of dy, with t = x A^T saved:
//
//     Q  = dy (s g B)              [m, rank], bf16: dA's factor here, and dx's second product (dx += Q A) later
//     dA = Q^T x                   [rank, k]
//     dB = s g dy^T t              [rows, rank]
//     dg_j = sum over tokens of dy_tj z_tj, z = (y - b) / g             the dora entries, from the linear's saved output y
//
// Shapes    x [m, k], dy and y [m, ld] from column first_row on, t [m, rank_padded], s g B [rows, rank_padded], Q [m, ld_q]: bf16; any
//           m, k, rows from 1; ranks padded to multiples of 16 with zeros, cut into slices of 16. Partial sums, dA, dB, dg, g, b: f32.
// Numbers   products accumulate in f32; Q is rounded once. dA, dB and dg are summed per piece of tokens, a granule's pieces in 8 runs,
//           granules one after the other (common/cut.cuh): the cut depends on sizes alone, so the bits do not depend on the GPU. dg
//           where |g| < 1 / 64: z is made anew from x, W, t and B (common/gain_gradient.cuh).
// Traffic   dy, t once and Q written (output kernels: a slice more reads dy again, from L2, as its block runs next to the other's); the
//           dora entries read y as well, in the block of an adapter's first slice. x and Q once (input kernels: up to 48 ranks of all
//           adapters together); partial sums twice. m 65792, k = rows = 384: 101 MB, 34 us at 2.96 TB/s; y: 51 MB more. Above 1536
//           rows dy is read twice: lora_gradients_project, then lora_gradients_outer_output.
// Work      6 m rank_padded (rows + k) FLOP: far below the tensor cores' share.
// Launch    output: grid (slices * pieces), 256 or 512 threads; project: the same, 256; input: grid (pieces, ceil(k / 384),
//           groups of ranks), 256; reduce: grid (ceil(most outputs / 32), 3 * adapters), 256.
//           Shared memory: common/lora_gradients.cuh.

#include "common/lora_gradients.cuh"
#include "common/pdl.cuh"

// Q and dB's partial sums, up to 384 rows.
extern "C" __global__ void __launch_bounds__(256, 2) lora_gradients_output_384_bf16(const __grid_constant__ PeftkLoraGradientsParams p) {
    pdl::start();
    output_gradients<32, 8, 3, false>(p);
}

// The same, up to 1536 rows.
extern "C" __global__ void __launch_bounds__(512, 1) lora_gradients_output_1536_bf16(const __grid_constant__ PeftkLoraGradientsParams p) {
    pdl::start();
    output_gradients<16, 16, 6, false>(p);
}

// Q, dB's and dg's partial sums, up to 384 rows.
extern "C" __global__ void __launch_bounds__(256, 2)
    lora_gradients_output_dora_384_bf16(const __grid_constant__ PeftkLoraGradientsParams p) {
    pdl::start();
    output_gradients<16, 8, 3, true>(p);
}

// The same, up to 1024 rows.
extern "C" __global__ void __launch_bounds__(512, 1)
    lora_gradients_output_dora_1024_bf16(const __grid_constant__ PeftkLoraGradientsParams p) {
    pdl::start();
    output_gradients<16, 16, 4, true>(p);
}

// Q alone, any number of rows: pieces of kPiece columns, with their rows of s g B in shared memory.
extern "C" __global__ void __launch_bounds__(kThreads) lora_gradients_project_bf16(const __grid_constant__ PeftkLoraGradientsParams p) {
    pdl::start();
    extern __shared__ __align__(16) unsigned char memory[];
    constexpr unsigned kStride = tile_stride(kPiece), kWeightStride = tile_stride(kRanks);
    const unsigned piece = blockIdx.x / p.slices, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const Slice slice = find_slice(p, blockIdx.x % p.slices);
    const PeftkLoraAdapter& adapter = p.adapters[slice.adapter];
    const unsigned first = cut::first_row(p.cut, piece), tokens = cut::end_row(p.cut, piece) - first, tiles = (tokens + kTokens - 1) / kTokens;
    const unsigned parts = (adapter.rows + kPiece - 1) / kPiece;

    auto* const dy_tiles = reinterpret_cast<bf16*>(memory);
    bf16* const weight_tiles = dy_tiles + kProjectStages * kTokens * kStride;
    auto* const shares = reinterpret_cast<float*>(weight_tiles + kProjectStages * kPiece * kWeightStride);
    const bf16* const dy = reinterpret_cast<const bf16*>(p.dy) + size_t(first) * p.ld_dy + adapter.first_row;
    const bf16* const bg = reinterpret_cast<const bf16*>(adapter.bg) + slice.rank;
    bf16* const q = reinterpret_cast<bf16*>(p.q) + size_t(first) * p.ld_q + adapter.q_column + slice.rank;
    const bool vectors = in_vectors(dy, p.ld_dy, adapter.rows);

    auto load = [&](unsigned step) {
        if (step < tiles * parts) {
            const unsigned stage = step % kProjectStages, start = step / parts * kTokens, column = step % parts * kPiece;
            const unsigned width = min(kPiece, adapter.rows - column);
            load_tile<kThreads>(dy_tiles + stage * kTokens * kStride, dy + size_t(start) * p.ld_dy + column, p.ld_dy, kTokens,
                                tokens - start, width, kPiece, vectors);
            load_tile<kThreads>(weight_tiles + stage * kPiece * kWeightStride, bg + size_t(column) * adapter.rank_padded,
                                adapter.rank_padded, kPiece, width, kRanks, kRanks, true);
        }
        copy_commit();
    };
#pragma unroll
    for (unsigned stage = 0; stage + 1 < kProjectStages; ++stage) load(stage);

    for (unsigned tile = 0, step = 0; tile < tiles; ++tile) {
        float share[4][4] = {};
        for (unsigned part = 0; part < parts; ++part, ++step) {
            copy_wait<kProjectStages - 2>();
            __syncthreads();
            load(step + kProjectStages - 1);
            const bf16* const dy_tile = dy_tiles + step % kProjectStages * kTokens * kStride;
            const bf16* const weight_tile = weight_tiles + step % kProjectStages * kPiece * kWeightStride;
#pragma unroll
            for (unsigned i = 0; i < kPiece / 128; ++i) {
                const unsigned column = (warp + i * 8) * 16;
                uint32_t weight[4];
                transposed_operand_a(weight, weight_tile + column * kWeightStride, kWeightStride, lane);
                project_columns<kTokens>(share, weight, dy_tile + column, kStride, lane);
            }
        }
        store_share<kTokens>(shares + warp * kRanks * share_stride(kTokens), share, lane);
        __syncthreads();
        write_q<kTokens, 8>(q + size_t(tile) * kTokens * p.ld_q, p.ld_q, shares, tokens - tile * kTokens);
    }
    copy_wait<0>();
}

// dB's partial sums where lora_gradients_project made Q: grid (pieces, ceil(most rows / 384), slices).
extern "C" __global__ void __launch_bounds__(kThreads, 2)
    lora_gradients_outer_output_bf16(const __grid_constant__ PeftkLoraGradientsParams p) {
    pdl::start();
    const Slice slice = find_slice(p, blockIdx.z);
    const PeftkLoraAdapter& adapter = p.adapters[slice.adapter];
    const unsigned piece = blockIdx.x, first = cut::first_row(p.cut, piece);
    if (blockIdx.y * kBlockColumns >= adapter.rows) return;
    outer_products<1>(reinterpret_cast<const bf16*>(adapter.t) + size_t(first) * adapter.rank_padded + slice.rank, adapter.rank_padded,
                      kRanks, reinterpret_cast<const bf16*>(p.dy) + size_t(first) * p.ld_dy + adapter.first_row, p.ld_dy, adapter.rows,
                      cut::end_row(p.cut, piece) - first,
                      reinterpret_cast<float*>(adapter.partial_b) + (size_t(piece) * adapter.rank_padded + slice.rank) * adapter.rows);
}

// dA's partial sums for 16, 32 and 48 columns of Q a block.
extern "C" __global__ void __launch_bounds__(kThreads, 2) lora_gradients_input_16_bf16(const __grid_constant__ PeftkLoraGradientsParams p) {
    pdl::start();
    input_gradients<1>(p);
}
extern "C" __global__ void __launch_bounds__(kThreads, 2) lora_gradients_input_32_bf16(const __grid_constant__ PeftkLoraGradientsParams p) {
    pdl::start();
    input_gradients<2>(p);
}
extern "C" __global__ void __launch_bounds__(kThreads, 2) lora_gradients_input_48_bf16(const __grid_constant__ PeftkLoraGradientsParams p) {
    pdl::start();
    input_gradients<3>(p);
}

// Adds the pieces up: dA and dg as they are, dB times s g and transposed. grid.y is 3 * adapter + (dA: 0, dB: 1, dg: 2).
extern "C" __global__ void __launch_bounds__(256) lora_gradients_reduce(const __grid_constant__ PeftkLoraGradientsParams p) {
    pdl::start();
    const PeftkLoraAdapter& adapter = p.adapters[blockIdx.y / 3];
    const unsigned what = blockIdx.y % 3;
    const bool is_b = what == 1, is_gain = what == 2;
    if (is_gain ? adapter.partial_gain == 0 : !is_b && adapter.da == 0) return;
    const unsigned width = what ? adapter.rows : p.k;
    const size_t count = is_gain ? width : size_t(adapter.rank) * width;
    if (size_t(blockIdx.x) * 32 >= count) return;
    const size_t stride = size_t(is_gain ? 1 : is_b ? adapter.rank_padded : p.q_columns) * width;
    const float* const partial = is_gain ? reinterpret_cast<const float*>(adapter.partial_gain)
                                 : is_b  ? reinterpret_cast<const float*>(adapter.partial_b)
                                         : reinterpret_cast<const float*>(p.partial_a) + size_t(adapter.q_column - p.q_first) * width;
    const size_t element = size_t(blockIdx.x) * 32 + threadIdx.x % 32;
    const bool there = element < count;
    const unsigned rank = element / width, row = element % width;
    const float gain = is_b && there && adapter.gain ? reinterpret_cast<const float*>(adapter.gain)[row] : 1.0f;
    const float factor = is_b ? adapter.scale * gain : 1.0f;
    float* const to = is_gain ? reinterpret_cast<float*>(adapter.dgain) + element
                      : is_b  ? reinterpret_cast<float*>(adapter.db) + size_t(row) * adapter.rank + rank
                              : reinterpret_cast<float*>(adapter.da) + element;
    const unsigned add = is_gain ? adapter.add_gain : is_b ? adapter.add_b : adapter.add_a;
    const float sum = cut::add_up<32, 8>(
        p.cut, there, there && add ? *to : 0.0f, [&](unsigned piece) { return partial[piece * stride + element]; },
        [&](float sum) { return factor * sum; });
    if (there && threadIdx.x < 32) *to = sum;
}
