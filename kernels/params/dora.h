/* Launch parameters of DoRA's norm, its gradients, the gain and merging (kernels/dora_norm.cu, dora_norm_backward.cu,
 * magnitude_rescale.cu, merge.cu). All matrices are row-major f32 without gaps unless said otherwise. */
#ifndef PEFTK_PARAMS_DORA_H
#define PEFTK_PARAMS_DORA_H

#include <stdint.h>

#include "cut.h"

/** The row norms of W + scale * B A (kernels/dora_norm.cu). All matrices are row-major f32 without gaps. */
struct PeftkDoraNormParams {
    /** W, `[rows, cols]` f32, read. */
    uint64_t w;
    /** A, `[rank, cols]` f32, read. */
    uint64_t a;
    /** B, `[rows, rank]` f32, read. */
    uint64_t b;
    /** The norms, `[rows]` f32, written. */
    uint64_t norm;
    /** What B A is multiplied by: alpha / rank, or alpha / sqrt(rank). */
    float scale;
    /** Output features of the linear. */
    uint32_t rows;
    /** Input features of the linear. */
    uint32_t cols;
    /** The adapter's rank, 1 to 256. */
    uint32_t rank;
};

/** One adapter of a batch of norms. */
struct PeftkDoraNormItem {
    /** W's rows of this adapter, `[rows, cols]`, read. */
    uint64_t w;
    /** A, `[rank, cols]`, read. */
    uint64_t a;
    /** B, `[rows, rank]`, read. */
    uint64_t b;
    /** The norms, `[rows]`, written. */
    uint64_t norm;
    /** DoRA's magnitude, `[rows]`, read; 0: no gain is asked for. */
    uint64_t magnitude;
    /** magnitude / norm, `[rows]`, written when there is a magnitude. */
    uint64_t gain;
    /** s. */
    float scale;
    /** Rows. */
    uint32_t rows;
    /** Columns. */
    uint32_t cols;
    /** Rank, 1 to 256. */
    uint32_t rank;
    /** The first of its blocks, which are ceil(rows / 16). */
    uint32_t first_block;
    /** Unused. */
    uint32_t padding;
};

/** The norms of many adapters in one launch. */
struct PeftkDoraNormBatchParams {
    /** The adapters, by first block. */
    struct PeftkDoraNormItem items[48];
    /** How many there are, at least 1. */
    uint32_t count;
    /** Unused. */
    uint32_t padding;
};

/** One adapter of the norms' backward pass. */
struct PeftkDoraNormBackwardItem {
    /** W's rows of this adapter, `[rows, cols]`, read. */
    uint64_t w;
    /** A, `[rank, cols]`, read. */
    uint64_t a;
    /** B, `[rows, rank]`, read. */
    uint64_t b;
    /** The norms, `[rows]`, read. */
    uint64_t norm;
    /** Their gradient, `[rows]`, read. */
    uint64_t dnorm;
    /** Sums over 32 rows of W each, `[ceil(rows / 32), rank, cols]`, written, then read by the second kernel. */
    uint64_t partial_a;
    /** Sums over 128 columns of W each, `[ceil(cols / 128), rows, rank]`, likewise. */
    uint64_t partial_b;
    /** dA, `[rank, cols]`, written or added to. */
    uint64_t da;
    /** dB, `[rows, rank]`, written or added to. */
    uint64_t db;
    /** s. */
    float scale;
    /** Rows. */
    uint32_t rows;
    /** Columns. */
    uint32_t cols;
    /** Rank, 1 to 256. */
    uint32_t rank;
    /** 1: da and db are added to; 0: written. */
    uint32_t accumulate;
    /** Unused. */
    uint32_t padding;
};

/** The norms' backward pass for one adapter or many. */
struct PeftkDoraNormBackwardParams {
    /** The only adapter, where there is no array. */
    struct PeftkDoraNormBackwardItem item;
    /** `[items]` of PeftkDoraNormBackwardItem in device memory, one an index of the grid's z; 0: `item`. */
    uint64_t items;
};

