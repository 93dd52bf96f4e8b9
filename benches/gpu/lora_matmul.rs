//! A linear with its adapters in one launch; the same linear alone is in matmul.rs.

use peftk::gpu::{Buf, DType};
use peftk::kernels::adapter_pack::padded_rank;
use peftk::kernels::matmul::{Epilogue, Layout, LoraAdapter, MAX_RANK_IN_LOOP, Matmul, RankProduct, matmul};

use super::{Case, Gpu, TOKENS, Work, case};

#[derive(Clone, Copy, Debug, PartialEq)]
enum After {
    Nothing,
    Gelu,
    Residual,
}

/// A linear \[n, k\] with adapters on these rows.
#[derive(Clone, Copy)]
struct Site {
    name: &'static str,
    n: usize,
    k: usize,
    /// (first row, rows).
    adapters: &'static [(usize, usize)],
    after: After,
}

const QV: Site = Site { name: "qkv q,v", n: 1152, k: 384, adapters: &[(0, 384), (768, 384)], after: After::Nothing };
const QKV: Site = Site { name: "qkv q,k,v", adapters: &[(0, 384), (384, 384), (768, 384)], ..QV };
const N384: Site = Site { name: "n384", n: 384, k: 384, adapters: &[(0, 384)], after: After::Nothing };
const PROJ: Site = Site { name: "proj residual", n: 384, k: 384, adapters: &[(0, 384)], after: After::Residual };
const FC1: Site = Site { name: "fc1 gelu", n: 1536, k: 384, adapters: &[(0, 1536)], after: After::Gelu };
const FC2: Site = Site { name: "fc2 residual", n: 384, k: 1536, adapters: &[(0, 384)], after: After::Residual };
const BASE_QV: Site =
    Site { name: "qkv q,v", n: 2304, k: 768, adapters: &[(0, 768), (1536, 768)], after: After::Nothing };

struct Buffers {
    x: Buf,
    w: Buf,
    bias: Buf,
    gamma: Buf,
    /// Pre-activation or residual.
    other: Option<Buf>,
    /// A, B, g, t.
    adapters: Vec<(Buf, Buf, Buf, Buf)>,
    y: Buf,
}

fn linear(model: &str, batch: usize, site: Site, rank: usize, dora: bool, dtype: DType) -> Case {
    let Site { n, k, after, .. } = site;
    let (m, padded) = (batch * TOKENS, padded_rank(rank));
    let in_loop = padded <= MAX_RANK_IN_LOOP;
    let size = dtype.bytes();
    let rows: usize = site.adapters.iter().map(|(_, rows)| rows).sum();
    let count = site.adapters.len();
    let through = if after == After::Nothing { 1 } else { 2 };
    let made = if in_loop { m * k * padded * count } else { 0 };
    let work = Work {
        flops: 2 * (m * n * k + made + m * padded * rows) as u64,
        bytes: (size * (m * k + n * k + through * m * n + count * padded * (m + k) + rows * padded)) as u64,
    };
    let make = move |gpu: &Gpu| {
        let adapters = site.adapters.iter().map(|&(_, rows)| {
            Ok((
                gpu.random(dtype, padded * k)?,
                gpu.random(dtype, rows * padded)?,
                gpu.positive(rows)?,
                gpu.random(dtype, m * padded)?,
            ))
        });
        Ok(Buffers {
            x: gpu.random(dtype, m * k)?,
            w: gpu.random(dtype, n * k)?,
            bias: gpu.random(DType::F32, n)?,
            gamma: gpu.random(DType::F32, n)?,
            other: (after != After::Nothing).then(|| gpu.random(dtype, m * n)).transpose()?,
            adapters: adapters.collect::<peftk::Result<_>>()?,
            y: gpu.out(dtype, m * n)?,
        })
    };
    let kind = if dora { "dora" } else { "lora" };
    let type_name = if dtype == DType::F32 { " f32" } else { "" };
    let name = format!("{model} b{batch} {} {kind} r{rank}{type_name}", site.name);
    case(name, work, make, move |device, buffers| {
        let Buffers { x, w, bias, gamma, other, adapters, y } = buffers;
        let places = site.adapters.iter().zip(adapters);
        let adapters = places.map(|(&(first_row, rows), (a, b, gain, t))| LoraAdapter {
            first_row,
            rows,
            rank_padded: padded,
            scale: 1.0,
            b,
            gain: dora.then_some(&*gain),
            t: if in_loop { RankProduct::InLoop { a, t: Some(t) } } else { RankProduct::Given(t) },
        });
        let args = Matmul {
            bias: Some(bias),
            adapters: adapters.collect(),
            epilogue: match (after, other) {
                (After::Gelu, Some(aux)) => Epilogue::Gelu { aux: Some(aux) },
                (After::Residual, Some(residual)) => Epilogue::ScaleResidual { residual, gamma },
                _ => Epilogue::Plain,
            },
            ..Matmul::new(Layout::Nt, (m, n, k), x, w)
        };
        matmul(device, args, y)
    })
}

pub fn cases() -> Vec<Case> {
    use DType::{Bf16, F32};
    let mut cases = Vec::new();
    for dora in [false, true] {
        cases.push(linear("vits", 256, QV, 8, dora, Bf16));
        cases.push(linear("vits", 256, N384, 8, dora, Bf16));
        for site in [QKV, PROJ, FC1, FC2] {
            cases.push(linear("vits", 256, site, 16, dora, Bf16));
        }
        cases.push(linear("vits", 32, QV, 8, dora, Bf16));
        cases.push(linear("vitb", 64, BASE_QV, 8, dora, Bf16));
    }
    cases.push(linear("vits", 256, QV, 32, false, Bf16));
    cases.push(linear("vits", 256, QV, 64, false, Bf16));
    cases.push(linear("vits", 32, QV, 8, true, F32));
    cases
}
