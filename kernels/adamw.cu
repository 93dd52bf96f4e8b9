// AdamW over all trained tensors in one launch, and the global gradient norm that clips them.
//
//     value *= 1 - lr decay;  g = factor grad;  m += (1 - beta1) (g - m);  v = beta2 v + (1 - beta2) g^2
//     value -= lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps)                     (torch's order of operations)
//     norm = sqrt(sum over all tensors of grad^2),  factor = min(1, max_norm / (norm + 1e-6))
//
// Shapes    any number of f32 tensors of any length; a table says which 2048 elements of which tensor a block has, so that
//           hundreds of small adapters and a large head are one launch. What changes from step to step lies in device memory: the
//           launch can be part of a graph.
// Numbers   f32. The decay is value - (lr decay) value in one fma: 1 - lr decay would lose most of its digits. The norm's order
//           of summation depends on the table alone; squares in f32, the blocks' sums in f64.
// Traffic   adamw 28 bytes an element, with a bf16 shadow 30; norm 4.
// Launch    adamw, sum_squares_multi: block 256, a block an entry of the table. sum_squares_f32: block 256, grid
//           ceil(count / 2048). grad_norm: one block of 1024.

#include "common/elements.cuh"
#include "common/pdl.cuh"
#include "params/optimizer.h"

namespace adamw {

constexpr unsigned kThreads = 256;
constexpr unsigned kColumns = 4;
constexpr unsigned kSteps = 2;
constexpr unsigned kChunk = kThreads * kColumns * kSteps;  // elements a block
constexpr unsigned kNormThreads = 1024;

// The sum of squares of elements `start ..` of an array, at most kChunk of them, to the block's part.
__device__ __forceinline__ void sum_squares(const float* values, uint64_t start, uint64_t length, float* partial) {
    __shared__ float warps[kThreads / kWarp];
    float sum = 0.0f;
#pragma unroll
    for (unsigned step = 0; step < kSteps; ++step) {
        const uint64_t at = start + (step * kThreads + threadIdx.x) * kColumns;
        if (at >= length) continue;
        const unsigned count = length - at < kColumns ? static_cast<unsigned>(length - at) : kColumns;
        float x[kColumns];
        load_some(values + at, count == kColumns && aligned16(reinterpret_cast<uint64_t>(values)), count, x);
#pragma unroll
        for (unsigned j = 0; j < kColumns; ++j) sum = fmaf(x[j], x[j], sum);
    }
    sum = block_all_sum(sum, warps);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

}  // namespace adamw

extern "C" __global__ void __launch_bounds__(adamw::kThreads) adamw_multi_f32(const PeftkAdamwParams p) {
    pdl::start();
    using namespace adamw;
    const auto* norm = source_of<PeftkGradNorm>(p.grad_norm);
    if (norm != nullptr && norm->non_finite != 0) return;
    const PeftkAdamwBlock block = source_of<PeftkAdamwBlock>(p.blocks)[blockIdx.x];
    const PeftkAdamwTensor tensor = source_of<PeftkAdamwTensor>(p.tensors)[block.tensor];
    const PeftkAdamwHyper hyper = *source_of<PeftkAdamwHyper>(p.hyper);
    const float factor = norm != nullptr ? norm->factor : 1.0f, decay = hyper.lr * tensor.weight_decay;

#pragma unroll
    for (unsigned step = 0; step < kSteps; ++step) {
        const uint64_t at = static_cast<uint64_t>(block.chunk) * kChunk + (step * kThreads + threadIdx.x) * kColumns;
        if (at >= tensor.length) return;
        const unsigned count = tensor.length - at < kColumns ? static_cast<unsigned>(tensor.length - at) : kColumns;
        const bool whole = count == kColumns;
        float value[kColumns], grad[kColumns], m[kColumns], v[kColumns];
        load_some(source_of<float>(tensor.value) + at, whole, count, value);
        load_some(source_of<float>(tensor.grad) + at, whole, count, grad);
        load_some(source_of<float>(tensor.m) + at, whole, count, m);
        load_some(source_of<float>(tensor.v) + at, whole, count, v);
#pragma unroll
        for (unsigned j = 0; j < kColumns; ++j) {
            const float g = factor * grad[j];
            value[j] = fmaf(-decay, value[j], value[j]);
            m[j] = fmaf(hyper.one_minus_beta1, g - m[j], m[j]);
            v[j] = fmaf(hyper.one_minus_beta2 * g, g, v[j] * hyper.beta2);
            const float denominator = __fsqrt_rn(v[j]) / hyper.root_correction + hyper.eps;
            value[j] = fmaf(-hyper.step_size, m[j] / denominator, value[j]);
        }
        store_some(target_of<float>(tensor.value) + at, whole, count, value);
        store_some(target_of<float>(tensor.m) + at, whole, count, m);
        store_some(target_of<float>(tensor.v) + at, whole, count, v);
        if (tensor.shadow != 0) store_some(target_of<Bf16>(tensor.shadow) + at, whole, count, value);
    }
}

extern "C" __global__ void __launch_bounds__(adamw::kThreads) sum_squares_multi_f32(const PeftkSumSquaresParams p) {
    pdl::start();
    const PeftkAdamwBlock block = source_of<PeftkAdamwBlock>(p.blocks)[blockIdx.x];
    const PeftkAdamwTensor tensor = source_of<PeftkAdamwTensor>(p.source)[block.tensor];
    const uint64_t start = static_cast<uint64_t>(block.chunk) * adamw::kChunk;
    adamw::sum_squares(source_of<float>(tensor.grad), start, tensor.length, target_of<float>(p.partial));
}

extern "C" __global__ void __launch_bounds__(adamw::kThreads) sum_squares_f32(const PeftkSumSquaresParams p) {
    pdl::start();
    const uint64_t start = static_cast<uint64_t>(blockIdx.x) * adamw::kChunk;
    adamw::sum_squares(source_of<float>(p.source), start, p.count, target_of<float>(p.partial));
}

extern "C" __global__ void __launch_bounds__(adamw::kNormThreads) grad_norm_f32(const PeftkGradNormParams p) {
    pdl::start();
    using namespace adamw;
    __shared__ double sums[kNormThreads];
    double sum = 0.0;
    for (unsigned i = threadIdx.x; i < p.count; i += kNormThreads) sum += source_of<float>(p.partial)[i];
    sums[threadIdx.x] = sum;
    __syncthreads();
    for (unsigned half = kNormThreads / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x != 0) return;
    const float norm = static_cast<float>(sqrt(sums[0]));
    PeftkGradNorm result;
    result.sum_squares = static_cast<float>(sums[0]);
    result.norm = norm;
    result.factor = p.max_norm > 0.0f ? fminf(1.0f, p.max_norm / (norm + 1e-6f)) : 1.0f;
    result.non_finite = isfinite(sums[0]) ? 0 : 1;
    *target_of<PeftkGradNorm>(p.result) = result;
}
