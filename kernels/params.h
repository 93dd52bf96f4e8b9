/* The launch parameters of every kernel, shared with Rust: one struct an entry, passed by value as its only argument.
 *
 * Plain C with fixed widths. Device addresses are uint64_t, so that the layout is the same for nvcc, for the host compiler and
 * for Rust. Members stand in order of size and a struct's size is a multiple of 8: what padding is needed is a member, never the
 * compiler's, because Rust sends the struct as bytes. After a change run `make params`; a test compares the two sides.
 */
#ifndef PEFTK_PARAMS_H
#define PEFTK_PARAMS_H

#include <stdint.h>

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

#endif
