//! Losses. Each keeps its own gradient with respect to the logits, made in the forward pass.

use super::rows_cols;
use crate::autograd::{Array, Backend, SumTo, Sums, Tape, Tensor};
use crate::{Error, Result};

impl<B: Backend> Tape<'_, B> {
    /// Softmax cross-entropy of logits \[batch, classes\], summed and divided by `denominator`: the whole batch's size, also where the
    /// batch is walked in parts. `smoothing` as torch's label_smoothing. The loss is added to `before`, those of the parts before it.
    pub fn cross_entropy(
        &self,
        logits: &Tensor<B>,
        labels: &[usize],
        smoothing: f64,
        denominator: f64,
        before: Option<Array<B>>,
    ) -> Result<Tensor<B>> {
        let (rows, classes) = rows_cols("logits", logits.array())?;
        if rows != labels.len() {
            return Err(Error::shape("cross_entropy", format!("{} labels", rows), labels.len()));
        }
        if let Some(label) = labels.iter().find(|&&label| label >= classes) {
            return Err(Error::shape("cross_entropy", format!("labels under {classes}"), label));
        }
        let buffer = logits.array().buffer();
        let (loss, dlogits) =
            self.backend().cross_entropy(classes, buffer, labels, smoothing, denominator, self.loss_sums(before)?)?;
        self.put_loss("cross_entropy", logits, loss, dlogits)
    }

    /// Binary cross-entropy of sigmoids of logits \[batch, labels\], targets 0 or 1, summed and divided by `denominator`.
    pub fn binary_cross_entropy(
        &self,
        logits: &Tensor<B>,
        targets: &[f32],
        denominator: f64,
        before: Option<Array<B>>,
    ) -> Result<Tensor<B>> {
        if logits.array().elements() != targets.len() {
            return Err(Error::shape("binary_cross_entropy", logits.shape(), targets.len()));
        }
        let (loss, dlogits) = self.backend().binary_cross_entropy(
            logits.array().buffer(),
            targets,
            denominator,
            self.loss_sums(before)?,
        )?;
        self.put_loss("binary_cross_entropy", logits, loss, dlogits)
    }

    fn loss_sums(&self, before: Option<Array<B>>) -> Result<Sums<B::Buffer>> {
        let before = before.map(|loss| Ok::<_, Error>(SumTo { block: loss.into_buffer()?, add: true })).transpose()?;
        Ok(Sums::new(self.images(), vec![before]))
    }

    fn put_loss(&self, op: &'static str, logits: &Tensor<B>, loss: B::Buffer, dlogits: B::Buffer) -> Result<Tensor<B>> {
        let loss = Array::new(self.backend(), loss, &[1])?;
        let dlogits = Array::new(self.backend(), dlogits, logits.shape())?;
        Ok(self.record_loss(op, logits, loss, dlogits))
    }
}
