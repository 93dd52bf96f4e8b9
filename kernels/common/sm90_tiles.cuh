// A Hopper product's tiles: the shape of an entry and how its shared memory lies, which tile a block takes when, places in the ring.
#pragma once

#include "common/cut.cuh"
#include "common/sm90_epilogue.cuh"
#include "params/sm90_gemm.h"

namespace sm90 {

enum class Layout { kNT, kNN, kTN };

constexpr unsigned kTileRows = 128;
constexpr unsigned kTileDepth = 64;
constexpr unsigned kThreads = 384;
constexpr unsigned kResidentDepth = 384;

// resident_: the block keeps to one tile of columns and holds its part of B, for a depth up to kResidentDepth, in shared memory, so that only
// A streams: the ring brings 16 KiB a step instead of 40, and what the columns need (bias, gain, gamma) lies in shared memory too.
template <Layout layout_, int columns_, int stages_, int cluster_, int rank_, bool resident_ = false, unsigned slots_ = 4>
struct Shape {
    static constexpr Layout kLayout = layout_;
    static constexpr int kColumns = columns_;
    static constexpr int kStages = stages_;
    static constexpr int kCluster = cluster_;
    static constexpr bool kResident = resident_;
    static constexpr unsigned kSlots = slots_;  // pieces of C (sm90_epilogue.cuh) that a warp has room for
    static constexpr int kRank = rank_ > 0 ? rank_ : 0;  // rows of an adapter's tile of A; 0: no adapters in the loop
    static constexpr bool kGiven = rank_ < 0;            // adapters whose t is read
    // Of the block's 3 x 168: the loader's work with adapters needs more than 24.
    static constexpr int kLoaderRegisters = rank_ == 0 ? 24 : 40;
    static constexpr int kMultiplierRegisters = rank_ == 0 ? 240 : 232;
    static constexpr int kTransA = layout_ == Layout::kTN;
    static constexpr int kTransB = layout_ != Layout::kNT;
    static constexpr unsigned kBytesA = kTileRows * kTileDepth * 2;
    static constexpr unsigned kBytesB = kColumns * kTileDepth * 2;
    static constexpr unsigned kBytesLora = kRank * kTileDepth * 2;
    // B's tile and behind it that of an adapter's A, for 64 of the depth: in the ring behind A's tile, or resident.
    static constexpr unsigned kBlockBytes = kBytesB + kBytesLora;
    static constexpr unsigned kStageBytes = kBytesA + (kResident ? 0 : kBlockBytes);
    static constexpr unsigned kResidentBlocks = kResident ? kResidentDepth / kTileDepth : 0;
    // An in-loop adapter's B: rows of kRank values, in a swizzle of just that width. Two where they fit.
    static constexpr unsigned kBytesLoraB = kColumns * kRank * 2;
    static constexpr int kLoraBuffers = kRank == 16 && !kResident ? 2 : 1;
    // Stages first, from a multiple of 1024 on; then what is resident, adapters' B, the warps' slots, the barriers (of stages, adapters' B, slots,
    // resident blocks), the columns' vectors.
    static constexpr unsigned kResidentAt = kStages * kStageBytes;
    static constexpr unsigned kLoraAt = kResidentAt + kResidentBlocks * kBlockBytes;
    static constexpr unsigned kSlotsAt = kLoraAt + kLoraBuffers * kBytesLoraB;
    static constexpr unsigned kBarriersAt = kSlotsAt + 8 * kSlots * kPieceBytes;
    static constexpr unsigned kVectorsAt = kBarriersAt + 16 * kStages + 16 * kLoraBuffers + 64 * kSlots + 8 * kResidentBlocks;
    static constexpr unsigned kVectors = kResident ? (kRank > 0 ? 3 : 2) : 0;
    static constexpr unsigned kSharedBytes = 1024 + kVectorsAt + kVectors * kColumns * 4;
    static_assert(rank_ == 0 || kLayout == Layout::kNT);
    static_assert(!kResident || (kLayout != Layout::kTN && kCluster == 1 && !kGiven));
    static_assert(kColumns % 64 == 0 && kStageBytes % 1024 == 0 && kSlotsAt % 1024 == 0 && kVectorsAt % 16 == 0);
    static_assert(kSharedBytes <= 227 * 1024);
};

// A number as a type.
template <int value>
struct Constant {
    static constexpr int kValue = value;
};

struct Tile {
    unsigned row, column;
    unsigned depth_begin;    // first of K
    unsigned blocks_t, blocks, blocks2;  // slots of t B^T, of the product and of the second one
    unsigned split;
    unsigned tail;           // tn: steps of 16 in the last slot, where it is not whole: what follows is the next piece's
    int adapter;             // adapter of these columns, or -1
    __device__ __forceinline__ unsigned slots() const { return blocks_t + blocks + blocks2; }
};

template <class S>
struct Schedule {
    unsigned row_groups, column_tiles, total;

