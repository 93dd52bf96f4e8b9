// Losses with their gradients: softmax cross-entropy, binary cross-entropy, asymmetric loss, and the loss of a tree of labels.
//
//     cross-entropy   t = (1 - s) one_hot + s / classes;  loss_i = -w sum_c t log p,  dlogits = w (p - t) / denominator, w the weight of
//                     the row's class (1 without weights)
//     binary          loss = max(x, 0) - x t + ln(1 + exp(-|x|)),  dlogits = (sigmoid(x) - t) / denominator; nothing where t < 0
//     asymmetric      p = sigmoid(x), q = max(p - clip, 0): -k (1 - p)^gamma+ ln p where t > 0, -q^gamma- ln(1 - q) where t = 0,
//                     nothing where t < 0; dlogits its true derivative / denominator    (Ridnik et al. 2021, with k beside it)
//     tree            the mean cross-entropy of the heads that the row has a label in, and the asymmetric loss of the columns behind them
//     loss_sum        loss (+)= sum of the rows' losses, each divided by the denominator
//
// Shapes    logits, dlogits rows of any stride f32, labels [rows] i32, targets [rows, cols] f32.
// Numbers   f32, finite for logits of any size: everything is taken from differences to the maximum, or from exp(-|x|). Sums
//           have a fixed order: lanes, warps, then rows one after the other.
// Traffic   small: 8 bytes a logit, 12 with targets.
// Launch    cross_entropy: a block of 128 a row. Sigmoids: a block of 256 a row. tree: a block of 256 a row, a warp a head.
//           loss_sum: one warp.

#include "common/elements.cuh"
#include "common/pdl.cuh"
#include "params/loss.h"

namespace loss {

constexpr unsigned kRowThreads = 128;
constexpr unsigned kMapThreads = 256;
constexpr unsigned kSumThreads = 32;

__device__ __forceinline__ float block_max(float value, float* partial) {
#pragma unroll
    for (unsigned offset = kWarp / 2; offset > 0; offset /= 2) {
        value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, offset));
    }
    if (threadIdx.x % kWarp == 0) partial[threadIdx.x / kWarp] = value;
    __syncthreads();
    for (unsigned w = 0; w < kRowThreads / kWarp; ++w) value = fmaxf(value, partial[w]);
    return value;
}

// sigmoid(x) and sigmoid(-x), both to full relative precision, and ln(1 + exp(-|x|)).
struct Sigmoid {
    float p, n, log1p;

    __device__ explicit Sigmoid(float x) {
        const float small = expf(-fabsf(x));
        const float large_side = 1.0f / (1.0f + small), small_side = small / (1.0f + small);
        p = x >= 0.0f ? large_side : small_side;
        n = x >= 0.0f ? small_side : large_side;
        log1p = log1pf(small);
        if (x != x) p = n = x;
    }
};

__device__ __forceinline__ void binary(const PeftkSigmoidLossParams&, float x, float target, float& value, float& slope) {
    value = slope = 0.0f;
    if (target >= 0.0f) {
        const Sigmoid s(x);
        value = fmaxf(x, 0.0f) - x * target + s.log1p;
        slope = s.p - target;
    }
    if (x != x) value = slope = x;
}

template <typename Params>
__device__ __forceinline__ void asymmetric(const Params& p, float x, float target, float& value, float& slope) {
    const Sigmoid s(x);
    value = slope = 0.0f;
    if (target > 0.0f) {
        const float log_p = fminf(x, 0.0f) - s.log1p;
        const float focus = powf(s.n, p.gamma_positive);
        value = -p.positive_weight * focus * log_p;
        slope = p.positive_weight * focus * (p.gamma_positive * s.p * log_p - s.n);
    } else if (target == 0.0f) {
        const float q = s.p - p.clip;
        if (q > 0.0f) {
            // 1 - q is n + clip, without cancellation; and without the clip its logarithm is known for any x.
            const float rest = s.n + p.clip;
            const float log_rest = p.clip == 0.0f ? -fmaxf(x, 0.0f) - s.log1p : q < 0.5f ? log1pf(-q) : logf(rest);
            const float focus = powf(q, p.gamma_negative);
            value = -focus * log_rest;
            const float share = p.clip == 0.0f ? s.p : s.p * s.n / rest;
            slope = focus * (share - p.gamma_negative * (log_rest / q) * s.p * s.n);
        }
    }
    if (x != x) value = slope = x;
}

using Function = void (*)(const PeftkSigmoidLossParams&, float, float, float&, float&);

