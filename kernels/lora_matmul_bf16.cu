// A linear's forward pass in bf16 with up to three low-rank adapters in the same kernel.
//
//     t = x A^T, rounded to bf16                                   for each adapter
//     v = g (x W^T + bf16(s t) B^T) + bias                         on its columns first_row .. first_row + rows
//     v = x W^T + bias                                             elsewhere
//
// Shapes    x [m, k] = a, W [n, k] = b, A [rank_padded, k], B [rows, rank_padded], t [m, rank_padded], g [rows] f32. In-loop form:
//           rank_padded 16 or 32, t is written. With t given (the adapter's a = 0): any multiple of 16, t is read.
// Numbers   f32 accumulation of both products together; g and bias in f32. Entries and their rounding as in matmul_bf16.cu.
// Traffic   as the product without adapters, and A once a tile (rank_padded k 2 bytes, from L2): x is not read again for t.
// Work      2 m n k FLOP, 2 m k rank_padded for every 128 columns of an adapter, 2 m rows rank_padded.
// Launch    grid (column tiles by segment: common/gemm_columns.cuh, ceil(m / 128)), block (256), 72 KB of dynamic shared memory.

#include "common/gemm_bf16_product.cuh"
#include "common/pdl.cuh"

#define PEFTK_LORA_MATMUL(NAME, EPILOGUE)                                                                                  \
    extern "C" __global__ void __launch_bounds__(gemm_bf16::kThreads, 2) NAME(const __grid_constant__ PeftkGemmParams p) { \
        pdl::start();                                                                                                      \
        gemm_bf16::product_bf16<false, false, true, gemm_bf16::Epilogue::EPILOGUE>(p);                                     \
    }

PEFTK_LORA_MATMUL(lora_matmul_bf16, kPlain)
PEFTK_LORA_MATMUL(lora_matmul_bf16_gelu, kGelu)
PEFTK_LORA_MATMUL(lora_matmul_bf16_scale_residual, kScaleResidual)
PEFTK_LORA_MATMUL(lora_matmul_bf16_scale_residual_f32, kScaleResidualF32)

#undef PEFTK_LORA_MATMUL
