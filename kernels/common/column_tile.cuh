// Sums over rows, column by column: the first of two stages. A block takes a piece of rows (cut.cuh) and kTileColumns columns; its sums go
// to row `piece` of a [pieces, cols] array that column_sum.cu's reduce_partials adds up. The cut depends on the sizes alone, so every
// GPU gives the same bits.
#pragma once

#include "cut.cuh"
#include "elements.cuh"

namespace column_tile {

constexpr unsigned kColumns = 8;       // columns a thread
constexpr unsigned kColumnLanes = 16;  // threads side by side: 256 bytes of a bf16 row
constexpr unsigned kRowSlots = 16;
constexpr unsigned kThreads = kColumnLanes * kRowSlots;
constexpr unsigned kTileColumns = kColumnLanes * kColumns;

// Where a thread of the block stands. Grid: pieces * tiles blocks along x, the tiles of a piece side by side.
struct Tile {
    unsigned piece, slot, column, count, first_row, end_row;

    __device__ Tile(const PeftkCut& rows, unsigned cols) {
        const unsigned tiles = (cols + kTileColumns - 1) / kTileColumns;
        piece = blockIdx.x / tiles;
        slot = threadIdx.x / kColumnLanes;
        column = blockIdx.x % tiles * kTileColumns + threadIdx.x % kColumnLanes * kColumns;
        count = column < cols ? min(kColumns, cols - column) : 0;
        first_row = cut::first_row(rows, piece) + slot;
        end_row = cut::end_row(rows, piece);
    }
};

// Adds the slots' sums in order and writes the tile's part of the piece's row. Every thread of the block calls it.
__device__ __forceinline__ void write_sums(const float (&sums)[kColumns], unsigned cols, float* partial) {
    __shared__ __align__(16) float slots[kRowSlots][kTileColumns];
    store(&slots[threadIdx.x / kColumnLanes][threadIdx.x % kColumnLanes * kColumns], sums);
    __syncthreads();
    const unsigned tiles = (cols + kTileColumns - 1) / kTileColumns;
    const unsigned column = blockIdx.x % tiles * kTileColumns + threadIdx.x;
    if (threadIdx.x >= kTileColumns || column >= cols) return;
    float sum = slots[0][threadIdx.x];
#pragma unroll
    for (unsigned slot = 1; slot < kRowSlots; ++slot) sum += slots[slot][threadIdx.x];
    partial[static_cast<size_t>(blockIdx.x / tiles) * cols + column] = sum;
}

}  // namespace column_tile
