// Patches of u8 images, normalised, as rows of a matrix: what the patch embedding multiplies.
//
//     patches[(b, py, px), (c, y, x)] = images[b, py patch + y, px patch + x, c] scale[c] + shift[c]     (u8 / 255 - mean) / std
//
// Shapes    images [batch, size, size, 3] u8; patches [batch (size / patch)^2, ld] T, ld >= 3 patch^2, zero beyond.
// Numbers   one fma in f32, then rounded to T.
// Traffic   3 size^2 bytes of an image read, from L1 where a row of pixels serves several patches; |T| ld (size / patch)^2 written.
// Launch    block 256: 8 warps, each a patch at a time and 256 of its columns. A lane has 4 pairs of columns 64 apart, so that what a
//           warp reads at once lies in few rows of pixels, and finds their pixels once for 4 patches.
//           Grid ceil(ld / 256) * ceil(batch (size / patch)^2 / 32), the column tiles of a patch side by side.

#include "common/elements.cuh"
#include "common/pdl.cuh"
#include "params/tokens.h"

namespace patches {

constexpr unsigned kPairs = 4;  // a lane
constexpr unsigned kTileColumns = kPairs * 2 * kWarp;
constexpr unsigned kWarps = 8;
constexpr unsigned kPatches = 32;  // a block

// Two neighbours at once where the address allows it, else those that are there.
template <typename T>
__device__ __forceinline__ void store_pair(T* target, bool whole, unsigned count, float first, float second) {
    if (whole) {
        if constexpr (sizeof(T) == 2) *reinterpret_cast<uint32_t*>(target) = pack_bf16(first, second);
        else *reinterpret_cast<float2*>(target) = make_float2(first, second);
    } else {
        if (count > 0) put(target, first);
        if (count > 1) put(target + 1, second);
    }
}

template <typename T>
__device__ __forceinline__ void run(const PeftkPatchesParams& p) {
    const unsigned tiles = (p.ld + kTileColumns - 1) / kTileColumns;
    const unsigned column = blockIdx.x % tiles * kTileColumns + threadIdx.x % kWarp * 2;
    const unsigned area = p.patch * p.patch, grid = p.size / p.patch;
    const bool even = aligned16(p.patches) && p.ld % 2 == 0;

    // Where each column's byte lies from the patch's first pixel, and how it is normalised; columns beyond the end give 0.
    unsigned offset[kPairs][2];
    float scale[kPairs][2], shift[kPairs][2];
#pragma unroll
    for (unsigned j = 0; j < kPairs; ++j) {
#pragma unroll
        for (unsigned side = 0; side < 2; ++side) {
            const unsigned own = column + j * 2 * kWarp + side, channel = own / area, pixel = own % area;
            const bool inside = channel < 3;
            offset[j][side] = inside ? (pixel / p.patch * p.size + pixel % p.patch) * 3 + channel : 0;
            scale[j][side] = inside ? (channel == 0 ? p.scale[0] : channel == 1 ? p.scale[1] : p.scale[2]) : 0.0f;
            shift[j][side] = inside ? (channel == 0 ? p.shift[0] : channel == 1 ? p.shift[1] : p.shift[2]) : 0.0f;
        }
    }

    const uint64_t total = static_cast<uint64_t>(p.batch) * grid * grid;
    const uint64_t first = static_cast<uint64_t>(blockIdx.x / tiles) * kPatches + threadIdx.x / kWarp;
    for (unsigned step = 0; step < kPatches; step += kWarps) {
        const uint64_t patch = first + step;
        if (patch >= total) return;
        const uint64_t image = patch / (grid * grid);
        const unsigned place = static_cast<unsigned>(patch % (grid * grid));
        const uint64_t y = image * p.size + place / grid * p.patch, x = place % grid * p.patch;
        const uint8_t* pixels = source_of<uint8_t>(p.images) + (y * p.size + x) * 3;
        T* target = target_of<T>(p.patches) + patch * p.ld + column;
        float out[kPairs][2];
#pragma unroll
        for (unsigned j = 0; j < kPairs; ++j) {
#pragma unroll
            for (unsigned side = 0; side < 2; ++side) {
                const float byte = static_cast<float>(pixels[offset[j][side]]);
                out[j][side] = fmaf(byte, scale[j][side], shift[j][side]);
            }
        }
#pragma unroll
        for (unsigned j = 0; j < kPairs; ++j) {
            const unsigned own = column + j * 2 * kWarp, count = own < p.ld ? min(2u, p.ld - own) : 0;
            store_pair(target + j * 2 * kWarp, even && count == 2, count, out[j][0], out[j][1]);
        }
    }
}

}  // namespace patches

extern "C" __global__ void __launch_bounds__(256) patches_u8_f32(const PeftkPatchesParams p) {
    pdl::start();
    patches::run<float>(p);
}
extern "C" __global__ void __launch_bounds__(256) patches_u8_bf16(const PeftkPatchesParams p) {
    pdl::start();
    patches::run<Bf16>(p);
}
