//! Matrix products with everything that is fused into them.

use super::{BOTH, Bench, Input, Measured, named, sums};
use crate::Result;
use crate::autograd::{Backend, LinearBackward, LinearDims, Sums};
use crate::gpu::{Arch, Buf, DType};
use crate::kernels::matmul::{Epilogue, Layout, LoraAdapter, Matmul, RankProduct, Second, matmul};
use crate::reference::Reference;

/// What follows a product.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Ending {
    Plain,
    Gelu,
    /// With a residual of this type.
    ScaleResidual(DType),
    GeluBackward,
}

impl Ending {
    /// The operation with this ending, its type, and what is special about the case.
    pub(super) fn named(self, operation: &str, dtype: DType, detail: &str) -> String {
        let ending = match self {
            Self::Plain => "",
            Self::Gelu => " gelu",
            Self::ScaleResidual(_) => " scale residual",
            Self::GeluBackward => " gelu backward",
        };
        let stream = if self == Self::ScaleResidual(DType::F32) && dtype == DType::Bf16 { ", stream f32" } else { "" };
        named(&format!("{operation}{ending}"), dtype) + stream + detail
    }
}

/// A low-rank adapter of a product.
pub(super) struct Adapter {
    pub first_row: usize,
    pub rows: usize,
    pub rank_padded: usize,
    pub scale: f32,
    /// A `[padded rank, k]`.
    pub a: Input,
    /// B `[rows, padded rank]`.
    pub b: Input,
    pub gain: Input,
    /// t, where it is not made in the loop.
    pub given: Option<Input>,
}

/// Operands.
pub(super) struct Product {
    pub layout: Layout,
    pub dtype: DType,
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub a: Input,
    pub b: Input,
    pub second: Option<(usize, Input, Input)>,
    pub bias: Option<Input>,
    pub adapter: Option<Adapter>,
}

impl Product {
    /// Random operands of variance about 1 and 1 / k; a bias for nt, a second product of depth 16 for nn.
    fn random(bench: &mut Bench<'_>, layout: Layout, dtype: DType, (m, n, k): (usize, usize, usize)) -> Result<Self> {
        let second = match layout {
            Layout::Nn => Some((16, bench.draw(dtype, m * 16, 1.0)?, bench.draw(dtype, 16 * n, 0.5)?)),
            _ => None,
        };
        let bias = if layout == Layout::Nt { Some(bench.draw(DType::F32, n, 1.0)?) } else { None };
        let (a, b) = (bench.draw(dtype, m * k, 1.7)?, bench.draw(dtype, n * k, (3.0 / k as f64).sqrt())?);
        Ok(Self { layout, dtype, m, n, k, a, b, second, bias, adapter: None })
    }

    /// A B + A2 B2 + bias.
    fn truth(&self) -> Result<Vec<f64>> {
        let Self { layout, m, n, k, .. } = *self;
        let mut truth = product(layout, (m, n, k), &self.a.wide, &self.b.wide)?;
        if let Some((k2, a, b)) = &self.second {
            let more = product(layout, (m, n, *k2), &a.wide, &b.wide)?;
            truth.iter_mut().zip(more).for_each(|(x, more)| *x += more);
        }
        if let Some(bias) = &self.bias {
            truth.chunks_exact_mut(n).for_each(|row| row.iter_mut().zip(&bias.wide).for_each(|(x, bias)| *x += bias));
        }
        Ok(truth)
    }

    /// The launch's arguments; an adapter's t goes to `t`.
    fn arguments<'a>(&'a self, epilogue: Epilogue<'a>, t: &'a mut Buf) -> Matmul<'a> {
        let Self { layout, m, n, k, .. } = *self;
        let adapter = self.adapter.as_ref().map(|adapter| LoraAdapter {
            first_row: adapter.first_row,
            rows: adapter.rows,
            rank_padded: adapter.rank_padded,
            scale: adapter.scale,
            b: &adapter.b.buf,
            gain: Some(&adapter.gain.buf),
            t: match &adapter.given {
                Some(given) => RankProduct::Given(&given.buf),
                None => RankProduct::InLoop { a: &adapter.a.buf, t: Some(t) },
            },
        });
        Matmul {
            second: self.second.as_ref().map(|(k, a, b)| Second { k: *k, a: &a.buf, b: &b.buf }),
            bias: self.bias.as_ref().map(|bias| &bias.buf),
            adapters: adapter.into_iter().collect(),
            epilogue,
            ..Matmul::new(layout, (m, n, k), &self.a.buf, &self.b.buf)
        }
    }

    /// With an ending; `v` is the truth of what it starts from, `t` that of an adapter's x A^T.
    pub(super) fn measure(&self, bench: &mut Bench<'_>, ending: Ending, v: Vec<f64>, t: Option<Vec<f64>>) -> Measured {
        let Self { layout, dtype, m, n, .. } = *self;
        let (device, reference) = (bench.device, Reference::<f64>::new());
        // Where no t is made, one value that stays 0.
        let (t_room, t) = match t {
            Some(t) => (bench.room(dtype, t.len())?, t),
            None => (Buf::zeros(device, DType::F32, 1)?, vec![0.0]),
        };
        let c_dtype = match ending {
            Ending::ScaleResidual(stream) => stream,
            _ if layout == Layout::Tn => DType::F32,
            _ => dtype,
        };
        let c = bench.room(c_dtype, m * n)?;
        match ending {
            Ending::Plain => {
                bench.measure([c, t_room], [v, t], |[c, t]| matmul(device, self.arguments(Epilogue::Plain, t), c))
            }
            Ending::Gelu => {
                let (aux, truth) = (bench.room(dtype, m * n)?, reference.gelu(&v)?);
                bench.measure([c, aux, t_room], [truth, v, t], |[c, aux, t]| {
                    matmul(device, self.arguments(Epilogue::Gelu { aux: Some(aux) }, t), c)
                })
            }
            Ending::ScaleResidual(stream) => {
                let (residual, gamma) = (bench.draw(stream, m * n, 2.0)?, bench.draw(DType::F32, n, 1.0)?);
                let truth = reference.layer_scale(m, n, &residual.wide, &v, &gamma.wide)?;
                bench.measure([c, t_room], [truth, t], |[c, t]| {
                    let epilogue = Epilogue::ScaleResidual { residual: &residual.buf, gamma: &gamma.buf };
                    matmul(device, self.arguments(epilogue, t), c)
                })
            }
            Ending::GeluBackward => {
                let aux = bench.draw(dtype, m * n, 3.0)?;
                let truth = reference.gelu_backward(&aux.wide, &v)?;
                bench.measure([c, t_room], [truth, t], |[c, t]| {
                    matmul(device, self.arguments(Epilogue::GeluBackward { aux: &aux.buf }, t), c)
                })
            }
        }
    }
}

