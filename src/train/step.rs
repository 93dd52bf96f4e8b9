//! One optimiser step's gradients: the batch walked in micro-batches, exactly.

use super::features;
use crate::autograd::{Array, Backend, Crop, Grads, Images, Params, Tape, Tensor};
use crate::config::{Recompute, Task};
use crate::data::Batch;
use crate::gpu::profile;
use crate::vit::{Mode, Vit};
use crate::{Error, Result};

/// How a step is computed.
#[derive(Clone, Copy, Debug)]
pub struct StepOptions {
    /// What labels are.
    pub task: Task,
    /// Label smoothing of the cross-entropy.
    pub label_smoothing: f64,
    /// Images that go through the model at once.
    pub micro_batch: Option<usize>,
    /// What is computed again in the backward pass.
    pub recompute: Recompute,
}

/// The batch's mean loss, its gradients added to `grads`. Every micro-batch's loss is divided by the whole batch's count, so that their gradients add
/// up to the batch's own: there is no BatchNorm, nothing else couples images.
pub fn forward_backward<B: Backend>(
    vit: &Vit,
    params: &Params<B>,
    batch: &Batch,
    options: StepOptions,
    dropout_seed: u64,
    grads: &mut Grads<B>,
) -> Result<f64> {
    let count = batch.indices.len();
    let micro = options.micro_batch.unwrap_or(count).clamp(1, count.max(1));
    // What follows from the values alone is made once, and its gradient flows back once.
    let shared = Tape::new(params);
    let derived = vit.derive(&shared)?;
    grads.reserve_derived(&derived)?;
    let mut loss = None;
    for first in (0..count).step_by(micro) {
        let images = first..(first + micro).min(count);
        let mode = Mode {
            dropout_seed: Some(dropout_seed),
            first_image: first,
            images: images.len(),
            checkpointing: options.recompute == Recompute::Blocks,
        };
        let tape = Tape::new(params).over_images(images.len()).with_derived(&derived).recomputing(options.recompute);
        let so_far = {
            let _range = profile::range("forward");
            let logits = features::logits(vit, &tape, batch, &images, mode)?;
            loss_of(&tape, &logits, batch, images, options, loss.take())?
        };
        let _range = profile::range("backward");
        tape.backward(&so_far, grads)?;
        loss = Some(so_far.into_array());
    }
    let _range = profile::range("backward");
    let reached = derived.with_grads(grads);
    if !reached.is_empty() {
        shared.backward_with_all(reached, grads)?;
    }
    match loss {
        Some(loss) => Ok(f64::from(loss.download(params.backend())?[0])),
        None => Ok(0.0),
    }
}

/// Logits of a batch without gradients, walked in parts of `micro` images: \[images * classes\] on the host, and the summed loss times the batch's count.
pub fn evaluate_batch<B: Backend>(
    vit: &Vit,
    params: &Params<B>,
    batch: &Batch,
    options: StepOptions,
) -> Result<(Vec<f32>, f64)> {
    let count = batch.indices.len();
    let micro = options.micro_batch.unwrap_or(count).clamp(1, count.max(1));
    let (mut all, mut loss) = (Vec::new(), 0.0);
    let derived = vit.derive(&Tape::inference(params))?;
    for first in (0..count).step_by(micro) {
        let images = first..(first + micro).min(count);
        let tape = Tape::inference(params).over_images(images.len()).with_derived(&derived);
        let logits = features::logits(vit, &tape, batch, &images, Mode::default())?;
        let part = loss_of(&tape, &logits, batch, images, options, None)?;
        loss += f64::from(part.array().download(params.backend())?[0]);
        all.extend(logits.array().download(params.backend())?);
    }
    Ok((all, loss))
}

/// A part of a batch: squares, or what a device makes them of.
pub(super) fn pixels<'a>(batch: &'a Batch, images: &std::ops::Range<usize>) -> Images<'a> {
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

fn loss_of<B: Backend>(
    tape: &Tape<'_, B>,
    logits: &Tensor<B>,
    batch: &Batch,
    images: std::ops::Range<usize>,
    options: StepOptions,
    before: Option<Array<B>>,
) -> Result<Tensor<B>> {
    let count = batch.indices.len();
    match options.task {
        Task::Multiclass => {
            tape.cross_entropy(logits, &batch.labels[images], options.label_smoothing, count as f64, before)
        }
        Task::Multilabel => {
            let classes = batch.targets.len() / count.max(1);
            if logits.shape().last() != Some(&classes) {
                return Err(Error::shape("multi-label targets", logits.shape(), classes));
            }
            let targets = &batch.targets[images.start * classes..images.end * classes];
            tape.binary_cross_entropy(logits, targets, (count * classes) as f64, before)
        }
    }
}
