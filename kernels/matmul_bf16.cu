// Matrix products in bf16 with f32 accumulation, for any GPU from sm_80 on.
//
//     nt   C = A B^T    A [m, k], B [n, k]    a linear's forward pass: x W^T
//     nn   C = A B      A [m, k], B [k, n]    its input's gradient: dy W
//     tn   C = A^T B    A [k, m], B [k, n]    its weight's gradient: dy^T x
//
// Shapes    all row-major, any size from 1; A and B have row strides lda and ldb. nt and nn add a second product A2 B2 of depth
//           k2 in the same accumulators. tn cuts k into pieces: C [pieces, m, n] in f32, summed by matmul_reduce_f32.
// Numbers   v = acc + bias in f32; then, u being v rounded to bf16,
//               matmul_nt_bf16                      C = u
//               matmul_nt_bf16_gelu                 aux = u, C = gelu(u)
//               matmul_nt_bf16_scale_residual       C = residual + gamma u, both bf16; _f32: both f32
//               matmul_nn_bf16                      C = u
//               matmul_nn_bf16_gelu_backward        C = u gelu'(aux)
//           as the separate operations would round. The order of every sum depends on the sizes alone.
// Traffic   A is read once for every 128 columns of C and B once for every 128 rows, mostly from L2: column tiles of the same rows
//           run side by side. C is written once.
// Work      2 m n k FLOP by mma.sync m16n8k16.
// Launch    grid (ceil(n / 128), ceil(m / 128), pieces or 1), block (256), 64 KB of dynamic shared memory.

#include "common/gemm_bf16_product.cuh"
#include "common/pdl.cuh"

#define PEFTK_MATMUL(NAME, A_ACROSS, B_ACROSS, EPILOGUE)                                                                   \
    extern "C" __global__ void __launch_bounds__(gemm_bf16::kThreads, 2) NAME(const __grid_constant__ PeftkGemmParams p) { \
        pdl::start();                                                                                                      \
        gemm_bf16::product_bf16<A_ACROSS, B_ACROSS, false, gemm_bf16::Epilogue::EPILOGUE>(p);                              \
    }

PEFTK_MATMUL(matmul_nt_bf16, false, false, kPlain)
PEFTK_MATMUL(matmul_nt_bf16_gelu, false, false, kGelu)
PEFTK_MATMUL(matmul_nt_bf16_scale_residual, false, false, kScaleResidual)
PEFTK_MATMUL(matmul_nt_bf16_scale_residual_f32, false, false, kScaleResidualF32)
PEFTK_MATMUL(matmul_nn_bf16, false, true, kPlain)
PEFTK_MATMUL(matmul_nn_bf16_gelu_backward, false, true, kGeluBackward)
PEFTK_MATMUL(matmul_tn_bf16, true, true, kPartial)

#undef PEFTK_MATMUL
