//! A linear's gradients and its adapters', which never need the dense dW.

use std::rc::Rc;

use super::adapters::row_gains;
use super::linear::required;
use super::{Cuda, CudaBuffer};
use crate::autograd::{AdapterDims, AdapterGrads, LinearBackward, LinearDims, LinearGrads, Sums};
use crate::gpu::{Buf, DType};
use crate::kernels::adapter_pack::{RowGain, WeightRescale, padded_rank, weight_rescale};
use crate::kernels::column_sum::{Columns, column_sum};
use crate::kernels::cut::Rows;
use crate::kernels::lora_gradients::{AdapterGradients, GainFromOutput, LoraGradients, lora_gradients};
use crate::kernels::magnitude_rescale::{GainGradient, GainSource, magnitude_gradient};
use crate::kernels::matmul::{Epilogue, Layout, MAX_RANK_IN_LOOP, Matmul, Operand, Second, WeightSum, matmul};
use crate::kernels::{dora_dropout, pointwise};
use crate::{Error, Result};

type Args<'a> = LinearBackward<'a, CudaBuffer>;

/// Q = s (g dy) B of some adapters side by side, with their A below each other: dx's second product.
struct Folded {
    width: usize,
    q: Buf,
    a: Rc<Buf>,
}

impl Cuda {
    /// All gradients; with `pre` the input was gelu(pre), and dx is dL/dpre.
    pub(super) fn run_linear_backward(
        &self,
        args: &Args<'_>,
        pre: Option<&CudaBuffer>,
        mut sums: Sums<CudaBuffer>,
    ) -> Result<LinearGrads<CudaBuffer>> {
        let LinearDims { m, k, n } = args.dims;
        let granule = sums.granule(m);
        if args.need_w && !args.adapters.is_empty() {
            return Err(Error::Internal("a weight under an adapter is not trained".into()));
        }
        let bias = match args.need_bias {
            true => {
                let mut add = false;
                let [mut bias] = self.sum_blocks(&mut sums, [(1, n)], &mut add)?;
                let dy = Columns { matrix: &args.dy.data, ld: n, first: 0 };
                column_sum(&self.device, Rows { count: m, granule, add }, n, dy, &mut bias)?;
                Some(bias)
            }
            false => None,
        };
        let w_grad = match args.need_w {
            true => {
                let x = required(args.x, "x")?;
                let mut add = false;
                let [mut dw] = self.sum_blocks(&mut sums, [(0, n * k)], &mut add)?;
                let product = Matmul {
                    b: Operand { buf: &x.data, first: 0, stride: x.stride(m) },
                    sum: WeightSum { granule: Some(granule), add, ..WeightSum::default() },
                    ..Matmul::new(Layout::Tn, (n, k, m), &args.dy.data, &x.data)
                };
                matmul(&self.device, product, &mut dw)?;
                Some(CudaBuffer::new(dw))
            }
            false => None,
        };

        let mut adapters: Vec<_> = args.adapters.iter().map(|_| NOTHING).collect();
        let mut folded = Vec::new();
        if !args.adapters.is_empty() && (args.need_adapter || args.need_x) {
            let dropped = args.adapters.iter().any(|adapter| adapter.dropped.is_some());
            if !dropped
                && args.need_adapter
                && args.adapters.iter().all(|adapter| padded_rank(adapter.dims.rank) <= MAX_RANK_IN_LOOP)
            {
                folded.push(self.adapters_in_one_pass(args, &mut adapters, &mut sums)?);
            } else {
                for (index, grads) in adapters.iter_mut().enumerate() {
                    folded.extend(self.adapter_by_products(args, index, grads, &mut sums)?);
                }
                if args.need_adapter {
                    self.gain_gradients(args, &mut adapters, &mut sums)?;
                }
            }
        }
        let x = args.need_x.then(|| self.input_gradient(args, pre, folded)).transpose()?;
        Ok(LinearGrads { x, w: w_grad, bias: bias.map(CudaBuffer::new), adapters })
    }

