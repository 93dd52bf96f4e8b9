//! A linear and its adapters, forward: one launch, with dropout a few.

use super::adapters::Packed;
use super::{Cuda, CudaBuffer};
use crate::autograd::{Adapter, LinearDims, LinearOutput};
use crate::gpu::Buf;
use crate::kernels::dora_dropout;
use crate::kernels::matmul::{Epilogue, Layout, LoraAdapter, MAX_RANK_IN_LOOP, Matmul, Operand, RankProduct, matmul};
use crate::{Error, Result};

/// What follows the linear in the same launch.
pub(super) enum After<'a> {
    /// Nothing.
    Nothing,
    /// GELU; the pre-activation is kept too.
    Gelu,
    /// GELU, whose result is the linear's output.
    GeluAlone,
    /// LayerScale and the residual.
    Residual(&'a CudaBuffer, &'a CudaBuffer),
}

/// The inputs of a linear.
pub(super) struct Forward<'a> {
    pub(super) dims: LinearDims,
    pub(super) x: &'a CudaBuffer,
    pub(super) w: &'a CudaBuffer,
    pub(super) bias: Option<&'a CudaBuffer>,
    pub(super) adapters: &'a [Adapter<'a, CudaBuffer>],
}

impl Cuda {
    /// The linear's output and, after GELU, gelu of it.
    pub(super) fn run_linear(
        &self,
        args: &Forward<'_>,
        after: After<'_>,
    ) -> Result<(LinearOutput<CudaBuffer>, Option<CudaBuffer>)> {
        let LinearDims { m, n, .. } = args.dims;
        if args.adapters.iter().any(|adapter| adapter.dropped.is_some()) {
            let made = self.run_linear_with_dropout(args)?;
            return match after {
                After::Nothing => Ok((made, None)),
                After::Gelu => {
                    let activated = self.gelu_of(&made.y)?;
                    Ok((made, Some(activated)))
                }
                After::GeluAlone => {
                    let y = self.gelu_of(&made.y)?;
                    Ok((LinearOutput { y, ..made }, None))
                }
                After::Residual(residual, gamma) => {
                    let y = self.layer_scale_of(m, n, residual, &made.y, gamma)?;
                    Ok((LinearOutput { y, ..made }, None))
                }
            };
        }
        let dtype = args.x.dtype();
        let packed = self.pack(args.dims.k, args.adapters, dtype)?;
        let mut t = Vec::with_capacity(packed.len());
        for packed in &packed {
            // Small ranks are made in the product's own loop.
            let given = packed.rank > MAX_RANK_IN_LOOP;
            t.push(if given {
                self.rank_product(args.dims, args.x, packed)?
            } else {
                self.buf(dtype, m * packed.rank)?
            });
        }
        let mut aux = None;
        let mut out;
        {
            let mut given = Vec::new();
            for ((adapter, packed), t) in args.adapters.iter().zip(&packed).zip(&mut t) {
                let product = if packed.rank > MAX_RANK_IN_LOOP {
                    RankProduct::Given(t)
                } else {
                    RankProduct::InLoop { a: &packed.a, t: Some(t) }
                };
                given.push(lora_adapter(adapter, packed, product));
            }
            let epilogue = match after {
                After::Nothing => {
                    out = self.buf(dtype, m * n)?;
                    Epilogue::Plain
                }
                After::Gelu => {
                    out = self.buf(dtype, m * n)?;
                    Epilogue::Gelu { aux: Some(aux.insert(self.buf(dtype, m * n)?)) }
                }
                After::GeluAlone => {
                    out = self.buf(dtype, m * n)?;
                    Epilogue::Gelu { aux: None }
                }
                After::Residual(residual, gamma) => {
                    out = self.buf(residual.dtype(), m * n)?;
                    Epilogue::ScaleResidual { residual: &residual.data, gamma: &gamma.data }
                }
            };
            let (w, stride) = self.operand(args.w, n, dtype)?;
            matmul(&self.device, Matmul { adapters: given, epilogue, ..product(args, &w, stride) }, &mut out)?;
        }
        let t = t.into_iter().zip(args.adapters).map(|(t, a)| CudaBuffer::padded(t, m * a.dims.rank)).collect();
        let z = args.adapters.iter().map(|_| None).collect();
        let out = CudaBuffer::new(out);
        Ok(match aux {
            Some(pre) => (LinearOutput { y: CudaBuffer::new(pre), t, z }, Some(out)),
            None => (LinearOutput { y: out, t, z }, None),
        })
    }

