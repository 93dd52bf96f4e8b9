//! Launches kernels/adamw.cu: AdamW over all trained tensors, and the global gradient norm.

use std::marker::PhantomData;

use super::check::{dimension, length};
use super::entry::grid;
use super::function;
use super::params::{
    PeftkAdamwBlock, PeftkAdamwHyper, PeftkAdamwParams, PeftkAdamwTensor, PeftkGradNorm, PeftkGradNormParams,
    PeftkSumSquaresParams,
};
use crate::autograd::AdamW;
use crate::gpu::{Buf, DType, Device};
use crate::{Error, Result};

// As in kernels/adamw.cu.
const CHUNK: usize = 2048;

/// One trained tensor: f32 buffers of `length` elements, and a bf16 copy of the values that follows them where there is one.
#[derive(Debug, Clone, Copy)]
pub struct Trained<'a> {
    /// The values.
    pub value: &'a Buf,
    /// Their gradients.
    pub grad: &'a Buf,
    /// First moments.
    pub m: &'a Buf,
    /// Second moments.
    pub v: &'a Buf,
    /// The values in bf16.
    pub shadow: Option<&'a Buf>,
    /// Elements.
    pub length: usize,
    /// Decoupled weight decay.
    pub weight_decay: f64,
}

/// The trained tensors' places in device memory, with one step's constants where it is made for one. It holds addresses: it is made
/// anew when any of the buffers is.
#[derive(Debug)]
pub struct AdamWTable<'a> {
    /// Constants, tensors, blocks: one copy to the device, because each would hold up the launches behind it.
    all: Buf,
    /// Bytes of constants before the tensors, and of these before the blocks.
    bytes: (u64, u64),
    count: usize,
    /// The buffers whose addresses it holds live at least as long.
    _buffers: PhantomData<&'a Buf>,
}