    /// dx = (g dy) W + Q A, behind GELU' where asked.
    fn input_gradient(&self, args: &Args<'_>, pre: Option<&CudaBuffer>, folded: Vec<Folded>) -> Result<CudaBuffer> {
        let LinearDims { m, k, n } = args.dims;
        let dtype = args.dy.dtype();
        let (w, stride) = self.operand(args.w, n, dtype)?;
        let rescaled = self.rescaled_weight(args)?;
        let (w, stride) = rescaled.as_ref().map_or((&*w, stride), |w| (&**w, k));
        let mut folded = folded.into_iter();
        let first = folded.next();
        let rest: Vec<_> = folded.collect();
        // GELU' comes after all that is added.
        let fuse_gelu = rest.is_empty();
        let product = Matmul {
            b: Operand { buf: w, first: 0, stride },
            second: first.as_ref().map(|f| Second { k: f.width, a: &f.q, b: &f.a }),
            epilogue: match pre {
                Some(pre) if fuse_gelu => Epilogue::GeluBackward { aux: &pre.data },
                _ => Epilogue::Plain,
            },
            ..Matmul::new(Layout::Nn, (m, k, n), &args.dy.data, w)
        };
        let mut dx = self.buf(dtype, m * k)?;
        matmul(&self.device, product, &mut dx)?;
        drop(first);
        for more in rest {
            let mut part = self.buf(dtype, m * k)?;
            matmul(&self.device, Matmul::new(Layout::Nn, (m, k, more.width), &more.q, &more.a), &mut part)?;
            pointwise::add_assign(&self.device, m * k, &mut dx, &part)?;
        }
        let dx = CudaBuffer::new(dx);
        match pre {
            Some(pre) if !fuse_gelu => self.gelu_backward_of(pre, &dx),
            _ => Ok(dx),
        }
    }

    /// W with its rows under a gain multiplied by it, rounded once from W's own values; none where there is no gain to apply.
    fn rescaled_weight(&self, args: &Args<'_>) -> Result<Option<Rc<Buf>>> {
        let LinearDims { k, n, .. } = args.dims;
        // Under dropout x's own path goes through W alone.
        let plain = || args.adapters.iter().filter(|adapter| adapter.dropped.is_none());
        let (gains, dtype) = (row_gains(plain()), args.dy.dtype());
        if gains.is_empty() {
            return Ok(None);
        }
        if plain().count() == args.adapters.len()
            && let Some(ready) = self.rescaled(&args.adapters, dtype)
        {
            return Ok(Some(ready));
        }
        let mut out = self.buf(dtype, n * k)?;
        weight_rescale(&self.device, &mut WeightRescale { n, k, w: &args.w.data, gains, out: &mut out })?;
        Ok(Some(Rc::new(out)))
    }

