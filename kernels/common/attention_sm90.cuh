// What attention for heads of 64 columns by Hopper's wgmma is made of; the passes are in attention_sm90_forward.cuh and _backward.cuh.
//
// As attention_forward.cuh and attention_backward.cuh, resident form, with a warpgroup's 64 rows in place of a warp's 16: each warp
// holds its 16 rows as operand and accumulators in just the same registers, while the other operand's descriptor names rows in
// shared memory that all four warps read at once. That takes ldmatrix, and three quarters of the traffic from shared memory, away.
// The two matrices of a pass lie one behind the other, each in wgmma's 128-byte swizzle (which is fetch_groups's).
//
// Rows come in units of 64, a warpgroup each; a last unit of at most 16 rows (an image's 257th token) would waste 48, so
// its rows are one group for mma.sync, of which the four warps take the other matrix's groups by turns (Tail).
#pragma once

#include "common/attention_tile.cuh"
#include "common/sm90.cuh"

namespace attention {

// acc [64, 8 kTiles] (= or +=) a [64, 16] b [16, 8 kTiles]; kRowsOfK: b's rows in memory are k, otherwise they are its columns.
template <int kTiles, bool kRowsOfK, bool kAdd>
__device__ __forceinline__ void wgmma(float (&d)[kTiles][4], const uint32_t (&a)[4], uint64_t b) {
#define ATTENTION_D(how, i) how(d[i][0]), how(d[i][1]), how(d[i][2]), how(d[i][3])
    if constexpr (kTiles == 8 && kAdd) {
        asm volatile(
            "{\n .reg .pred p;\n setp.ne.u32 p, 1, 0;\n wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
            "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
            "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
            "}, {%32, %33, %34, %35}, %36, p, 1, 1, %37;\n}"
            : ATTENTION_D("+f", 0), ATTENTION_D("+f", 1), ATTENTION_D("+f", 2), ATTENTION_D("+f", 3),
              ATTENTION_D("+f", 4), ATTENTION_D("+f", 5), ATTENTION_D("+f", 6), ATTENTION_D("+f", 7)
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(kRowsOfK ? 1 : 0));
    } else if constexpr (kTiles == 8 && !kAdd) {
        asm volatile(
            "{\n .reg .pred p;\n setp.ne.u32 p, 0, 0;\n wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
            "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
            "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
            "}, {%32, %33, %34, %35}, %36, p, 1, 1, %37;\n}"
            : ATTENTION_D("=f", 0), ATTENTION_D("=f", 1), ATTENTION_D("=f", 2), ATTENTION_D("=f", 3),
              ATTENTION_D("=f", 4), ATTENTION_D("=f", 5), ATTENTION_D("=f", 6), ATTENTION_D("=f", 7)
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(kRowsOfK ? 1 : 0));
    } else if constexpr (kTiles == 4 && kAdd) {
        asm volatile(
            "{\n .reg .pred p;\n setp.ne.u32 p, 1, 0;\n wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 {"
            "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
            "}, {%16, %17, %18, %19}, %20, p, 1, 1, %21;\n}"
            : ATTENTION_D("+f", 0), ATTENTION_D("+f", 1), ATTENTION_D("+f", 2), ATTENTION_D("+f", 3)
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(kRowsOfK ? 1 : 0));
    } else if constexpr (kTiles == 4 && !kAdd) {
        asm volatile(
            "{\n .reg .pred p;\n setp.ne.u32 p, 0, 0;\n wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 {"
            "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
            "}, {%16, %17, %18, %19}, %20, p, 1, 1, %21;\n}"
            : ATTENTION_D("=f", 0), ATTENTION_D("=f", 1), ATTENTION_D("=f", 2), ATTENTION_D("=f", 3)
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(kRowsOfK ? 1 : 0));
    } else if constexpr (kTiles == 2 && kAdd) {
        asm volatile(
            "{\n .reg .pred p;\n setp.ne.u32 p, 1, 0;\n wgmma.mma_async.sync.aligned.m64n16k16.f32.bf16.bf16 {"
            "%0, %1, %2, %3, %4, %5, %6, %7"
            "}, {%8, %9, %10, %11}, %12, p, 1, 1, %13;\n}"
            : ATTENTION_D("+f", 0), ATTENTION_D("+f", 1)
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(kRowsOfK ? 1 : 0));
    } else if constexpr (kTiles == 2 && !kAdd) {
        asm volatile(
            "{\n .reg .pred p;\n setp.ne.u32 p, 0, 0;\n wgmma.mma_async.sync.aligned.m64n16k16.f32.bf16.bf16 {"
            "%0, %1, %2, %3, %4, %5, %6, %7"
            "}, {%8, %9, %10, %11}, %12, p, 1, 1, %13;\n}"
            : ATTENTION_D("=f", 0), ATTENTION_D("=f", 1)
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(kRowsOfK ? 1 : 0));
    } else {
        static_assert(kTiles == 2);
    }
#undef ATTENTION_D
}

// The lower half of the descriptor of rows at `address` (a multiple of 1024) as operand b, in either orientation; the upper half is the
// same for all. Adding a sixteenth of their bytes reaches further rows or columns: one instruction where sm90::descriptor takes four.
__device__ __forceinline__ uint32_t rows_at(uint32_t address) { return static_cast<uint32_t>(sm90::descriptor(address, 1024, 1024)); }

constexpr uint32_t kRowsOfGroup = kSecond / 16, kColumnsOfStep = 32 / 16;  // what to add for 16 rows, and for 16 columns

__device__ __forceinline__ uint64_t rows_descriptor(uint32_t low) {
    constexpr uint32_t kHigh = 1u << 30 | 1024 >> 4;
    uint64_t whole;
    asm("mov.b64 %0, {%1, %2};" : "=l"(whole) : "r"(low), "r"(kHigh));
    return whole;
}

// Keeps the compiler from moving reads of accumulators above the wait that they depend on, or writes below the fence.
template <int kTiles>
__device__ __forceinline__ void pin(float (&d)[kTiles][4]) {
#pragma unroll
    for (int i = 0; i < kTiles; ++i) asm volatile("" : "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])::"memory");
}

// The same for an operand: it is there before the fence.
template <int kSteps>
__device__ __forceinline__ void pin(uint32_t (&a)[kSteps][4]) {
#pragma unroll
    for (int i = 0; i < kSteps; ++i) asm volatile("" : "+r"(a[i][0]), "+r"(a[i][1]), "+r"(a[i][2]), "+r"(a[i][3])::"memory");
}

// scores = a rows^T, all 64 columns of both, for the 8 kTiles rows of `rows`.
template <int kTiles>
__device__ __forceinline__ void issue_scores(float (&s)[kTiles][4], const uint32_t (&a)[4][4], uint32_t rows) {
    wgmma<kTiles, false, false>(s, a[0], rows_descriptor(rows));
#pragma unroll
    for (unsigned c = 1; c < 4; ++c) wgmma<kTiles, false, true>(s, a[c], rows_descriptor(rows + c * kColumnsOfStep));
}

// acc [64, 64] += a rows for the 16 kGroups rows of `rows`.
template <int kGroups>
__device__ __forceinline__ void issue_product(float (&acc)[8][4], const uint32_t (&a)[kGroups][4], uint32_t rows) {
#pragma unroll
    for (unsigned g = 0; g < kGroups; ++g) wgmma<8, true, true>(acc, a[g], rows_descriptor(rows + g * kRowsOfGroup));
}

// How a head's rows are cut: into groups of 16; into chunks of 4 groups that are fetched together; and into units of 64 that a
// warpgroup takes, with a tail of 1 to 16 rows apart.
struct Cut {
    unsigned tokens, groups, chunks, units, tail;  // tail: rows of it

    __host__ __device__ __forceinline__ explicit Cut(unsigned tokens) : tokens(tokens), groups((tokens + kGroup - 1) / kGroup) {
        chunks = (groups + kChunk - 1) / kChunk;
        const unsigned left = tokens % 64;
        tail = tokens > 64 && left <= kGroup ? left : 0;
        units = tail ? tokens / 64 : (tokens + 63) / 64;
    }
    __device__ __forceinline__ unsigned chunk_groups(unsigned c) const { return min(kChunk, groups - c * kChunk); }
};

// Starts fetching all of both matrices, b's rows behind a's, a commit a chunk.
__device__ __forceinline__ void fetch_chunks(uint32_t shared, Rows a, Rows b, const Cut& cut) {
#pragma unroll 1
    for (unsigned c = 0; c < cut.chunks; ++c) {
        fetch_groups<128, kSecond>(shared + c * kChunk * kSecond, a, b, c * kChunk * kGroup, cut.chunk_groups(c), cut.tokens,
                                   cut.groups * kSecond);
        cp_async_commit();
    }
}

// Waits for chunk c of `chunks` that were committed one by one, and shows it to wgmma.
__device__ __forceinline__ void arrive_chunk(unsigned c, unsigned chunks) {
    cp_async_wait(chunks - 1 - c);
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    __syncthreads();
}

// A warp's 16 rows at `rows` as operand a of four steps of 16 columns.
__device__ __forceinline__ void load_shared_operand(uint32_t (&a)[4][4], uint32_t rows) {
    const uint32_t lane = lane_address(rows);
#pragma unroll
    for (unsigned c = 0; c < 4; ++c) ldmatrix_x4(a[c], lane ^ 32 * c);
}

// One lane of each warp arrives, after all of them.
__device__ __forceinline__ void warp_arrive(uint32_t barrier) {
    __syncwarp();
    if (threadIdx.x % 32 == 0) sm90::barrier_arrive(barrier);
}

// At `barrier`, of as many arrivals as threads fetch, when this thread's copies so far have landed.
__device__ __forceinline__ void arrive_fetched(uint32_t barrier) {
    asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(barrier) : "memory");
}

// Operand a of kGroups steps of 16.
template <int kGroups>
struct Operands {
    uint32_t a[kGroups][4];
};

// Walks over the groups of a pair of matrices in steps of kStep groups, then of one. pass.step<kNow, kBefore>(now, before, at) forms the
// operands of kNow groups from `at` on while the products with those of the kBefore groups ahead of them (0: none) are under way;
// pass.last(operands, at) does what is left.
template <int kStep, class Pass>
__device__ __forceinline__ void walk(Pass& pass, const Cut& cut, bool arrived) {
    const auto arrive = [&](unsigned at) {
        if (!arrived && at % kChunk == 0) arrive_chunk(at / kChunk, cut.chunks);
    };
    typename Pass::template Operand<1> single;
    unsigned at = 0;
    arrive(0);
    if (kStep == 1 || cut.groups >= kStep) {
        typename Pass::template Operand<kStep> many;
        pass.template step<kStep, 0>(many, many, 0);
#pragma unroll 1
        for (at = kStep; at + kStep <= cut.groups; at += kStep) {
            arrive(at);
            pass.template step<kStep, kStep>(many, many, at);
        }
        if (kStep == 1 || at == cut.groups) {
            pass.last(many, at - kStep);
            return;
        }
        arrive(at);
        pass.template step<1, kStep>(single, many, at);
    } else {
        pass.template step<1, 0>(single, single, 0);
    }
#pragma unroll 1
    for (++at; at < cut.groups; ++at) pass.template step<1, 1>(single, single, at);
    pass.last(single, at - 1);
}

// Asks for `rows` rows of 128 bytes to come from device memory to L2, without waiting.
__device__ __forceinline__ void prefetch_rows(Rows from, unsigned rows) {
    for (unsigned i = threadIdx.x % 128; i < rows; i += 128) {
        asm volatile("prefetch.global.L2 [%0];" ::"l"(from.data + static_cast<size_t>(i) * from.stride));
    }
}

// Room for four warps' accumulators of the tail's 16 rows; it may lie over matrices that no warp reads any longer, as 5 groups of a pair
// hold it.
struct Exchange {
    float4 part[4][8][32];

