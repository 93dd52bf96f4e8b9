// Crop, resize and flip of a batch of decoded images: u8 RGB of any sizes, packed in one buffer, to u8 squares.
//
//     temp[y, x] = clip(sum_j wy[y, j] source[start_y(y) + j, x])      first down, rounded to u8 between the two
//     out[y, x]  = clip(sum_i wx[x, i] temp[y, start_x(x) + i])        then across; a flip mirrors x as it is written
//
// Shapes    source [height, width, 3], each image with its own sizes and crop; out [images, size, size, 3]. Any size from 1.
// Numbers   The same bits as the CPU's transform. Bicubic (a = -0.5), its support widened where the scale shrinks. With
//           scale = extent / size, centre c = edge + (o + 1/2) scale and radius r = 2 max(scale, 1), output o has taps
//           floor(c - r) to ceil(c + r), cut at the image; weights are normalised in f64, then rounded to 16 bits with as
//           many fraction bits as the axis' largest weight leaves. f64 intrinsics keep the compiler from contracting what
//           the CPU does not. From there on all is integer: sums are exact in any order, and a crop at scale 1 copies.
// Weights   axis_words words of scratch an image and axis: the fraction bits, [size] first taps, [size] pairs of taps, then
//           [pairs, size] two weights each, the earlier tap low: lanes of neighbouring outputs read neighbouring words.
// Traffic   The source is read once from device memory, again from L1/L2 where neighbouring tiles overlap; the weights are
//           4 bytes a pair and output, from L2. temp never leaves shared memory.
// Work      Down: 3 multiply-adds a tap, source column of the tile and output row, two a dp2a; across: 3 a tap and output.
// Launch    augment_weights_i16: grid (2 images), block (kThreads). augment_u8 after it, block (kThreads), grid
//           (images * ceil(size / kTileX) * ceil(size / kTileY)). No dynamic shared memory. A table entry that does not fit
//           its buffers makes a black square, never a stray access.

#include "common/pdl.cuh"
#include "common/reduce.cuh"
#include "params.h"
#include "params/augment.h"

namespace {

constexpr unsigned kThreads = 256;
constexpr unsigned kWarps = kThreads / kWarp;
constexpr unsigned kTileX = kWarp;  // a lane an output column
constexpr unsigned kTileY = 16;
constexpr unsigned kRowsAWarp = kTileY / kWarps;  // each warp has its rows to itself: no block ever waits
constexpr unsigned kColumns = 4;                  // source columns of temp a lane
constexpr unsigned kChunk = kColumns * kWarp;     // source columns of temp at a time
constexpr unsigned kStep = kChunk - 2;            // pairs that begin in one chunk end in it, and stay even
constexpr unsigned kBits = 22;                    // 32 - 8 of a pixel - 2 for sums above 1 and below 0

// One axis of one image's crop.
struct Axis {
    double first, scale, radius, inverse;
    unsigned pixels;  // of the source along it
    unsigned pairs;   // most pairs of taps an output
};

__device__ __forceinline__ Axis axis_of(const PeftkAugmentImage& image, unsigned size, bool down) {
    Axis axis;
    axis.first = down ? image.top : image.left;
    axis.pixels = down ? image.height : image.width;
    const double last = down ? image.bottom : image.right;
    axis.scale = __ddiv_rn(__dsub_rn(last, axis.first), static_cast<double>(size));
    const double widened = fmax(axis.scale, 1.0);
    axis.radius = __dmul_rn(2.0, widened);
    axis.inverse = __ddiv_rn(1.0, widened);
    // Taps of one output: at most 2 ceil(radius) + 1, and never more than there are pixels.
    const double most = fmin(ceil(axis.radius), static_cast<double>(axis.pixels));
    axis.pairs = min(static_cast<unsigned>(most) + 1, (axis.pixels + 1) / 2);
    return axis;
}

// Whether the image lies in the pixels and its weights in their part of the scratch.
__device__ __forceinline__ bool fits(const PeftkAugmentImage& image, const PeftkAugmentParams& p) {
    const uint64_t bytes = 3ull * image.width * image.height;
    if (bytes == 0 || bytes > 0xfffffff0ull || image.offset > p.pixel_bytes) return false;
    if (bytes > p.pixel_bytes - image.offset) return false;
    const unsigned pairs = max(axis_of(image, p.size, false).pairs, axis_of(image, p.size, true).pairs);
    return 1 + static_cast<uint64_t>(p.size) * (2 + pairs) <= p.axis_words;
}

// Where the weights of an image's axis begin.
__device__ __forceinline__ unsigned* axis_weights(const PeftkAugmentParams& p, unsigned image, bool down) {
    return reinterpret_cast<unsigned*>(p.scratch) + p.images + (2 * static_cast<size_t>(image) + down) * p.axis_words;
}

// Catmull and Rom's cubic, each operation rounded on its own.
__device__ __forceinline__ double cubic(double x) {
    x = fabs(x);
    if (x < 1.0) return __dadd_rn(__dmul_rn(__dmul_rn(__dsub_rn(__dmul_rn(1.5, x), 2.5), x), x), 1.0);
    if (x < 2.0) {
        const double inner = __dadd_rn(__dmul_rn(__dsub_rn(x, 5.0), x), 8.0);
        return __dmul_rn(__dsub_rn(__dmul_rn(inner, x), 4.0), -0.5);
    }
    return 0.0;
}

// The taps of one output: pixels begin to end, the filter's centre half a pixel to the left of the output's.
struct Taps {
    double centre;
    unsigned begin, end;