    __device__ __forceinline__ explicit Schedule(const PeftkGemmParams& p) {
        row_groups = (p.m + kTileRows * S::kCluster - 1) / (kTileRows * S::kCluster);
        column_tiles = (p.n + S::kColumns - 1) / S::kColumns;
        total = row_groups * column_tiles * (S::kLayout == Layout::kTN ? p.cut.pieces : 1);
    }

    // First row and column of tile `index`.
    __device__ __forceinline__ void place(unsigned index, unsigned rank, unsigned& row, unsigned& column) const {
        column = index % column_tiles * S::kColumns;
        row = (index / column_tiles % row_groups * S::kCluster + rank) * kTileRows;
    }

    __device__ __forceinline__ Tile tile(const PeftkGemmParams& p, unsigned index, unsigned rank) const {
        Tile t;
        t.column = index % column_tiles * S::kColumns;
        const unsigned above = index / column_tiles;
        t.row = (above % row_groups * S::kCluster + rank) * kTileRows;
        t.split = S::kLayout == Layout::kTN ? above / row_groups : 0;
        t.depth_begin = S::kLayout == Layout::kTN ? cut::first_row(p.cut, t.split) : 0;
        const unsigned depth = S::kLayout == Layout::kTN ? cut::end_row(p.cut, t.split) - t.depth_begin : p.k;
        t.blocks = (depth + kTileDepth - 1) / kTileDepth;
        t.tail = S::kLayout == Layout::kTN ? (depth % kTileDepth + 15) / 16 % (kTileDepth / 16) : 0;
        t.blocks2 = 0;
        t.adapter = -1;
        t.blocks_t = 0;
        if constexpr (S::kRank > 0 || S::kGiven) {
#pragma unroll
            for (int i = 0; i < 3; ++i) {
                const PeftkGemmAdapter& a = p.adapters[i];
                if (a.rank_padded == 0 || t.column - a.first_row >= a.rows) continue;
                t.adapter = i;
                if constexpr (S::kGiven) t.blocks_t = (a.rank_padded + kTileDepth - 1) / kTileDepth;
            }
        } else if (S::kLayout != Layout::kTN && p.a2 != 0) {
            t.blocks2 = (p.k2 + kTileDepth - 1) / kTileDepth;
        }
        return t;
    }
};

// What the block's columns need, as the epilogue reads it: bias, gamma where it scales, gain where there may be one. All threads.
template <class S, Epilogue kEpilogue>
__device__ __forceinline__ void load_vectors(const PeftkGemmParams& p, unsigned first, float* vectors) {
    const auto copy = [&](unsigned which, uint64_t from, unsigned columns, float otherwise) {
        for (unsigned i = threadIdx.x; i < S::kColumns; i += kThreads) {
            vectors[which * S::kColumns + i] = from != 0 && i < columns ? reinterpret_cast<const float*>(from)[i] : otherwise;
        }
    };
    const auto at = [&](uint64_t vector, unsigned column) { return vector == 0 ? 0 : vector + column * 4ull; };
    copy(kBiasVector, at(p.bias, first), p.n - first, 0.0f);
    if constexpr (kScales<kEpilogue>) copy(kGammaVector, at(p.gamma, first), p.n - first, 0.0f);
    if constexpr (S::kRank > 0) {
        uint64_t gain = 0;
#pragma unroll 1
        for (int i = 0; i < 3; ++i) {
            const PeftkGemmAdapter& a = p.adapters[i];
            if (first - a.first_row < a.rows) gain = at(a.gain, first - a.first_row);
        }
        copy(kGainVector<kEpilogue>, gain, p.n - first, 1.0f);
    }
}

// A position in the ring.
template <int kStages>
struct Ring {
    unsigned slot = 0, phase = 0;
    __device__ __forceinline__ void advance(unsigned by) {
        slot += by;
        const unsigned turns = slot / kStages;
        slot -= turns * kStages;
        phase ^= turns & 1;
    }
};

}  // namespace sm90
