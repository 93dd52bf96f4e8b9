// The bf16 tile product: 128 x 128 of C a block, from tiles 32 deep that go through shared memory in 4 stages.
//
// 8 warps, 2 x 4, have 64 x 32 of the tile each: 4 x 4 products m16n8k16 a step of 16. Shared memory holds 16-byte chunks whose
// place within a row is xored with the row's number, so that the 8 rows of an ldmatrix lie in different banks:
//     an operand stored along k   [128][32]   row * 64  + 16 (chunk ^ (row / 2 % 4))
//     an operand stored across k  [32][128]   row * 256 + 16 (chunk ^ (row % 8))        read by ldmatrix.trans
// Sizes and strides that 16-byte copies cannot serve go through 8-, 4- or 2-byte ones into the same places.
#pragma once

#include "common/gemm_ptx.cuh"

namespace gemm_bf16 {

constexpr unsigned kTileM = 128;
constexpr unsigned kTileN = 128;
constexpr unsigned kTileK = 32;
constexpr unsigned kStages = 4;
constexpr unsigned kThreads = 256;
constexpr unsigned kTileBytes = 128 * kTileK * 2;
constexpr unsigned kRankMost = 32;  // rows of A that fit beside a tile
constexpr unsigned kRankBytes = kRankMost * kTileK * 2;

static_assert(kTileM == 128 && kTileN == 128 && kTileK == 32 && kThreads == 256, "the index arithmetic below");

__device__ __forceinline__ unsigned along_offset(unsigned row, unsigned chunk) {
    return row * 64 + ((chunk ^ (row / 2 % 4)) << 4);
}

__device__ __forceinline__ unsigned across_offset(unsigned row, unsigned chunk) {
    return row * 256 + ((chunk ^ (row % 8)) << 4);
}

// The bytes that a copy from rows of `stride` elements at `base` may take at once: 16, 8, 4 or 2.
__device__ __forceinline__ unsigned copy_granule(uint64_t base, unsigned stride) {
    const unsigned bits = static_cast<unsigned>(base) | (stride * 2) | 16;
    return bits & -bits;
}

// 8 elements to shared memory, the first `valid` of them from `from`, the rest zero.
__device__ __forceinline__ void copy_chunk(uint32_t to, const uint16_t* from, unsigned valid, unsigned granule) {
    if (granule == 16) {
        copy_async<16>(to, from, valid * 2);
    } else if (granule == 8) {
#pragma unroll
        for (unsigned i = 0; i < 2; ++i) {
            copy_async<8>(to + 8 * i, from + 4 * i, valid > 4 * i ? min(valid - 4 * i, 4u) * 2 : 0);
        }
    } else if (granule == 4) {
#pragma unroll
        for (unsigned i = 0; i < 4; ++i) {
            copy_async<4>(to + 4 * i, from + 2 * i, valid > 2 * i ? min(valid - 2 * i, 2u) * 2 : 0);
        }
    } else {
        uint32_t words[4];
#pragma unroll
        for (unsigned i = 0; i < 4; ++i) {
            const uint32_t low = 2 * i < valid ? from[2 * i] : 0;
            const uint32_t high = 2 * i + 1 < valid ? from[2 * i + 1] : 0;
            words[i] = low | (high << 16);
        }
        asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(words[0]), "r"(words[1]), "r"(words[2]),
                     "r"(words[3])
                     : "memory");
    }
}

// Copies an operand's tiles, 2 chunks a thread. kAcross: stored [k, rows], otherwise [rows, k].
template <bool kAcross>
struct TileLoader {
    const uint16_t* from;  // this thread's first chunk at depth 0
    size_t second;         // from there to its second chunk, elements
    unsigned stride;
    unsigned granule;
    unsigned valid0, valid1;  // along: whether the rows exist; across: elements of both chunks

