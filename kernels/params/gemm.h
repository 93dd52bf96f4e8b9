/* Launch parameters of the matrix products (kernels/matmul_bf16.cu, matmul_f32.cu, lora_matmul_*.cu, sm90_matmul.cu). */
#ifndef PEFTK_PARAMS_GEMM_H
#define PEFTK_PARAMS_GEMM_H

#include <stdint.h>

#include "cut.h"

/** One low-rank adapter on columns `first_row .. first_row + rows` of the output (rows of W). */
struct PeftkGemmAdapter {
    /** A, `[rank_padded, k]`, operand type, rows beyond `rank` zero; in-loop form only. */
    uint64_t a;
    /** B, `[rows, rank_padded]`, operand type, columns beyond `rank` zero. */
    uint64_t b;
    /** DoRA's g, `[rows]` f32; 0: g = 1. */
    uint64_t gain;
    /** t = x A^T, `[m, rank_padded]`, operand type: written by the in-loop form, read by the form with t given. */
    uint64_t t;
    /** s: t is multiplied by it, in f32 before rounding, where it meets B. */
    float scale;
    /** First output column. */
    uint32_t first_row;
    /** Output columns. */
    uint32_t rows;
    /** Rank rounded up to a multiple of 16; 0: no adapter here. */
    uint32_t rank_padded;
};

/** C `[m, n]` = epilogue(A B), all row-major, f32 accumulation. */
struct PeftkGemmParams {
    /** First operand: nt, nn `[m, k]`; tn `[k, m]`. */
    uint64_t a;
    /** Second operand: nt `[n, k]`; nn, tn `[k, n]`. */
    uint64_t b;
    /** Second product added in the same accumulator: nt, nn `[m, k2]`; 0: none. */
    uint64_t a2;
    /** Its second operand: nt `[n, k2]`; nn `[k2, n]`. */
    uint64_t b2;
    /** The result `[m, n]`; tn with pieces: `[pieces, m, n]` f32. */
    uint64_t c;
    /** bias `[n]` f32; 0: none. */
    uint64_t bias;
    /** Residual input `[m, n]` (epilogue scale_residual), of c's type. */
    uint64_t residual;
    /** LayerScale's gamma `[n]` f32. */
    uint64_t gamma;
    /** gelu: the pre-activation `[m, n]` written, of the operand type, 0: not; gelu_backward: the pre-activation read. */
    uint64_t aux;
    /** Adapters by first row; those not there have rank_padded 0. */
    struct PeftkGemmAdapter adapters[3];
    /** Rows of C. */
    uint32_t m;
    /** Columns of C. */
    uint32_t n;
    /** Depth of the product. */
    uint32_t k;
    /** Depth of the second product. */
    uint32_t k2;
    /** Row stride of A, elements. */
    uint32_t lda;
    /** Row stride of B, elements. */
    uint32_t ldb;
    /** tn: how k is cut, each piece summed on its own; one piece and nothing to add to: c is the result. */
    struct PeftkCut cut;
};

/** The end of a tn product: C `[rows, cols]` (+)= scale gain_i times the sum of the pieces. */
struct PeftkGemmReduceParams {
    /** `[pieces, m, n]` f32, read. */
    uint64_t parts;
    /** C `[rows, cols]` f32, written. */
    uint64_t c;
    /** A factor a row, `[rows]` f32; 0: none. */
    uint64_t gain;
    /** A factor. */
    float scale;
    /** Rows of a piece. */
    uint32_t m;
    /** Columns of a piece. */
    uint32_t n;
    /** Rows of C, at most m. */
    uint32_t rows;
    /** Columns of C, at most n. */
    uint32_t cols;
    /** 0. */
    uint32_t padding;
    /** The pieces. */
    struct PeftkCut cut;
};

#endif
