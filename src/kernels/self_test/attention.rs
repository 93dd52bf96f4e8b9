//! Attention.

use super::{Bench, named, sums};
use crate::autograd::{AttentionDims, Backend};
use crate::gpu::{Arch, DType};
use crate::kernels::attention::{attention_backward, attention_forward};
use crate::reference::Reference;

fn check(bench: &mut Bench<'_>, file: &'static str, detail: &str, dtype: DType, dims: AttentionDims) {
    let AttentionDims { batch, tokens, heads, head_dim } = dims;
    let (narrow, rows) = (batch * tokens * heads * head_dim, batch * heads * tokens);
    let (device, reference) = (bench.device, Reference::<f64>::new());
    bench.check(file, named("attention_forward", dtype) + detail, sums(dtype), |bench| {
        let qkv = bench.draw(dtype, 3 * narrow, 1.7)?;
        let (out, log_sum_exp) = reference.attention(dims, &qkv.wide)?;
        let rooms = [bench.room(dtype, narrow)?, bench.room(DType::F32, rows)?];
        bench.measure(rooms, [out, log_sum_exp], |[out, log_sum_exp]| {
            attention_forward(device, dims, &qkv.buf, out, log_sum_exp)
        })
    });
    bench.check(file, named("attention_backward", dtype) + detail, sums(dtype), |bench| {
        let (qkv, dout) = (bench.draw(dtype, 3 * narrow, 1.7)?, bench.draw(dtype, narrow, 1.7)?);
        let (out, log_sum_exp) = reference.attention(dims, &qkv.wide)?;
        let (out, log_sum_exp) = (bench.put(dtype, &out)?, bench.put(DType::F32, &log_sum_exp)?);
        let dqkv = reference.attention_backward(dims, &qkv.wide, &out.wide, &log_sum_exp.wide, &dout.wide)?;
        let room = bench.room(dtype, 3 * narrow)?;
        bench.measure([room], [dqkv], |[dqkv]| {
            attention_backward(device, dims, &qkv.buf, &out.buf, &log_sum_exp.buf, &dout.buf, dqkv)
        })
    });
}

pub(super) fn checks(bench: &mut Bench<'_>) {
    let dims = |batch, tokens, heads, head_dim| AttentionDims { batch, tokens, heads, head_dim };
    let resident = if bench.device.arch() == Arch::Sm90a { "sm90_attention" } else { "attention_bf16" };
    check(bench, "attention_any", "", DType::F32, dims(2, 257, 2, 64));
    check(bench, resident, "", DType::Bf16, dims(2, 257, 2, 64));
    // More tokens than shared memory has room for; heads of another width than 64.
    check(bench, "attention_bf16", ", 325 tokens", DType::Bf16, dims(1, 325, 1, 64));
    check(bench, "attention_any", ", heads of 32", DType::Bf16, dims(2, 65, 2, 32));
}
