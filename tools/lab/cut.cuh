// How the labs cut a sum's rows: one granule.
#pragma once

#include "params.h"

static inline PeftkCut one_granule(unsigned rows, unsigned piece, bool add = false) {
    const unsigned pieces = (rows + piece - 1) / piece;
    return {rows, rows, piece, pieces, pieces, add};
}

// The sum of a product's pieces as C [m, n].
static inline PeftkGemmReduceParams sum_of(const PeftkGemmParams& p, unsigned long long parts, unsigned long long c) {
    return {parts, c, 0, 1.0f, p.m, p.n, p.m, p.n, 0, p.cut};
}
