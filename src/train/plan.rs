//! The memory a run will take, found by running one whole step on a backend that only counts.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::model::Model;
use super::optimizer::{Hyper, Optimizer};
use super::passes::Passes;
use super::report::MemoryPlan;
use super::step::{StepOptions, evaluate_batch, pixels};
use crate::Result;
use crate::autograd::{Backend, Grads, Tape};
use crate::config::{AdapterInit, Recompute, Task, TrainConfig};
use crate::data::transform::CropBox;
use crate::data::{Batch, RgbImage, Sources};
use crate::io::state::{Backbone, HostTensor};
use crate::task::criterion::Criterion;
use crate::task::labels::Labels;
use crate::vit::names::expected_tensors;
use crate::vit::{Mode, VitConfig};

/// What a plan is for besides the settings.
#[derive(Clone, Debug)]
pub struct Load {
    /// Classes of the head.
    pub classes: usize,
    /// What is minimised.
    pub criterion: Criterion,
    /// Images to train on and to validate on: no batch is larger than these.
    pub images: (usize, usize),
    /// Whether the device makes the squares itself, where it can.
    pub crops: bool,
}

/// Plans training as `config` says on a backbone of this shape. `backend` is a new one that computes nothing:
/// [`crate::autograd::Counting`] for the CPU, for a GPU [`crate::cuda::Cuda`] on a dry device.
pub fn plan<B: Backend>(backend: B, config: &TrainConfig, vit: &VitConfig, load: Load) -> Result<MemoryPlan> {
    Planning::new(backend, config, vit, load)?.plan(config)
}

/// One model of lengths, to plan several ways to train it.
pub struct Planning<B: Backend> {
    backend: B,
    load: Load,
    model: RefCell<(Model<B>, Optimizer<B>)>,
    /// Bytes of weights, of the trained ones among them, of moments.
    held: u64,
    trained: u64,
    moments: u64,
}

impl<B: Backend> Planning<B> {
    /// What `config` trains: batch size, micro-batch and recomputation may be others in each plan.
    ///
    /// # Errors
    /// Settings that do not fit the model.
    pub fn new(backend: B, config: &TrainConfig, vit: &VitConfig, load: Load) -> Result<Self> {
        let mut config = config.clone();
        if let Some(adapter) = &mut config.adapter {
            // The same shapes without a decomposition of every weight.
            adapter.init = AdapterInit::Default;
        }
        let model = empty_model(&backend, &config, vit, load.classes)?;
        let held = backend.live_bytes();
        let trained = (model.trainable() * size_of::<f32>()) as u64;
        let optimizer = Optimizer::new(&model.params, Hyper::new(config.weight_decay))?;
        let moments = backend.live_bytes() - held;
        Ok(Self { backend, load, model: RefCell::new((model, optimizer)), held, trained, moments })
    }

    /// Whole steps and an evaluation as a run has them, beside the model: they leave nothing behind, so the next plan finds the device as this
    /// one did.
    ///
    /// # Errors
    /// As in training.
    pub fn plan(&self, config: &TrainConfig) -> Result<MemoryPlan> {
        let Self { backend, load, .. } = self;
        let (train, val) = load.images;
        let options = StepOptions {
            criterion: load.criterion.clone(),
            micro_batch: config.micro_batch,
            recompute: config.recompute.unwrap_or_default(),
        };
        let images = config.batch_size.min(train);
        let batch = |images| empty_batch(load.crops && backend.crops(), config, load, images);
        let (model, optimizer) = &mut *self.model.borrow_mut();
        let part = batch(config.micro_batch.unwrap_or(images).min(images));
        let saved = saved_by_purpose(model, &part, options.recompute)?;

        backend.forget_peak();
        let mut grads = Grads::with_blocks(&model.params)?;
        let mut passes = Passes::new(options.clone(), images);
        // Two epochs as a run has them, in short: on a device with an arena, blocks of other batches lie elsewhere.
        let sizes = [images, if train > images { images } else { 0 }, train % images];
        let most = config.batch_size.min(val);
        let val_sizes = [most, if most > 0 { val % most } else { 0 }];
        for _ in 0..2 {
            for images in sizes.into_iter().filter(|&images| images > 0) {
                grads.restart();
                passes.run(&model.vit, &model.params, &batch(images), 0, &mut grads)?;
                optimizer.step(&mut model.params, &mut grads, 0.0)?;
            }
            for images in val_sizes.into_iter().filter(|&images| images > 0) {
                evaluate_batch(&model.vit, &model.params, &batch(images), &options)?;
            }
        }

        let (staged, prepared) = passes.staying_bytes(backend);
        let staying = [("images and labels", staged as u64), ("adapters, packed", prepared as u64)];
        let held = [self.held - self.trained, self.trained, self.moments, self.trained];
        let named = held.iter().sum::<u64>()
            + staying.iter().map(|part| part.1).sum::<u64>()
            + saved.values().sum::<usize>() as u64;
        let mut parts: Vec<_> = MemoryPlan::HELD.map(str::to_owned).into_iter().zip(held).collect();
        parts.extend(saved.into_iter().map(|(op, bytes)| (format!("saved by {op}"), bytes as u64)));
        parts.extend(staying.into_iter().filter(|part| part.1 > 0).map(|(name, bytes)| (name.to_owned(), bytes)));
        parts.push(("passing through".to_owned(), backend.peak_bytes().saturating_sub(named)));
        Ok(MemoryPlan { parts })
    }
}