    /// Adapters that share x and are small: Q, dA, dB and the gains' gradients from one pass over x and dy.
    fn adapters_in_one_pass(
        &self,
        args: &Args<'_>,
        grads: &mut [AdapterGrads<CudaBuffer>],
        sums: &mut Sums<CudaBuffer>,
    ) -> Result<Folded> {
        let LinearDims { m, k, n } = args.dims;
        let dtype = args.dy.dtype();
        let packed = self.pack_backward(k, &args.adapters, dtype)?;
        let mut q = self.buf(dtype, m * packed.width)?;
        let mut made = Vec::with_capacity(args.adapters.len());
        for (index, adapter) in args.adapters.iter().enumerate() {
            let AdapterDims { rows, rank, .. } = adapter.dims;
            let (mut add_a, mut add_b, mut add_gain) = (false, false, false);
            let [da] = self.sum_blocks(sums, [(2 + 3 * index, rank * k)], &mut add_a)?;
            let [db] = self.sum_blocks(sums, [(3 + 3 * index, rows * rank)], &mut add_b)?;
            let mut dgain = None;
            if adapter.gain.is_some() {
                let [block] = self.sum_blocks(sums, [(4 + 3 * index, rows)], &mut add_gain)?;
                dgain = Some((block, add_gain));
            }
            made.push((da, db, (add_a, add_b), dgain));
        }
        // What gains ask for besides: y, and where they are small z made anew.
        let forward = match args.adapters.iter().any(|adapter| adapter.gain.is_some()) {
            true => {
                Some((self.pack(k, &args.adapters, dtype)?, self.operand(args.w, n, dtype)?, required(args.y, "y")?))
            }
            false => None,
        };
        let mut adapters = Vec::with_capacity(made.len());
        for (index, (adapter, (da, db, add, dgain))) in args.adapters.iter().zip(&mut made).enumerate() {
            let dgain =
                dgain.as_mut().zip(forward.as_ref()).map(|((dgain, add), (packed, (w, stride), y))| GainFromOutput {
                    y: &y.data,
                    bias: args.bias.map(|bias| &bias.data),
                    w,
                    w_stride: *stride,
                    b: &packed[index].b,
                    dgain,
                    add: *add,
                });
            adapters.push(AdapterGradients {
                first_row: adapter.dims.first_row,
                rows: adapter.dims.rows,
                rank: adapter.dims.rank,
                scale: adapter.dims.scale as f32,
                t: &args.t[index].data,
                bg: &packed.bg[index],
                gain: adapter.gain.map(|gain| &gain.data),
                da,
                db,
                add: *add,
                dgain,
            });
        }
        let x = &required(args.x, "x")?.data;
        let mut all = LoraGradients { m, k, n, x, dy: &args.dy.data, granule: sums.granule(m), adapters };
        lora_gradients(&self.device, &mut all, &mut q)?;
        drop(all);
        for (grads, (da, db, _, dgain)) in grads.iter_mut().zip(made) {
            (grads.a, grads.b) = (Some(CudaBuffer::new(da)), Some(CudaBuffer::new(db)));
            grads.gain = dgain.map(|(dgain, _)| CudaBuffer::new(dgain));
        }
        Ok(Folded { width: packed.width, q, a: packed.a })
    }

