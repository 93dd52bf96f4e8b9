//! Which loss a step takes, and what of it stays on the device.

use std::sync::Arc;

use crate::autograd::{Array, Asymmetric, Backend, SumTo, Tape, Tensor, TreeLoss, check_begins, check_labels};
use crate::{Error, Result};

/// A loss over logits \[images, classes\], the mean over a batch's images.
#[derive(Clone, Debug, PartialEq)]
pub enum Criterion {
    /// One class an image: softmax cross-entropy, an image's times the weight of its class.
    Classes {
        /// Weight of the even distribution in the target.
        smoothing: f64,
        /// A weight a class.
        weights: Option<Arc<[f32]>>,
    },
    /// Any number of labels: binary cross-entropy, the mean over images and labels, too. An unknown label counts for nothing.
    Binary,
    /// The asymmetric loss, summed over labels; an unknown label counts for nothing. Softmax heads in front of them: the mean cross-entropy of
    /// those in which the image has a label.
    Labels {
        /// The first label of each head and of those behind the last; \[0\] without heads.
        begins: Arc<[usize]>,
        /// Label smoothing of the heads.
        smoothing: f64,
        /// The loss of the labels behind the heads.
        single: Asymmetric,
    },
}

/// What a batch says of its images: classes, or rows of 0, 1 and -1 (unknown).
#[derive(Clone, Copy, Debug)]
pub enum Truths<'a> {
    /// A class an image.
    Classes(&'a [usize]),
    /// \[images, labels\].
    Rows(&'a [f32]),
}

impl Criterion {
    /// Plain cross-entropy.
    pub const CROSS_ENTROPY: Self = Self::Classes { smoothing: 0.0, weights: None };

    /// The same without what is there for training alone: smoothing and weights. Validation is measured by it.
    pub fn plain(&self) -> Self {
        match self {
            Self::Classes { .. } => Self::CROSS_ENTROPY,
            Self::Binary => Self::Binary,
            Self::Labels { begins, single, .. } => {
                Self::Labels { begins: begins.clone(), smoothing: 0.0, single: *single }
            }
        }
    }

    /// Whether labels are classes; else they are rows.
    pub fn takes_classes(&self) -> bool {
        matches!(self, Self::Classes { .. })
    }

    /// What the loss reads besides logits and labels, on the device: weights, or where heads begin.
    ///
    /// # Errors
    /// No memory on the device.
    pub fn constants<B: Backend>(&self, backend: &B) -> Result<Option<B::Buffer>> {
        match self {
            Self::Classes { weights, .. } => weights.as_ref().map(|weights| backend.upload(weights)).transpose(),
            Self::Binary => Ok(None),
            Self::Labels { begins, .. } => {
                let mut staged = None;
                backend.stage_labels(begins, &mut staged)?;
                Ok(staged)
            }
        }
    }

    /// Brings labels to the device, as [`Criterion::loss`] reads them, over those in `to` where it is as large.
    ///
    /// # Errors
    /// Labels that are not those of `classes` classes.
    pub fn stage<B: Backend>(
        &self,
        backend: &B,
        truths: Truths<'_>,
        images: usize,
        classes: usize,
        to: &mut Option<B::Buffer>,
    ) -> Result<()> {
        match (truths, self.takes_classes()) {
            (Truths::Classes(labels), true) => {
                check_labels(labels, classes)?;
                backend.stage_labels(labels, to)
            }
            (Truths::Rows(rows), false) => {
                if rows.len() != images * classes {
                    return Err(Error::shape("targets", images * classes, rows.len()));
                }
                backend.stage(rows, to)
            }
            _ => Err(Error::Internal("the labels are not those of the loss".into())),
        }
    }

    /// The loss of a part of a batch of `count` images: its share of the whole batch's mean, added to what `to` says. `labels` from
    /// [`Criterion::stage`], `constants` from [`Criterion::constants`].
    ///
    /// # Errors
    /// Sizes that do not fit.
    pub fn loss<B: Backend>(
        &self,
        tape: &Tape<'_, B>,
        logits: &Tensor<B>,
        labels: &B::Buffer,
        constants: Option<&B::Buffer>,
        count: usize,
        to: Option<SumTo<Array<B>>>,
    ) -> Result<Tensor<B>> {
        let classes = logits.shape().last().copied().unwrap_or(0);
        let images = count as f64;
        match self {
            Self::Classes { smoothing, .. } => {
                tape.cross_entropy_of_staged(logits, labels, constants, *smoothing, images, to)
            }
            Self::Binary => tape.binary_cross_entropy_of_staged(logits, labels, images * classes as f64, to),
            Self::Labels { begins, smoothing, single } => {
                check_begins(begins, classes)?;
                let begin =
                    constants.ok_or_else(|| Error::Internal("where heads begin is not on the device".into()))?;
                let loss = TreeLoss { cols: classes, heads: begins.len() - 1, smoothing: *smoothing, single: *single };
                tape.tree_loss_of_staged(logits, labels, begin, loss, images, to)
            }
        }
    }
}
