//! Launches kernels/loss.cu: losses with their gradients.

use super::check::{dimension, length};
use super::entry::grid;
use super::function;
use super::params::{PeftkCrossEntropyParams, PeftkLossSumParams, PeftkSigmoidLossParams, PeftkTreeLossParams};
use crate::autograd::{Asymmetric, TreeLoss};
use crate::gpu::{Buf, DType, Device};
use crate::{Error, Result};

/// A block of logits, `[rows, cols]` f32, that may lie inside wider rows: where it is read, and where its gradient is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogitDims {
    /// Rows.
    pub rows: usize,
    /// Columns that belong to this loss.
    pub cols: usize,
    /// The first of them.
    pub first: usize,
    /// Row stride of logits and dlogits.
    pub ld: usize,
}

impl LogitDims {
    /// All columns of rows without gaps.
    pub fn whole(rows: usize, cols: usize) -> Self {
        Self { rows, cols, first: 0, ld: cols }
    }

    /// Checks logits and dlogits and gives the addresses of their first columns.
    fn addresses(&self, op: &str, device: &Device, logits: &Buf, dlogits: &Buf) -> Result<(u64, u64)> {
        let end = self.first + self.cols;
        if end > self.ld {
            return Err(Error::shape(format!("{op} columns"), format!("at most {}", self.ld), end));
        }
        let needed = (self.rows.max(1) - 1) * self.ld + end;
        length(op, "logits", logits, device, DType::F32, needed)?;
        length(op, "dlogits", dlogits, device, DType::F32, needed)?;
        let skipped = (self.first * DType::F32.bytes()) as u64;
        Ok((logits.address() + skipped, dlogits.address() + skipped))
    }
}

/// Softmax cross-entropy with label smoothing, summed over rows and divided by `denominator`: loss \[1\] and dlogits, f32, written; the
/// loss is added to what is there with `accumulate`. labels \[rows\] i32; a row with a negative label counts for nothing. weights \[classes\] f32:
/// what the loss of a row is multiplied by, by its label.
///
/// # Errors
/// [`Error::Shape`] for sizes or types that do not fit.
#[allow(clippy::too_many_arguments)]
pub fn cross_entropy(
    device: &Device,
    dims: LogitDims,
    logits: &Buf,
    labels: &Buf,
    weights: Option<&Buf>,
    smoothing: f64,
    denominator: f64,
    loss: &mut Buf,
    dlogits: &mut Buf,
    accumulate: bool,
) -> Result<()> {
    const OP: &str = "cross_entropy";
    let (first_logit, first_gradient) = dims.addresses(OP, device, logits, dlogits)?;
    length(OP, "labels", labels, device, DType::I32, dims.rows)?;
    weights.map_or(Ok(()), |weights| length(OP, "weights", weights, device, DType::F32, dims.cols))?;
    let partial = Buf::uninit(device, DType::F32, dims.rows)?;
    let params = PeftkCrossEntropyParams {
        logits: first_logit,
        labels: labels.address(),
        partial: partial.address(),
        dlogits: first_gradient,
        weights: weights.map_or(0, Buf::address),
        smoothing: smoothing as f32,
        denominator: denominator as f32,
        rows: dimension(OP, "rows", dims.rows)?,
        classes: dimension(OP, "classes", dims.cols)?,
        ld: dimension(OP, "row stride", dims.ld)?,
        padding: 0,
    };
    // SAFETY: cross_entropy_f32 takes this struct; the lengths were checked, `partial` has a value a row.
    unsafe { function(device, "loss", "cross_entropy_f32")?.launch(grid(OP, dims.rows as u64, 128)?, &params)? };
    loss_sum(device, OP, &partial, denominator, loss, accumulate)
}

/// Binary cross-entropy of sigmoids against targets \[rows, cols\] f32, summed over all entries and divided by `denominator`: loss \[1\] and
/// dlogits, f32, written; the loss is added to what is there with `accumulate`. Entries with a negative target count for nothing.
///
/// # Errors
/// [`Error::Shape`] for sizes or types that do not fit.
#[allow(clippy::too_many_arguments)]
pub fn binary_cross_entropy(
    device: &Device,
    dims: LogitDims,
    logits: &Buf,
    targets: &Buf,
    denominator: f64,
    loss: &mut Buf,
    dlogits: &mut Buf,
    accumulate: bool,
) -> Result<()> {
    let none = Asymmetric { gamma_positive: 0.0, gamma_negative: 0.0, clip: 0.0, positive_weight: 1.0 };
    let entry = "binary_cross_entropy_f32";
    sigmoid_loss(
        device,
        "binary_cross_entropy",
        entry,
        dims,
        none,
        logits,
        targets,
        denominator,
        loss,
        dlogits,
        accumulate,
    )
}

