// How the columns of a product with adapters are cut into tiles.
//
// The segments [0, first_row), [first_row, first_row + rows), ... are each cut on their own, so a tile is never in more than one
// adapter, wherever those begin and end. The launcher counts tiles in the same way.
#pragma once

#include <cstdint>

#include "params/gemm.h"

constexpr int kMaxAdapters = 3;

struct ColumnTile {
    unsigned first;
    unsigned end;               // one past the last column
    bool adapted;
    bool first_of_adapter;      // this tile writes t
    PeftkGemmAdapter adapter;   // if adapted
};

template <unsigned kColumns>
__device__ __forceinline__ ColumnTile column_tile(const PeftkGemmParams& p, unsigned index) {
    ColumnTile tile = {};
    unsigned at = 0;
    bool found = false;
    // A segment of `columns` from `at` on: takes the tile if `index` lies in it.
    const auto segment = [&](unsigned columns) {
        const unsigned tiles = (columns + kColumns - 1) / kColumns;
        const bool here = !found && index < tiles;
        if (here) {
            tile.first = at + index * kColumns;
            tile.end = min(tile.first + kColumns, at + columns);
            found = true;
        }
        index -= found ? 0 : tiles;
        at += columns;
        return here;
    };
#pragma unroll
    for (int i = 0; i < kMaxAdapters; ++i) {
        if (p.adapters[i].rank_padded == 0) continue;
        segment(p.adapters[i].first_row - at);
        const bool first = index == 0;
        if (segment(p.adapters[i].rows)) {
            tile.adapted = true;
            tile.first_of_adapter = first;
            tile.adapter = p.adapters[i];
        }
    }
    segment(p.n - at);
    return tile;
}
