// The Hopper matrix product: persistent blocks, the copy engine ahead of two warpgroups that take turns (ping-pong).
//
// Block    3 warpgroups. The last one's first thread loads; the other two each own every second tile of the block, 128 rows by
//          kColumns, in registers. While one writes its tile the other multiplies, so the tensor cores see no epilogue.
// Stages   a ring of kStages slots, each 64 of K: A's tile, B's tile, for adapters A's rows right behind B's, so that one wgmma of
//          kColumns + kRank columns makes y's columns and t's. Slots are filled and drained in the order of tiles; which
//          warpgroup drains one follows from its tile. full[s]: the bytes landed. empty[s]: the readers' warps are done.
// Cluster  kCluster blocks take row tiles below each other and the same columns: each loads 1/kCluster of B's tile for all.
// Steps    a tile's slots: in an adapter's columns with t given those of t and B (first, so that the sums can be scaled), then
//          ceil(k / 64) of the product and ceil(k2 / 64) of the second one. An in-loop adapter's B has buffers of its own: it is held
//          until t is rounded, and would hold up the ring. Reading beyond K gives zeros, which are multiplied like the rest: a branch between wgmma would serialise them.
// Tiles    columns fastest, so the blocks at work share A's rows in L2; parts of a split product slowest.
#pragma once

#include "common/cut.cuh"
#include "common/sm90.cuh"
#include "common/sm90_epilogue.cuh"
#include "common/sm90_wgmma.cuh"

