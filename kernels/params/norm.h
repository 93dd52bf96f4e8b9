/* Launch parameters of LayerNorm (kernels/layer_norm.cu) and of sums over rows (kernels/column_sum.cu, layer_scale.cu). */
#ifndef PEFTK_PARAMS_NORM_H
#define PEFTK_PARAMS_NORM_H

#include <stdint.h>

#include "cut.h"

/** y = (x - mean) rstd weight + bias for every row. R: the residual stream's type, T: the activations' type. */
struct PeftkLayerNormParams {
    /** x, `[rows, cols]` R, read. */
    uint64_t x;
    /** weight, `[cols]` f32, read. */
    uint64_t weight;
    /** bias, `[cols]` f32, read. */
    uint64_t bias;
    /** y, `[rows, cols]` T, written. */
    uint64_t y;
    /** The rows' means, `[rows]` f32, written; 0: not wanted. */
    uint64_t mean;
    /** 1 / sqrt(variance + eps), `[rows]` f32, written; 0: not wanted. */
    uint64_t rstd;
    /** Added to the variance. */
    float eps;
    /** Tokens. */
    uint32_t rows;
    /** Width, 1 to 8192. */
    uint32_t cols;
    /** Warps that share a row: the smallest of 1, 2, 4, 8, 16 with `cols <= 512 warps_per_row`. */
    uint32_t warps_per_row;
};

/** dx, and where asked for the granules' sums of dweight and dbias. */
struct PeftkLayerNormBackwardParams {
    /** x, `[rows, cols]` R, read. */
    uint64_t x;
    /** weight, `[cols]` f32, read. */
    uint64_t weight;
    /** The rows' means, `[rows]` f32, read. */
    uint64_t mean;
    /** The rows' rstd, `[rows]` f32, read. */
    uint64_t rstd;
    /** dL/dy, `[rows, cols]` T, read. */
    uint64_t dy;
    /** A gradient that is added to dx, `[rows, cols]` R, read; it may be dx itself. 0: none. */
    uint64_t add;
    /** dL/dx, `[rows, cols]` R, written; 0: not wanted. */
    uint64_t dx;
    /** The pieces' sums, `[pieces, 2, cols]` f32: dweight, dbias; of the entries with weights only. */
    uint64_t partial;
    /** LayerScale's gamma of what made x, `[cols]` f32, read; where `scaled` is written. */
    uint64_t gamma;
    /** gamma dx, with what was added, `[rows, cols]` T, written; 0: not wanted. */
    uint64_t scaled;
    /** Tokens. */
    uint32_t rows;
    /** Width, 1 to 8192. */
    uint32_t cols;
    /** As in PeftkLayerNormParams. */
    uint32_t warps_per_row;
    /** 0. */
    uint32_t padding;
    /** How the rows are cut, in pieces of at most 32; of the entries with weights only. */
    struct PeftkCut cut;
};

/** Sums over pieces of at most 128 rows: of a, or of a (b - bias). */
struct PeftkColumnSumParams {
    /** First column of a, `[rows, cols]` T with row stride `lda`, read. */
    uint64_t a;
    /** First column of b, `[rows, cols]` T with row stride `ldb`, read; entries column_dot only. */
    uint64_t b;
    /** Subtracted from b, `[cols]` f32; 0: nothing. */
    uint64_t bias;
    /** The sums, `[pieces, cols]` f32, written. */
    uint64_t partial;
    /** How the rows are cut. */
    struct PeftkCut cut;
    /** 0. */
    uint32_t padding;
    /** Columns that are summed. */
    uint32_t cols;
    /** Row stride of a, elements. */
    uint32_t lda;
    /** Row stride of b, elements. */
    uint32_t ldb;
};

/** The second stage of every sum over rows. */
struct PeftkReducePartialsParams {
    /** `[pieces, cols]` f32, read. */
    uint64_t partial;
    /** DoRA's g, `[cols]` f32, which the sums are divided by, or 0 where g is 0; address 0: no division. */
    uint64_t gain;
    /** The first `split` sums, f32, written. */
    uint64_t out;
    /** The other `cols - split` sums, f32, written. */
    uint64_t out_rest;
    /** Columns. */
    uint32_t cols;
    /** Columns that belong to `out`. */
    uint32_t split;
    /** The pieces. */
    struct PeftkCut cut;
};

/** LayerScale with its residual: y = x + gamma h. */
struct PeftkLayerScaleParams {
    /** x, `[rows, cols]` R, read. */
    uint64_t x;
    /** h, `[rows, cols]` T, read. */
    uint64_t h;
    /** gamma, `[cols]` f32, read. */
    uint64_t gamma;
    /** y, `[rows, cols]` R, written; it may be x itself. */
    uint64_t y;
    /** Tokens. */
    uint32_t rows;
    /** Width. */
    uint32_t cols;
};

/** dh = gamma dy, and where asked for the granules' sums of dgamma = sum dy h. */
struct PeftkLayerScaleBackwardParams {
    /** h, `[rows, cols]` T, read; 0 when dgamma is not wanted. */
    uint64_t h;
    /** gamma, `[cols]` f32, read. */
    uint64_t gamma;
    /** dL/dy, `[rows, cols]` R, read. */
    uint64_t dy;
    /** dL/dh, `[rows, cols]` T, written; 0: not wanted. */
    uint64_t dh;
    /** The pieces' sums, `[pieces, cols]` f32, written; 0: not wanted. */
    uint64_t partial;
    /** How the tokens are cut, in pieces of at most 128. */
    struct PeftkCut cut;
    /** Width. */
    uint32_t cols;
    /** 0. */
    uint32_t padding;
};

#endif
