// How the tensor-core attention kernels move rows of one head (64 wide, bf16) between memory and registers.
//
// Shared memory holds two matrices (k and v, or q and dout) in groups of 16 rows: 2 KB of the one, then 2 KB of the other, so
// that the offset from one to the other is a constant whatever the number of tokens. A row is 128 bytes, eight pieces of 16;
// piece c of row r lies at place c ^ (r % 8), so that the eight rows an ldmatrix reads at once lie in different banks.
#pragma once

#include "common/mma.cuh"
#include "common/pdl.cuh"

namespace attention {

constexpr unsigned kHeadDim = 64;
constexpr unsigned kGroup = 16;                     // rows of a group: the height of an mma operand
constexpr unsigned kRowBytes = 2 * kHeadDim;        // one row of one matrix
constexpr unsigned kSecond = kGroup * kRowBytes;    // from the first matrix of a group to the second
constexpr unsigned kGroupBytes = 2 * kSecond;
constexpr unsigned kChunk = 4;                      // groups that are fetched together
constexpr unsigned kAll = 0xffffffffu;
constexpr float kLog2e = 1.4426950408889634f, kLn2 = 0.6931471805599453f;

// Rows of one matrix of one head: row i starts at data + i * stride.
struct Rows {
    const uint16_t* data;
    unsigned stride;
};

// Starts fetching rows first .. first + 16 * groups of both matrices; rows from `rows` on become zeros. Groups of one matrix are
// kStride bytes apart, those of the second `second` bytes behind the first's.
template <unsigned kThreads, unsigned kStride = kGroupBytes>
__device__ __forceinline__ void fetch_groups(uint32_t shared, Rows a, Rows b, unsigned first, unsigned groups, unsigned rows,
                                             uint32_t second_at = kSecond) {
    static_assert(kThreads % 16 == 0);
    const unsigned piece = threadIdx.x % 8;
    const bool second = threadIdx.x % 16 >= 8;
    const Rows from = second ? b : a;
    const uint16_t* source = from.data + piece * 8;
    for (unsigned i = threadIdx.x / 16; i < groups * kGroup; i += kThreads / 16) {
        const uint32_t place = i / kGroup * kStride + (second ? second_at : 0) + i % kGroup * kRowBytes + ((piece ^ (i % 8)) * 16);
        const bool valid = first + i < rows;
        cp_async_16(shared + place, source + (valid ? static_cast<size_t>(first + i) * from.stride : 0), valid);
    }
}

// blockIdx.x, read anew: what is computed from it before and after a long loop is computed twice instead of filling registers.
__device__ __forceinline__ unsigned block_index() {
    unsigned index;
    asm volatile("mov.u32 %0, %%ctaid.x;" : "=r"(index));
    return index;
}

// The dynamic shared memory that the launch gave.
__device__ __forceinline__ uint32_t shared_bytes() {
    uint32_t bytes;
    asm volatile("mov.u32 %0, %%dynamic_smem_size;" : "=r"(bytes));
    return bytes;
}

// This lane's address for ldmatrix in a group: columns 0 to 15 of the first matrix as four 8 x 8 parts in the order (top left,
// bottom left, top right, bottom right). The next 16 columns are at the address ^ 32, then ^ 64 and ^ 96.
__device__ __forceinline__ uint32_t lane_address(uint32_t shared) {
    const unsigned id = threadIdx.x % 32;
    return shared + id % 16 * kRowBytes + ((id / 16 ^ id % 8) * 16);
}

// acc[0], acc[1] += a rows^T for the 16 rows at `lane`: the columns of the result are the rows in shared memory.
__device__ __forceinline__ void multiply_transposed(float (&left)[4], float (&right)[4], const uint32_t (&a)[4][4],
                                                    uint32_t lane) {
#pragma unroll
    for (unsigned c = 0; c < 4; ++c) {
        uint32_t b[4];
        ldmatrix_x4(b, lane ^ 32 * c);
        mma_bf16(left, a[c], b[0], b[2]);
        mma_bf16(right, a[c], b[1], b[3]);
    }
}

// acc [16, 64] += a [16, 16] rows [16, 64] for the 16 rows at `lane`.
__device__ __forceinline__ void multiply(float (&acc)[8][4], const uint32_t (&a)[4], uint32_t lane) {
#pragma unroll
    for (unsigned c = 0; c < 4; ++c) {
        uint32_t b[4];
        ldmatrix_x4_trans(b, lane ^ 32 * c);
        mma_bf16(acc[2 * c], a, b[0], b[1]);
        mma_bf16(acc[2 * c + 1], a, b[2], b[3]);
    }
}

// Among the four lanes of a quad: lane t's word j becomes lane j's word t.
__device__ __forceinline__ void transpose_quad(uint32_t (&w)[4]) {
    const bool high = threadIdx.x & 2, odd = threadIdx.x & 1;
    const uint32_t a = __shfl_xor_sync(kAll, high ? w[0] : w[2], 2);
    const uint32_t b = __shfl_xor_sync(kAll, high ? w[1] : w[3], 2);
    w[0] = high ? a : w[0];
    w[1] = high ? b : w[1];
    w[2] = high ? w[2] : a;
    w[3] = high ? w[3] : b;
    const uint32_t c = __shfl_xor_sync(kAll, odd ? w[0] : w[1], 1);
    const uint32_t d = __shfl_xor_sync(kAll, odd ? w[2] : w[3], 1);
    w[0] = odd ? c : w[0];
    w[1] = odd ? w[1] : c;
    w[2] = odd ? d : w[2];
    w[3] = odd ? w[3] : d;
}

// 16 rows from `first` as lane 4 g + t reads them in pieces of 16 bytes: words [h][s] are pieces t + 4 s of row g + 8 h.
__device__ __forceinline__ void load_pieces(uint32_t (&words)[2][2][4], Rows from, unsigned first, unsigned rows) {
    const unsigned g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (unsigned h = 0; h < 2; ++h) {
        const unsigned row = first + g + 8 * h;
#pragma unroll
        for (unsigned s = 0; s < 2; ++s) {
            uint4 v = make_uint4(0, 0, 0, 0);
            const auto* piece = from.data + static_cast<size_t>(row) * from.stride + (t + 4 * s) * 8;
            if (row < rows) v = pdl::read(reinterpret_cast<const uint4*>(piece));
            words[h][s][0] = v.x;
            words[h][s][1] = v.y;
            words[h][s][2] = v.z;
            words[h][s][3] = v.w;
        }
    }
}

// The same rows as operand a of four steps of 16 columns.
__device__ __forceinline__ void to_operand(uint32_t (&a)[4][4], uint32_t (&words)[2][2][4]) {
#pragma unroll
    for (unsigned h = 0; h < 2; ++h) {
#pragma unroll
        for (unsigned s = 0; s < 2; ++s) {
            transpose_quad(words[h][s]);
#pragma unroll
            for (unsigned j = 0; j < 4; ++j) a[2 * s + j / 2][h + j % 2 * 2] = words[h][s][j];
        }
    }
}

__device__ __forceinline__ void load_operand(uint32_t (&a)[4][4], Rows from, unsigned first, unsigned rows) {
    uint32_t words[2][2][4];
    load_pieces(words, from, first, rows);
    to_operand(a, words);
}

// Writes 16 rows of accumulators, row g + 8 h times factor[h], rounded to bf16; rows from `rows` on are left out.
__device__ __forceinline__ void store_rows(uint16_t* data, unsigned stride, unsigned first, unsigned rows, const float (&acc)[8][4],
                                           const float (&factor)[2]) {
    const unsigned g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (unsigned h = 0; h < 2; ++h) {
        const unsigned row = first + g + 8 * h;
#pragma unroll
        for (unsigned s = 0; s < 2; ++s) {
            uint32_t words[4];
#pragma unroll
            for (unsigned j = 0; j < 4; ++j) {
                words[j] = pack_bf16(acc[4 * s + j][2 * h] * factor[h], acc[4 * s + j][2 * h + 1] * factor[h]);
            }
            transpose_quad(words);
            if (row < rows) {
                uint4* to = reinterpret_cast<uint4*>(data + static_cast<size_t>(row) * stride + (t + 4 * s) * 8);
                *to = make_uint4(words[0], words[1], words[2], words[3]);
            }
        }
    }
}

}  // namespace attention