    /// One adapter of any rank, with dropout or without, by matrix products. What flows through dropout goes to `grads`, the rest is returned.
    fn adapter_by_products(
        &self,
        args: &Args<'_>,
        index: usize,
        grads: &mut AdapterGrads<CudaBuffer>,
        sums: &mut Sums<CudaBuffer>,
    ) -> Result<Option<Folded>> {
        let LinearDims { m, k, n } = args.dims;
        let adapter = &args.adapters[index];
        let AdapterDims { first_row, rows, rank, scale } = adapter.dims;
        let dtype = args.dy.dtype();
        let packed = self.pack_backward(k, &args.adapters[index..=index], dtype)?;
        let padded = packed.width;
        let dy = Operand { buf: &args.dy.data, first: first_row, stride: n };

        // Q = s (g dy) B.
        let mut q = self.buf(dtype, m * padded)?;
        let product = Matmul { a: dy, ..Matmul::new(Layout::Nn, (m, padded, rows), &args.dy.data, &packed.bg[0]) };
        matmul(&self.device, product, &mut q)?;
        if args.need_adapter {
            // dA = Q^T x, the first `rank` of its rows.
            let x = required(adapter.dropped.or(args.x), "x")?;
            let (mut add_a, mut add_b) = (false, false);
            let granule = Some(sums.granule(m));
            let [mut da] = self.sum_blocks(sums, [(2 + 3 * index, rank * k)], &mut add_a)?;
            let product = Matmul {
                b: Operand { buf: &x.data, first: 0, stride: x.stride(m) },
                sum: WeightSum { granule, add: add_a, size: Some((rank, k)), ..WeightSum::default() },
                ..Matmul::new(Layout::Tn, (padded, k, m), &q, &x.data)
            };
            matmul(&self.device, product, &mut da)?;
            grads.a = Some(CudaBuffer::new(da));
            // dB = s g dy^T t.
            let t = &args.t[index].data;
            let [mut db] = self.sum_blocks(sums, [(3 + 3 * index, rows * rank)], &mut add_b)?;
            let product = Matmul {
                a: dy,
                sum: WeightSum {
                    granule,
                    add: add_b,
                    size: Some((rows, rank)),
                    scale: Some(scale as f32),
                    gain: adapter.gain.map(|gain| &gain.data),
                },
                ..Matmul::new(Layout::Tn, (rows, padded, m), &args.dy.data, t)
            };
            matmul(&self.device, product, &mut db)?;
            grads.b = Some(CudaBuffer::new(db));
        }
        if adapter.dropped.is_none() {
            return Ok(Some(Folded { width: padded, q, a: packed.a }));
        }
        if !args.need_x {
            return Ok(None);
        }
        // d drop(x) = ((g - 1) dy) W + Q A.
        let mut dropped = self.buf(dtype, m * k)?;
        match adapter.gain {
            None => matmul(&self.device, Matmul::new(Layout::Nn, (m, k, padded), &q, &packed.a), &mut dropped)?,
            Some(gain) => {
                let mut less_one = self.buf(DType::F32, rows)?;
                dora_dropout::gain_minus_one(&self.device, &gain.data, &mut less_one)?;
                let mut w = self.buf(dtype, n * k)?;
                let gains = vec![RowGain { first_row, rows, gain: &less_one }];
                weight_rescale(&self.device, &mut WeightRescale { n, k, w: &args.w.data, gains, out: &mut w })?;
                let product = Matmul {
                    a: dy,
                    b: Operand { buf: &w, first: first_row * k, stride: k },
                    second: Some(Second { k: padded, a: &q, b: &packed.a }),
                    ..Matmul::new(Layout::Nn, (m, k, rows), &args.dy.data, &w)
                };
                matmul(&self.device, product, &mut dropped)?;
            }
        }
        grads.dropped = Some(CudaBuffer::new(dropped));
        Ok(None)
    }

    /// dg of each adapter with a gain: from y, which was kept, or under dropout from z.
    fn gain_gradients(
        &self,
        args: &Args<'_>,
        grads: &mut [AdapterGrads<CudaBuffer>],
        sums: &mut Sums<CudaBuffer>,
    ) -> Result<()> {
        let LinearDims { m, k, n } = args.dims;
        let dtype = args.dy.dtype();
        for (index, grads) in grads.iter_mut().enumerate() {
            let adapter = &args.adapters[index];
            let Some(gain) = adapter.gain else { continue };
            let AdapterDims { first_row, rows, rank, scale } = adapter.dims;
            let mut add = false;
            let [mut dgain] = self.sum_blocks(sums, [(4 + 3 * index, rows)], &mut add)?;
            let granule = sums.granule(m);
            let sizes = GainGradient { m, k, n, first_row, rows, rank, scale: scale as f32, granule, add };
            if adapter.dropped.is_some() {
                let z = required(args.z[index], "z")?;
                magnitude_gradient(&self.device, sizes, &args.dy.data, GainSource::Z(&z.data), &mut dgain)?;
            } else {
                let packed = self.pack(k, &args.adapters[index..=index], dtype)?;
                let (w, w_stride) = self.operand(args.w, n, dtype)?;
                let source = GainSource::Output {
                    y: &required(args.y, "y")?.data,
                    bias: args.bias.map(|bias| &bias.data),
                    gain: &gain.data,
                    x: &required(args.x, "x")?.data,
                    w: &w,
                    w_stride,
                    t: &args.t[index].data,
                    b: &packed[0].b,
                };
                magnitude_gradient(&self.device, sizes, &args.dy.data, source, &mut dgain)?;
            }
            grads.gain = Some(CudaBuffer::new(dgain));
        }
        Ok(())
    }
}

const NOTHING: AdapterGrads<CudaBuffer> = AdapterGrads { a: None, b: None, gain: None, dropped: None };
