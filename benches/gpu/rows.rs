//! What works on rows or element by element: norms, LayerScale, activations, sums of columns.

use peftk::gpu::{Buf, DType};
use peftk::kernels::column_sum::{Columns, column_dot, column_sum};
use peftk::kernels::layer_norm::{LayerNormDx, LayerNormInputs, layer_norm_backward, layer_norm_forward};
use peftk::kernels::layer_scale::{layer_scale_backward, layer_scale_forward};
use peftk::kernels::pointwise::{
    add_assign, cast, dropout, fill, gelu_backward, gelu_forward, scale_assign, swiglu_backward, swiglu_forward,
};

use super::{Case, Gpu, ROWS, WIDTH, bytes, case};

const BF16: DType = DType::Bf16;
const F32: DType = DType::F32;

/// What LayerNorm's backward pass is asked for.
#[derive(Clone, Copy, PartialEq)]
enum Ask {
    Dx,
    AddTo,
    AddToScaled,
    Weights,
}

fn norm_forward(name: &str, rows: usize, cols: usize, stream: DType, activations: DType) -> Case {
    let work = bytes(rows * cols * (stream.bytes() + activations.bytes()) + 8 * rows);
    let make = move |gpu: &Gpu| {
        let (w, b) = (gpu.random(F32, cols)?, gpu.random(F32, cols)?);
        Ok((
            gpu.random(stream, rows * cols)?,
            w,
            b,
            gpu.out(activations, rows * cols)?,
            gpu.out(F32, rows)?,
            gpu.out(F32, rows)?,
        ))
    };
    case(format!("layer_norm_forward {name}"), work, make, move |device, (x, w, b, y, mean, rstd)| {
        layer_norm_forward(device, rows, cols, 1e-6, x, w, b, y, Some((mean, rstd)))
    })
}

fn norm_backward(name: &str, rows: usize, cols: usize, stream: DType, activations: DType, ask: Ask) -> Case {
    let passes = if matches!(ask, Ask::AddTo | Ask::AddToScaled) { 3 } else { 2 };
    let beside = if ask == Ask::AddToScaled { 2 } else { 1 };
    let work = bytes(rows * cols * (passes * stream.bytes() + beside * activations.bytes()) + 8 * rows);
    let make = move |gpu: &Gpu| {
        Ok([
            gpu.random(stream, rows * cols)?,
            gpu.random(F32, cols)?,
            gpu.random(F32, rows)?,
            gpu.positive(rows)?,
            gpu.random(activations, rows * cols)?,
            gpu.random(stream, rows * cols)?,
            gpu.out(F32, cols)?,
            gpu.out(F32, cols)?,
            gpu.out(activations, if ask == Ask::AddToScaled { rows * cols } else { 1 })?,
        ])
    };
    case(format!("layer_norm_backward {name}"), work, make, move |device, buffers| {
        let [x, weight, mean, rstd, dy, dx, dw, db, scaled] = buffers;
        let dx = match ask {
            Ask::AddTo => LayerNormDx::AddTo(dx),
            Ask::AddToScaled => LayerNormDx::AddToScaled { dx, gamma: weight, scaled },
            _ => LayerNormDx::Write(dx),
        };
        let weights = (ask == Ask::Weights).then_some((dw, db));
        layer_norm_backward(device, rows, cols, LayerNormInputs { x, weight, mean, rstd, dy }, dx, weights)
    })
}

fn scale_backward(name: &str, rows: usize, cols: usize, dgamma: bool) -> Case {
    let make = move |gpu: &Gpu| {
        let (h, dy) = (gpu.random(BF16, rows * cols)?, gpu.random(BF16, rows * cols)?);
        Ok((gpu.random(F32, cols)?, h, dy, gpu.out(BF16, rows * cols)?, gpu.out(F32, cols)?))
    };
    let work = bytes(2 * rows * cols * if dgamma { 3 } else { 2 });
    case(format!("layer_scale_backward {name}"), work, make, move |device, (gamma, h, dy, dh, sums)| {
        layer_scale_backward(device, rows, cols, gamma, dy, Some(dh), dgamma.then_some((&*h, sums)))
    })
}

/// `random` inputs and one output of `count` elements.
fn maps(dtype: DType, random: usize, count: usize) -> impl Fn(&Gpu) -> peftk::Result<(Vec<Buf>, Buf)> {
    move |gpu| {
        let inputs = (0..random).map(|_| gpu.random(dtype, count)).collect::<peftk::Result<_>>()?;
        Ok((inputs, gpu.out(dtype, count)?))
    }
}

