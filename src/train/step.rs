//! One optimiser step's gradients: the batch walked in micro-batches, exactly.

use std::ops::Range;

use super::features;
use super::passes::Passes;
use crate::autograd::{Backend, Crop, Grads, Images, Params, Tape, Tensor};
use crate::config::Recompute;
use crate::data::Batch;
use crate::task::criterion::{Criterion, Truths};
use crate::vit::{Mode, Vit};
use crate::{Error, Result};

/// How a step is computed.
#[derive(Clone, Debug)]
pub struct StepOptions {
    /// What is minimised.
    pub criterion: Criterion,
    /// Images that go through the model at once.
    pub micro_batch: Option<usize>,
    /// What is computed again in the backward pass.
    pub recompute: Recompute,
}

impl StepOptions {
    /// Images at once in a batch of `count`.
    pub(super) fn micro(&self, count: usize) -> usize {
        self.micro_batch.unwrap_or(count).clamp(1, count.max(1))
    }
}

/// The batch's mean loss, its gradients added to `grads`: [`Passes::run`] once.
pub fn forward_backward<B: Backend>(
    vit: &Vit,
    params: &Params<B>,
    batch: &Batch,
    options: &StepOptions,
    dropout_seed: u64,
    grads: &mut Grads<B>,
) -> Result<f64> {
    let mut passes = Passes::new(options.clone(), batch.indices.len());
    passes.run(vit, params, batch, dropout_seed, grads)?;
    passes.loss(params)?()
}

/// Logits of a batch without gradients, walked in parts of `micro` images: \[images * classes\] on the host, and the summed loss times the batch's count.
pub fn evaluate_batch<B: Backend>(
    vit: &Vit,
    params: &Params<B>,
    batch: &Batch,
    options: &StepOptions,
) -> Result<(Vec<f32>, f64)> {
    let count = batch.indices.len();
    let micro = options.micro(count);
    let (mut all, mut loss) = (Vec::new(), 0.0);
    let derived = vit.derive(&Tape::inference(params))?;
    let constants = options.criterion.constants(params.backend())?;
    for first in (0..count).step_by(micro) {
        let images = first..(first + micro).min(count);
        let tape = Tape::inference(params).over_images(images.len()).with_derived(&derived);
        let logits = features::logits(vit, &tape, batch, &images, Mode::default())?;
        let mut labels = None;
        stage_labels(params.backend(), batch, &images, options, classes_of(&logits), &mut labels)?;
        let part = options.criterion.loss(&tape, &logits, &staged(labels)?, constants.as_ref(), count, None)?;
        loss += f64::from(part.array().download(params.backend())?[0]);
        all.extend(logits.array().download(params.backend())?);
    }
    Ok((all, loss))
}

/// A part of a batch: squares, or what a device makes them of.
pub(super) fn pixels<'a, B: Backend>(batch: &'a Batch, images: &Range<usize>) -> Images<'a, B> {
    if let Some(sources) = &batch.sources {
        let crops = images.clone().map(|index| {
            let (image, part) = (&sources.images[index], &sources.boxes[index]);
            Crop {
                pixels: &image.pixels,
                width: image.width,
                height: image.height,
                part: (part.left, part.top, part.width, part.height),
                flip: sources.flips[index],
            }
        });
        return Images::Crops(crops.collect());
    }
    let bytes = batch.images.len() / batch.indices.len().max(1);
    Images::Squares(&batch.images[images.start * bytes..images.end * bytes])
}

/// The labels of a part of a batch on the device, as the loss reads them.
pub(super) fn stage_labels<B: Backend>(
    backend: &B,
    batch: &Batch,
    images: &Range<usize>,
    options: &StepOptions,
    classes: usize,
    to: &mut Option<B::Buffer>,
) -> Result<()> {
    let truths = if options.criterion.takes_classes() {
        Truths::Classes(batch.labels.get(images.clone()).unwrap_or_default())
    } else {
        let own = batch.targets.len() / batch.indices.len().max(1);
        Truths::Rows(&batch.targets[images.start * own..images.end * own])
    };
    options.criterion.stage(backend, truths, images.len(), classes, to)
}

/// What was staged, where it had to be.
pub(super) fn staged<T>(block: Option<T>) -> Result<T> {
    block.ok_or_else(|| Error::Internal("nothing was staged".into()))
}

/// Classes, of logits.
pub(super) fn classes_of<B: Backend>(logits: &Tensor<B>) -> usize {
    logits.shape().last().copied().unwrap_or(0)
}