    __device__ __forceinline__ double weight(const Axis& axis, unsigned pixel) const {
        return cubic(__dmul_rn(__dsub_rn(static_cast<double>(pixel), centre), axis.inverse));
    }
};

__device__ __forceinline__ Taps taps_of(const Axis& axis, unsigned output) {
    const double centre = __dadd_rn(axis.first, __dmul_rn(static_cast<double>(output) + 0.5, axis.scale));
    Taps taps;
    taps.centre = __dsub_rn(centre, 0.5);
    const double pixels = static_cast<double>(axis.pixels);
    const double begin = fmin(fmax(floor(__dsub_rn(centre, axis.radius)), 0.0), pixels - 1.0);
    const double end = fmin(ceil(__dadd_rn(centre, axis.radius)), pixels);
    taps.begin = static_cast<unsigned>(begin);
    // For a crop inside the image neither bound holds anything back; they keep any other inside its scratch.
    taps.end = min(static_cast<unsigned>(fmax(end, begin + 1.0)), taps.begin + 2 * axis.pairs);
    return taps;
}

// acc + two weights times the two lower, or the two upper, bytes of `bytes`.
__device__ __forceinline__ int dot2_low(unsigned weights, unsigned bytes, int acc) {
    asm("dp2a.lo.s32.u32 %0, %1, %2, %0;" : "+r"(acc) : "r"(weights), "r"(bytes));
    return acc;
}

__device__ __forceinline__ int dot2_high(unsigned weights, unsigned bytes, int acc) {
    asm("dp2a.hi.s32.u32 %0, %1, %2, %0;" : "+r"(acc) : "r"(weights), "r"(bytes));
    return acc;
}

struct Rgb {
    int r, g, b;

    // Adds two pixels (red in the low byte), each with its weight.
    __device__ __forceinline__ void add(unsigned weights, unsigned first, unsigned second) {
        const unsigned red_green = __byte_perm(first, second, 0x5140);
        r = dot2_low(weights, red_green, r);
        g = dot2_high(weights, red_green, g);
        b = dot2_low(weights, __byte_perm(first, second, 0x0062), b);
    }

    // Without the fraction bits, as a pixel: red in the low byte, the top byte 0.
    __device__ __forceinline__ unsigned pixel(unsigned bits) const {
        const auto clip = [bits](int sum) { return static_cast<unsigned>(min(max(sum >> bits, 0), 255)); };
        return clip(r) | clip(g) << 8 | clip(b) << 16;
    }
};

// The pixel at any byte; the top byte of the result has no meaning. Only words that hold a byte of it are read.
__device__ __forceinline__ unsigned load_pixel(const unsigned* __restrict__ words, unsigned byte) {
    const unsigned* const word = words + byte / 4;
    const unsigned low = pdl::read(word);
    const unsigned high = byte % 4 > 1 ? pdl::read(word + 1) : 0;
    return __funnelshift_r(low, high, byte % 4 * 8);
}

template <unsigned N>
struct Count {
    static constexpr unsigned value = N;
};

// The source rows that one row of temp is made of.
struct Rows {
    const unsigned* __restrict__ pixels;
    unsigned stride, height, start, pairs, bits;

