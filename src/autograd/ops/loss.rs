//! Losses. Each keeps its own gradient with respect to the logits, made in the forward pass.

use super::rows_cols;
use crate::autograd::{Array, Asymmetric, Backend, SumTo, Sums, Tape, Tensor, TreeLoss};
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
        check_labels(labels, classes)?;
        let mut staged = None;
        self.backend().stage_labels(labels, &mut staged)?;
        let labels = staged.ok_or_else(|| Error::Internal("labels were not staged".into()))?;
        let before = before.map(|block| SumTo { block, add: true });
        self.cross_entropy_of_staged(logits, &labels, None, smoothing, denominator, before)
    }

    /// The same with labels from [`Backend::stage_labels`], each under the number of classes ([`check_labels`]), each row's loss times the weight
    /// of its label, and the loss in the block that `to` gives, if it does.
    pub(crate) fn cross_entropy_of_staged(
        &self,
        logits: &Tensor<B>,
        labels: &B::Buffer,
        weights: Option<&B::Buffer>,
        smoothing: f64,
        denominator: f64,
        to: Option<SumTo<Array<B>>>,
    ) -> Result<Tensor<B>> {
        let (rows, classes) = rows_cols("logits", logits.array())?;
        if rows != self.backend().len(labels) {
            return Err(Error::shape("cross_entropy", format!("{} labels", rows), self.backend().len(labels)));
        }
        if let Some(found) = weights.map(|weights| self.backend().len(weights)).filter(|&found| found != classes) {
            return Err(Error::shape("cross_entropy", format!("{classes} weights"), found));
        }
        let (buffer, sums) = (logits.array().buffer(), self.loss_sums(to)?);
        let (loss, dlogits) =
            self.backend().cross_entropy(classes, buffer, labels, weights, smoothing, denominator, sums)?;
        self.put_loss("cross_entropy", logits, loss, dlogits)
    }

    /// Binary cross-entropy of sigmoids of logits \[batch, labels\], targets 0 or 1 or, where nobody knows, negative; summed and divided by
    /// `denominator`.
    pub fn binary_cross_entropy(
        &self,
        logits: &Tensor<B>,
        targets: &[f32],
        denominator: f64,
        before: Option<Array<B>>,
    ) -> Result<Tensor<B>> {
        let targets = self.backend().upload(targets)?;
        let before = before.map(|block| SumTo { block, add: true });
        self.binary_cross_entropy_of_staged(logits, &targets, denominator, before)
    }

    /// The same with targets on the device, and the loss in the block that `to` gives, if it does.
    pub(crate) fn binary_cross_entropy_of_staged(
        &self,
        logits: &Tensor<B>,
        targets: &B::Buffer,
        denominator: f64,
        to: Option<SumTo<Array<B>>>,
    ) -> Result<Tensor<B>> {
        if logits.array().elements() != self.backend().len(targets) {
            return Err(Error::shape("binary_cross_entropy", logits.shape(), self.backend().len(targets)));
        }
        let buffer = logits.array().buffer();
        let (loss, dlogits) = self.backend().binary_cross_entropy(buffer, targets, denominator, self.loss_sums(to)?)?;
        self.put_loss("binary_cross_entropy", logits, loss, dlogits)
    }

    /// The loss of a tree of labels, [`Backend::tree_loss`]: logits and targets \[batch, labels\]; head h has the columns from `begins`\[h\] up to
    /// `begins`\[h + 1\], and the columns from the last of `begins` on are labels by themselves. Summed and divided by `denominator`.
    #[allow(clippy::too_many_arguments)]
    pub fn tree_loss(
        &self,
        logits: &Tensor<B>,
        targets: &[f32],
        begins: &[usize],
        smoothing: f64,
        single: Asymmetric,
        denominator: f64,
        before: Option<Array<B>>,
    ) -> Result<Tensor<B>> {
        let (_, cols) = rows_cols("logits", logits.array())?;
        check_begins(begins, cols)?;
        let loss = TreeLoss { cols, heads: begins.len() - 1, smoothing, single };
        let targets = self.backend().upload(targets)?;
        let mut staged = None;
        self.backend().stage_labels(begins, &mut staged)?;
        let begins = staged.ok_or_else(|| Error::Internal("the heads were not staged".into()))?;
        let before = before.map(|block| SumTo { block, add: true });
        self.tree_loss_of_staged(logits, &targets, &begins, loss, denominator, before)
    }

    /// The same with targets and heads on the device, the heads checked by [`check_begins`], and the loss in the block that `to` gives, if it does.
    pub(crate) fn tree_loss_of_staged(
        &self,
        logits: &Tensor<B>,
        targets: &B::Buffer,
        begins: &B::Buffer,
        loss: TreeLoss,
        denominator: f64,
        to: Option<SumTo<Array<B>>>,
    ) -> Result<Tensor<B>> {
        if logits.array().elements() != self.backend().len(targets) {
            return Err(Error::shape("tree_loss", logits.shape(), self.backend().len(targets)));
        }
        let (buffer, sums) = (logits.array().buffer(), self.loss_sums(to)?);
        let (loss, dlogits) = self.backend().tree_loss(loss, buffer, targets, begins, denominator, sums)?;
        self.put_loss("tree_loss", logits, loss, dlogits)
    }

    fn loss_sums(&self, to: Option<SumTo<Array<B>>>) -> Result<Sums<B::Buffer>> {
        let to = to.map(|to| Ok::<_, Error>(SumTo { block: to.block.into_buffer()?, add: to.add })).transpose()?;
        Ok(Sums::new(self.images(), vec![to]))
    }

    fn put_loss(&self, op: &'static str, logits: &Tensor<B>, loss: B::Buffer, dlogits: B::Buffer) -> Result<Tensor<B>> {
        let loss = Array::new(self.backend(), loss, &[1])?;
        let dlogits = Array::new(self.backend(), dlogits, logits.shape())?;
        Ok(self.record_loss(op, logits, loss, dlogits))
    }
}

/// Heads that rise from column 0 and end by `cols`.
pub(crate) fn check_begins(begins: &[usize], cols: usize) -> Result<()> {
    let rises = begins.first() == Some(&0) && begins.is_sorted() && begins.last().is_some_and(|&end| end <= cols);
    if rises {
        Ok(())
    } else {
        Err(Error::shape("tree_loss", format!("heads that rise to {cols}"), format!("{begins:?}")))
    }
}

/// Labels that are classes.
pub(crate) fn check_labels(labels: &[usize], classes: usize) -> Result<()> {
    match labels.iter().find(|&&label| label >= classes) {
        Some(label) => Err(Error::shape("cross_entropy", format!("labels under {classes}"), label)),
        None => Ok(()),
    }
}
