// Attention for heads of any width up to 128, in f32 arithmetic: f32 tensors at every width, bf16 ones where the tensor-core kernels
// (attention_bf16.cu) do not apply.
//
//     out = softmax(scale q k^T) v,   lse = log sum exp(scale q k^T) of each row
//     P = exp(scale q k^T - lse),  D = rowsum(dout * out),  dS = P * (dout v^T - D)
//     dq = scale dS k                                      backward_queries: first; leaves (lse, D) in the workspace
//     dv = P^T dout,  dk = scale dS^T q                    backward_keys: second
//
// Shapes    qkv, dqkv [batch * tokens, 3 * heads * head_dim], out, dout [batch * tokens, heads * head_dim], lse f32
//           [batch, heads, tokens], workspace f32 [batch, heads, tokens, 2]; any tokens and heads from 1, head_dim 1 to 128.
// Numbers   Everything between reading and writing is f32. The softmax is the online one with the running maximum. No sum
//           depends on the order in which blocks run: equal inputs give equal bits.
// Traffic   The other side's rows are read once for 64 rows of one's own, from L2 after the first block. Arithmetic (4, 6 and 8
//           tokens^2 head_dim FLOP a head) comes first by far.
// Launch    grid (batch * heads * ceil(tokens / 64)), block (256); dynamic shared memory, with pitch = 4 (ceil(head_dim / 4) | 1)
//           floats a row: (3 * 64 pitch + 64 * 68) * 4 bytes forward, (4 * 64 pitch + 64 * 68) * 4 backward.

#include "common/attention_any.cuh"
#include "common/pdl.cuh"

extern "C" __global__ void __launch_bounds__(attention_any::kThreads, 1) attention_forward_f32(const PeftkAttentionForwardParams p) {
    pdl::start();
    attention_any::forward<float>(p);
}

extern "C" __global__ void __launch_bounds__(attention_any::kThreads, 1) attention_forward_any_bf16(const PeftkAttentionForwardParams p) {
    pdl::start();
    attention_any::forward<uint16_t>(p);
}

extern "C" __global__ void __launch_bounds__(attention_any::kThreads, 1)
    attention_backward_queries_f32(const PeftkAttentionBackwardParams p) {
    pdl::start();
    attention_any::backward_queries<float>(p);
}

extern "C" __global__ void __launch_bounds__(attention_any::kThreads, 1)
    attention_backward_queries_any_bf16(const PeftkAttentionBackwardParams p) {
    pdl::start();
    attention_any::backward_queries<uint16_t>(p);
}

extern "C" __global__ void __launch_bounds__(attention_any::kThreads, 1)
    attention_backward_keys_f32(const PeftkAttentionBackwardParams p) {
    pdl::start();
    attention_any::backward_keys<float>(p);
}

extern "C" __global__ void __launch_bounds__(attention_any::kThreads, 1)
    attention_backward_keys_any_bf16(const PeftkAttentionBackwardParams p) {
    pdl::start();
    attention_any::backward_keys<uint16_t>(p);
}
