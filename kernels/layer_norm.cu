// LayerNorm over rows, forward and backward.
//
//     mean = sum x / cols, rstd = 1 / sqrt(sum (x - mean)^2 / cols + eps), y = (x - mean) rstd weight + bias
//     h = (x - mean) rstd, dh = dy weight:  dx = [add +] rstd (dh - mean(dh) - h mean(dh h)),  dweight = sum dy h,  dbias = sum dy
//     scaled = gamma dx: the gradient of the branch whose LayerScale gamma made x
//
// Shapes    x, dx, add [rows, cols] R (residual stream), y, dy, scaled [rows, cols] T; weight, bias, gamma [cols], mean, rstd [rows]
//           f32. Names end in R_T. 1 to 8192 columns; a multiple of 4 at 16-byte addresses goes as vectors, the rest element by element.
// Numbers   f32. The variance is taken of (x - mean), in a second pass that costs no traffic: a row stays in registers (element
//           by element: in L1). dx is rounded to R before `add` is added, and again before gamma, as kernels of their own
//           would. Every sum has a fixed order that depends on cols alone.
// Traffic   forward rows cols (|R| + |T|) bytes; backward rows cols (2 |R| + |T|), with `add` |R| more, with `scaled` |T|. The entries with weights
//           write dweight and dbias of every piece of at most 32 rows (8 cols bytes a piece); column_sum.cu's reduce_partials adds
//           those up.
// Launch    1, 2, 4, 8 or 16 warps a row, 16 columns a lane; block max(4, warps_per_row) warps, so 4 / warps_per_row rows a block
//           (at least 1). forward, backward: grid ceil(rows / rows a block); backward_weights: grid ceil(rows / 32).

#include "common/cut.cuh"
#include "common/elements.cuh"
#include "common/pdl.cuh"
#include "params/norm.h"

namespace layer_norm {

constexpr unsigned kColumns = 4;  // columns of a chunk
constexpr unsigned kChunks = 4;   // chunks a lane holds
constexpr unsigned kMaxWarps = 16;

using Values = float[kChunks][kColumns];

// A thread's place: which row of the block's, and where in it.
struct Place {
    unsigned warps_per_row, lanes, group, lane;

    __device__ explicit Place(unsigned warps_per_row)
        : warps_per_row(warps_per_row),
          lanes(kWarp * warps_per_row),
          group(threadIdx.x / (kWarp * warps_per_row)),
          lane(threadIdx.x % (kWarp * warps_per_row)) {}

    __device__ unsigned groups() const { return blockDim.x / lanes; }
    __device__ unsigned column(unsigned chunk) const { return (lane + chunk * lanes) * kColumns; }

