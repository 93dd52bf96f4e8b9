// Hopper's building blocks as PTX: transaction barriers, the copy engine (TMA), clusters and wgmma's descriptors and fences.
//
// Shared memory is named by its 32-bit address (shared_address). PEFTK_DEBUG_SPIN bounds every wait by about two seconds and
// traps after it: a lost arrival then is a launch error, not a hang.
#pragma once

#include <cstdint>

#include "params/sm90_gemm.h"

namespace sm90 {

__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// --- mbarrier: a phase ends when all arrivals came and all announced bytes landed.

__device__ __forceinline__ void barrier_init(uint32_t barrier, uint32_t arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

// Makes initialised barriers visible to the copy engine and to the cluster; a (cluster) barrier must follow.
__device__ __forceinline__ void barrier_init_fence() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

__device__ __forceinline__ void barrier_arrive(uint32_t barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

// Arrives at the barrier at the same place in block `rank` of the cluster. Says only that the tensor cores are done with a slot, so
// no release at cluster scope: that would wait for the thread's stores to global memory.
__device__ __forceinline__ void barrier_arrive_cluster(uint32_t barrier, uint32_t rank) {
    asm volatile(
        "{\n .reg .b32 remote;\n mapa.shared::cluster.u32 remote, %0, %1;\n"
        " mbarrier.arrive.shared::cluster.b64 _, [remote];\n}" ::"r"(barrier),
        "r"(rank)
        : "memory");
}

__device__ __forceinline__ void barrier_expect(uint32_t barrier, uint32_t bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

__device__ __forceinline__ bool barrier_try(uint32_t barrier, uint32_t parity) {
    uint32_t done;
    asm volatile(
        "{\n .reg .pred done;\n mbarrier.try_wait.parity.shared::cta.b64 done, [%1], %2;\n selp.u32 %0, 1, 0, done;\n}"
        : "=r"(done)
        : "r"(barrier), "r"(parity)
        : "memory");
    return done != 0;
}

__device__ __forceinline__ void barrier_wait(uint32_t barrier, uint32_t parity) {
#ifdef PEFTK_DEBUG_SPIN
    const long long start = clock64();
    while (!barrier_try(barrier, parity)) {
        if (clock64() - start > 4000000000LL) asm volatile("trap;");
    }
#else
    while (!barrier_try(barrier, parity)) {
    }
#endif
}

// --- Named barriers: `threads` threads meet, some by arriving alone.

__device__ __forceinline__ void named_sync(uint32_t id, uint32_t threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

__device__ __forceinline__ void named_arrive(uint32_t id, uint32_t threads) {
    asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// --- The copy engine. Boxes that reach beyond the tensor are filled with zeros and count all their bytes.

__device__ __forceinline__ void load_box(uint32_t to, const PeftkTensorMap* map, int x, int y, uint32_t barrier) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(to),
        "l"(reinterpret_cast<uint64_t>(map)), "r"(x), "r"(y), "r"(barrier)
        : "memory");
}

// To the same place in every block of `mask`, counted by each one's barrier.
__device__ __forceinline__ void load_box_multicast(uint32_t to, const PeftkTensorMap* map, int x, int y, uint32_t barrier,
                                                   uint16_t mask) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster"
        " [%0], [%1, {%2, %3}], [%4], %5;" ::"r"(to),
        "l"(reinterpret_cast<uint64_t>(map)), "r"(x), "r"(y), "r"(barrier), "h"(mask)
        : "memory");
}

// From shared memory to the matrix, in this thread's bulk group; what lies beyond the matrix is not written. The values must have been
// shown to the copy engine (show_to_copies).
__device__ __forceinline__ void store_box(uint32_t from, const PeftkTensorMap* map, int x, int y) {
    asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%1, %2}], [%3];" ::"l"(reinterpret_cast<uint64_t>(map)),
                 "r"(x), "r"(y), "r"(from)
                 : "memory");
}

__device__ __forceinline__ void stores_commit() {
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}

// Until at most kPending of the committed groups still read shared memory.
template <int kPending>
__device__ __forceinline__ void stores_wait_read() {
    asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(kPending) : "memory");
}

// Until all that was committed is written.
__device__ __forceinline__ void stores_wait() {
    asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
}

// This thread's stores to shared memory before are seen by copies and wgmma that are issued after a barrier.
__device__ __forceinline__ void show_to_copies() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// --- Clusters.

__device__ __forceinline__ uint32_t cluster_rank() {
    uint32_t rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}

__device__ __forceinline__ void cluster_sync() {
    asm volatile("barrier.cluster.arrive.release.aligned;\n barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// --- Registers move from the loading warpgroup to the multiplying ones.

template <int kRegisters>
__device__ __forceinline__ void registers_shrink() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

template <int kRegisters>
__device__ __forceinline__ void registers_grow() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// --- wgmma.

// A matrix in shared memory in 128-byte swizzle: groups of 8 rows of 128 bytes, 1024 bytes a group, at a multiple of 1024.
// K-major (rows are M or N, 64 of K a row): the groups along M or N are `stride` apart, `leading` is unused.
// MN-major (rows are K, 64 of M or N a row): groups along K are `stride` apart, the next 64 of M or N are `leading` further.
// In 64- or 32-byte swizzle the rows are so long, and a group 512 or 256 bytes.
// Offsets inside a row (32 bytes for 16 of K) are added to the address: the swizzle works on address bits.
__device__ __forceinline__ uint64_t descriptor(uint32_t address, uint32_t leading, uint32_t stride, uint32_t swizzle = 128) {
    const uint64_t mode = swizzle == 128 ? 1 : swizzle == 64 ? 2 : 3;
    return mode << 62 | (static_cast<uint64_t>(stride >> 4) << 32) | (static_cast<uint64_t>(leading >> 4) << 16) |
           ((address & 0x3ffff) >> 4);
}

// Registers written before are seen by the wgmma that follow.
__device__ __forceinline__ void wgmma_fence() {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

__device__ __forceinline__ void wgmma_commit() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

// Until at most kPending of the committed groups are unfinished.
template <int kPending>
__device__ __forceinline__ void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

// Four 8x8 matrices of 16-bit values: lane l gives the address of row l % 8 of matrix l / 8.
__device__ __forceinline__ void store_matrices(uint32_t address, uint32_t r0, uint32_t r1, uint32_t r2, uint32_t r3) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(r0), "r"(r1), "r"(r2),
                 "r"(r3)
                 : "memory");
}

// The other way round.
__device__ __forceinline__ void load_matrices(uint32_t (&r)[4], uint32_t address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
}

__device__ __forceinline__ float2 load_shared(uint32_t address) {
    float2 v;
    asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(v.x), "=f"(v.y) : "r"(address) : "memory");
    return v;
}

__device__ __forceinline__ void store_shared(uint32_t address, float2 v) {
    asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(address), "f"(v.x), "f"(v.y) : "memory");
}

}  // namespace sm90
