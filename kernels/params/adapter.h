/* Launch parameters of the adapters' packing and gradients (kernels/adapter_pack.cu, lora_gradients.cu). */
#ifndef PEFTK_PARAMS_ADAPTER_H
#define PEFTK_PARAMS_ADAPTER_H

#include <stdint.h>

#include "cut.h"

/** One adapter's f32 masters and what the matrix products read. */
struct PeftkAdapterPackItem {
    /** A, `[rank, k]` f32, read. */
    uint64_t a;
    /** B, `[rows, rank]` f32, read. */
    uint64_t b;
    /** DoRA's g, `[rows]` f32, read; 0: g = 1. */
    uint64_t gain;
    /** A, `[rank_padded, k]`, operand type, zero beyond rank, written where not 0. */
    uint64_t a_packed;
    /** The same once more, where the adapters of one linear lie one below the other; written where not 0. */
    uint64_t a_joined;
    /** B, `[rows, rank_padded]`, operand type, zero beyond rank, written where not 0. */
    uint64_t b_packed;
    /** s g B, `[rows, rank_padded]`, operand type, zero beyond rank, written where not 0. */
    uint64_t bg_packed;
    /** s. */
    float scale;
    /** Rows of B. */
    uint32_t rows;
    /** Columns of A. */
    uint32_t k;
    /** Rank. */
    uint32_t rank;
    /** Rank rounded up to a multiple of 16. */
    uint32_t rank_padded;
    /** Unused. */
    uint32_t padding;
};

/** Packs up to 3 adapters by value, or any number from device memory. */
struct PeftkAdapterPackParams {
    /** The adapters, where there is no array. */
    struct PeftkAdapterPackItem adapters[3];
    /** `[items]` of PeftkAdapterPackItem in device memory, one an index of the grid's y; 0: `adapters`. */
    uint64_t items;
};

/** One linear's weight with its rows under a gain multiplied by it: what dx is made with. */
struct PeftkWeightRescaleItem {
    /** W, `[n, k]`, read. */
    uint64_t w;
    /** g W, `[n, k]`, written. */
    uint64_t out;
    /** The adapters' gains, `[rows]` f32 each; 0: none. */
    uint64_t gain[3];
    /** Each one's first row. */
    uint32_t first_row[3];
    /** Each one's rows. */
    uint32_t rows[3];
    /** Rows of W. */
    uint32_t n;
    /** Columns of W. */
    uint32_t k;
};

/** Rescales one weight, or any number of them from device memory. */
struct PeftkWeightRescaleParams {
    /** The only weight, where there is no array. */
    struct PeftkWeightRescaleItem item;
    /** `[items]` of PeftkWeightRescaleItem in device memory, one an index of the grid's y; 0: `item`. */
    uint64_t items;
};

/** One adapter's share of lora_gradients. */
struct PeftkLoraAdapter {
    /** t = x A^T, `[m, rank_padded]`, operand type, read. */
    uint64_t t;
    /** s g B, `[rows, rank_padded]`, operand type, read. */
    uint64_t bg;
    /** DoRA's g, `[rows]` f32, read by the reduction; 0: g = 1. */
    uint64_t gain;
    /** `[pieces, rank_padded, rows]` f32: t^T dy of each piece. */
    uint64_t partial_b;
    /** dA, `[rank, k]` f32, written by the reduction; 0: not asked for. */
    uint64_t da;
    /** dB, `[rows, rank]` f32, written by the reduction. */
    uint64_t db;
    /** The linear's output y, `[m, ld_dy]`, operand type, read by the entries that make the gain's gradient; 0: it is not asked for. */
    uint64_t y;
    /** The linear's bias, `[n]` f32, read from `first_row` on; 0: none. */
    uint64_t bias;
    /** W, `[n, k]` with rows `ld_w` apart, operand type, read from row `first_row` on, only for rows of small gain. */
    uint64_t w;
    /** B, `[rows, rank_padded]`, operand type, likewise. */
    uint64_t b;
    /** `[pieces, rows]` f32: each piece's sums of dy z. */
    uint64_t partial_gain;
    /** dg, `[rows]` f32, written by the reduction. */
    uint64_t dgain;
    /** s. */
    float scale;
    /** First column of dy. */
    uint32_t first_row;
    /** Columns of dy. */
    uint32_t rows;
    /** Rank. */
    uint32_t rank;
    /** Rank rounded up to a multiple of 16. */
    uint32_t rank_padded;
    /** First column of this adapter in q. */
    uint32_t q_column;
    /** 1: dA is added to; 0: written. */
    uint32_t add_a;
    /** 1: dB is added to; 0: written. */
    uint32_t add_b;
    /** 1: dg is added to; 0: written. */
    uint32_t add_gain;
    /** Row stride of W, elements. */
    uint32_t ld_w;
};

/** The gradients of up to 3 adapters that share x: every entry of kernels/lora_gradients.cu reads a part of this. */
struct PeftkLoraGradientsParams {
    /** x, `[m, k]`, operand type, read. */
    uint64_t x;
    /** dy, `[m, ld_dy]`, operand type, read. */
    uint64_t dy;
    /** Q = s (g dy) B of all adapters side by side, `[m, ld_q]`, operand type, written by the first kernel. */
    uint64_t q;
    /** `[pieces, q_columns, k]` f32: Q^T x of each piece. */
    uint64_t partial_a;
    /** The adapters. */
    struct PeftkLoraAdapter adapters[3];
    /** Tokens. */
    uint32_t m;
    /** Width of x. */
    uint32_t k;
    /** Row stride of dy, elements. */
    uint32_t ld_dy;
    /** Row stride of q, elements: a multiple of 8. */
    uint32_t ld_q;
    /** The first column of q that x is multiplied with. */
    uint32_t q_first;
    /** Columns of q that x is multiplied with: the sum of rank_padded. */
    uint32_t q_columns;
    /** How the tokens are cut. */
    struct PeftkCut cut;
    /** Adapters, 1 to 3. */
    uint32_t count;
    /** Slices of 16 ranks over all adapters: q_columns / 16. */
    uint32_t slices;
};

#endif
