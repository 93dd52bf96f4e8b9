//! Attention, forward and backward. Operations: two products forward; backward five, the scores being made again.

use peftk::autograd::AttentionDims;
use peftk::gpu::DType;
use peftk::kernels::attention::{attention_backward, attention_forward};

use super::{Case, Gpu, TOKENS, Work, case};

fn both(name: &str, dims: AttentionDims, dtype: DType) -> [Case; 2] {
    let AttentionDims { batch, tokens, heads, head_dim } = dims;
    let width = batch * tokens * heads * head_dim;
    let rows = batch * heads * tokens;
    let product = (2 * rows * tokens * head_dim) as u64;
    let forward = Work { flops: 2 * product, bytes: (4 * width * dtype.bytes() + 4 * rows) as u64 };
    let backward = Work { flops: 5 * product, bytes: (8 * width * dtype.bytes() + 4 * rows) as u64 };
    let outputs =
        move |gpu: &Gpu| Ok((gpu.random(dtype, 3 * width)?, gpu.out(dtype, width)?, gpu.out(DType::F32, rows)?));
    let type_name = if dtype == DType::F32 { "f32" } else { "bf16" };
    [
        case(format!("{name} forward {type_name}"), forward, outputs, move |device, (qkv, out, lse)| {
            attention_forward(device, dims, qkv, out, lse)
        }),
        case(
            format!("{name} backward {type_name}"),
            backward,
            move |gpu| {
                let (qkv, mut out, mut lse) = outputs(gpu)?;
                attention_forward(&gpu.device, dims, &qkv, &mut out, &mut lse)?;
                Ok((qkv, out, lse, gpu.random(dtype, width)?, gpu.out(dtype, 3 * width)?))
            },
            move |device, (qkv, out, lse, dout, dqkv)| attention_backward(device, dims, qkv, out, lse, dout, dqkv),
        ),
    ]
}

pub fn cases() -> Vec<Case> {
    use DType::{Bf16, F32};
    let dims = |batch, tokens, heads| AttentionDims { batch, tokens, heads, head_dim: 64 };
    [
        both("vits b256", dims(256, TOKENS, 6), Bf16),
        both("vits b32", dims(32, TOKENS, 6), Bf16),
        both("vits registers b256", dims(256, TOKENS + 4, 6), Bf16),
        both("vits 518px b16", dims(16, 1370, 6), Bf16),
        both("vitb b64", dims(64, TOKENS, 12), Bf16),
        both("vits b32", dims(32, TOKENS, 6), F32),
    ]
    .into_iter()
    .flatten()
    .collect()
}