namespace sm90 {

enum class Layout { kNT, kNN, kTN };

constexpr unsigned kTileRows = 128;
constexpr unsigned kTileDepth = 64;
constexpr unsigned kThreads = 384;

template <Layout layout_, int columns_, int stages_, int cluster_, int rank_>
struct Shape {
    static constexpr Layout kLayout = layout_;
    static constexpr int kColumns = columns_;
    static constexpr int kStages = stages_;
    static constexpr int kCluster = cluster_;
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
    static constexpr unsigned kStageBytes = kBytesA + kBytesB + kBytesLora;
    static constexpr unsigned kCorner = corner_bytes(kColumns);
    // An in-loop adapter's B: rows of kRank values, in a swizzle of just that width. Two where they fit.
    static constexpr unsigned kBytesLoraB = kColumns * kRank * 2;
    static constexpr int kLoraBuffers = kRank == 16 ? 2 : 1;
    // Stages first, from a multiple of 1024 on; then adapters' B, the warps' corners and the barriers.
    static constexpr unsigned kCornersAt = kStages * kStageBytes + kLoraBuffers * kBytesLoraB;
    static constexpr unsigned kBarriersAt = kCornersAt + 8 * kCorner;
    static constexpr unsigned kSharedBytes = 1024 + kBarriersAt + 16 * kStages + 16 * kLoraBuffers;
    static_assert(rank_ == 0 || kLayout == Layout::kNT);
    static_assert(kColumns % 64 == 0 && kStageBytes % 1024 == 0 && kSharedBytes <= 227 * 1024);
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

// Fills one slot with `depth` .. + 64 of the operands of maps[first], maps[first + 1].
template <class S>
__device__ __forceinline__ void load_product(const PeftkTensorMap* a, const PeftkTensorMap* b, uint32_t to, uint32_t full,
                                             const Tile& tile, unsigned depth, unsigned rank) {
    if constexpr (S::kTransA) {
#pragma unroll
        for (int i = 0; i < 2; ++i) load_box(to + i * 8192, a, tile.row + i * 64, depth, full);
    } else {
        load_box(to, a, depth, tile.row, full);
    }
    const uint32_t to_b = to + S::kBytesA;
    constexpr uint16_t kAll = (1u << S::kCluster) - 1;
    if constexpr (S::kTransB) {
        // 64 columns a box; a cluster's blocks each load some of K's rows.
        constexpr int kPart = kTileDepth / S::kCluster;
#pragma unroll
        for (int i = 0; i < S::kColumns / 64; ++i) {
            const uint32_t place = to_b + i * 8192 + rank * kPart * 128;
            const int x = tile.column + i * 64;
            const int y = depth + rank * kPart;
            if constexpr (S::kCluster > 1) {
                load_box_multicast(place, b, x, y, full, kAll);
            } else {
                load_box(place, b, x, y, full);
            }
        }
    } else {
        constexpr int kPart = S::kColumns / S::kCluster;
        if constexpr (S::kCluster > 1) {
            load_box_multicast(to_b + rank * kPart * 128, b, depth, tile.column + rank * kPart, full, kAll);
        } else {
            load_box(to_b, b, depth, tile.column, full);
        }
    }
}

// The products of one slot, kN columns.
template <class S, int kN, int kSize>
__device__ __forceinline__ void multiply(float (&acc)[2][kSize], uint64_t a, uint64_t b) {
    constexpr unsigned kStepA = (S::kTransA ? 16 * 128 : 32) >> 4;
    constexpr unsigned kStepB = (S::kTransB ? 16 * 128 : 32) >> 4;
    constexpr unsigned kHalfA = (64 * 128) >> 4;  // 64 rows of M either way
    wgmma_fence();
#pragma unroll
    for (unsigned step = 0; step < kTileDepth / 16; ++step) {
#pragma unroll
        for (unsigned half = 0; half < 2; ++half) {
            Wgmma<kN>::template shared<S::kTransA, S::kTransB>(acc[half], a + half * kHalfA + step * kStepA, b + step * kStepB);
        }
    }
    wgmma_commit();
}

// The same of the first `steps` times 16 of the slot's depth.
template <class S, int kN, int kSize>
__device__ __forceinline__ void multiply_some(float (&acc)[2][kSize], uint64_t a, uint64_t b, unsigned steps) {
    constexpr unsigned kStepA = (S::kTransA ? 16 * 128 : 32) >> 4;
    constexpr unsigned kStepB = (S::kTransB ? 16 * 128 : 32) >> 4;
    constexpr unsigned kHalfA = (64 * 128) >> 4;
#pragma unroll 1
    for (unsigned step = 0; step < steps; ++step) {
        wgmma_fence();
#pragma unroll
        for (unsigned half = 0; half < 2; ++half) {
            Wgmma<kN>::template shared<S::kTransA, S::kTransB>(acc[half], a + half * kHalfA + step * kStepA, b + step * kStepB);
        }
        wgmma_commit();
        wgmma_wait<0>();
    }
}

// t (after the y columns in acc) is rounded, written by the adapter's first tile, and s t B^T added to the y columns.
template <class S, int kSize>
__device__ __forceinline__ void add_adapter(const PeftkGemmParams& p, const Tile& tile, float (&acc)[2][kSize], uint64_t b) {
    constexpr int kFirst = S::kColumns / 2;
    const PeftkGemmAdapter& adapter = p.adapters[tile.adapter];
    const unsigned lane = threadIdx.x % 32;
    const unsigned row = tile.row + threadIdx.x / 32 % 4 * 16 + lane / 4;
    const bool writes = adapter.t != 0 && tile.column == adapter.first_row;
    uint32_t scaled[2][S::kRank / 16][4];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
        for (int i = 0; i < S::kRank / 4; ++i) {  // pairs of columns: 8 (i / 2) + 2 (lane % 4), row + 8 (i % 2)
            const uint32_t t = pack(acc[half][kFirst + 2 * i], acc[half][kFirst + 2 * i + 1]);
            const unsigned at = row + half * 64 + i % 2 * 8;
            const unsigned column = i / 2 * 8 + lane % 4 * 2;
            if (writes && at < p.m && column < adapter.rank_padded) {
                reinterpret_cast<uint32_t*>(adapter.t)[(static_cast<size_t>(at) * adapter.rank_padded + column) / 2] = t;
            }
            const float2 rounded = unpack(t);
            scaled[half][i / 4][i % 4] = pack(adapter.scale * rounded.x, adapter.scale * rounded.y);
        }
    }
    wgmma_fence();
#pragma unroll
    for (int step = 0; step < S::kRank / 16; ++step) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            Wgmma<S::kColumns>::template registers<0>(acc[half], scaled[half][step], b + step * 2);
        }
    }
    wgmma_commit();
}

