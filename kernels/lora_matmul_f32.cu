// A linear's forward pass in f32 with up to three low-rank adapters in the same kernel.
//
//     t = x A^T                                      for each adapter
//     v = g (x W^T + (s t) B^T) + bias               on its columns first_row .. first_row + rows
//     v = x W^T + bias                               elsewhere
//
// Shapes    x [m, k] = a, W [n, k] = b, A [rank_padded, k], B [rows, rank_padded], t [m, rank_padded], g [rows]. In-loop form:
//           rank_padded 16 or 32, t is written. With t given (the adapter's a = 0): any multiple of 16, t is read.
// Numbers   fused multiply-adds in f32, both products in the same accumulators. Entries as in matmul_f32.cu.
// Traffic   as the product without adapters, and A once a tile, from L2: x is not read again for t.
// Work      2 m n k FLOP, 2 m k 32 for every 128 columns of an adapter, 2 m rows rank_padded.
// Launch    grid (column tiles by segment: common/gemm_columns.cuh, ceil(m / 128)), block (256), no dynamic shared memory.

#include "common/gemm_f32.cuh"
#include "common/pdl.cuh"

#define PEFTK_LORA_MATMUL(NAME, EPILOGUE)                                                                              \
    extern "C" __global__ void __launch_bounds__(gemm_f32::kThreads) NAME(const __grid_constant__ PeftkGemmParams p) { \
        pdl::start();                                                                                                  \
        gemm_f32::product_f32<128, 128, false, false, true, gemm_f32::Epilogue::EPILOGUE>(p);                          \
    }

PEFTK_LORA_MATMUL(lora_matmul_f32, kPlain)
PEFTK_LORA_MATMUL(lora_matmul_f32_gelu, kGelu)
PEFTK_LORA_MATMUL(lora_matmul_f32_scale_residual, kScaleResidual)

#undef PEFTK_LORA_MATMUL
