//! The operations on a GPU: autograd's backend over the launchers of `kernels`.
//!
//! Which numbers are rounded to bf16, in bf16 mode: weights where a matrix product reads them (their f32 masters stay), the input and
//! output of every linear, of attention, GELU, SwiGLU and of LayerNorm, and their gradients. In f32: the residual stream and
//! its gradient ([`Cuda::with_residual`] can round them too), all sums, LayerNorm's statistics, softmax, log-sum-exp, DoRA's norm and
//! gain, LayerScale's and LayerNorm's own values, trained values and their gradients, AdamW, the pooled features, the head, the loss.
//! In f32 mode everything.

mod adapters;
mod backend;
mod buffer;
mod gains;
mod images;
mod linear;
mod linear_backward;
mod optimizer;

use std::rc::Rc;

pub use adapters::Prepared;
pub use buffer::CudaBuffer;
use buffer::{Operand, OperandCopy};

use crate::autograd::Sums;
use crate::config::Precision;
use crate::gpu::{Buf, DType, Device};
use crate::kernels::{layer_scale, pointwise};
use crate::{Error, Result};

/// A GPU, and the numbers it computes in. Cloning clones a handle.
#[derive(Clone, Debug)]
pub struct Cuda {
    device: Device,
    activations: DType,
    residual: DType,
    ready: adapters::Ready,
}

impl Cuda {
    /// On an open or dry device.
    pub fn new(device: &Device, precision: Precision) -> Self {
        let activations = match precision {
            Precision::F32 => DType::F32,
            Precision::Bf16 => DType::Bf16,
        };
        Self { device: device.clone(), activations, residual: DType::F32, ready: adapters::Ready::default() }
    }

    /// The same with the residual stream in numbers of its own; f32 mode has none but f32.
    pub fn with_residual(self, residual: DType) -> Self {
        Self { residual, ..self }
    }

    /// Type of the residual stream between blocks and of its gradient.
    pub fn residual(&self) -> DType {
        self.residual
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    fn buf(&self, dtype: DType, len: usize) -> Result<Buf> {
        Buf::uninit(&self.device, dtype, len)
    }

    fn activation(&self, len: usize) -> Result<Buf> {
        self.buf(self.activations, len)
    }

    /// The f32 blocks that sums of these (place, length) go to. All of them are added to what is there, or all are written over it: where only
    /// some have something, the others begin with zeros.
    fn sum_blocks<const N: usize>(
        &self,
        sums: &mut Sums<CudaBuffer>,
        list: [(usize, usize); N],
        add: &mut bool,
    ) -> Result<[Buf; N]> {
        let given = list.map(|(place, len)| (sums.take(place), len));
        *add = given.iter().any(|(to, _)| to.as_ref().is_some_and(|to| to.add));
        let mut blocks = Vec::with_capacity(N);
        for (to, len) in given {
            let begins = to.as_ref().is_some_and(|to| to.add);
            let mut block = to.map_or_else(|| self.buf(DType::F32, len), |to| Ok(to.block.data))?;
            if *add && !begins {
                block.fill_bytes(0)?;
            }
            blocks.push(block);
        }
        blocks.try_into().map_err(|_| Error::Internal("as many blocks as were asked for".into()))
    }

    /// A weight \[rows, _\] as a product of `dtype` reads it, with the stride of its rows: for tensor cores a multiple of 8.
    fn operand<'a>(&self, w: &'a CudaBuffer, rows: usize, dtype: DType) -> Result<(Operand<'a>, usize)> {
        let cols = w.len / rows;
        if w.dtype() == dtype {
            return Ok((Operand::Own(&w.data), w.data.len() / rows));
        }
        let stride = cols.next_multiple_of(8);
        let mut copy = w.operand.borrow_mut();
        if let Some(copy) = &*copy {
            return Ok((Operand::Copy(copy.buf.clone()), stride));
        }
        let mut made = self.buf(dtype, rows * stride)?;
        pointwise::cast(&self.device, rows, cols, &w.data, cols, &mut made, stride)?;
        let made = Rc::new(made);
        *copy = Some(OperandCopy { buf: made.clone(), rows });
        Ok((Operand::Copy(made), stride))
    }

    /// Makes a weight's copy anew from its values, where it has one.
    fn refresh_operand(&self, w: &CudaBuffer) -> Result<()> {
        let mut copy = w.operand.borrow_mut();
        let Some(copy) = copy.as_mut() else { return Ok(()) };
        let (cols, stride) = (w.len / copy.rows, copy.buf.len() / copy.rows);
        let buf =
            Rc::get_mut(&mut copy.buf).ok_or_else(|| Error::Internal("a weight is read while it changes".into()))?;
        pointwise::cast(&self.device, copy.rows, cols, &w.data, cols, buf, stride)
    }

    fn gelu_of(&self, x: &CudaBuffer) -> Result<CudaBuffer> {
        let mut y = self.buf(x.dtype(), x.len)?;
        pointwise::gelu_forward(&self.device, x.len, &x.data, &mut y)?;
        Ok(CudaBuffer::new(y))
    }

    fn gelu_backward_of(&self, x: &CudaBuffer, dy: &CudaBuffer) -> Result<CudaBuffer> {
        let mut dx = self.buf(x.dtype(), x.len)?;
        pointwise::gelu_backward(&self.device, x.len, &x.data, &dy.data, &mut dx)?;
        Ok(CudaBuffer::new(dx))
    }

    fn layer_scale_of(
        &self,
        rows: usize,
        cols: usize,
        x: &CudaBuffer,
        h: &CudaBuffer,
        gamma: &CudaBuffer,
    ) -> Result<CudaBuffer> {
        let mut y = self.buf(x.dtype(), rows * cols)?;
        layer_scale::layer_scale_forward(&self.device, rows, cols, &x.data, &h.data, &gamma.data, &mut y)?;
        Ok(CudaBuffer::new(y))
    }
}
