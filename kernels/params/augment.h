/* Launch parameters of the on-device crop, resize and flip (kernels/augment.cu). */
#ifndef PEFTK_PARAMS_AUGMENT_H
#define PEFTK_PARAMS_AUGMENT_H

#include <stdint.h>

/** What to make of one image: one entry of the table in device memory. Edges are in pixels and may lie between them. */
struct PeftkAugmentImage {
    /** First byte of the image in the packed pixels. */
    uint64_t offset;
    /** Left edge of the crop, 0 to width. */
    double left;
    /** Right edge of the crop, above left, to width. */
    double right;
    /** Top edge of the crop, 0 to height. */
    double top;
    /** Bottom edge of the crop, above top, to height. */
    double bottom;
    /** Source pixels across. */
    uint32_t width;
    /** Source pixels down. */
    uint32_t height;
    /** 1: mirror left to right after resizing; 0: do not. */
    uint32_t flip;
    /** Always 0. */
    uint32_t padding;
};

/** Both entries of kernels/augment.cu: a batch of crops of packed u8 RGB images to `[images, size, size, 3]` u8. */
struct PeftkAugmentParams {
    /** The packed source images, each `[height, width, 3]` u8, read. */
    uint64_t pixels;
    /** `[images]` of PeftkAugmentImage, read. */
    uint64_t table;
    /** 32-bit words, `[images]` of 1 for a good entry and then `[images, 2, axis_words]`: written by augment_weights_i16,
     * read by augment_u8. */
    uint64_t scratch;
    /** The squares, `[images, size, size, 3]` u8, written. */
    uint64_t out;
    /** Bytes of `pixels`: an image that would reach beyond becomes black. */
    uint64_t pixel_bytes;
    /** Images of the batch. */
    uint32_t images;
    /** Side of a square, pixels. */
    uint32_t size;
    /** Words for the weights of one axis of one image: an image that takes more becomes black. */
    uint32_t axis_words;
    /** Always 0. */
    uint32_t padding;
};

#endif
