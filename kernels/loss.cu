// Losses with their gradients: softmax cross-entropy, binary cross-entropy, asymmetric loss.
//
//     cross-entropy   t = (1 - s) one_hot + s / classes;  loss_i = -sum_c t log p,  dlogits = (p - t) / denominator
//     binary          loss = max(x, 0) - x t + ln(1 + exp(-|x|)),  dlogits = (sigmoid(x) - t) / denominator
//     asymmetric      p = sigmoid(x), q = max(p - clip, 0): -k (1 - p)^gamma+ ln p where t > 0, -q^gamma- ln(1 - q) where t = 0,
//                     nothing where t < 0; dlogits its true derivative / denominator    (Ridnik et al. 2021, with k beside it)
//     loss_sum        loss (+)= sum of the rows' losses, each divided by the denominator
//
// Shapes    logits, dlogits rows of any stride f32, labels [rows] i32, targets [rows, cols] f32.
// Numbers   f32, finite for logits of any size: everything is taken from differences to the maximum, or from exp(-|x|). Sums
//           have a fixed order: lanes, warps, then rows one after the other.
// Traffic   small: 8 bytes a logit, 12 with targets.
// Launch    cross_entropy: a block of 128 a row. Sigmoids: a block of 256 a row. loss_sum: one warp.

#include "common/elements.cuh"
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
    const Sigmoid s(x);
    value = fmaxf(x, 0.0f) - x * target + s.log1p;
    slope = s.p - target;
    if (x != x) value = x;
}

__device__ __forceinline__ void asymmetric(const PeftkSigmoidLossParams& p, float x, float target, float& value, float& slope) {
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

}  // namespace loss

extern "C" __global__ void __launch_bounds__(loss::kRowThreads) cross_entropy_f32(const PeftkCrossEntropyParams p) {
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
    __syncthreads();  // dlogits may be the logits

    if (threadIdx.x == 0) {
        // -sum t (distance - log_sum), sum t = 1. Without smoothing nothing multiplies the far-off classes' distances.
        float value = log_sum - (1.0f - p.smoothing) * at_label;
        if (p.smoothing != 0.0f) value -= even * distances;
        target_of<float>(p.partial)[row] = value;
    }
    for (unsigned c = threadIdx.x; c < p.classes; c += kRowThreads) {
        const float target = even + (c == static_cast<unsigned>(label) ? 1.0f - p.smoothing : 0.0f);
        dlogits[c] = (expf(logits[c] - largest - log_sum) - target) / p.denominator;
    }
}

extern "C" __global__ void __launch_bounds__(loss::kMapThreads) binary_cross_entropy_f32(const PeftkSigmoidLossParams p) {
    loss::sigmoids<loss::binary>(p);
}

extern "C" __global__ void __launch_bounds__(loss::kMapThreads) asymmetric_loss_f32(const PeftkSigmoidLossParams p) {
    loss::sigmoids<loss::asymmetric>(p);
}

// Row after row upon what was there: a batch in parts has the loss of the whole. A thread of the warp loads a row, the first adds.
extern "C" __global__ void __launch_bounds__(loss::kSumThreads) loss_sum_f32(const PeftkLossSumParams p) {
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
