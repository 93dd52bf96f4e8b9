// Matrix products on Hopper: C = epilogue(A B) with bf16 operands and f32 accumulation, adapters included.
//
//     nt   C [m, n] = A [m, k] B [n, k]^T      a linear's forward, y = x W^T
//     nn   C [m, n] = A [m, k] B [k, n]        its dx = dy W
//     tn   C [m, n] = A [k, m]^T B [k, n]      its dW = dy^T x: f32, k cut into pieces (common/cut.cuh) that matmul_f32.cu's
//                                              matmul_reduce_f32 adds up
//
// Epilogues v = g_j acc + bias_j (g = 1, bias = 0 where absent), by entry:
//     (none)                 C = bf16(v); tn: C = acc, f32
//     _gelu                  aux = bf16(v) where it is wanted, C = bf16(gelu(bf16(v)))
//     _scale_residual        C = bf16(residual + gamma_j bf16(v)), residual bf16; _f32res: residual and C f32
//     _gelu_backward         C = bf16(bf16(acc) gelu'(aux))
// Adapters  lora_matmul_bf16*: y = g (x W^T + s (x A^T) B^T) + bias in one launch. t = x A^T comes out of the same wgmma as
//           x W^T (A's rows are 16 or 32 more columns of the tile), is rounded to bf16 and written, and s t, rounded, times B^T
//           lands in the same accumulators. _given: t is read, any rank; s (t B^T) comes first in the same accumulators. For dx,
//           s Q is given as a second product: a2, b2, k2.
// Resident  _resident: the same numbers, with B, up to 384 deep, kept in shared memory; no second product.
// Narrow    _narrow: the same numbers in tiles of 128 columns, for products that would leave multiprocessors empty.
// Shapes    any m; k, n, k2 and row strides multiples of 8 (16-byte rows for the copy engine); adapters begin and end at
//           multiples of the tile's columns. The launcher sends other shapes to the general kernels.
// Numbers   one f32 accumulator an element, K in order, one owner: equal inputs give equal bits.
// Traffic   C once; A once from device memory, its further uses from L2 (column tiles of one row band run side by side);
//           B from L2. L2 to shared memory: 128 + columns rows of K a tile.
// Launch    grid: as many blocks as multiprocessors, or tiles where those are fewer, a multiple of the tiles across for
//           _resident; block 384; dynamic shared memory
//           Shape::kSharedBytes. See common/sm90_gemm.cuh.

#include "common/sm90_gemm.cuh"

static_assert(sizeof(PeftkSm90GemmParams) % 64 == 0, "the launcher sends the struct as bytes");

namespace {

using sm90::Epilogue;
using sm90::Layout;
using sm90::Shape;

using Forward = Shape<Layout::kNT, 192, 4, 1, 0>;
using ForwardResident = Shape<Layout::kNT, 128, 6, 1, 0, true, 2>;
using ForwardNarrow = Shape<Layout::kNT, 128, 5, 1, 0>;
using BackwardNarrow = Shape<Layout::kNN, 128, 5, 1, 0>;
using Lora16 = Shape<Layout::kNT, 128, 4, 1, 16>;
using Lora16Resident = Shape<Layout::kNT, 128, 5, 1, 16, true, 2>;
using Lora32 = Shape<Layout::kNT, 128, 4, 1, 32>;
using Given = Shape<Layout::kNT, 128, 5, 1, -1>;
using Backward = Shape<Layout::kNN, 192, 4, 1, 0>;
using Weight = Shape<Layout::kTN, 192, 4, 1, 0>;

}  // namespace

#define PEFTK_ENTRY(name, shape, epilogue)                                                            \
    extern "C" __global__ void __cluster_dims__(shape::kCluster, 1, 1) __launch_bounds__(sm90::kThreads, 1) \
        name(const __grid_constant__ PeftkSm90GemmParams params) {                                    \
        sm90::gemm<shape, epilogue>(params);                                                          \
    }

PEFTK_ENTRY(matmul_nt_bf16, Forward, Epilogue::kStore)
PEFTK_ENTRY(matmul_nt_bf16_gelu, Forward, Epilogue::kGelu)
PEFTK_ENTRY(matmul_nt_bf16_scale_residual, Forward, Epilogue::kScaleResidual)
PEFTK_ENTRY(matmul_nt_bf16_scale_residual_f32res, Forward, Epilogue::kScaleResidualF32)

PEFTK_ENTRY(matmul_nt_bf16_scale_residual_f32res_narrow, ForwardNarrow, Epilogue::kScaleResidualF32)

PEFTK_ENTRY(matmul_nt_bf16_resident, ForwardResident, Epilogue::kStore)
PEFTK_ENTRY(matmul_nt_bf16_gelu_resident, ForwardResident, Epilogue::kGelu)
PEFTK_ENTRY(matmul_nt_bf16_scale_residual_f32res_resident, ForwardResident, Epilogue::kScaleResidualF32)

PEFTK_ENTRY(lora_matmul_bf16_r16, Lora16, Epilogue::kStore)
PEFTK_ENTRY(lora_matmul_bf16_r16_resident, Lora16Resident, Epilogue::kStore)
PEFTK_ENTRY(lora_matmul_bf16_gelu_r16, Lora16, Epilogue::kGelu)
PEFTK_ENTRY(lora_matmul_bf16_gelu_r16_resident, Lora16Resident, Epilogue::kGelu)
PEFTK_ENTRY(lora_matmul_bf16_scale_residual_r16, Lora16, Epilogue::kScaleResidual)
PEFTK_ENTRY(lora_matmul_bf16_scale_residual_f32res_r16, Lora16, Epilogue::kScaleResidualF32)
PEFTK_ENTRY(lora_matmul_bf16_scale_residual_f32res_r16_resident, Lora16Resident, Epilogue::kScaleResidualF32)
PEFTK_ENTRY(lora_matmul_bf16_r32, Lora32, Epilogue::kStore)
PEFTK_ENTRY(lora_matmul_bf16_gelu_r32, Lora32, Epilogue::kGelu)
PEFTK_ENTRY(lora_matmul_bf16_scale_residual_r32, Lora32, Epilogue::kScaleResidual)
PEFTK_ENTRY(lora_matmul_bf16_scale_residual_f32res_r32, Lora32, Epilogue::kScaleResidualF32)

PEFTK_ENTRY(lora_matmul_bf16_given, Given, Epilogue::kStore)
PEFTK_ENTRY(lora_matmul_bf16_gelu_given, Given, Epilogue::kGelu)
PEFTK_ENTRY(lora_matmul_bf16_scale_residual_given, Given, Epilogue::kScaleResidual)
PEFTK_ENTRY(lora_matmul_bf16_scale_residual_f32res_given, Given, Epilogue::kScaleResidualF32)

PEFTK_ENTRY(matmul_nn_bf16, Backward, Epilogue::kStore)
PEFTK_ENTRY(matmul_nn_bf16_narrow, BackwardNarrow, Epilogue::kStore)
PEFTK_ENTRY(matmul_nn_bf16_gelu_backward, Backward, Epilogue::kGeluBackward)

PEFTK_ENTRY(matmul_tn_f32, Weight, Epilogue::kStoreF32)
