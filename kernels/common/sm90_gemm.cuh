// The Hopper matrix product: persistent blocks, the copy engine ahead of two warpgroups that take turns (ping-pong).
//
// Block    3 warpgroups. The last one's first thread loads; the other two each own every second tile of the block, 128 rows by
//          kColumns, in registers. While one writes its tile the other multiplies, so the tensor cores see no epilogue.
// Stages   a ring of kStages slots, each 64 of K: A's tile, B's tile, for adapters A's rows right behind B's, so that one wgmma of
//          kColumns + kRank columns makes y's columns and t's. Slots are filled and drained in the order of tiles; which
//          warpgroup drains one follows from its tile. full[s]: the bytes landed. empty[s]: the readers' warps are done.
// Resident shapes: the ring brings A's tile alone. A block keeps to one tile of columns (the grid is a multiple of their number), whose B, all
//          of its depth, is loaded once, each 64 of depth with a barrier of its own.
// Cluster  kCluster blocks take row tiles below each other and the same columns: each loads 1/kCluster of B's tile for all. In the lab
//          alone: every entry has 1.
// Steps    a tile's slots: in an adapter's columns with t given those of t and B (first, so that the sums can be scaled), then
//          ceil(k / 64) of the product and ceil(k2 / 64) of the second one. An in-loop adapter's B has buffers of its own: it is held
//          until t is rounded, and would hold up the ring. Reading beyond K gives zeros, which are multiplied like the rest: a branch
//          between wgmma would serialise them.
// Tiles    columns fastest, so the blocks at work share A's rows in L2; parts of a split product slowest.
#pragma once

#include "common/pdl.cuh"
#include "common/sm90.cuh"
#include "common/sm90_epilogue.cuh"
#include "common/sm90_tiles.cuh"
#include "common/sm90_wgmma.cuh"

