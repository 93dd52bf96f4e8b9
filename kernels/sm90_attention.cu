// Attention on bf16 for heads of 64 columns on Hopper, by wgmma, where a head's k and v fit in shared memory.
//
//     out = softmax(scale q k^T) v,   lse = log sum exp(scale q k^T) of each row
//     P = exp(scale q k^T - lse),  D = rowsum(dout * out),  dS = P * (dout v^T - D)
//     dq = scale dS k,  dv = P^T dout,  dk = scale dS^T q
//
// Shapes    qkv, dqkv [batch * tokens, 3 * heads * 64], out, dout [batch * tokens, heads * 64], lse f32 [batch, heads, tokens]; any
//           tokens from 1 that shared memory holds, any heads.
// Numbers   Products in f32 accumulators; scores, softmax, lse and D in f32; P and dS are rounded to bf16 where they enter the next
//           product. Every sum has one owner and a fixed order: equal inputs give equal bits, with the split entries too.
// Traffic   Forward reads qkv once and writes out and lse. Backward reads qkv, out and dout once from device memory (q, k, v and
//           dout again, from L2) and writes dqkv. At 256 images of 257 tokens and 6 heads 202 and 404 MB.
// Work      4 * 64 T^2 FLOP a head forward, 14 * 64 T^2 backward (scores and dout v^T are formed twice), rows and columns rounded up
//           to 16: 29 and 102 GFLOP at that size.
// Launch    With groups = ceil(tokens / 16), tail = tokens > 64 and tokens % 64 in 1..16:
//           forward: grid (at most batch * heads, one a multiprocessor), split (batch * heads, 2); block 416; dynamic shared memory
//           6144 groups bytes for each of two heads, or one where two do not fit, and 16896 with a tail.
//           backward: grid (batch * heads), split (batch * heads, 2); block 128; (4096 + 128) groups bytes.

#include "common/pdl.cuh"
#include "common/attention_sm90_backward.cuh"
#include "common/attention_sm90_forward.cuh"

extern "C" __global__ void __launch_bounds__(attention::kForwardThreads, 1)
    sm90_attention_forward_bf16(const PeftkAttentionForwardParams p) {
    pdl::start();
    attention::forward_sm90<false>(p);
}

// For few heads, which would leave multiprocessors empty: half of a head's rows a block.
extern "C" __global__ void __launch_bounds__(attention::kForwardThreads, 1)
    sm90_attention_forward_split_bf16(const PeftkAttentionForwardParams p) {
    pdl::start();
    attention::forward_sm90<true>(p);
}

extern "C" __global__ void __launch_bounds__(128, 3) sm90_attention_backward_bf16(const PeftkAttentionBackwardParams p) {
    pdl::start();
    attention::backward_sm90<2, 1, false>(p);
}

// The same for few heads: dq in one block, dk and dv in another.
extern "C" __global__ void __launch_bounds__(128, 3) sm90_attention_backward_split_bf16(const PeftkAttentionBackwardParams p) {
    pdl::start();
    attention::backward_sm90<2, 1, true>(p);
}