// A block a row.
template <Function kFunction>
__device__ __forceinline__ void sigmoids(const PeftkSigmoidLossParams& p) {
    __shared__ float partial[kMapThreads / kWarp];
    const size_t row = blockIdx.x;
    const float* targets = source_of<float>(p.targets) + row * p.cols;
    const float* logits = source_of<float>(p.logits) + row * p.ld;
    float* dlogits = target_of<float>(p.dlogits) + row * p.ld;
    float sum = 0.0f;
    for (unsigned column = threadIdx.x; column < p.cols; column += kMapThreads) {
        float value, slope;
        kFunction(p, logits[column], targets[column], value, slope);
        sum += value;
        dlogits[column] = slope / p.denominator;
    }
    sum = block_all_sum(sum, partial);
    if (threadIdx.x == 0) target_of<float>(p.partial)[row] = sum;
}

__device__ __forceinline__ float warp_max(float value) {
#pragma unroll
    for (unsigned offset = kWarp / 2; offset > 0; offset /= 2) {
        value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, offset));
    }
    return value;
}

// The sum over the warp, the same in all lanes.
__device__ __forceinline__ float warp_all_sum(float value) {
#pragma unroll
    for (unsigned offset = kWarp / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
    return value;
}

// The column among [first, end) whose target is set, or `end`; the same in all lanes.
__device__ __forceinline__ unsigned target_column(const float* targets, unsigned first, unsigned end) {
    for (unsigned c = first; c < end; c += kWarp) {
        const unsigned own = c + threadIdx.x % kWarp;
        const unsigned set = __ballot_sync(0xffffffffu, own < end && targets[own] > 0.5f);
        if (set != 0) return c + __ffs(set) - 1;
    }
    return end;
}

// One head by one warp: its cross-entropy, and its gradient divided by `divisor`.
__device__ __forceinline__ float head_loss(const float* logits, float* dlogits, unsigned first, unsigned end, unsigned label, float smoothing,
                                           float divisor) {
    const unsigned lane = threadIdx.x % kWarp;
    float largest = -INFINITY;
    for (unsigned c = first + lane; c < end; c += kWarp) largest = fmaxf(largest, logits[c]);
    largest = warp_max(largest);
    float exponentials = 0.0f, distances = 0.0f;
    for (unsigned c = first + lane; c < end; c += kWarp) {
        const float distance = logits[c] - largest;
        exponentials += expf(distance);
        distances += distance;
    }
    const float log_sum = logf(warp_all_sum(exponentials)), even = smoothing / static_cast<float>(end - first);
    float value = log_sum - (1.0f - smoothing) * (logits[label] - largest);
    if (smoothing != 0.0f) value -= even * warp_all_sum(distances);
    __syncwarp();  // dlogits may be the logits
    for (unsigned c = first + lane; c < end; c += kWarp) {
        const float target = even + (c == label ? 1.0f - smoothing : 0.0f);
        dlogits[c] = (expf(logits[c] - largest - log_sum) - target) / divisor;
    }
    return value;
}

}  // namespace loss

extern "C" __global__ void __launch_bounds__(loss::kRowThreads) cross_entropy_f32(const PeftkCrossEntropyParams p) {
    pdl::start();
    using namespace loss;
    __shared__ float maxima[kRowThreads / kWarp], sums[2][kRowThreads / kWarp];
    const size_t row = blockIdx.x;
    const float* logits = source_of<float>(p.logits) + row * p.ld;
    float* dlogits = target_of<float>(p.dlogits) + row * p.ld;
    const int label = source_of<int>(p.labels)[row];
    if (label < 0) {
        for (unsigned c = threadIdx.x; c < p.classes; c += kRowThreads) dlogits[c] = 0.0f;
        if (threadIdx.x == 0) target_of<float>(p.partial)[row] = 0.0f;
        return;
    }

    float largest = -INFINITY;
    for (unsigned c = threadIdx.x; c < p.classes; c += kRowThreads) largest = fmaxf(largest, logits[c]);
    largest = block_max(largest, maxima);
    float exponentials = 0.0f, distances = 0.0f;
    for (unsigned c = threadIdx.x; c < p.classes; c += kRowThreads) {
        const float distance = logits[c] - largest;
        exponentials += expf(distance);
        distances += distance;
    }
    exponentials = block_all_sum(exponentials, sums[0]);
    const float log_sum = logf(exponentials), even = p.smoothing / static_cast<float>(p.classes);
    if (p.smoothing != 0.0f) distances = block_all_sum(distances, sums[1]);
    // A label that is no class has no loss: a NaN shows it.
    const bool known = static_cast<unsigned>(label) < p.classes;
    const float at_label = known ? logits[label] - largest : NAN;
    const float weight = p.weights != 0 && known ? source_of<float>(p.weights)[label] : 1.0f;
    __syncthreads();  // dlogits may be the logits

    if (threadIdx.x == 0) {
        // -sum t (distance - log_sum), sum t = 1. Without smoothing nothing multiplies the far-off classes' distances.
        float value = log_sum - (1.0f - p.smoothing) * at_label;
        if (p.smoothing != 0.0f) value -= even * distances;
        target_of<float>(p.partial)[row] = weight * value;
    }
    for (unsigned c = threadIdx.x; c < p.classes; c += kRowThreads) {
        const float target = even + (c == static_cast<unsigned>(label) ? 1.0f - p.smoothing : 0.0f);
        dlogits[c] = weight * (expf(logits[c] - largest - log_sum) - target) / p.denominator;
    }
}