/// A model of zeros. They are not touched until someone writes to them: even giant costs no memory here.
fn empty_model<B: Backend>(backend: &B, config: &TrainConfig, vit: &VitConfig, classes: usize) -> Result<Model<B>> {
    let state =
        expected_tensors(vit).into_iter().map(|(name, shape)| (name, HostTensor::filled(&shape, 0.0))).collect();
    let backbone =
        Backbone { config: vit.clone(), state, classifier: None, labels: None, task: None, source: String::new() };
    let names: Vec<String> = (0..classes).map(|i| i.to_string()).collect();
    Model::for_training(backend.clone(), config, backbone, Labels::new(Task::Multiclass, &names), &mut |_| {})
}

fn saved_by_purpose<B: Backend>(
    model: &Model<B>,
    batch: &Batch,
    recompute: Recompute,
) -> Result<BTreeMap<&'static str, usize>> {
    let tape = Tape::new(&model.params);
    let mode = Mode { dropout_seed: Some(0), recompute, ..Mode::default() };
    // Alive until here: what is counted is what the tape keeps, not what passes through.
    let _logits = model.vit.logits(&tape, pixels(batch, &(0..batch.indices.len())), batch.indices.len(), mode)?;
    let mut by_op = BTreeMap::new();
    for (op, bytes) in tape.saved_by_op().into_iter().filter(|(_, bytes)| *bytes > 0) {
        *by_op.entry(op).or_insert(0) += bytes;
    }
    Ok(by_op)
}

/// Images and labels of nothing. Where the device crops, its images pass through memory of a fixed size, whatever theirs is.
fn empty_batch(crops: bool, config: &TrainConfig, load: &Load, images: usize) -> Batch {
    let classes = load.criterion.takes_classes();
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
        labels: if classes { vec![0; images] } else { vec![] },
        targets: if classes { vec![] } else { vec![0.0; images * load.classes] },
        indices: (0..images).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autograd::Counting;
    use crate::config::{Precision, Strategy};
    use crate::cuda::Cuda;
    use crate::gpu::{Arch, Device};

    /// Plans beside one model are those of models of their own, whatever was planned before.
    #[test]
    fn a_plan_leaves_nothing_behind() {
        let vit = VitConfig::named("micro").unwrap();
        let load = || Load { classes: 5, criterion: Criterion::CROSS_ENTROPY, images: (70, 20), crops: true };
        let walks = [
            (64, None, Recompute::NOTHING),
            (64, Some(16), Recompute::BLOCKS),
            (16, None, Recompute::HIDDEN),
            (64, Some(32), Recompute::in_first(crate::config::Level::Pointwise, 2)),
        ];
        for (strategy, has_adapter) in [(Strategy::Full, false), (Strategy::Dora, true)] {
            let of = |(batch_size, micro_batch, recompute)| {
                let adapter = has_adapter.then(Default::default);
                let recompute = Some(recompute);
                TrainConfig {
                    strategy,
                    adapter,
                    batch_size,
                    micro_batch,
                    recompute,
                    input_size: 56,
                    ..TrainConfig::default()
                }
            };
            let gpu = || Cuda::new(&Device::dry(Arch::Sm90a), Precision::Bf16);
            let (on_cpu, on_gpu) = (
                Planning::new(Counting::new(), &of(walks[0]), &vit, load()).unwrap(),
                Planning::new(gpu(), &of(walks[0]), &vit, load()).unwrap(),
            );
            for config in walks.into_iter().chain(walks).map(of) {
                assert_eq!(on_cpu.plan(&config).unwrap(), plan(Counting::new(), &config, &vit, load()).unwrap());
                assert_eq!(on_gpu.plan(&config).unwrap(), plan(gpu(), &config, &vit, load()).unwrap());
            }
        }
    }
}
