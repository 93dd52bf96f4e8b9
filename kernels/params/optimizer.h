/* Launch parameters of AdamW and of clipping by the global norm (kernels/adamw.cu). */
#ifndef PEFTK_PARAMS_OPTIMIZER_H
#define PEFTK_PARAMS_OPTIMIZER_H

#include <stdint.h>

/** One trained tensor; an array of these lies in device memory. Every address is a multiple of 16. */
struct PeftkAdamwTensor {
    /** The values, `[length]` f32, read and written. */
    uint64_t value;
    /** Their gradients, `[length]` f32, read. */
    uint64_t grad;
    /** First moments, `[length]` f32, read and written. */
    uint64_t m;
    /** Second moments, `[length]` f32, read and written. */
    uint64_t v;
    /** The values rounded to bf16, `[length]`, written; 0: not wanted. */
    uint64_t shadow;
    /** Elements. */
    uint64_t length;
    /** Decoupled weight decay. */
    float weight_decay;
    /** 0. */
    uint32_t padding;
};

/** A block's share: elements `2048 chunk ..` of one tensor; an array of these lies in device memory. */
struct PeftkAdamwBlock {
    /** Index of the tensor. */
    uint32_t tensor;
    /** Which 2048 of its elements. */
    uint32_t chunk;
};

/** What changes from step to step, in device memory. */
struct PeftkAdamwHyper {
    /** Learning rate. */
    float lr;
    /** 1 - beta1. */
    float one_minus_beta1;
    /** beta2. */
    float beta2;
    /** 1 - beta2. */
    float one_minus_beta2;
    /** Added to the root. */
    float eps;
    /** lr / (1 - beta1^step). */
    float step_size;
    /** sqrt(1 - beta2^step). */
    float root_correction;
    /** 0. */
    float padding;
};

/** The gradients' norm and what follows from it, in device memory. */
struct PeftkGradNorm {
    /** The sum of squares over all tensors. */
    float sum_squares;
    /** Its root. */
    float norm;
    /** min(1, max_norm / (norm + 1e-6)); 1 without a limit. */
    float factor;
    /** 1 where the sum is no finite number, else 0. */
    uint32_t non_finite;
};

/** One AdamW step of all tensors. */
struct PeftkAdamwParams {
    /** Array of PeftkAdamwTensor, read. */
    uint64_t tensors;
    /** Array of PeftkAdamwBlock, one a block, read. */
    uint64_t blocks;
    /** A PeftkAdamwHyper, read. */
    uint64_t hyper;
    /** A PeftkGradNorm: gradients are multiplied by its factor, and where it is not finite nothing is done. 0: none. */
    uint64_t grad_norm;
};

/** Sums of squares: of all tensors' gradients a block, or of one array. */
struct PeftkSumSquaresParams {
    /** Array of PeftkAdamwTensor, read; in entry sum_squares_f32 the array itself, f32. */
    uint64_t source;
    /** Array of PeftkAdamwBlock, one a block, read; unused in entry sum_squares_f32. */
    uint64_t blocks;
    /** The blocks' sums, f32, written. */
    uint64_t partial;
    /** Elements; entry sum_squares_f32 only. */
    uint64_t count;
};

/** The norm from the blocks' sums. */
struct PeftkGradNormParams {
    /** `[count]` f32, read. */
    uint64_t partial;
    /** A PeftkGradNorm, written. */
    uint64_t result;
    /** Parts. */
    uint32_t count;
    /** The largest norm; 0 or less: no limit. */
    float max_norm;
};

#endif
