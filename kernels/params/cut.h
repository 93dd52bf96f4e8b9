/* How a sum over rows is cut (kernels/common/cut.cuh). */
#ifndef PEFTK_PARAMS_CUT_H
#define PEFTK_PARAMS_CUT_H

#include <stdint.h>

/** Rows in granules, and those in pieces: a piece is summed by one block, a granule's pieces are added up on their own, and the granules are
 *  added one after the other to what was there. Where a granule begins and ends depends on the images alone, so the sum is the same whatever
 *  part of a batch is seen at once. */
struct PeftkCut {
    /** Rows in all. */
    uint32_t rows;
    /** Rows of a granule; the last may have fewer. */
    uint32_t granule;
    /** Rows of a piece; the last of a granule may have fewer. */
    uint32_t piece;
    /** Pieces of a whole granule. */
    uint32_t per_granule;
    /** Pieces in all. */
    uint32_t pieces;
    /** 1: the sum is added to what is there; 0: written over it. */
    uint32_t add;
};

#endif