impl<'a> AdamWTable<'a> {
    /// Writes the table to the device.
    ///
    /// # Errors
    /// [`Error::Shape`] for a buffer that is too short or no f32 (the shadow: bf16), and for no tensor at all.
    pub fn new(device: &Device, trained: &[Trained<'a>]) -> Result<Self> {
        Self::with(device, trained, &[])
    }

    /// The same with what one step needs beside it, for [`adamw_step`].
    ///
    /// # Errors
    /// As [`AdamWTable::new`].
    pub fn for_step(device: &Device, trained: &[Trained<'a>], step: AdamW) -> Result<Self> {
        Self::with(device, trained, &hyper(step))
    }

    fn with(device: &Device, trained: &[Trained<'a>], constants: &[f32]) -> Result<Self> {
        const OP: &str = "adamw";
        let (mut tensors, mut blocks) = (Vec::new(), Vec::new());
        for (index, t) in trained.iter().enumerate() {
            for (name, buf) in [("value", t.value), ("grad", t.grad), ("m", t.m), ("v", t.v)] {
                length(OP, name, buf, device, DType::F32, t.length)?;
            }
            t.shadow.map_or(Ok(()), |shadow| length(OP, "shadow", shadow, device, DType::Bf16, t.length))?;
            tensors.push(PeftkAdamwTensor {
                value: t.value.address(),
                grad: t.grad.address(),
                m: t.m.address(),
                v: t.v.address(),
                shadow: super::entry::address(t.shadow),
                length: t.length as u64,
                weight_decay: t.weight_decay as f32,
                padding: 0,
            });
            let chunks = dimension(OP, "elements / 2048", t.length.div_ceil(CHUNK))?;
            blocks.extend((0..chunks).map(|chunk| PeftkAdamwBlock { tensor: index as u32, chunk }));
        }
        if blocks.is_empty() {
            return Err(Error::shape(OP, "at least one tensor", 0));
        }
        let parts: [&[u8]; 3] =
            [bytemuck::cast_slice(constants), bytemuck::cast_slice(&tensors), bytemuck::cast_slice(&blocks)];
        let bytes = (parts[0].len() as u64, parts[1].len() as u64);
        let all = Buf::from_slice(device, &parts.concat(), DType::U8)?;
        Ok(Self { all, bytes, count: blocks.len(), _buffers: PhantomData })
    }

    /// Launch blocks, and so the f32 values of workspace that [`grad_norm`] takes.
    pub fn blocks(&self) -> usize {
        self.count
    }

    /// Addresses of the tensors and of the blocks: all three parts' elements are multiples of 8 bytes.
    fn addresses(&self) -> (u64, u64) {
        let tensors = self.all.address() + self.bytes.0;
        (tensors, tensors + self.bytes.1)
    }
}

/// Length of a [`hyper`] in f32 values.
pub const HYPER_LEN: usize = size_of::<PeftkAdamwHyper>() / 4;

/// What changes from step to step, as the kernel reads it from an f32 buffer; the tensors' own weight decay is in the table.
pub fn hyper(step: AdamW) -> [f32; HYPER_LEN] {
    let steps = step.step as f64;
    bytemuck::cast(PeftkAdamwHyper {
        lr: step.lr as f32,
        one_minus_beta1: (1.0 - step.beta1) as f32,
        beta2: step.beta2 as f32,
        one_minus_beta2: (1.0 - step.beta2) as f32,
        eps: step.eps as f32,
        step_size: (step.lr / (1.0 - step.beta1.powf(steps))) as f32,
        root_correction: (1.0 - step.beta2.powf(steps)).sqrt() as f32,
        padding: 0.0,
    })
}

/// Length of a norm's result in f32 values.
pub const GRAD_NORM_LEN: usize = size_of::<PeftkGradNorm>() / 4;

/// What [`grad_norm`] and [`sum_squares`] found, from the f32 values of their result.
///
/// # Errors
/// [`Error::Shape`] for another number of values.
pub fn read_grad_norm(values: &[f32]) -> Result<PeftkGradNorm> {
    let values: [f32; GRAD_NORM_LEN] =
        values.try_into().map_err(|_| Error::shape("gradient norm", GRAD_NORM_LEN, values.len()))?;
    Ok(bytemuck::cast(values))
}

/// One AdamW step of all tensors. `hyper` \[[`HYPER_LEN`]\] f32 as [`hyper`] makes it. With a `norm` of [`grad_norm`] the gradients are multiplied by
/// its factor, and where the norm is no finite number nothing is changed.
///
/// The table's buffers are written: the caller keeps them alive and lets nothing else be queued that takes them for constant.
///
/// # Errors
/// [`Error::Shape`] for lengths that do not fit.
pub fn adamw_multi(device: &Device, table: &AdamWTable<'_>, hyper: &Buf, norm: Option<&Buf>) -> Result<()> {
    length("adamw", "hyper", hyper, device, DType::F32, HYPER_LEN)?;
    update(device, table, hyper.address(), norm)
}

/// [`adamw_multi`] with the constants of [`AdamWTable::for_step`].
///
/// # Errors
/// [`Error::Shape`] for a norm that is too short and for a table without constants.
pub fn adamw_step(device: &Device, table: &AdamWTable<'_>, norm: Option<&Buf>) -> Result<()> {
    if table.bytes.0 == 0 {
        return Err(Error::shape("adamw", "a table that was made for a step", 0));
    }
    update(device, table, table.all.address(), norm)
}

fn update(device: &Device, table: &AdamWTable<'_>, hyper: u64, norm: Option<&Buf>) -> Result<()> {
    const OP: &str = "adamw";
    norm.map_or(Ok(()), |norm| length(OP, "norm", norm, device, DType::F32, GRAD_NORM_LEN))?;
    let (tensors, blocks) = table.addresses();
    let params = PeftkAdamwParams { tensors, blocks, hyper, grad_norm: super::entry::address(norm) };
    let grid = grid(OP, table.count as u64, 256)?;
    // SAFETY: adamw_multi_f32 takes this struct; the table was made from buffers of the lengths it names, which its owner keeps.
    unsafe { function(device, "adamw", "adamw_multi_f32")?.launch(grid, &params) }
}

/// The norm of all gradients and the factor that clips them to `max_norm` (0: no limit), written to `result` \[[`GRAD_NORM_LEN`]\] f32.
///
/// # Errors
/// [`Error::Shape`] for lengths that do not fit.
pub fn grad_norm(device: &Device, table: &AdamWTable<'_>, max_norm: f64, result: &mut Buf) -> Result<()> {
    const OP: &str = "grad_norm";
    let partial = Buf::uninit(device, DType::F32, table.count)?;
    let (source, blocks) = table.addresses();
    let params = PeftkSumSquaresParams { source, blocks, partial: partial.address(), count: 0 };
    let grid = grid(OP, table.count as u64, 256)?;
    // SAFETY: sum_squares_multi_f32 takes this struct; the table is as in adamw_multi, `partial` has a value a block.
    unsafe { function(device, "adamw", "sum_squares_multi_f32")?.launch(grid, &params)? };
    finish(device, OP, &partial, max_norm, result)
}

/// The sum of squares of `count` f32 values, and its root, to `result` \[[`GRAD_NORM_LEN`]\] f32.
///
/// # Errors
/// [`Error::Shape`] for lengths that do not fit.
pub fn sum_squares(device: &Device, count: usize, x: &Buf, result: &mut Buf) -> Result<()> {
    const OP: &str = "sum_squares";
    length(OP, "x", x, device, DType::F32, count)?;
    let partial = Buf::uninit(device, DType::F32, count.div_ceil(CHUNK))?;
    let params =
        PeftkSumSquaresParams { source: x.address(), blocks: 0, partial: partial.address(), count: count as u64 };
    let grid = grid(OP, partial.len() as u64, 256)?;
    // SAFETY: sum_squares_f32 takes this struct; x has `count` values, `partial` one a block.
    unsafe { function(device, "adamw", "sum_squares_f32")?.launch(grid, &params)? };
    finish(device, OP, &partial, 0.0, result)
}

fn finish(device: &Device, op: &str, partial: &Buf, max_norm: f64, result: &mut Buf) -> Result<()> {
    length(op, "result", result, device, DType::F32, GRAD_NORM_LEN)?;
    let params = PeftkGradNormParams {
        partial: partial.address(),
        result: result.address(),
        count: dimension(op, "partial sums", partial.len())?,
        max_norm: max_norm as f32,
    };
    // SAFETY: grad_norm_f32 takes this struct; it reads all of `partial` and writes one PeftkGradNorm.
    unsafe { function(device, "adamw", "grad_norm_f32")?.launch(grid(op, 1, 1024)?, &params) }
}