pub fn cases() -> Vec<Case> {
    let (r, d, f) = (ROWS, WIDTH, 4 * WIDTH);
    let (one, wide) = (r * d, r * f);
    let mut cases = vec![
        norm_forward("b256 bf16", r, d, BF16, BF16),
        norm_forward("b256 f32 bf16", r, d, F32, BF16),
        norm_forward("b32 bf16", r / 8, d, BF16, BF16),
        norm_backward("b256 bf16 dx", r, d, BF16, BF16, Ask::Dx),
        norm_backward("b256 bf16 added to dx", r, d, BF16, BF16, Ask::AddTo),
        norm_backward("b256 f32 bf16 dx", r, d, F32, BF16, Ask::Dx),
        norm_backward("b256 f32 bf16 added to dx, gamma dx", r, d, F32, BF16, Ask::AddToScaled),
        norm_backward("b256 bf16 added to dx, gamma dx", r, d, BF16, BF16, Ask::AddToScaled),
        norm_backward("b32 f32 bf16 added to dx, gamma dx", r / 8, d, F32, BF16, Ask::AddToScaled),
        norm_backward("b256 bf16 dx, dw, db", r, d, BF16, BF16, Ask::Weights),
        norm_backward("b32 bf16 dx", r / 8, d, BF16, BF16, Ask::Dx),
        scale_backward("b256 bf16 dh", r, d, false),
        scale_backward("b256 bf16 dh, dgamma", r, d, true),
    ];
    cases.extend([
        case(
            "layer_scale_forward b256 bf16",
            bytes(6 * one),
            move |gpu| Ok((gpu.random(BF16, one)?, gpu.random(BF16, one)?, gpu.random(F32, d)?, gpu.out(BF16, one)?)),
            move |device, (x, h, gamma, y)| layer_scale_forward(device, r, d, x, h, gamma, y),
        ),
        case("gelu_forward b256 bf16", bytes(4 * wide), maps(BF16, 1, wide), move |device, (x, y)| {
            gelu_forward(device, wide, &x[0], y)
        }),
        case("gelu_backward b256 bf16", bytes(6 * wide), maps(BF16, 2, wide), move |device, (x, y)| {
            gelu_backward(device, wide, &x[0], &x[1], y)
        }),
        case("gelu_forward b32 f32", bytes(wide), maps(F32, 1, wide / 8), move |device, (x, y)| {
            gelu_forward(device, wide / 8, &x[0], y)
        }),
        case(
            "swiglu_forward 65792 x 2 x 768 bf16",
            bytes(3 * wide),
            move |gpu| Ok((gpu.random(BF16, wide)?, gpu.out(BF16, wide / 2)?)),
            move |device, (h, y)| swiglu_forward(device, r, f / 2, h, y),
        ),
        case(
            "swiglu_backward 65792 x 2 x 768 bf16",
            bytes(5 * wide),
            move |gpu| Ok((gpu.random(BF16, wide)?, gpu.random(BF16, wide / 2)?, gpu.out(BF16, wide)?)),
            move |device, (h, dy, dh)| swiglu_backward(device, r, f / 2, h, dy, dh),
        ),
        case(
            "add_assign b256 bf16",
            bytes(6 * one),
            move |gpu| Ok((gpu.random(BF16, one)?, gpu.random(BF16, one)?)),
            move |device, (acc, x)| add_assign(device, one, acc, x),
        ),
        // A factor that leaves the values what they are.
        case(
            "scale_assign b256 bf16",
            bytes(4 * one),
            move |gpu| gpu.random(BF16, one),
            move |device, x| scale_assign(device, one, x, -1.0),
        ),
        // Nothing but zeros is what it writes in use.
        case(
            "fill b256 bf16, written only",
            bytes(2 * one),
            move |gpu| gpu.out(BF16, one),
            move |device, x| fill(device, one, x, 0.0),
        ),
        case("dropout b256 bf16", bytes(4 * one), maps(BF16, 1, one), move |device, (x, y)| {
            dropout(device, one, &x[0], 0.1, 7, y)
        }),
        case(
            "cast fc1 f32 to bf16",
            bytes(6 * f * d),
            move |gpu| Ok((gpu.random(F32, f * d)?, gpu.out(BF16, f * d)?)),
            move |device, (x, y)| cast(device, f, d, x, d, y, d),
        ),
        case(
            "cast patches 384 x 588 to 592 f32 to bf16",
            bytes(6 * 588 * d),
            move |gpu| Ok((gpu.random(F32, 588 * d)?, gpu.out(BF16, 592 * d)?)),
            move |device, (x, y)| cast(device, d, 588, x, 588, y, 592),
        ),
        case(
            "column_sum b256 of 1536 bf16",
            bytes(2 * wide),
            move |gpu| Ok((gpu.random(BF16, wide)?, gpu.out(F32, f)?)),
            move |device, (dy, out)| column_sum(device, r, f, Columns { matrix: dy, ld: f, first: 0 }, out),
        ),
        case(
            "column_dot b256 q of qkv bf16",
            bytes(4 * one),
            move |gpu| {
                Ok((
                    gpu.random(BF16, 3 * one)?,
                    gpu.random(BF16, 3 * one)?,
                    gpu.random(F32, d)?,
                    gpu.positive(d)?,
                    gpu.out(F32, d)?,
                ))
            },
            move |device, (dy, y, bias, gain, out)| {
                let [a, b] = [&*dy, &*y].map(|matrix| Columns { matrix, ld: 3 * d, first: 0 });
                column_dot(device, r, d, a, b, Some(bias), Some(gain), out)
            },
        ),
    ]);
    cases
}
