/* Launch parameters between images and sequences (kernels/patches.cu, tokens.cu, pool.cu, positions.cu). */
#ifndef PEFTK_PARAMS_TOKENS_H
#define PEFTK_PARAMS_TOKENS_H

#include <stdint.h>

/** Normalised patches of u8 images. */
struct PeftkPatchesParams {
    /** `[batch, size, size, 3]` u8, read. */
    uint64_t images;
    /** `[batch (size / patch)^2, ld]` T, columns ordered channel, row, column; written, zero beyond 3 patch^2. */
    uint64_t patches;
    /** 1 / (255 std) of red, green and blue. */
    float scale[3];
    /** -mean / std of red, green and blue. */
    float shift[3];
    /** Images. */
    uint32_t batch;
    /** Pixels along an image's side. */
    uint32_t size;
    /** Pixels along a patch's side; divides `size`. */
    uint32_t patch;
    /** Row stride of the patches, elements. */
    uint32_t ld;
};

/** The token sequences CLS, registers, patches; or the gradients of what they were made of. */
struct PeftkTokensParams {
    /** Forward: patches `[batch patches, width]` T, read. Backward: dpatches, written; 0: not wanted. */
    uint64_t patches;
    /** cls `[width]` f32, read; backward: dcls, written; 0: not wanted. */
    uint64_t cls;
    /** pos `[1 + patches, width]` f32, read; backward: dpos, written; 0: not wanted. */
    uint64_t pos;
    /** registers `[registers, width]` f32, read; backward: dregisters, written; 0: not wanted. */
    uint64_t registers;
    /** x `[batch tokens, width]` R, written; backward: dx, read. */
    uint64_t x;
    /** Images. */
    uint32_t batch;
    /** Register tokens an image. */
    uint32_t register_count;
    /** Patch tokens an image. */
    uint32_t patch_count;
    /** Width. */
    uint32_t width;
    /** Backward: 1: dcls, dpos and dregisters are added to; 0: written. */
    uint32_t add;
    /** 0. */
    uint32_t padding;
};

/** The head's input from the tokens, or the tokens' gradient from it. */
struct PeftkPoolParams {
    /** x `[batch tokens, width]` T, read; backward: dx, written. */
    uint64_t x;
    /** CLS, or CLS | mean of the patches, `[batch, width or 2 width]` f32, written; backward: its gradient, read. */
    uint64_t pooled;
    /** Images. */
    uint32_t batch;
    /** Register tokens an image. */
    uint32_t register_count;
    /** Patch tokens an image. */
    uint32_t patch_count;
    /** Width. */
    uint32_t width;
    /** 1: with the mean of the patches. */
    uint32_t with_mean;
    /** 0. */
    uint32_t padding;
};

/** Positions for another grid: row 0 stays, the others are a matrix times the old ones; or the transpose of that. */
struct PeftkPositionsParams {
    /** pos `[1 + from, width]` f32, read; backward: dy `[1 + to, width]`. */
    uint64_t source;
    /** `[to, from]` f32, read. */
    uint64_t matrix;
    /** `[1 + to, width]` f32, written; backward: dpos `[1 + from, width]`. */
    uint64_t target;
    /** Old patch positions. */
    uint32_t from;
    /** New patch positions. */
    uint32_t to;
    /** Width. */
    uint32_t width;
    /** 0. */
    uint32_t padding;
};

#endif
