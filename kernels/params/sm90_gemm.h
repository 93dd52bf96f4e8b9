/* Launch parameters of the Hopper matrix products (kernels/sm90_matmul.cu). */
#ifndef PEFTK_PARAMS_SM90_GEMM_H
#define PEFTK_PARAMS_SM90_GEMM_H

#include <stdint.h>

#include "gemm.h"

/** A CUtensorMap as bytes: made by cuTensorMapEncodeTiled, read by the copy engine. */
struct PeftkTensorMap {
    /** The driver's opaque 128 bytes. */
    uint64_t words[16];
} __attribute__((aligned(64)));

/** A matrix product whose operands the copy engine loads; every map is 2D, bf16 but for f32 residual and C, 128-byte swizzle, out of bounds reads zero. */
struct PeftkSm90GemmParams {
    /** 0: A, 1: B, 2: a2, 3: b2; in-loop adapters instead of the second product: 2 + 2 i its A, 3 + 2 i its B. 8: C, 9: the residual, or
     * the pre-activation read or written; both in boxes of 16 rows of 128 bytes. C of tn has none. */
    struct PeftkTensorMap maps[10];
    /** Sizes, outputs and epilogue operands. */
    struct PeftkGemmParams gemm;
    /** Padding to a multiple of 64 bytes. */
    uint64_t reserved[7];
};

#endif
