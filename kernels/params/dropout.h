/* Launch parameters of DoRA under dropout (kernels/dora_dropout.cu). */
#ifndef PEFTK_PARAMS_DROPOUT_H
#define PEFTK_PARAMS_DROPOUT_H

#include <stdint.h>

/** y += g z - u on an adapter's columns. */
struct PeftkDoraDropoutParams {
    /** y, `[m, n]`, columns `first_row ..` read and written. */
    uint64_t y;
    /** z = drop(x) W^T + s t B^T, `[m, rows]`, read. */
    uint64_t z;
    /** u = drop(x) W^T, `[m, rows]`, read. */
    uint64_t u;
    /** g, `[rows]` f32, read. */
    uint64_t gain;
    /** Tokens. */
    uint32_t m;
    /** Row stride of y, elements. */
    uint32_t n;
    /** First column of y. */
    uint32_t first_row;
    /** Columns under the adapter. */
    uint32_t rows;
};

/** g - 1, elementwise. */
struct PeftkGainMinusOneParams {
    /** g, `[count]` f32, read. */
    uint64_t gain;
    /** g - 1, `[count]` f32, written. */
    uint64_t out;
    /** Values. */
    uint64_t count;
};

#endif
