//! The memory a run will take, found by running one whole step on a backend that only counts.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::model::Model;
use super::optimizer::{Hyper, Optimizer};
use super::passes::Passes;
use super::report::MemoryPlan;
use super::step::{StepOptions, evaluate_batch, pixels};
use crate::Result;
use crate::autograd::{Backend, Grads, Tape};
use crate::config::{AdapterInit, Task, TrainConfig};
use crate::data::transform::CropBox;
use crate::data::{Batch, RgbImage, Sources};
use crate::io::state::{Backbone, HostTensor};
use crate::vit::names::expected_tensors;
use crate::vit::{Mode, VitConfig};

/// What a plan is for besides the settings.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Classes of the head.
    pub classes: usize,
    /// What labels are.
    pub task: Task,
    /// Images to train on and to validate on: no batch is larger than these.
    pub images: (usize, usize),
    /// Whether the device makes the squares itself, where it can.
    pub crops: bool,
}

/// Plans training as `config` says on a backbone of this shape. `make` gives a backend that computes nothing, a new one each time:
/// [`crate::autograd::Counting`] for the CPU, for a GPU [`crate::cuda::Cuda`] on a dry device.
pub fn plan<B: Backend>(make: impl Fn() -> B, config: &TrainConfig, vit: &VitConfig, load: Load) -> Result<MemoryPlan> {
    let mut config = config.clone();
    if let Some(adapter) = &mut config.adapter {
        // The same shapes without a decomposition of every weight.
        adapter.init = AdapterInit::Default;
    }
    let (train, val) = load.images;
    let options = StepOptions {
        task: load.task,
        label_smoothing: 0.0,
        micro_batch: config.micro_batch,
        recompute: config.recompute.unwrap_or_default(),
    };
    let images = config.batch_size.min(train);
    let batch = |backend: &B, images| empty_batch(load.crops && backend.crops(), &config, load, images);

    // What stands where, on a device of its own: what follows has the order of a run.
    let backend = make();
    let model = empty_model(&backend, &config, vit, load)?;
    let held = backend.live_bytes();
    let trained = (model.trainable() * size_of::<f32>()) as u64;
    let optimizer = Optimizer::new(&model.params, Hyper::new(config.weight_decay))?;
    let moments = backend.live_bytes() - held;
    let part = batch(&backend, config.micro_batch.unwrap_or(images).min(images));
    let saved = saved_by_purpose(&model, &part, options)?;
    drop((model, optimizer));

    let backend = make();
    let mut model = empty_model(&backend, &config, vit, load)?;
    let mut optimizer = Optimizer::new(&model.params, Hyper::new(config.weight_decay))?;
    let mut grads = Grads::with_blocks(&model.params)?;
    let mut passes = Passes::new(options);
    // Two epochs as a run has them, in short: on a device with an arena, blocks of other batches lie elsewhere.
    let sizes = [images, if train > images { images } else { 0 }, train % images];
    let most = config.batch_size.min(val);
    let val_sizes = [most, if most > 0 { val % most } else { 0 }];
    for _ in 0..2 {
        for images in sizes.into_iter().filter(|&images| images > 0) {
            let batch = batch(&backend, images);
            grads.restart();
            passes.run(&model.vit, &model.params, &batch, 0, &mut grads)?;
            optimizer.step(&mut model.params, &mut grads, 0.0)?;
        }
        for images in val_sizes.into_iter().filter(|&images| images > 0) {
            evaluate_batch(&model.vit, &model.params, &batch(&backend, images), options)?;
        }
    }

    let staged = passes.staged_bytes(&backend) as u64;
    let named = held + moments + trained + staged + saved.values().sum::<usize>() as u64;
    let peak = backend.peak_bytes();
    let held = [held - trained, trained, moments, trained];
    let mut parts: Vec<_> = MemoryPlan::HELD.map(str::to_owned).into_iter().zip(held).collect();
    parts.extend(saved.into_iter().map(|(op, bytes)| (format!("saved by {op}"), bytes as u64)));
    if staged > 0 {
        parts.push(("images and labels".to_owned(), staged));
    }
    parts.push(("passing through".to_owned(), peak.saturating_sub(named)));
    Ok(MemoryPlan { parts })
}

/// A model of zeros. They are not touched until someone writes to them: even giant costs no memory here.
fn empty_model<B: Backend>(backend: &B, config: &TrainConfig, vit: &VitConfig, load: Load) -> Result<Model<B>> {
    let state =
        expected_tensors(vit).into_iter().map(|(name, shape)| (name, HostTensor::filled(&shape, 0.0))).collect();
    let backbone =
        Backbone { config: vit.clone(), state, classifier: None, labels: None, task: None, source: String::new() };
    let labels: Vec<String> = (0..load.classes).map(|i| i.to_string()).collect();
    Model::for_training(backend.clone(), config, backbone, &labels, load.task, &mut |_| {})
}

fn saved_by_purpose<B: Backend>(
    model: &Model<B>,
    batch: &Batch,
    options: StepOptions,
) -> Result<BTreeMap<&'static str, usize>> {
    let tape = Tape::new(&model.params);
    let mode = Mode { dropout_seed: Some(0), recompute: options.recompute, ..Mode::default() };
    // Alive until here: what is counted is what the tape keeps, not what passes through.
    let _logits = model.vit.logits(&tape, pixels(batch, &(0..batch.indices.len())), batch.indices.len(), mode)?;
    let mut by_op = BTreeMap::new();
    for (op, bytes) in tape.saved_by_op().into_iter().filter(|(_, bytes)| *bytes > 0) {
        *by_op.entry(op).or_insert(0) += bytes;
    }
    Ok(by_op)
}

/// Images and labels of nothing. Where the device crops, its images pass through memory of a fixed size, whatever theirs is.
fn empty_batch(crops: bool, config: &TrainConfig, load: Load, images: usize) -> Batch {
    let multilabel = load.task == Task::Multilabel;
    let sources = crops.then(|| {
        let pixel = Arc::new(RgbImage { width: 1, height: 1, pixels: vec![0; 3] });
        Sources {
            images: vec![pixel; images],
            boxes: vec![CropBox { left: 0.0, top: 0.0, width: 1.0, height: 1.0 }; images],
            flips: vec![false; images],
        }
    });
    let bytes = if sources.is_some() { 0 } else { images * config.input_size * config.input_size * 3 };
    Batch {
        images: vec![0; bytes],
        sources,
        features: None,
        size: images,
        labels: if multilabel { vec![] } else { vec![0; images] },
        targets: if multilabel { vec![0.0; images * load.classes] } else { vec![] },
        indices: (0..images).collect(),
    }
}