    __device__ __forceinline__ void put(const float (&acc)[8][4]) {
#pragma unroll
        for (int n = 0; n < 8; ++n) {
            part[threadIdx.x / 32 % 4][n][threadIdx.x % 32] = make_float4(acc[n][0], acc[n][1], acc[n][2], acc[n][3]);
        }
    }

    // Writes the sum over the warps, each one's row g + 8 h times factor[warp][h], as bf16: this warp's 16 columns of it.
    __device__ __forceinline__ void store_sum(uint16_t* data, unsigned stride, unsigned first, unsigned rows,
                                              const float (&factor)[4][2]) const {
        const unsigned lane = threadIdx.x % 32;
#pragma unroll
        for (unsigned i = 0; i < 2; ++i) {
            const unsigned n = threadIdx.x / 32 % 4 * 2 + i, row = first + lane / 4;
            float sum[4] = {};
#pragma unroll
            for (int w = 0; w < 4; ++w) {
                const float4 a = part[w][n][lane];
                sum[0] = fmaf(a.x, factor[w][0], sum[0]);
                sum[1] = fmaf(a.y, factor[w][0], sum[1]);
                sum[2] = fmaf(a.z, factor[w][1], sum[2]);
                sum[3] = fmaf(a.w, factor[w][1], sum[3]);
            }
            uint16_t* to = data + static_cast<size_t>(row) * stride + n * 8 + lane % 4 * 2;
            if (row < rows) *reinterpret_cast<uint32_t*>(to) = pack_bf16(sum[0], sum[1]);
            if (row + 8 < rows) *reinterpret_cast<uint32_t*>(to + 8 * static_cast<size_t>(stride)) = pack_bf16(sum[2], sum[3]);
        }
    }
};

}  // namespace attention