/** The gradients of one adapter's gain g = m / n, elementwise. */
struct PeftkMagnitudeBackwardItem {
    /** Magnitudes, `[count]`, read where dn is asked for. */
    uint64_t magnitude;
    /** Norms, `[count]`, read. */
    uint64_t norm;
    /** dg, `[count]`, read. */
    uint64_t dgain;
    /** dm = dg / n, `[count]`, written or added to. */
    uint64_t dmagnitude;
    /** dn = -dg m / n^2, `[count]`, written; 0: not asked for. */
    uint64_t dnorm;
    /** Values. */
    uint32_t count;
    /** 1: dm is added to; 0: written. */
    uint32_t add;
};

/** The gradients of many gains in one launch. */
struct PeftkMagnitudeBackwardParams {
    /** One an index of the grid's y. */
    struct PeftkMagnitudeBackwardItem items[48];
};

/** The gradient of DoRA's gain, dg_j = sum over tokens of dy (x W_j + s t B_j). */
struct PeftkMagnitudeGradientParams {
    /** dy, `[m, ld]`, read from column `first_row` on. */
    uint64_t dy;
    /** y, `[m, ld_y]`, read from column `y_column` on. */
    uint64_t y;
    /** The linear's bias, `[n]` f32, read from `first_row` on; 0: none. */
    uint64_t bias;
    /** The gain, `[rows]` f32, read; 0: y is z itself, g = 1. */
    uint64_t gain;
    /** x, `[m, k]`, read only for rows of small gain. */
    uint64_t x;
    /** W, `[n, k]` with rows `ld_w` apart, of x's type, read from row `first_row` on, only for rows of small gain. */
    uint64_t w;
    /** t = x A^T, `[m, rank_padded]`, of x's type, likewise. */
    uint64_t t;
    /** B, `[rows, rank_padded]`, of x's type, likewise. */
    uint64_t b;
    /** The pieces' sums, `[pieces, rows]` f32, written, then read by the second kernel. */
    uint64_t partial;
    /** dg, `[rows]` f32, written by the second kernel. */
    uint64_t dgain;
    /** s. */
    float scale;
    /** Tokens. */
    uint32_t m;
    /** Width of x. */
    uint32_t k;
    /** Row stride of dy, elements. */
    uint32_t ld;
    /** Row stride of y, elements. */
    uint32_t ld_y;
    /** First column of y. */
    uint32_t y_column;
    /** First row of W under the adapter. */
    uint32_t first_row;
    /** Rows under the adapter. */
    uint32_t rows;
    /** Columns of t and B. */
    uint32_t rank_padded;
    /** Row stride of W, elements. */
    uint32_t ld_w;
    /** How the tokens are cut. */
    struct PeftkCut cut;
};

/** One adapter's merged weight. */
struct PeftkMergeItem {
    /** W's rows of this adapter, `[rows, cols]`, read. */
    uint64_t w;
    /** A, `[rank, cols]`, read. */
    uint64_t a;
    /** B, `[rows, rank]`, read. */
    uint64_t b;
    /** g, `[rows]`: read by merge; 0: g = 1. */
    uint64_t gain;
    /** The magnitude, `[rows]`: read by merge_dora. */
    uint64_t magnitude;
    /** The merged rows, `[rows, cols]` f32, written where not 0; may be w. */
    uint64_t out_f32;
    /** The merged rows, `[rows, cols]` bf16, written where not 0. */
    uint64_t out_bf16;
    /** s. */
    float scale;
    /** Rows. */
    uint32_t rows;
    /** Columns. */
    uint32_t cols;
    /** Rank, 1 to 256. */
    uint32_t rank;
    /** The first of its blocks, which are ceil(rows / block_rows). */
    uint32_t first_block;
    /** Rows a block, 4 warps' shares: 16 of up to 384 columns, 8 of up to 768, 4 of up to 1536, 16 of more. */
    uint32_t block_rows;
};

/** g (W + s B A) for one adapter or many. */
struct PeftkMergeParams {
    /** The adapters, by first block. */
    struct PeftkMergeItem items[48];
    /** How many there are, at least 1. */
    uint32_t count;
    /** Unused. */
    uint32_t padding;
};

#endif