    __device__ __forceinline__ void begin(uint64_t base, unsigned row_stride, unsigned row, unsigned row_end) {
        stride = row_stride;
        granule = copy_granule(base, stride);
        from = reinterpret_cast<const uint16_t*>(base);
        if constexpr (kAcross) {
            const unsigned column = row + threadIdx.x % 16 * 8;
            from += static_cast<size_t>(threadIdx.x / 16) * stride + column;
            second = static_cast<size_t>(16) * stride;
            valid0 = column < row_end ? min(row_end - column, 8u) : 0;
            valid1 = 0;
        } else {
            row += threadIdx.x / 4;
            from += static_cast<size_t>(row) * stride + threadIdx.x % 4 * 8;
            second = static_cast<size_t>(64) * stride;
            valid0 = row < row_end;
            valid1 = row + 64 < row_end;
        }
    }

    // The tile at depths k .. k + 32, those from k_end on as zeros.
    __device__ __forceinline__ void load(uint32_t to, unsigned k, unsigned k_end) const {
        if constexpr (kAcross) {
            const unsigned row = threadIdx.x / 16;
            to += across_offset(row, threadIdx.x % 16);
            const uint16_t* at = from + static_cast<size_t>(k) * stride;
            copy_chunk(to, at, k + row < k_end ? valid0 : 0, granule);
            copy_chunk(to + 16 * 256, at + second, k + row + 16 < k_end ? valid0 : 0, granule);
        } else {
            const unsigned chunk = threadIdx.x % 4;
            to += along_offset(threadIdx.x / 4, chunk);
            const int left = static_cast<int>(k_end) - static_cast<int>(k + chunk * 8);
            const unsigned valid = static_cast<unsigned>(max(min(left, 8), 0));
            copy_chunk(to, from + k, valid0 ? valid : 0, granule);
            copy_chunk(to + 64 * 64, from + k + second, valid1 ? valid : 0, granule);
        }
    }
};

// Where this lane's ldmatrix rows begin in a tile; both are constant through the kernel.
template <bool kAcross>
__device__ __forceinline__ unsigned first_operand_offset(unsigned warp_row) {
    const unsigned lane = threadIdx.x % 32;
    const unsigned matrix = lane / 8;
    if constexpr (kAcross) return across_offset(lane % 8 + matrix / 2 * 8, warp_row / 8 + matrix % 2);
    return along_offset(warp_row + lane % 16, lane / 16);
}

template <bool kAcross>
__device__ __forceinline__ unsigned second_operand_offset(unsigned warp_column) {
    const unsigned lane = threadIdx.x % 32;
    const unsigned matrix = lane / 8;
    if constexpr (kAcross) return across_offset(lane % 8 + matrix % 2 * 8, warp_column / 8 + matrix / 2);
    return along_offset(warp_column + lane % 8 + matrix / 2 * 8, matrix % 2);
}

// The lane's address of a 16-wide piece `piece` of the warp's rows at depth 16 `step` of the tile.
template <bool kAcross>
__device__ __forceinline__ uint32_t piece_address(uint32_t tile, unsigned lane_offset, unsigned piece, unsigned step) {
    if constexpr (kAcross) return tile + (lane_offset ^ (piece * 32)) + step * 16 * 256;
    return tile + (lane_offset ^ (step * 32)) + piece * 16 * 64;
}

using Accumulator = float[4][4][4];  // [16 rows][8 columns] of the warp's 64 x 32

// sum += one tile of A times one of B, `steps` of depth 16 (1 or 2).
template <bool kAAcross, bool kBAcross>
__device__ __forceinline__ void multiply_tiles(
    Accumulator& sum, uint32_t a_tile, unsigned a_lane, uint32_t b_tile, unsigned b_lane, unsigned steps = 2) {
#pragma unroll
    for (unsigned step = 0; step < 2; ++step) {
        if (step >= steps) break;
        uint32_t a[4][4], b[2][4];
#pragma unroll
        for (unsigned j = 0; j < 2; ++j) load_matrices<kBAcross>(b[j], piece_address<kBAcross>(b_tile, b_lane, j, step));
#pragma unroll
        for (unsigned i = 0; i < 4; ++i) load_matrices<kAAcross>(a[i], piece_address<kAAcross>(a_tile, a_lane, i, step));
#pragma unroll
        for (unsigned i = 0; i < 4; ++i) {
#pragma unroll
            for (unsigned j = 0; j < 4; ++j) multiply_add(sum[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
        }
    }
}

}  // namespace gemm_bf16