/// The asymmetric loss, as [`crate::reference::asymmetric_loss`]; arguments as in [`binary_cross_entropy`]. Entries with a negative target
/// count for nothing.
///
/// # Errors
/// [`Error::Shape`] for sizes or types that do not fit.
#[allow(clippy::too_many_arguments)]
pub fn asymmetric_loss(
    device: &Device,
    dims: LogitDims,
    constants: Asymmetric,
    logits: &Buf,
    targets: &Buf,
    denominator: f64,
    loss: &mut Buf,
    dlogits: &mut Buf,
    accumulate: bool,
) -> Result<()> {
    let entry = "asymmetric_loss_f32";
    sigmoid_loss(
        device,
        "asymmetric_loss",
        entry,
        dims,
        constants,
        logits,
        targets,
        denominator,
        loss,
        dlogits,
        accumulate,
    )
}

#[allow(clippy::too_many_arguments)]
fn sigmoid_loss(
    device: &Device,
    op: &str,
    entry: &'static str,
    dims: LogitDims,
    constants: Asymmetric,
    logits: &Buf,
    targets: &Buf,
    denominator: f64,
    loss: &mut Buf,
    dlogits: &mut Buf,
    accumulate: bool,
) -> Result<()> {
    let (first_logit, first_gradient) = dims.addresses(op, device, logits, dlogits)?;
    length(op, "targets", targets, device, DType::F32, dims.rows * dims.cols)?;
    let partial = Buf::uninit(device, DType::F32, dims.rows)?;
    let params = PeftkSigmoidLossParams {
        logits: first_logit,
        targets: targets.address(),
        partial: partial.address(),
        dlogits: first_gradient,
        denominator: denominator as f32,
        gamma_positive: constants.gamma_positive as f32,
        gamma_negative: constants.gamma_negative as f32,
        clip: constants.clip as f32,
        positive_weight: constants.positive_weight as f32,
        rows: dimension(op, "rows", dims.rows)?,
        cols: dimension(op, "cols", dims.cols)?,
        ld: dimension(op, "row stride", dims.ld)?,
    };
    // SAFETY: both entries take a PeftkSigmoidLossParams; the lengths were checked, `partial` has a value a row.
    unsafe { function(device, "loss", entry)?.launch(grid(op, dims.rows as u64, 256)?, &params)? };
    loss_sum(device, op, &partial, denominator, loss, accumulate)
}

/// The loss of a tree of labels, [`crate::autograd::Backend::tree_loss`]: logits, targets and dlogits \[rows, cols\] f32, begins \[heads + 1\] i32;
/// loss \[1\] and dlogits are written, the loss added to what is there with `accumulate`. `begins` has to rise to `cols` at most: it is read on
/// the device.
///
/// # Errors
/// [`Error::Shape`] for sizes or types that do not fit.
#[allow(clippy::too_many_arguments)]
pub fn tree_loss(
    device: &Device,
    tree: TreeLoss,
    rows: usize,
    logits: &Buf,
    targets: &Buf,
    begins: &Buf,
    denominator: f64,
    loss: &mut Buf,
    dlogits: &mut Buf,
    accumulate: bool,
) -> Result<()> {
    const OP: &str = "tree_loss";
    let elements = rows * tree.cols;
    length(OP, "logits", logits, device, DType::F32, elements)?;
    length(OP, "targets", targets, device, DType::F32, elements)?;
    length(OP, "dlogits", dlogits, device, DType::F32, elements)?;
    length(OP, "begins", begins, device, DType::I32, tree.heads + 1)?;
    let partial = Buf::uninit(device, DType::F32, rows)?;
    let params = PeftkTreeLossParams {
        logits: logits.address(),
        targets: targets.address(),
        begins: begins.address(),
        partial: partial.address(),
        dlogits: dlogits.address(),
        denominator: denominator as f32,
        smoothing: tree.smoothing as f32,
        gamma_positive: tree.single.gamma_positive as f32,
        gamma_negative: tree.single.gamma_negative as f32,
        clip: tree.single.clip as f32,
        positive_weight: tree.single.positive_weight as f32,
        rows: dimension(OP, "rows", rows)?,
        cols: dimension(OP, "cols", tree.cols)?,
        // Labels by themselves have none.
        heads: if tree.heads == 0 { 0 } else { dimension(OP, "heads", tree.heads)? },
        padding: 0,
    };
    // SAFETY: tree_loss_f32 takes this struct; the lengths were checked, `partial` has a value a row.
    unsafe { function(device, "loss", "tree_loss_f32")?.launch(grid(OP, rows as u64, 256)?, &params)? };
    loss_sum(device, OP, &partial, denominator, loss, accumulate)
}

fn loss_sum(
    device: &Device,
    op: &str,
    partial: &Buf,
    denominator: f64,
    loss: &mut Buf,
    accumulate: bool,
) -> Result<()> {
    length(op, "loss", loss, device, DType::F32, 1)?;
    let params = PeftkLossSumParams {
        partial: partial.address(),
        loss: loss.address(),
        denominator: denominator as f32,
        count: dimension(op, "partial sums", partial.len())?,
        accumulate: accumulate.into(),
        padding: 0,
    };
    // SAFETY: loss_sum_f32 takes this struct; it reads all of `partial` and writes one value.
    unsafe { function(device, "loss", "loss_sum_f32")?.launch(grid(op, 1, 32)?, &params) }
}
