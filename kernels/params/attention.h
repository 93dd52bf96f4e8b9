/* Launch parameters of the attention kernels (kernels/attention_bf16.cu, attention_any.cu, sm90_attention.cu). */
#ifndef PEFTK_PARAMS_ATTENTION_H
#define PEFTK_PARAMS_ATTENTION_H

#include <stdint.h>

/** softmax(scale q k^T) v for every image and head. All matrices are row-major without gaps. */
struct PeftkAttentionForwardParams {
    /** q, k and v side by side, heads inside each: `[batch * tokens, 3 * heads * head_dim]`, read. */
    uint64_t qkv;
    /** The result, `[batch * tokens, heads * head_dim]`, qkv's type, written. */
    uint64_t out;
    /** Natural log-sum-exp of each row of the scaled scores, `[batch, heads, tokens]` f32, written. */
    uint64_t lse;
    /** What q k^T is multiplied by: 1 / sqrt(head_dim). */
    float scale;
    /** scale * log2(e): what turns q k^T into exponents of 2. */
    float exponent_scale;
    /** Tokens an image, from 1. */
    uint32_t tokens;
    /** Heads. */
    uint32_t heads;
    /** Width of a head: 64 for the tensor-core kernels, 1 to 128 for the others. */
    uint32_t head_dim;
    /** Images times heads. */
    uint32_t pairs;
};

/** dqkv of the same operation. */
struct PeftkAttentionBackwardParams {
    /** As in the forward pass, read. */
    uint64_t qkv;
    /** The forward pass's result, read. */
    uint64_t out;
    /** Its log-sum-exp, f32, read. */
    uint64_t lse;
    /** The result's gradient, laid out as out, read. */
    uint64_t dout;
    /** qkv's gradient, laid out as qkv, every element written. */
    uint64_t dqkv;
    /** `[batch, heads, tokens, 2]` f32: a row's log-sum-exp and rowsum(dout * out), from the pass over queries to the pass over
     *  keys; unused (0) where one launch does both. */
    uint64_t workspace;
    /** What q k^T is multiplied by: 1 / sqrt(head_dim). */
    float scale;
    /** scale * log2(e): what turns q k^T into exponents of 2. */
    float exponent_scale;
    /** Tokens an image, from 1. */
    uint32_t tokens;
    /** Heads. */
    uint32_t heads;
    /** Width of a head: 64 for the tensor-core kernels, 1 to 128 for the others. */
    uint32_t head_dim;
    /** Images times heads. */
    uint32_t pairs;
};

#endif
