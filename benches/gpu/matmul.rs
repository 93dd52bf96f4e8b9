//! The products of a linear: forward with what is fused behind it, the input's gradient, the weight's.

use peftk::gpu::{Buf, DType};
use peftk::kernels::matmul::{Epilogue, Layout, Matmul, Second, matmul};

use super::{Case, TOKENS, Work, case};

/// What the product is for.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// x W^T + bias.
    Forward,
    /// GELU behind it, the pre-activation kept.
    Gelu,
    /// GELU behind it, alone.
    GeluAlone,
    /// LayerScale and the residual behind it; the residual stream's type.
    Residual(DType),
    /// dy W.
    Dx,
    /// dy W with GELU's derivative behind it.
    DxGelu,
    /// dy W + Q A of this many ranks.
    DxAdapters(usize),
    /// dy^T x.
    Weight,
}

struct Buffers {
    a: Buf,
    b: Buf,
    bias: Buf,
    gamma: Buf,
    /// Pre-activation or residual.
    other: Option<Buf>,
    second: Option<(Buf, Buf)>,
    c: Buf,
}

fn product(name: String, dtype: DType, kind: Kind, (m, n, k): (usize, usize, usize)) -> Case {
    let layout = match kind {
        Kind::Forward | Kind::Gelu | Kind::GeluAlone | Kind::Residual(_) => Layout::Nt,
        Kind::Dx | Kind::DxGelu | Kind::DxAdapters(_) => Layout::Nn,
        Kind::Weight => Layout::Tn,
    };
    let (other, c) = match kind {
        Kind::Residual(stream) => (Some(stream), stream),
        Kind::Gelu | Kind::DxGelu => (Some(dtype), dtype),
        Kind::Weight => (None, DType::F32),
        _ => (None, dtype),
    };
    let ranks = if let Kind::DxAdapters(ranks) = kind { ranks } else { 0 };
    let work = Work {
        flops: (2 * m * n * (k + ranks)) as u64,
        bytes: ((m + n) * (k + ranks) * dtype.bytes() + m * n * (c.bytes() + other.map_or(0, DType::bytes))) as u64,
    };
    let make = move |gpu: &super::Gpu| {
        let second = match ranks {
            0 => None,
            ranks => Some((gpu.random(dtype, m * ranks)?, gpu.random(dtype, ranks * n)?)),
        };
        Ok(Buffers {
            a: gpu.random(dtype, m * k)?,
            b: gpu.random(dtype, n * k)?,
            bias: gpu.random(DType::F32, n)?,
            gamma: gpu.random(DType::F32, n)?,
            other: other.map(|other| gpu.random(other, m * n)).transpose()?,
            second,
            c: gpu.out(c, m * n)?,
        })
    };
    case(name, work, make, move |device, buffers| {
        let Buffers { a, b, bias, gamma, other, second, c } = buffers;
        let mut args = Matmul::new(layout, (m, n, k), a, b);
        args.bias = (layout == Layout::Nt).then_some(&*bias);
        args.second = second.as_ref().map(|(a, b)| Second { k: ranks, a, b });
        args.epilogue = match (kind, other) {
            (Kind::Gelu, Some(aux)) => Epilogue::Gelu { aux: Some(aux) },
            (Kind::GeluAlone, _) => Epilogue::Gelu { aux: None },
            (Kind::DxGelu, Some(aux)) => Epilogue::GeluBackward { aux },
            (Kind::Residual(_), Some(residual)) => Epilogue::ScaleResidual { residual, gamma },
            _ => Epilogue::Plain,
        };
        matmul(device, args, c)
    })
}

/// The linears of a block of width `d`, by `what` of each.
fn block(model: &str, batch: usize, d: usize, all: bool) -> Vec<Case> {
    use DType::Bf16;
    let m = batch * TOKENS;
    let mut list = vec![
        ("qkv forward", Kind::Forward, 3 * d, d),
        ("fc1 forward gelu", Kind::Gelu, 4 * d, d),
        ("fc2 forward residual", Kind::Residual(Bf16), d, 4 * d),
        ("qkv dx", Kind::Dx, d, 3 * d),
        ("fc2 dx gelu", Kind::DxGelu, 4 * d, d),
    ];
    if all {
        list.extend([
            ("proj forward", Kind::Forward, d, d),
            ("fc1 forward", Kind::Forward, 4 * d, d),
            ("fc1 forward gelu alone", Kind::GeluAlone, 4 * d, d),
            ("fc2 forward", Kind::Forward, d, 4 * d),
            ("proj forward residual", Kind::Residual(Bf16), d, d),
            ("proj forward residual f32", Kind::Residual(DType::F32), d, d),
            ("fc2 forward residual f32", Kind::Residual(DType::F32), d, 4 * d),
            ("proj dx", Kind::Dx, d, d),
            ("fc1 dx", Kind::Dx, d, 4 * d),
            ("qkv dx with 32 ranks", Kind::DxAdapters(32), d, 3 * d),
        ]);
    }
    let name = |what: &str| format!("{model} b{batch} {what}");
    let mut cases: Vec<Case> =
        list.into_iter().map(|(what, kind, n, k)| product(name(what), Bf16, kind, (m, n, k))).collect();
    let weights: &[_] = if all {
        &[("qkv dw", 3 * d, d), ("proj dw", d, d), ("fc1 dw", 4 * d, d), ("fc2 dw", d, 4 * d)]
    } else {
        &[("fc1 dw", 4 * d, d)]
    };
    cases.extend(weights.iter().map(|&(what, n, k)| product(name(what), Bf16, Kind::Weight, (n, k, m))));
    cases
}

pub fn cases() -> Vec<Case> {
    use DType::{Bf16, F32};
    let mut cases = block("vits", 256, 384, true);
    cases.extend(block("vits", 32, 384, false));
    cases.extend(block("vitb", 64, 768, false));
    // So few images that the usual tiles would leave multiprocessors empty.
    let few = 16 * TOKENS;
    cases.push(product("vits b16 fc2 forward residual f32".into(), Bf16, Kind::Residual(F32), (few, 384, 1536)));
    cases.push(product("vits b16 fc1 dx".into(), Bf16, Kind::Dx, (few, 384, 1536)));
    let patches = (256 * (TOKENS - 1), 384, 592);
    cases.push(product("vits b256 patches forward".into(), Bf16, Kind::Forward, patches));
    // The head: f32, small.
    for (what, kind, sizes) in [
        ("head forward f32", Kind::Forward, (256, 100, 768)),
        ("head dx f32", Kind::Dx, (256, 768, 100)),
        ("head dw f32", Kind::Weight, (100, 768, 256)),
    ] {
        cases.push(product(format!("vits b256 {what}"), F32, kind, sizes));
    }
    // f32 mode, batch 32.
    let m = 32 * TOKENS;
    for (what, kind, sizes) in [
        ("qkv forward f32", Kind::Forward, (m, 1152, 384)),
        ("fc1 forward gelu f32", Kind::Gelu, (m, 1536, 384)),
        ("fc2 forward residual f32", Kind::Residual(F32), (m, 384, 1536)),
        ("qkv dx f32", Kind::Dx, (m, 384, 1152)),
        ("fc2 dx gelu f32", Kind::DxGelu, (m, 1536, 384)),
        ("qkv dw f32", Kind::Weight, (1152, 384, m)),
    ] {
        cases.push(product(format!("vits b32 {what}"), F32, kind, sizes));
    }
    cases
}
