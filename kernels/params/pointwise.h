/* Launch parameters of what works element by element (kernels/gelu.cu, swiglu.cu, elementwise.cu). */
#ifndef PEFTK_PARAMS_POINTWISE_H
#define PEFTK_PARAMS_POINTWISE_H

#include <stdint.h>

/** y = f(x) over `count` elements. */
struct PeftkMapParams {
    /** x, read. */
    uint64_t x;
    /** y, written; it may be x itself. */
    uint64_t y;
    /** Elements. */
    uint64_t count;
};

/** dx = dy f'(x) over `count` elements. */
struct PeftkMapBackwardParams {
    /** x, read. */
    uint64_t x;
    /** dL/dy, read. */
    uint64_t dy;
    /** dL/dx, written; it may be dy itself. */
    uint64_t dx;
    /** Elements. */
    uint64_t count;
};

/** SwiGLU: y = silu(gate) up. */
struct PeftkSwigluParams {
    /** h = gate | up, `[rows, 2 width]`, read. */
    uint64_t h;
    /** dL/dy, `[rows, width]`, read; backward only. */
    uint64_t dy;
    /** y, `[rows, width]`; backward: dh, `[rows, 2 width]`; written. */
    uint64_t out;
    /** Tokens. */
    uint32_t rows;
    /** Width of y. */
    uint32_t width;
};

/** x *= factor, or x = factor. */
struct PeftkScaleParams {
    /** x, read and written. */
    uint64_t x;
    /** Elements. */
    uint64_t count;
    /** The factor; in entry fill the value. */
    float factor;
    /** 0. */
    uint32_t padding;
};

/** Rows copied to another type and row stride; what is beyond `cols` in a written row becomes 0. */
struct PeftkCastParams {
    /** `[rows, cols]` with row stride `ld_source`, read. */
    uint64_t source;
    /** `[rows, ld_target]`, written. */
    uint64_t target;
    /** Rows. */
    uint32_t rows;
    /** Columns. */
    uint32_t cols;
    /** Row stride of the source, elements. */
    uint32_t ld_source;
    /** Row stride of the target, elements, at least `cols`. */
    uint32_t ld_target;
};

/** Inverted dropout: y = x / (1 - p) where the hash of (seed, index) is large enough, else 0. */
struct PeftkDropoutParams {
    /** x, read. */
    uint64_t x;
    /** y, written; it may be x itself. */
    uint64_t y;
    /** Elements. */
    uint64_t count;
    /** The mask's seed. */
    uint64_t seed;
    /** Element i is kept when the hash's upper 24 bits are at least this: p 2^24, rounded up. */
    uint32_t threshold;
    /** 1 / (1 - p). */
    float scale;
};

#endif