    // Makes N columns of temp a lane, kWarp apart from `column` on; `at` is the first row's first byte.
    template <unsigned N>
    __device__ __forceinline__ void sum_down(unsigned at, unsigned column, unsigned last, const unsigned* weights, size_t step,
                                             unsigned* row) const {
        Rgb sum[N];
        unsigned byte[N];
#pragma unroll
        for (unsigned c = 0; c < N; ++c) {
            sum[c] = {1 << bits >> 1, 1 << bits >> 1, 1 << bits >> 1};
            byte[c] = at + 3 * min(column + c * kWarp, last);
        }
#pragma unroll 1
        for (unsigned k = 0; k < pairs; ++k, weights += step) {
            const unsigned both = pdl::read(weights);
            // Below an odd last tap there may be no row; its weight is 0.
            const unsigned below = start + 2 * k + 1 < height ? stride : 0;
            unsigned upper[N], lower[N];
#pragma unroll
            for (unsigned c = 0; c < N; ++c) {
                upper[c] = load_pixel(pixels, byte[c]);
                lower[c] = load_pixel(pixels, byte[c] + below);
                byte[c] += 2 * stride;
            }
#pragma unroll
            for (unsigned c = 0; c < N; ++c) sum[c].add(both, upper[c], lower[c]);
        }
#pragma unroll
        for (unsigned c = 0; c < N; ++c) row[c * kWarp] = sum[c].pixel(bits);
    }
};

// Writes a row of `count` pixels, lane i's at place i, or mirrored at count - 1 - i. Whole words where rows are.
__device__ __forceinline__ void store_row(uint8_t* row, unsigned pixel, unsigned count, bool flip, bool whole_words) {
    const unsigned lane = threadIdx.x % kWarp;
    if (whole_words) {
        const unsigned place = lane * 4 / 3, shift = lane * 4 % 3 * 8;
        const unsigned here = min(place, count - 1), next = min(place + 1, count - 1);
        const unsigned low = __shfl_sync(0xffffffffu, pixel, flip ? count - 1 - here : here);
        const unsigned high = __shfl_sync(0xffffffffu, pixel, flip ? count - 1 - next : next);
        if (lane < count * 3 / 4) reinterpret_cast<unsigned*>(row)[lane] = low >> shift | high << (24 - shift);
    } else if (lane < count) {
        row += 3 * (flip ? count - 1 - lane : lane);
        row[0] = static_cast<uint8_t>(pixel);
        row[1] = static_cast<uint8_t>(pixel >> 8);
        row[2] = static_cast<uint8_t>(pixel >> 16);
    }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads) augment_weights_i16(const PeftkAugmentParams p) {
    pdl::start();
    __shared__ double largest_of[kWarps];
    const PeftkAugmentImage image = reinterpret_cast<const PeftkAugmentImage*>(p.table)[blockIdx.x / 2];
    const bool down = blockIdx.x % 2 == 1, good = fits(image, p);
    if (!down && threadIdx.x == 0) reinterpret_cast<unsigned*>(p.scratch)[blockIdx.x / 2] = good;
    if (!good) return;
    const Axis axis = axis_of(image, p.size, down);

    // The axis' largest weight decides the fraction bits of all.
    double largest = 0.0;
    for (unsigned o = threadIdx.x; o < p.size; o += kThreads) {
        const Taps taps = taps_of(axis, o);
        double sum = 0.0, most = 0.0;
        for (unsigned i = taps.begin; i < taps.end; ++i) {
            const double weight = taps.weight(axis, i);
            sum = __dadd_rn(sum, weight);
            most = fmax(most, weight);
        }
        if (sum != 0.0) most = __ddiv_rn(most, sum);
        largest = fmax(largest, most);
    }
    for (unsigned offset = kWarp / 2; offset > 0; offset /= 2) {
        largest = fmax(largest, __shfl_xor_sync(0xffffffffu, largest, offset));
    }
    if (threadIdx.x % kWarp == 0) largest_of[threadIdx.x / kWarp] = largest;
    __syncthreads();
    for (unsigned w = 0; w < kWarps; ++w) largest = fmax(largest, largest_of[w]);
    unsigned bits = 0;
    while (bits + 1 < kBits && round(largest * static_cast<double>(2u << bits)) < 32768.0) ++bits;
    const double one = static_cast<double>(1u << bits);

    unsigned* const words = axis_weights(p, blockIdx.x / 2, down);
    if (threadIdx.x == 0) words[0] = bits;
    for (unsigned o = threadIdx.x; o < p.size; o += kThreads) {
        const Taps taps = taps_of(axis, o);
        double sum = 0.0;
        for (unsigned i = taps.begin; i < taps.end; ++i) sum = __dadd_rn(sum, taps.weight(axis, i));
        const auto weight = [&](unsigned pixel) -> unsigned {
            if (pixel >= taps.end) return 0;
            double value = taps.weight(axis, pixel);
            if (sum != 0.0) value = __ddiv_rn(value, sum);
            return static_cast<unsigned>(static_cast<int>(round(value * one))) & 0xffffu;
        };
        const unsigned pairs = (taps.end - taps.begin + 1) / 2;
        words[1 + o] = taps.begin;
        words[1 + p.size + o] = pairs;
        unsigned* const column = words + 1 + 2 * static_cast<size_t>(p.size) + o;
        for (unsigned k = 0; k < pairs; ++k) {
            const unsigned at = taps.begin + 2 * k;
            column[static_cast<size_t>(k) * p.size] = weight(at) | weight(at + 1) << 16;
        }
    }
}

extern "C" __global__ void __launch_bounds__(kThreads) augment_u8(const PeftkAugmentParams p) {
    pdl::start();
    __shared__ unsigned temp[kTileY][kChunk];
    const unsigned tiles_x = (p.size + kTileX - 1) / kTileX, tiles_y = (p.size + kTileY - 1) / kTileY;
    const unsigned tile_x = blockIdx.x % tiles_x, tile_y = blockIdx.x / tiles_x % tiles_y;
    const unsigned index = blockIdx.x / tiles_x / tiles_y;
    const unsigned lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    const PeftkAugmentImage image = reinterpret_cast<const PeftkAugmentImage*>(p.table)[index];
    const size_t size = p.size;
    const unsigned x0 = tile_x * kTileX, count = min(kTileX, p.size - x0);
    // A row of the square takes a multiple of 4 bytes when its side does.
    const bool whole_words = p.size % 4 == 0 && p.out % 4 == 0;
    const size_t place = index * size * size + (image.flip ? size - x0 - count : x0);
    uint8_t* const out = reinterpret_cast<uint8_t*>(p.out) + 3 * place;
    if (reinterpret_cast<const unsigned*>(p.scratch)[index] == 0) {
        for (unsigned y = tile_y * kTileY + warp; y < min((tile_y + 1) * kTileY, p.size); y += kWarps) {
            store_row(out + y * size * 3, 0, count, false, whole_words);
        }
        return;
    }

    const unsigned* __restrict__ const across = axis_weights(p, index, false);
    const unsigned* __restrict__ const down = axis_weights(p, index, true);
    const unsigned bits_x = across[0], bits_y = down[0];
    const unsigned x = x0 + min(lane, count - 1);
    const unsigned start_x = across[1 + x], pairs_x = across[1 + size + x];
    const unsigned* __restrict__ const weights_x = across + 1 + 2 * size + x;
    // Outputs to the right never begin nor end further left.
    const unsigned first_column = across[1 + x0];
    const unsigned end_column = min(across[1 + x0 + count - 1] + 2 * across[1 + size + x0 + count - 1], image.width);

    // Bytes of an image are below 2^32: counted from the word that holds its first one.
    const uint64_t address = p.pixels + image.offset;
    const unsigned* __restrict__ const pixels = reinterpret_cast<const unsigned*>(address & ~3ull);
    const unsigned origin = static_cast<unsigned>(address & 3), stride = 3 * image.width;

    Rgb sums[kRowsAWarp];
#pragma unroll
    for (unsigned r = 0; r < kRowsAWarp; ++r) sums[r] = {1 << bits_x >> 1, 1 << bits_x >> 1, 1 << bits_x >> 1};

    for (unsigned column = first_column; column < end_column; column += kStep) {
#pragma unroll 1
        for (unsigned r = 0; r < kRowsAWarp; ++r) {
            const unsigned y = tile_y * kTileY + r * kWarps + warp;
            if (y >= p.size) break;
            const unsigned start_y = down[1 + y], pairs_y = down[1 + size + y];
            const unsigned* __restrict__ const weights_y = down + 1 + 2 * size + y;
            const Rows rows{pixels, stride, image.height, start_y, pairs_y, bits_y};
            unsigned* const row = temp[r * kWarps + warp] + lane;
            // No column is made that the tile does not need, and the loads of all that are go out together.
            const unsigned at = origin + start_y * stride;
            const auto part = [&](auto columns) {
                rows.sum_down<decltype(columns)::value>(at, column + lane, image.width - 1, weights_y, size, row);
            };
            switch ((min(end_column - column, kChunk) + kWarp - 1) / kWarp) {
                case 1: part(Count<1>{}); break;
                case 2: part(Count<2>{}); break;
                case 3: part(Count<3>{}); break;
                default: part(Count<4>{}); break;
            }
        }
        __syncwarp();
        // Of each output the pairs that begin in columns `column` to `column + kStep`.
        const unsigned passed = start_x < column ? (column - start_x + 1) / 2 : 0;
        const unsigned end = column + kStep > start_x ? min(pairs_x, (column + kStep - start_x + 1) / 2) : 0;
        for (unsigned k = passed; k < end; ++k) {
            const unsigned weights = weights_x[k * size];
            const unsigned at = start_x + 2 * k - column;
#pragma unroll
            for (unsigned r = 0; r < kRowsAWarp; ++r) {
                const unsigned* const row = temp[r * kWarps + warp];
                sums[r].add(weights, row[at], row[at + 1]);
            }
        }
        __syncwarp();
    }
#pragma unroll
    for (unsigned r = 0; r < kRowsAWarp; ++r) {
        const unsigned y = tile_y * kTileY + r * kWarps + warp;
        if (y >= p.size) break;
        store_row(out + y * size * 3, sums[r].pixel(bits_x), count, image.flip != 0, whole_words);
    }
}