namespace sm90 {

// A's tile, `depth` .. + 64 of it.
template <class S>
__device__ __forceinline__ void load_a(const PeftkTensorMap* a, uint32_t to, uint32_t full, const Tile& tile, unsigned depth) {
    if constexpr (S::kTransA) {
#pragma unroll
        for (int i = 0; i < 2; ++i) load_box(to + i * 8192, a, tile.row + i * 64, depth, full);
    } else {
        load_box(to, a, depth, tile.row, full);
    }
}

// B's.
template <class S>
__device__ __forceinline__ void load_b(const PeftkTensorMap* b, uint32_t to_b, uint32_t full, const Tile& tile, unsigned depth,
                                       unsigned rank) {
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
    const uint32_t resident = stages + S::kResidentAt;
    const uint32_t lora = stages + S::kLoraAt;
    const uint32_t lora_full = empty + 8 * S::kStages;
    const uint32_t lora_empty = lora_full + 8 * S::kLoraBuffers;
    const uint32_t pieces_full = lora_empty + 8 * S::kLoraBuffers;
    const uint32_t resident_full = pieces_full + 64 * S::kSlots;
    float* vectors = reinterpret_cast<float*>(raw + (stages - shared_address(raw)) + S::kVectorsAt);
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
        for (unsigned i = 0; i < 8 * S::kSlots; ++i) barrier_init(pieces_full + 8 * i, 1);
        for (unsigned i = 0; S::kResident && i < S::kResidentBlocks; ++i) barrier_init(resident_full + 8 * i, 1);
        barrier_init_fence();
    }
    pdl::start();
    const Schedule<S> schedule(p);
    if constexpr (S::kResident) load_vectors<S, kEpilogue>(p, blockIdx.x % schedule.column_tiles * S::kColumns, vectors);
    if constexpr (kClustered) {
        cluster_sync();
    } else {
        __syncthreads();
    }

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
                        load_a<S>(maps, to, ready, part, i * kTileDepth);
                        load_b<S>(maps + 1, to + S::kBytesA, ready, part, i * kTileDepth, rank);
                    } else {
                        const unsigned block = i - tile.blocks_t;
                        const bool second = block >= tile.blocks;
                        const unsigned depth = second ? (block - tile.blocks) * kTileDepth : tile.depth_begin + block * kTileDepth;
                        const bool adapted = S::kRank > 0 && tile.adapter >= 0;
                        const unsigned bytes_b = S::kBytesB + (adapted ? S::kBytesLora : 0);
                        const PeftkTensorMap* maps = params.maps + (second ? 2 : 0);
                        uint32_t to_b = to + S::kBytesA, ready_b = ready;
                        if constexpr (S::kResident) {
                            to_b = resident + block * S::kBlockBytes;
                            ready_b = resident_full + 8 * block;
                            if (index == first) barrier_expect(ready_b, bytes_b);
                            barrier_expect(ready, S::kBytesA);
                        } else {
                            barrier_expect(ready, S::kBytesA + bytes_b);
                        }
                        if (!S::kResident || index == first) {
                            load_b<S>(maps + 1, to_b, ready_b, tile, depth, rank);
                            if (adapted) load_box(to_b + S::kBytesB, &params.maps[2 + 2 * tile.adapter], depth, 0, ready_b);
                        }
                        load_a<S>(maps, to, ready, tile, depth);
                    }
                    ring.advance(1);
                }
                if (S::kRank > 0 && tile.adapter >= 0 && (!S::kResident || index == first)) {
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
        const uint64_t desc_b = descriptor(S::kResident ? resident : stages + S::kBytesA, kLeadingB, 1024);
        const unsigned lane = threadIdx.x % 32;
        const unsigned warp = threadIdx.x / 32;
        Outlet<S::kSlots> outlet = {stages + S::kSlotsAt + warp * S::kSlots * kPieceBytes, pieces_full + warp * 8 * S::kSlots, 0};
        if (kReads<kEpilogue> && lane == 0 && first + group * stride < schedule.total) {
            unsigned row, column;
            schedule.place(first + group * stride, rank, row, column);
            for (unsigned i = 0; i < S::kSlots - 1; ++i) {
                fetch_piece<kEpilogue, S::kColumns>(outlet, &params.maps[9], i, row, column, i);
            }
        }
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
            if (S::kRank > 0 && !S::kResident && other.adapter >= 0) lora_ring.advance(1);
        };
        if (group == 1 && first < schedule.total) {
            named_arrive(1, 256);
            pass_over(first);
        }
        for (unsigned index = first + group * stride; index < schedule.total; index += 2 * stride) {
            const Tile tile = schedule.tile(p, index, rank);
            constexpr bool kGains = S::kRank > 0 || S::kGiven;
            // Zeroed, not left to wgmma's first step: so no register is held through the epilogue for its old value.
            float acc[2][(S::kColumns + S::kRank) / 2] = {};
            unsigned previous = 0;
            const auto loop = [&](auto width, unsigned blocks) {
                for (unsigned i = 0; i < blocks; ++i) {
                    barrier_wait(full + 8 * ring.slot, ring.phase);
                    if (S::kResident && index == first + group * stride) barrier_wait(resident_full + 8 * i, 0);
                    const uint64_t offset = (ring.slot * S::kStageBytes) >> 4;
                    const uint64_t offset_b = S::kResident ? (i * S::kBlockBytes) >> 4 : offset;
                    multiply<S, decltype(width)::kValue>(acc, desc_a + offset, desc_b + offset_b);
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
                    for (int half = 0; half < 2; ++half) {
#pragma unroll
                        for (int i = 0; i < S::kColumns / 2; ++i) acc[half][i] *= scale;
                    }
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
                    if constexpr (!S::kResident) {
                        if (lane == 0) barrier_arrive(lora_empty + 8 * lora_ring.slot);
                        lora_ring.advance(1);
                    }
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
            if constexpr (kGains && !S::kResident) {
#pragma unroll 1
                for (int i = 0; i < 3; ++i) {
                    const PeftkGemmAdapter& a = p.adapters[i];
                    if (a.gain != 0 && tile.column - a.first_row < a.rows) {
                        place.gain = reinterpret_cast<const float*>(a.gain) + (tile.column - a.first_row);
                    }
                }
            }
            epilogue<S::kColumns, kEpilogue, kGains, S::kResident>(params, place, acc, vectors, outlet, [&](unsigned& row, unsigned& column) {
                if (index + 2 * stride >= schedule.total) return false;
                schedule.place(index + 2 * stride, rank, row, column);
                return true;
            });
            if (index + stride < schedule.total) pass_over(index + stride);
        }
        if (lane == 0) stores_wait();
    }
    // No block of a cluster may leave while another still writes into its shared memory or arrives at its barriers.
    if constexpr (kClustered) cluster_sync();
}

}  // namespace sm90
