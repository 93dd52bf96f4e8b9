// Attention on bf16 for heads of 64 columns, on the tensor cores by mma.sync. ("resident": a head's k and v fit in shared memory.)
//
//     out = softmax(scale q k^T) v,   lse = log sum exp(scale q k^T) of each row
//     P = exp(scale q k^T - lse),  D = rowsum(dout * out),  dS = P * (dout v^T - D)
//     dq = scale dS k,  dv = P^T dout,  dk = scale dS^T q
//
// Shapes    qkv, dqkv [batch * tokens, 3 * heads * 64], out, dout [batch * tokens, heads * 64], lse f32 [batch, heads, tokens],
//           workspace f32 [batch, heads, tokens, 2] (streamed backward only); any tokens and heads from 1.
// Numbers   Products in f32 accumulators; scores, softmax, lse and D in f32; P and dS are rounded to bf16 where they enter the next
//           product. Every sum has one owner and a fixed order: equal inputs give equal bits.
// Traffic   Resident: forward reads qkv once and writes out and lse, 8 * 64 bytes a row and head. Backward reads qkv, dout and out
//           once from device memory (q, k, v and dout again, from L2) and writes dqkv: 16 * 64 bytes. Streamed: the other side's
//           rows once more for every block's rows, from L2.
// Work      With T tokens, 4 * 64 T^2 FLOP a head forward, 14 * 64 T^2 backward (scores and dout v^T formed twice), T rounded up
//           to 16. At 257 tokens device memory and tensor cores take about equally long.
// Launch    groups = ceil(tokens / 16), pairs = batch * heads
//             attention_forward_bf16             grid (pairs), block 160, shared 4096 groups bytes
//             attention_forward_streamed_bf16    grid (pairs * ceil(tokens / 128)), block 256, shared 32768
//             attention_backward_bf16            grid (pairs), block 192, shared (4096 + 128) groups
//             attention_backward_queries_bf16    grid (pairs * ceil(tokens / 96)), block 192, shared 32768; then
//             attention_backward_keys_bf16       the same grid and block, shared 32768 + 1024

#include "common/attention_backward.cuh"
#include "common/attention_forward.cuh"
#include "common/pdl.cuh"

extern "C" __global__ void __launch_bounds__(160, 3) attention_forward_bf16(const PeftkAttentionForwardParams p) {
    pdl::start();
    attention::forward<5, 1, 2, true>(p);
}

extern "C" __global__ void __launch_bounds__(256, 2) attention_forward_streamed_bf16(const PeftkAttentionForwardParams p) {
    pdl::start();
    attention::forward<8, 1, 4, false>(p);
}

extern "C" __global__ void __launch_bounds__(192, 2) attention_backward_bf16(const PeftkAttentionBackwardParams p) {
    pdl::start();
    attention::backward_resident<6>(p);
}

extern "C" __global__ void __launch_bounds__(192, 2) attention_backward_queries_bf16(const PeftkAttentionBackwardParams p) {
    pdl::start();
    attention::backward_pass<6, false, false>(p);
}

extern "C" __global__ void __launch_bounds__(192, 2) attention_backward_keys_bf16(const PeftkAttentionBackwardParams p) {
    pdl::start();
    attention::backward_pass<6, false, true>(p);
}