/// A B, by the reference's linear and its gradients.
fn product(layout: Layout, (m, n, k): (usize, usize, usize), a: &Vec<f64>, b: &Vec<f64>) -> Result<Vec<f64>> {
    let reference = Reference::<f64>::new();
    let (dims, x, w) = match layout {
        Layout::Nt => return Ok(reference.linear(LinearDims { m, k, n }, a, b, None, &[])?.y),
        Layout::Nn => (LinearDims { m, k: n, n: k }, None, b),
        Layout::Tn => (LinearDims { m: k, k: n, n: m }, Some(b), b),
    };
    let grads = reference.linear_backward(
        LinearBackward {
            dims,
            x,
            w,
            bias: None,
            y: None,
            adapters: Vec::new(),
            t: Vec::new(),
            z: Vec::new(),
            dy: a,
            need_x: layout == Layout::Nn,
            need_w: layout == Layout::Tn,
            need_bias: false,
            need_adapter: false,
        },
        Sums::fresh(),
    )?;
    Ok(grads.x.or(grads.w).unwrap_or_default())
}

/// The file of a product of this type that Hopper has kernels of its own for.
pub(super) fn file(arch: Arch, dtype: DType, lora: bool) -> &'static str {
    match (arch, dtype, lora) {
        (Arch::Sm90a, DType::Bf16, _) => "sm90_matmul",
        (_, DType::Bf16, false) => "matmul_bf16",
        (_, DType::Bf16, true) => "lora_matmul_bf16",
        (_, _, false) => "matmul_f32",
        (_, _, true) => "lora_matmul_f32",
    }
}

fn check(bench: &mut Bench<'_>, file: &'static str, detail: &str, dtype: DType, sizes: (usize, usize, usize)) {
    let scale_residual = Ending::ScaleResidual;
    let mut cases = vec![(Layout::Nt, Ending::Plain), (Layout::Nn, Ending::Plain), (Layout::Tn, Ending::Plain)];
    cases.extend([Ending::Gelu, scale_residual(dtype)].map(|ending| (Layout::Nt, ending)));
    cases.extend((dtype == DType::Bf16).then_some((Layout::Nt, scale_residual(DType::F32))));
    cases.push((Layout::Nn, Ending::GeluBackward));
    for (layout, ending) in cases {
        let operation = match layout {
            Layout::Nt => "matmul nt",
            Layout::Nn => "matmul nn",
            Layout::Tn => "matmul tn",
        };
        // A gradient of a weight is f32, summed over tokens: enough of them to be cut into parts.
        let (sizes, tolerance) = match layout {
            Layout::Tn => ((sizes.2, sizes.1, 514), sums(DType::F32)),
            _ => (sizes, sums(dtype)),
        };
        bench.check(file, ending.named(operation, dtype, detail), tolerance, |bench| {
            let product = Product::random(bench, layout, dtype, sizes)?;
            let truth = product.truth()?;
            product.measure(bench, ending, truth, None)
        });
    }
}

pub(super) fn checks(bench: &mut Bench<'_>) {
    let arch = bench.device.arch();
    for dtype in BOTH {
        check(bench, file(arch, dtype, false), "", dtype, (257, 128, 128));
    }
    // Rows that Hopper's copy engine does not read, a head of 100 classes among them; and tiles of 128 columns where f32 has smaller ones.
    check(bench, "matmul_bf16", ", n 100", DType::Bf16, (257, 100, 64));
    for (operation, layout) in [("matmul nt", Layout::Nt), ("matmul nn", Layout::Nn), ("matmul tn", Layout::Tn)] {
        let name = named(operation, DType::F32) + ", large";
        bench.check("matmul_f32", name, sums(DType::F32), |bench| {
            let product = Product::random(bench, layout, DType::F32, (514, 896, 32))?;
            let truth = product.truth()?;
            product.measure(bench, Ending::Plain, truth, None)
        });
    }
}