    /// y = x W^T + bias + s t B^T with t = drop(x) A^T (LoRA: the plain form with t given), or, as peft defines DoRA,
    /// y = x W^T + bias + g z - u with z = drop(x) W^T + s t B^T and u = drop(x) W^T on an adapter's rows.
    fn run_linear_with_dropout(&self, args: &Forward<'_>) -> Result<LinearOutput<CudaBuffer>> {
        let LinearDims { m, k, n } = args.dims;
        let dtype = args.x.dtype();
        let packed = self.pack(k, args.adapters, dtype)?;
        let (w, stride) = self.operand(args.w, n, dtype)?;
        let mut t = Vec::new();
        for (adapter, packed) in args.adapters.iter().zip(&packed) {
            let input = adapter.dropped.unwrap_or(args.x);
            t.push(self.rank_product(args.dims, input, packed)?);
        }
        // LoRA with t given is the plain form, whatever t was made from.
        let mut y = self.buf(dtype, m * n)?;
        let lora: Vec<_> = args
            .adapters
            .iter()
            .zip(&packed)
            .zip(&t)
            .filter(|((adapter, _), _)| adapter.gain.is_none())
            .map(|((adapter, packed), t)| lora_adapter(adapter, packed, RankProduct::Given(t)))
            .collect();
        matmul(&self.device, Matmul { adapters: lora, ..product(args, &w, stride) }, &mut y)?;
        let mut z = Vec::new();
        for ((adapter, packed), t) in args.adapters.iter().zip(&packed).zip(&t) {
            let Some(gain) = adapter.gain else {
                z.push(None);
                continue;
            };
            // Without dropout the same formula: drop(x) is x.
            let dropped = adapter.dropped.unwrap_or(args.x);
            let rows = adapter.dims.rows;
            let mut made = self.buf(dtype, m * rows)?;
            let part = Matmul {
                b: Operand { buf: &w, first: adapter.dims.first_row * stride, stride },
                adapters: vec![LoraAdapter {
                    first_row: 0,
                    gain: None,
                    ..lora_adapter(adapter, packed, RankProduct::Given(t))
                }],
                ..Matmul::new(Layout::Nt, (m, rows, k), &dropped.data, &w)
            };
            matmul(&self.device, part, &mut made)?;
            // u = drop(x) W^T; y += g z - u on these columns.
            let mut u = self.buf(dtype, m * rows)?;
            let part = Matmul {
                b: Operand { buf: &w, first: adapter.dims.first_row * stride, stride },
                ..Matmul::new(Layout::Nt, (m, rows, k), &dropped.data, &w)
            };
            matmul(&self.device, part, &mut u)?;
            let columns = dora_dropout::Columns { m, n, first: adapter.dims.first_row, rows };
            dora_dropout::add_rescaled(&self.device, columns, &gain.data, &made, &u, &mut y)?;
            z.push(adapter.dropped.is_some().then(|| CudaBuffer::new(made)));
        }
        let t = t.into_iter().zip(args.adapters).map(|(t, a)| CudaBuffer::padded(t, m * a.dims.rank)).collect();
        Ok(LinearOutput { y: CudaBuffer::new(y), t, z })
    }

    /// t = x A^T \[m, rank_padded\].
    fn rank_product(&self, dims: LinearDims, x: &CudaBuffer, packed: &Packed) -> Result<Buf> {
        let LinearDims { m, k, .. } = dims;
        let mut t = self.buf(x.dtype(), m * packed.rank)?;
        let args = Matmul {
            a: Operand { buf: &x.data, first: 0, stride: x.stride(m) },
            ..Matmul::new(Layout::Nt, (m, packed.rank, k), &x.data, &packed.a)
        };
        matmul(&self.device, args, &mut t)?;
        Ok(t)
    }
}

fn lora_adapter<'a>(adapter: &Adapter<'a, CudaBuffer>, packed: &'a Packed, t: RankProduct<'a>) -> LoraAdapter<'a> {
    LoraAdapter {
        first_row: adapter.dims.first_row,
        rows: adapter.dims.rows,
        rank_padded: packed.rank,
        scale: adapter.dims.scale as f32,
        b: &packed.b,
        gain: adapter.gain.map(|gain| &gain.data),
        t,
    }
}

/// x W^T + bias.
fn product<'a>(args: &Forward<'a>, w: &'a Buf, stride: usize) -> Matmul<'a> {
    let LinearDims { m, k, n } = args.dims;
    // Padded rows are read in full: the padding of both is zero.
    let x_stride = args.x.stride(m);
    let depth = if x_stride == stride { stride } else { k };
    Matmul {
        a: Operand { buf: &args.x.data, first: 0, stride: x_stride },
        b: Operand { buf: w, first: 0, stride },
        bias: args.bias.map(|bias| &bias.data),
        ..Matmul::new(Layout::Nt, (m, n, depth), &args.x.data, w)
    }
}

/// A value that the operation must have been given.
pub(super) fn required<T>(value: Option<T>, what: &str) -> Result<T> {
    value.ok_or_else(|| Error::Internal(format!("linear: {what} was not kept")))
}