template <class S, Epilogue kEpilogue>
__device__ __forceinline__ void gemm(const PeftkSm90GemmParams& params) {
    extern __shared__ char raw[];
    const PeftkGemmParams& p = params.gemm;
    const uint32_t stages = (shared_address(raw) + 1023) & ~1023u;
    const uint32_t full = stages + S::kBarriersAt;
    const uint32_t empty = full + 8 * S::kStages;
    const uint32_t lora = stages + S::kStages * S::kStageBytes;
    const uint32_t lora_full = empty + 8 * S::kStages;
    const uint32_t lora_empty = lora_full + 8 * S::kLoraBuffers;
    const unsigned rank = S::kCluster > 1 ? cluster_rank() : 0;
    constexpr bool kClustered = S::kCluster > 1;

    if (threadIdx.x == 0) {
        for (int i = 0; i < S::kStages; ++i) {
            barrier_init(full + 8 * i, 1);
            barrier_init(empty + 8 * i, 4 * S::kCluster);
        }
        for (int i = 0; i < S::kLoraBuffers; ++i) {
            barrier_init(lora_full + 8 * i, 1);
            barrier_init(lora_empty + 8 * i, 4);
        }
        barrier_init_fence();
    }
    if constexpr (kClustered) {
        cluster_sync();
    } else {
        __syncthreads();
    }

    const Schedule<S> schedule(p);
    const unsigned first = blockIdx.x / S::kCluster;
    const unsigned stride = gridDim.x / S::kCluster;
    Ring<S::kStages> ring;
    Ring<S::kLoraBuffers> lora_ring;
    const unsigned group = threadIdx.x / 128;

    if (group == 2) {
        registers_shrink<S::kLoaderRegisters>();
        if (threadIdx.x == 256) {
            for (unsigned index = first; index < schedule.total; index += stride) {
                const Tile tile = schedule.tile(p, index, rank);
                const unsigned slots = tile.slots();
                for (unsigned i = 0; i < slots; ++i) {
                    const uint32_t to = stages + ring.slot * S::kStageBytes;
                    const uint32_t ready = full + 8 * ring.slot;
                    barrier_wait(empty + 8 * ring.slot, ring.phase ^ 1);
                    if (S::kGiven && i < tile.blocks_t) {
                        barrier_expect(ready, S::kBytesA + S::kBytesB);
                        Tile part = tile;
                        part.column -= p.adapters[tile.adapter].first_row;
                        const PeftkTensorMap* maps = params.maps + 2 + 2 * tile.adapter;
                        load_product<S>(maps, maps + 1, to, ready, part, i * kTileDepth, rank);
                    } else {
                        const unsigned block = i - tile.blocks_t;
                        const bool second = block >= tile.blocks;
                        const unsigned depth = second ? (block - tile.blocks) * kTileDepth : tile.depth_begin + block * kTileDepth;
                        const bool adapted = S::kRank > 0 && tile.adapter >= 0;
                        barrier_expect(ready, S::kBytesA + S::kBytesB + (adapted ? S::kBytesLora : 0));
                        const PeftkTensorMap* maps = params.maps + (second ? 2 : 0);
                        load_product<S>(maps, maps + 1, to, ready, tile, depth, rank);
                        if (adapted) load_box(to + S::kBytesA + S::kBytesB, &params.maps[2 + 2 * tile.adapter], depth, 0, ready);
                    }
                    ring.advance(1);
                }
                if (S::kRank > 0 && tile.adapter >= 0) {
                    const uint32_t ready = lora_full + 8 * lora_ring.slot;
                    barrier_wait(lora_empty + 8 * lora_ring.slot, lora_ring.phase ^ 1);
                    barrier_expect(ready, S::kBytesLoraB);
                    const unsigned row = tile.column - p.adapters[tile.adapter].first_row;
                    load_box(lora + lora_ring.slot * S::kBytesLoraB, &params.maps[3 + 2 * tile.adapter], 0, row, ready);
                    lora_ring.advance(1);
                }
            }
        }
        __syncwarp();
    } else {
        registers_grow<S::kMultiplierRegisters>();
        constexpr unsigned kLeadingA = 8192, kLeadingB = S::kTransB ? 8192 : 16;
        const uint64_t desc_a = descriptor(stages, S::kTransA ? kLeadingA : 16, 1024);
        const uint64_t desc_b = descriptor(stages + S::kBytesA, kLeadingB, 1024);
        const unsigned lane = threadIdx.x % 32;
        const uint32_t corner = stages + S::kCornersAt + threadIdx.x / 32 * S::kCorner;
        const auto release = [&](unsigned slot) {
            if constexpr (kClustered) {
                if (lane < S::kCluster) barrier_arrive_cluster(empty + 8 * slot, lane);
            } else {
                if (lane == 0) barrier_arrive(empty + 8 * slot);
            }
        };

        // Every second tile is the other warpgroup's: its slots are passed over. A parity tells a slot's turn from the next one
        // only, not from the one after that, so a warpgroup waits for slots only when the other has seen its own (pass_on).
        const auto pass_over = [&](unsigned index) {
            const Tile other = schedule.tile(p, index, rank);
            ring.advance(other.slots());
            if (S::kRank > 0 && other.adapter >= 0) lora_ring.advance(1);
        };
        if (group == 1 && first < schedule.total) {
            named_arrive(1, 256);
            pass_over(first);
        }
        for (unsigned index = first + group * stride; index < schedule.total; index += 2 * stride) {
            const Tile tile = schedule.tile(p, index, rank);
            // Zeroed, not left to wgmma's first step: so no register is held through the epilogue for its old value.
            float acc[2][(S::kColumns + S::kRank) / 2] = {};
            unsigned previous = 0;
            const auto loop = [&](auto width, unsigned blocks) {
                for (unsigned i = 0; i < blocks; ++i) {
                    barrier_wait(full + 8 * ring.slot, ring.phase);
                    const uint64_t offset = (ring.slot * S::kStageBytes) >> 4;
                    multiply<S, decltype(width)::kValue>(acc, desc_a + offset, desc_b + offset);
                    if (i > 0) {
                        wgmma_wait<1>();
                        release(previous);
                    }
                    previous = ring.slot;
                    ring.advance(1);
                }
            };
            // The other warpgroup may look at its slots once this one has seen all of its own filled.
            const auto pass_on = [&] {
                if (index + stride < schedule.total) named_arrive(2 - group, 256);
            };
            named_sync(1 + group, 256);
            if constexpr (S::kGiven) {
                if (tile.blocks_t > 0) {
                    loop(Constant<S::kColumns>{}, tile.blocks_t);
                    wgmma_wait<0>();
                    release(previous);
                    const float scale = p.adapters[tile.adapter].scale;
#pragma unroll
                    for (int i = 0; i < S::kColumns / 2; ++i) acc[0][i] *= scale, acc[1][i] *= scale;
                }
            }
            bool adapted = false;
            if constexpr (S::kRank > 0) {
                if (tile.adapter >= 0) {
                    adapted = true;
                    loop(Constant<S::kColumns + S::kRank>{}, tile.blocks + tile.blocks2);
                    barrier_wait(lora_full + 8 * lora_ring.slot, lora_ring.phase);
                    pass_on();
                    wgmma_wait<0>();
                    release(previous);
                    constexpr unsigned kRow = S::kRank * 2;
                    add_adapter<S>(p, tile, acc, descriptor(lora + lora_ring.slot * S::kBytesLoraB, 16, 8 * kRow, kRow));
                    wgmma_wait<0>();
                    if (lane == 0) barrier_arrive(lora_empty + 8 * lora_ring.slot);
                    lora_ring.advance(1);
                }
            }
            if (!adapted) {
                const bool part = S::kLayout == Layout::kTN && tile.tail > 0;
                const unsigned whole = tile.blocks + tile.blocks2 - (part ? 1 : 0);
                loop(Constant<S::kColumns>{}, whole);
                if (part) {
                    // All but the last slot is done first: a loop of unknown length has no place among products under way.
                    wgmma_wait<0>();
                    if (whole > 0) release(previous);
                    barrier_wait(full + 8 * ring.slot, ring.phase);
                    const uint64_t offset = (ring.slot * S::kStageBytes) >> 4;
                    multiply_some<S, S::kColumns>(acc, desc_a + offset, desc_b + offset, tile.tail);
                    previous = ring.slot;
                    ring.advance(1);
                }
                pass_on();
                wgmma_wait<0>();
                release(previous);
            }
            Place place = {tile.row, tile.column, p.n, nullptr, static_cast<size_t>(tile.split) * p.m * p.n};
            constexpr bool kGains = S::kRank > 0 || S::kGiven;
            if constexpr (kGains) {
#pragma unroll 1
                for (int i = 0; i < 3; ++i) {
                    const PeftkGemmAdapter& a = p.adapters[i];
                    if (a.gain != 0 && tile.column - a.first_row < a.rows) {
                        place.gain = reinterpret_cast<const float*>(a.gain) + (tile.column - a.first_row);
                    }
                }
            }
            epilogue<S::kColumns, kEpilogue, kGains>(p, place, acc, corner);
            if (index + stride < schedule.total) pass_over(index + stride);
        }
    }
    // No block of a cluster may leave while another still writes into its shared memory or arrives at its barriers.
    if constexpr (kClustered) cluster_sync();
}

}  // namespace sm90