    // Chunks beyond the end of the row become 0.
    template <typename T>
    __device__ __forceinline__ void load_row(const T* row, unsigned cols, Values& values) const {
#pragma unroll
        for (unsigned i = 0; i < kChunks; ++i) {
            load_some(row + column(i), column(i) < cols, 0, values[i]);
        }
    }
};

// Whether rows of `cols` elements at these addresses are whole chunks.
template <typename... Addresses>
__device__ __forceinline__ bool vectors(unsigned cols, Addresses... addresses) {
    return cols % kColumns == 0 && aligned16(addresses...);
}

// N sums over the warps of a row, in all of its lanes. One synchronisation where a row has several warps: calls take turns with
// two pieces of `partial`.
template <unsigned N>
__device__ __forceinline__ void row_sums(float (&values)[N], unsigned warps_per_row, float (&partial)[2][kMaxWarps]) {
    static_assert(N <= 2);
#pragma unroll
    for (unsigned n = 0; n < N; ++n) values[n] = warp_all_sum(values[n]);
    if (warps_per_row == 1) return;
    const unsigned warp = threadIdx.x / kWarp, first = warp / warps_per_row * warps_per_row;
#pragma unroll
    for (unsigned n = 0; n < N; ++n) {
        if (threadIdx.x % kWarp == 0) partial[n][warp] = values[n];
        values[n] = 0.0f;
    }
    __syncthreads();
    for (unsigned w = first; w < first + warps_per_row; ++w) {
#pragma unroll
        for (unsigned n = 0; n < N; ++n) values[n] += partial[n][w];
    }
}

using Partial = float[2][2][kMaxWarps];

// Columns of the row that a warp holds.
__device__ __forceinline__ float warp_columns(unsigned warp_of_row, unsigned warps_per_row, unsigned cols) {
    unsigned columns = 0;
#pragma unroll
    for (unsigned i = 0; i < kChunks; ++i) {
        const unsigned first = (i * warps_per_row + warp_of_row) * kWarp * kColumns;
        if (first < cols) columns += min(kWarp * kColumns, cols - first);
    }
    return static_cast<float>(columns);
}

// The mean of a row and the sum of squares around it, from a row in registers. Every warp takes its own mean and squares around that;
// then sum_w (x - mean)^2 = squares_w + columns_w (mean_w - mean)^2, in the order of the warps.
__device__ __forceinline__ void moments(const Place& place, unsigned cols, const Values& x, float& mean, float& squares,
                                        float (&partial)[2][kMaxWarps]) {
    const unsigned warp = threadIdx.x / kWarp, first = warp / place.warps_per_row * place.warps_per_row;
    const float columns = warp_columns(warp - first, place.warps_per_row, cols);
    float sum = 0.0f;
    squares = 0.0f;
#pragma unroll
    for (unsigned i = 0; i < kChunks; ++i) {
#pragma unroll
        for (unsigned j = 0; j < kColumns; ++j) sum += x[i][j];
    }
    sum = warp_all_sum(sum);
    mean = columns > 0.0f ? sum / columns : 0.0f;
#pragma unroll
    for (unsigned i = 0; i < kChunks; ++i) {
        if (place.column(i) >= cols) continue;
#pragma unroll
        for (unsigned j = 0; j < kColumns; ++j) squares = fmaf(x[i][j] - mean, x[i][j] - mean, squares);
    }
    squares = warp_all_sum(squares);
    if (place.warps_per_row == 1) return;

    if (threadIdx.x % kWarp == 0) {
        partial[0][warp] = sum;
        partial[1][warp] = squares;
    }
    __syncthreads();
    sum = squares = 0.0f;
    for (unsigned w = 0; w < place.warps_per_row; ++w) sum += partial[0][first + w];
    mean = sum / static_cast<float>(cols);
    for (unsigned w = 0; w < place.warps_per_row; ++w) {
        const float count = warp_columns(w, place.warps_per_row, cols);
        const float away = count > 0.0f ? partial[0][first + w] / count - mean : 0.0f;
        squares += fmaf(count * away, away, partial[1][first + w]);
    }
}

template <typename R, typename T>
__device__ __forceinline__ void forward(const PeftkLayerNormParams& p, Partial& partial) {
    const Place place(p.warps_per_row);
    const unsigned wanted = blockIdx.x * place.groups() + place.group;
    // Rows beyond the end read the last one again and write nothing: no thread leaves before the synchronisations.
    const unsigned row = min(wanted, p.rows - 1);
    const bool active = wanted == row;
    const R* x = source_of<R>(p.x) + static_cast<size_t>(row) * p.cols;
    T* y = target_of<T>(p.y) + static_cast<size_t>(row) * p.cols;
    const float* weight = source_of<float>(p.weight);
    const float* bias = source_of<float>(p.bias);
    const float count = static_cast<float>(p.cols);
    float sum[1] = {0.0f}, squares[1] = {0.0f};
    float mean, rstd;

    if (vectors(p.cols, p.x, p.weight, p.bias, p.y)) {
        Values h;
        place.load_row(x, p.cols, h);
        moments(place, p.cols, h, mean, squares[0], partial[0]);
        rstd = 1.0f / __fsqrt_rn(squares[0] / count + p.eps);
#pragma unroll
        for (unsigned i = 0; i < kChunks; ++i) {
            const unsigned column = place.column(i);
            if (!active || column >= p.cols) continue;
            float w[kColumns], b[kColumns];
            load(weight + column, w);
            load(bias + column, b);
#pragma unroll
            for (unsigned j = 0; j < kColumns; ++j) h[i][j] = fmaf((h[i][j] - mean) * rstd, w[j], b[j]);
            store(y + column, h[i]);
        }
    } else {
#pragma unroll 1
        for (unsigned c = place.lane; c < p.cols; c += place.lanes) sum[0] += widen(x[c]);
        row_sums(sum, p.warps_per_row, partial[0]);
        mean = sum[0] / count;
#pragma unroll 1
        for (unsigned c = place.lane; c < p.cols; c += place.lanes) {
            const float h = widen(x[c]) - mean;
            squares[0] = fmaf(h, h, squares[0]);
        }
        row_sums(squares, p.warps_per_row, partial[1]);
        rstd = 1.0f / __fsqrt_rn(squares[0] / count + p.eps);
#pragma unroll 1
        for (unsigned c = place.lane; active && c < p.cols; c += place.lanes) {
            put(y + c, fmaf((widen(x[c]) - mean) * rstd, weight[c], bias[c]));
        }
    }
    if (active && place.lane == 0) {
        if (p.mean != 0) target_of<float>(p.mean)[row] = mean;
        if (p.rstd != 0) target_of<float>(p.rstd)[row] = rstd;
    }
}

// dx of one row by its lanes where `active`; every thread of the block takes part in the sums. h and dy come from load_row.
template <bool kScaled, typename R, typename T>
__device__ __forceinline__ void write_dx(const PeftkLayerNormBackwardParams& p, const Place& place, unsigned row, bool active,
                                         float rstd, const Values& h, const Values& dy, float (&partial)[2][kMaxWarps]) {
    const float* weight = source_of<float>(p.weight);
    Values dh;
    place.load_row(weight, p.cols, dh);
    float sums[2] = {0.0f, 0.0f};
#pragma unroll
    for (unsigned i = 0; i < kChunks; ++i) {
#pragma unroll
        for (unsigned j = 0; j < kColumns; ++j) {
            dh[i][j] *= dy[i][j];
            sums[0] += dh[i][j];
            sums[1] = fmaf(dh[i][j], h[i][j], sums[1]);
        }
    }
    row_sums(sums, p.warps_per_row, partial);
    const float mean_dh = sums[0] / static_cast<float>(p.cols), mean_dh_h = sums[1] / static_cast<float>(p.cols);
    const size_t start = static_cast<size_t>(row) * p.cols;
#pragma unroll
    for (unsigned i = 0; i < kChunks; ++i) {
        const unsigned column = place.column(i);
        if (!active || column >= p.cols) continue;
#pragma unroll
        for (unsigned j = 0; j < kColumns; ++j) dh[i][j] = rstd * (dh[i][j] - mean_dh - h[i][j] * mean_dh_h);
        if (p.add != 0) {
            float add[kColumns];
            load(source_of<R>(p.add) + start + column, add);
#pragma unroll
            for (unsigned j = 0; j < kColumns; ++j) dh[i][j] = add[j] + rounded<R>(dh[i][j]);
        }
        store(target_of<R>(p.dx) + start + column, dh[i]);
        if constexpr (kScaled) {
            float gamma[kColumns];
            load(source_of<float>(p.gamma) + column, gamma);
#pragma unroll
            for (unsigned j = 0; j < kColumns; ++j) gamma[j] *= rounded<R>(dh[i][j]);
            store(target_of<T>(p.scaled) + start + column, gamma);
        }
    }
}

// h and dy of one row, and its rstd. Chunks beyond the end are 0 in both.
template <typename R, typename T>
__device__ __forceinline__ float load_h_dy(const PeftkLayerNormBackwardParams& p, const Place& place, unsigned row, Values& h,
                                           Values& dy) {
    const size_t start = static_cast<size_t>(row) * p.cols;
    place.load_row(source_of<R>(p.x) + start, p.cols, h);
    place.load_row(source_of<T>(p.dy) + start, p.cols, dy);
    const float mean = source_of<float>(p.mean)[row], rstd = source_of<float>(p.rstd)[row];
#pragma unroll
    for (unsigned i = 0; i < kChunks; ++i) {
#pragma unroll
        for (unsigned j = 0; j < kColumns; ++j) h[i][j] = place.column(i) < p.cols ? (h[i][j] - mean) * rstd : 0.0f;
    }
    return rstd;
}

// As load_h_dy and write_dx, element by element.
template <bool kScaled, typename R, typename T>
__device__ __forceinline__ void write_dx_scalar(const PeftkLayerNormBackwardParams& p, const Place& place, unsigned row,
                                                bool active, float (&partial)[2][kMaxWarps]) {
    const size_t start = static_cast<size_t>(row) * p.cols;
    const R* x = source_of<R>(p.x) + start;
    const T* dy = source_of<T>(p.dy) + start;
    const float* weight = source_of<float>(p.weight);
    const float mean = source_of<float>(p.mean)[row], rstd = source_of<float>(p.rstd)[row];
    float sums[2] = {0.0f, 0.0f};
#pragma unroll 1
    for (unsigned c = place.lane; c < p.cols; c += place.lanes) {
        const float h = (widen(x[c]) - mean) * rstd, dh = widen(dy[c]) * weight[c];
        sums[0] += dh;
        sums[1] = fmaf(dh, h, sums[1]);
    }
    row_sums(sums, p.warps_per_row, partial);
    const float mean_dh = sums[0] / static_cast<float>(p.cols), mean_dh_h = sums[1] / static_cast<float>(p.cols);
#pragma unroll 1
    for (unsigned c = place.lane; active && c < p.cols; c += place.lanes) {
        const float h = (widen(x[c]) - mean) * rstd, dh = widen(dy[c]) * weight[c];
        float out = rstd * (dh - mean_dh - h * mean_dh_h);
        if (p.add != 0) out = widen(source_of<R>(p.add)[start + c]) + rounded<R>(out);
        put(target_of<R>(p.dx) + start + c, out);
        if constexpr (kScaled) put(target_of<T>(p.scaled) + start + c, source_of<float>(p.gamma)[c] * rounded<R>(out));
    }
}

template <bool kScaled, typename R, typename T>
__device__ __forceinline__ void dx_alone(const PeftkLayerNormBackwardParams& p, Partial& partial) {
    const Place place(p.warps_per_row);
    const unsigned wanted = blockIdx.x * place.groups() + place.group;
    const unsigned row = min(wanted, p.rows - 1);
    if (vectors(p.cols, p.x, p.weight, p.dy, p.add, p.dx, kScaled ? p.gamma : 0, kScaled ? p.scaled : 0)) {
        Values h, dy;
        const float rstd = load_h_dy<R, T>(p, place, row, h, dy);
        write_dx<kScaled, R, T>(p, place, row, wanted == row, rstd, h, dy, partial[0]);
    } else {
        write_dx_scalar<kScaled, R, T>(p, place, row, wanted == row, partial[0]);
    }
}

template <typename R, typename T>
__device__ __forceinline__ void backward(const PeftkLayerNormBackwardParams& p, Partial& partial) {
    dx_alone<false, R, T>(p, partial);
}

template <typename R, typename T>
__device__ __forceinline__ void backward_scaled(const PeftkLayerNormBackwardParams& p, Partial& partial) {
    dx_alone<true, R, T>(p, partial);
}

template <typename R, typename T>
__device__ __forceinline__ void backward_weights(const PeftkLayerNormBackwardParams& p, Partial& partial) {
    __shared__ __align__(16) float sums[4 * 2 * 512];  // [groups, 2, cols]; groups > 1 only where a row is one or two warps
    const Place place(p.warps_per_row);
    const unsigned groups = place.groups(), first = cut::first_row(p.cut, blockIdx.x);
    const unsigned last = cut::end_row(p.cut, blockIdx.x), rows = last - first;
    float* out = target_of<float>(p.partial) + static_cast<size_t>(blockIdx.x) * 2 * p.cols;

    if (!vectors(p.cols, p.x, p.weight, p.dy, p.add, p.dx)) {
        const float *means = source_of<float>(p.mean), *rstds = source_of<float>(p.rstd);
        for (unsigned c = threadIdx.x; c < p.cols; c += blockDim.x) {
            float dweight = 0.0f, dbias = 0.0f;
            for (unsigned row = first; row < last; ++row) {
                const size_t at = static_cast<size_t>(row) * p.cols + c;
                const float dy = widen(source_of<T>(p.dy)[at]);
                dweight = fmaf(dy, (widen(source_of<R>(p.x)[at]) - means[row]) * rstds[row], dweight);
                dbias += dy;
            }
            out[c] = dweight;
            out[p.cols + c] = dbias;
        }
        for (unsigned step = 0; p.dx != 0 && step * groups < rows; ++step) {
            const unsigned wanted = first + step * groups + place.group, row = min(wanted, last - 1);
            write_dx_scalar<false, R, T>(p, place, row, wanted == row, partial[step % 2]);
        }
        return;
    }

    Values dweight = {}, dbias = {};
    for (unsigned step = 0; step * groups < rows; ++step) {
        const unsigned wanted = first + step * groups + place.group, row = min(wanted, last - 1);
        Values h, dy;
        const float rstd = load_h_dy<R, T>(p, place, row, h, dy);
        if (wanted == row) {
#pragma unroll
            for (unsigned i = 0; i < kChunks; ++i) {
#pragma unroll
                for (unsigned j = 0; j < kColumns; ++j) {
                    dweight[i][j] = fmaf(dy[i][j], h[i][j], dweight[i][j]);
                    dbias[i][j] += dy[i][j];
                }
            }
        }
        if (p.dx != 0) write_dx<false, R, T>(p, place, row, wanted == row, rstd, h, dy, partial[step % 2]);
    }
    float* mine = groups == 1 ? out : sums + place.group * 2 * p.cols;
#pragma unroll
    for (unsigned i = 0; i < kChunks; ++i) {
        const unsigned column = place.column(i);
        if (column >= p.cols) continue;
        store(mine + column, dweight[i]);
        store(mine + p.cols + column, dbias[i]);
    }
    if (groups == 1) return;
    __syncthreads();
    for (unsigned c = threadIdx.x; c < 2 * p.cols; c += blockDim.x) {
        float sum = sums[c];
        for (unsigned group = 1; group < groups; ++group) sum += sums[group * 2 * p.cols + c];
        out[c] = sum;
    }
}

}  // namespace layer_norm

// The registers bound how many rows are under way at once, and so the bandwidth.
#define ENTRY(OPERATION, REGISTERS, PARAMS, NAME, R, T)                                                               \
    extern "C" __global__ void __maxnreg__(REGISTERS) layer_norm_##OPERATION##_##NAME(const PARAMS p) {               \
        pdl::start();                                                                                                 \
        __shared__ layer_norm::Partial partial;                                                                       \
        layer_norm::OPERATION<R, T>(p, partial);                                                                      \
    }
#define ENTRIES(NAME, R, T)                                                                    \
    ENTRY(forward, 64, PeftkLayerNormParams, NAME, R, T)                                       \
    ENTRY(backward, 64, PeftkLayerNormBackwardParams, NAME, R, T)                              \
    ENTRY(backward_scaled, 80, PeftkLayerNormBackwardParams, NAME, R, T)                       \
    ENTRY(backward_weights, 128, PeftkLayerNormBackwardParams, NAME, R, T)

ENTRIES(f32_f32, float, float)
ENTRIES(f32_bf16, float, Bf16)
ENTRIES(bf16_bf16, Bf16, Bf16)
#undef ENTRIES
#undef ENTRY