extern "C" __global__ void __launch_bounds__(loss::kMapThreads) binary_cross_entropy_f32(const PeftkSigmoidLossParams p) {
    pdl::start();
    loss::sigmoids<loss::binary>(p);
}

extern "C" __global__ void __launch_bounds__(loss::kMapThreads) asymmetric_loss_f32(const PeftkSigmoidLossParams p) {
    pdl::start();
    loss::sigmoids<loss::asymmetric<PeftkSigmoidLossParams>>(p);
}

extern "C" __global__ void __launch_bounds__(loss::kMapThreads) tree_loss_f32(const PeftkTreeLossParams p) {
    pdl::start();
    using namespace loss;
    __shared__ float partial[kMapThreads / kWarp];
    __shared__ unsigned counts[kMapThreads / kWarp];
    const size_t row = blockIdx.x;
    const unsigned warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
    const float* targets = source_of<float>(p.targets) + row * p.cols;
    const float* logits = source_of<float>(p.logits) + row * p.cols;
    float* dlogits = target_of<float>(p.dlogits) + row * p.cols;
    const int* begins = source_of<int>(p.begins);

    unsigned present = 0;
    for (unsigned head = warp; head < p.heads; head += kMapThreads / kWarp) {
        const unsigned end = begins[head + 1];
        present += target_column(targets, begins[head], end) < end;
    }
    if (lane == 0) counts[warp] = present;
    __syncthreads();
    present = 0;
    for (unsigned w = 0; w < kMapThreads / kWarp; ++w) present += counts[w];

    float sum = 0.0f;
    const float share = static_cast<float>(present);
    for (unsigned head = warp; head < p.heads; head += kMapThreads / kWarp) {
        const unsigned first = begins[head], end = begins[head + 1], label = target_column(targets, first, end);
        if (label < end) {
            const float value = head_loss(logits, dlogits, first, end, label, p.smoothing, p.denominator * share);
            if (lane == 0) sum += value / share;
        } else {
            for (unsigned c = first + lane; c < end; c += kWarp) dlogits[c] = 0.0f;
        }
    }
    for (unsigned c = begins[p.heads] + threadIdx.x; c < p.cols; c += kMapThreads) {
        float value, slope;
        asymmetric(p, logits[c], targets[c], value, slope);
        sum += value;
        dlogits[c] = slope / p.denominator;
    }
    sum = block_all_sum(sum, partial);
    if (threadIdx.x == 0) target_of<float>(p.partial)[row] = sum;
}

// Row after row upon what was there: a batch in parts has the loss of the whole. A thread of the warp loads a row, the first adds.
extern "C" __global__ void __launch_bounds__(loss::kSumThreads) loss_sum_f32(const PeftkLossSumParams p) {
    pdl::start();
    using namespace loss;
    float* loss = target_of<float>(p.loss);
    float total = p.accumulate != 0 ? *loss : 0.0f;
    for (unsigned first = 0; first < p.count; first += kSumThreads) {
        const unsigned own = first + threadIdx.x;
        const float mine = own < p.count ? source_of<float>(p.partial)[own] / p.denominator : 0.0f;
#pragma unroll
        for (unsigned i = 0; i < kSumThreads; ++i) {
            const float row = __shfl_sync(0xffffffffu, mine, i);
            if (first + i < p.count) total += row;
        }
    }
    if (threadIdx.x == 0) *loss = total;
}
