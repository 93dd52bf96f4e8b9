// Matrix products in f32, and the sum of a product's parts.
//
//     nt   C = A B^T    A [m, k], B [n, k]        nn   C = A B    A [m, k], B [k, n]        tn   C = A^T B    A [k, m], B [k, n]
//     matmul_reduce_f32                           C (+)= scale g_i sum over pieces of A [pieces, m, n], granule by granule
//
// Shapes    as in matmul_bf16.cu: row strides lda and ldb, a second product of depth k2 for nt and nn, pieces of k for tn
//           (common/cut.cuh).
// Numbers   fused multiply-adds in f32, no tf32: the error is that of a plain f32 loop. v = acc + bias;
//               matmul_nt_f32, matmul_nn_f32        C = v
//               matmul_nt_f32_gelu                  aux = v, C = gelu(v)
//               matmul_nt_f32_scale_residual        C = residual + gamma v
//               matmul_nn_f32_gelu_backward         C = v gelu'(aux)
//           The order of every sum depends on the sizes alone.
// Traffic   A once for every tile's columns of C, B once for every tile's rows, mostly from L2; C once. The reduction reads
//           4 pieces m n bytes and writes 4 m n.
// Work      2 m n k FLOP: bound by the multiply-adds (67 TFLOP/s on an H100).
// Launch    tiles of 128 x 128, in the entries named _small of 32 x 32: grid (ceil(n / tile), ceil(m / tile), pieces or 1), block
//           (256). matmul_reduce_f32: grid (ceil(rows cols / 256)), block (256). No dynamic shared memory.

#include "common/gemm_f32.cuh"
#include "common/pdl.cuh"

// BLOCKS: how many should fit on a multiprocessor, which is 128 registers a thread for 2.
#define PEFTK_MATMUL(NAME, BLOCKS, TILE, A_ACROSS, B_ACROSS, EPILOGUE)                                                         \
    extern "C" __global__ void __launch_bounds__(gemm_f32::kThreads, BLOCKS) NAME(const __grid_constant__ PeftkGemmParams p) { \
        pdl::start();                                                                                                          \
        gemm_f32::product_f32<TILE, TILE, A_ACROSS, B_ACROSS, false, gemm_f32::Epilogue::EPILOGUE>(p);                         \
    }

PEFTK_MATMUL(matmul_nt_f32, 2, 128, false, false, kPlain)
PEFTK_MATMUL(matmul_nt_f32_gelu, 2, 128, false, false, kGelu)
PEFTK_MATMUL(matmul_nt_f32_scale_residual, 2, 128, false, false, kScaleResidual)
PEFTK_MATMUL(matmul_nn_f32, 2, 128, false, true, kPlain)
PEFTK_MATMUL(matmul_nn_f32_gelu_backward, 1, 128, false, true, kGeluBackward)
PEFTK_MATMUL(matmul_tn_f32, 2, 128, true, true, kPartial)
PEFTK_MATMUL(matmul_nt_f32_small, 4, 32, false, false, kPlain)
PEFTK_MATMUL(matmul_nn_f32_small, 4, 32, false, true, kPlain)
PEFTK_MATMUL(matmul_tn_f32_small, 4, 32, true, true, kPartial)

#undef PEFTK_MATMUL

// A thread an element; m and n are a piece's, rows and cols C's.
extern "C" __global__ void __launch_bounds__(gemm_f32::kThreads) matmul_reduce_f32(const __grid_constant__ PeftkGemmReduceParams p) {
    pdl::start();
    const size_t size = static_cast<size_t>(p.m) * p.n;
    const size_t element = static_cast<size_t>(blockIdx.x) * gemm_f32::kThreads + threadIdx.x;
    if (element >= static_cast<size_t>(p.rows) * p.cols) return;
    const unsigned row = element / p.cols, column = element % p.cols;
    const float* const from = reinterpret_cast<const float*>(p.parts) + static_cast<size_t>(row) * p.n + column;
    float* const to = reinterpret_cast<float*>(p.c) + element;
    const float factor = p.gain != 0 ? p.scale * reinterpret_cast<const float*>(p.gain)[row] : p.scale;
    float total = p.cut.add != 0 ? *to : 0.0f;
    for (unsigned begin = 0; begin < p.cut.pieces; begin += p.cut.per_granule) {
        const unsigned end = min(begin + p.cut.per_granule, p.cut.pieces);
        float sum = 0.0f;
#pragma unroll 8
        for (unsigned piece = begin; piece < end; ++piece) sum += from[piece * size];
        total += factor * sum;
    }
    *to = total;
}
