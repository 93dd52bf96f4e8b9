// Tiles of 32 tokens for the adapters' gradients: asynchronous loads into padded shared memory, fragments, bf16 products.
#pragma once

#include <cuda_bf16.h>
#include <stdint.h>

namespace lora {

constexpr unsigned kTokens = 32;  // tokens a tile
constexpr unsigned kStages = 3;   // tiles in shared memory: one is used while two are on their way

// Row stride in elements of a tile `cols` wide, a multiple of 16: an odd number of 16-byte units, so that the 8 rows that one
// ldmatrix reads lie in 8 different groups of banks.
__host__ __device__ constexpr unsigned tile_stride(unsigned cols) { return cols + 8; }

__device__ __forceinline__ uint32_t shared_address(const void* p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); }

// 16 bytes to shared memory, zeros when not `valid`; `from` must be a valid address all the same.
__device__ __forceinline__ void copy_async(void* to, const void* from, bool valid) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(valid ? 16 : 0));
}
__device__ __forceinline__ void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int kPending>
__device__ __forceinline__ void copy_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

__device__ __forceinline__ void load_matrices(uint32_t (&r)[4], const __nv_bfloat16* p) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(p))
                 : "memory");
}
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&r)[4], const __nv_bfloat16* p) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(p))
                 : "memory");
}

// c [16, 8] += a [16, 16] b [16, 8].
__device__ __forceinline__ void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// The operand [16 columns, 16 rows] of a row-major tile [16 rows, 16 columns] that starts at `tile`: its transpose as `a`.
__device__ __forceinline__ void transposed_operand_a(uint32_t (&a)[4], const __nv_bfloat16* tile, unsigned stride, unsigned lane) {
    load_matrices_transposed(a, tile + (lane % 8 + lane / 16 * 8) * stride + lane / 8 % 2 * 8);
}
// A row-major tile [16 rows, 16 columns] as `b` of two products [16, 16 rows] x [16 rows, 8 columns]: b[0], b[1], then b[2], b[3].
__device__ __forceinline__ void operand_b(uint32_t (&b)[4], const __nv_bfloat16* tile, unsigned stride, unsigned lane) {
    load_matrices_transposed(b, tile + (lane % 8 + lane / 8 % 2 * 8) * stride + lane / 16 * 8);
}
// Its transpose as `b` of two products [16, 16 columns] x [16 columns, 8 rows].
__device__ __forceinline__ void transposed_operand_b(uint32_t (&b)[4], const __nv_bfloat16* tile, unsigned stride, unsigned lane) {
    load_matrices(b, tile + (lane % 8 + lane / 16 * 8) * stride + lane / 8 % 2 * 8);
}

// Whether rows of `cols` values, `ld` apart, can be read 8 values at a time.
__device__ __forceinline__ bool in_vectors(const void* base, size_t ld, unsigned cols) {
    return reinterpret_cast<uintptr_t>(base) % 16 == 0 && ld % 8 == 0 && cols % 8 == 0;
}

// A tile [rows, padded] from a matrix of `cols` columns whose rows are `ld` apart: zeros in rows from `valid` on and in columns from
// `cols` on. Asynchronous when `vectors`, else done when the block is next synchronised.
template <unsigned kThreads>
__device__ __forceinline__ void load_tile(__nv_bfloat16* tile, const __nv_bfloat16* from, size_t ld, unsigned rows, unsigned valid,
                                          unsigned cols, unsigned padded, bool vectors) {
    const unsigned stride = tile_stride(padded), width = vectors ? padded / 8 : padded;
    const unsigned step_row = kThreads / width, step = kThreads % width;
    unsigned row = threadIdx.x / width, at = threadIdx.x % width;
    while (row < rows) {
        if (vectors) {
            const bool inside = row < valid && at * 8 < cols;
            copy_async(tile + row * stride + at * 8, inside ? from + row * ld + at * 8 : from, inside);
        } else {
            const bool inside = row < valid && at < cols;
            tile[row * stride + at] = inside ? from[row * ld + at] : __float2bfloat16(0.0f);
        }
        row += step_row;
        at += step;
        if (at >= width) {
            at -= width;
            ++row;
        }
    }
}

}  // namespace lora
