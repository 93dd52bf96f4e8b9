//! What works element by element.

use super::{BOTH, Bench, named, padded, rounded, sums};
use crate::autograd::Backend;
use crate::gpu::DType;
use crate::kernels::pointwise::{
    add_assign, cast, dropout, fill, gelu_backward, gelu_forward, scale_assign, swiglu_backward, swiglu_forward,
};
use crate::reference::Reference;

/// 257 tokens of width 384.
const COUNT: usize = 257 * 384;

pub(super) fn checks(bench: &mut Bench<'_>) {
    for dtype in BOTH {
        activations(bench, dtype);
        in_place(bench, dtype);
        for from in BOTH {
            casts(bench, from, dtype);
        }
    }
}

fn activations(bench: &mut Bench<'_>, dtype: DType) {
    let (device, reference) = (bench.device, Reference::<f64>::new());
    bench.check("gelu", named("gelu_forward", dtype), sums(dtype), |bench| {
        let x = bench.draw(dtype, COUNT, 4.0)?;
        let y = reference.gelu(&x.wide)?;
        bench.measure([bench.room(dtype, COUNT)?], [y], |[y]| gelu_forward(device, COUNT, &x.buf, y))
    });
    bench.check("gelu", named("gelu_backward", dtype), sums(dtype), |bench| {
        let (x, dy) = (bench.draw(dtype, COUNT, 4.0)?, bench.draw(dtype, COUNT, 2.0)?);
        let dx = reference.gelu_backward(&x.wide, &dy.wide)?;
        bench.measure([bench.room(dtype, COUNT)?], [dx], |[dx]| gelu_backward(device, COUNT, &x.buf, &dy.buf, dx))
    });
    let (rows, width) = (257, 384);
    bench.check("swiglu", named("swiglu_forward", dtype), sums(dtype), |bench| {
        let h = bench.draw(dtype, 2 * COUNT, 4.0)?;
        let y = reference.swiglu(rows, width, &h.wide)?;
        bench.measure([bench.room(dtype, COUNT)?], [y], |[y]| swiglu_forward(device, rows, width, &h.buf, y))
    });
    bench.check("swiglu", named("swiglu_backward", dtype), sums(dtype), |bench| {
        let (h, dy) = (bench.draw(dtype, 2 * COUNT, 4.0)?, bench.draw(dtype, COUNT, 2.0)?);
        let dh = reference.swiglu_backward(rows, width, &h.wide, &dy.wide)?;
        bench.measure([bench.room(dtype, 2 * COUNT)?], [dh], |[dh]| {
            swiglu_backward(device, rows, width, &h.buf, &dy.buf, dh)
        })
    });
    bench.check("elementwise", named("dropout", dtype), rounded(dtype), |bench| {
        let (p, seed) = (0.1, 0x5eed_0000_0007);
        let x = bench.draw(dtype, COUNT, 2.0)?;
        let y = reference.dropout(&x.wide, p, seed, 0)?;
        bench.measure([bench.room(dtype, COUNT)?], [y], |[y]| dropout(device, COUNT, &x.buf, p, seed, y))
    });
}

fn in_place(bench: &mut Bench<'_>, dtype: DType) {
    let device = bench.device;
    for other in BOTH {
        let name = named("add_assign", dtype) + if other == DType::Bf16 { " += bf16" } else { " += f32" };
        bench.check("elementwise", name, rounded(dtype), |bench| {
            let (acc, x) = (bench.draw(dtype, COUNT, 2.0)?, bench.draw(other, COUNT, 2.0)?);
            let truth = acc.wide.iter().zip(&x.wide).map(|(acc, x)| acc + x).collect();
            bench.measure([acc.buf], [truth], |[acc]| add_assign(device, COUNT, acc, &x.buf))
        });
    }
    bench.check("elementwise", named("scale_assign", dtype), rounded(dtype), |bench| {
        let x = bench.draw(dtype, COUNT, 2.0)?;
        let truth = x.wide.iter().map(|x| x * 0.3).collect();
        bench.measure([x.buf], [truth], |[x]| scale_assign(device, COUNT, x, 0.3))
    });
    bench.check("elementwise", named("fill", dtype), 0.0, |bench| {
        bench.measure([bench.room(dtype, COUNT)?], [vec![-1.5; COUNT]], |[x]| fill(device, COUNT, x, -1.5))
    });
}

/// To rows of a wider stride, as the patches' weight is.
fn casts(bench: &mut Bench<'_>, from: DType, to: DType) {
    let (device, rows, cols, ld) = (bench.device, 384, 588, 592);
    let tolerance = if from == DType::F32 && to == DType::Bf16 { rounded(to) } else { 0.0 };
    let name = named("cast", from) + if to == DType::Bf16 { " to bf16" } else { " to f32" };
    bench.check("elementwise", name, tolerance, |bench| {
        let x = bench.draw(from, rows * cols, 2.0)?;
        bench.measure([bench.room(to, rows * ld)?], [padded(&x.wide, cols, ld)], |[y]| {
            cast(device, rows, cols, &x.buf, cols, y, ld)
        })
    });
}
