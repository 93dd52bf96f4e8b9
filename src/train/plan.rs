//! The memory a run will take, found by running one whole step on a backend that only counts.

use std::collections::BTreeMap;

use super::model::Model;
use super::optimizer::{Hyper, Optimizer};
use super::report::MemoryPlan;
use super::step::{StepOptions, evaluate_batch, forward_backward};
use crate::Result;
use crate::autograd::{Counting, Grads, Tape};
use crate::config::{AdapterInit, Task, TrainConfig};
use crate::data::Batch;
use crate::io::state::{Backbone, HostTensor};
use crate::vit::names::expected_tensors;
use crate::vit::{Mode, VitConfig};

/// Plans training as `config` says on a backbone of this shape and a head for `classes`, with so many images to train on and to validate on: no batch
/// is larger than these.
pub fn plan(
    config: &TrainConfig,
    vit: &VitConfig,
    classes: usize,
    task: Task,
    (train, val): (usize, usize),
) -> Result<MemoryPlan> {
    let backend = Counting::new();
    // Zeros are not touched until someone writes to them: even giant costs no memory here.
    let state =
        expected_tensors(vit).into_iter().map(|(name, shape)| (name, HostTensor::filled(&shape, 0.0))).collect();
    let backbone =
        Backbone { config: vit.clone(), state, classifier: None, labels: None, task: None, source: String::new() };
    let mut config = config.clone();
    if let Some(adapter) = &mut config.adapter {
        // The same shapes without a decomposition of every weight.
        adapter.init = AdapterInit::Default;
    }
    let labels: Vec<String> = (0..classes).map(|i| i.to_string()).collect();
    let mut model = Model::for_training(backend.clone(), &config, backbone, &labels, task, &mut |_| {})?;
    let held = backend.live_bytes();
    let trained = model.trainable() * size_of::<f32>();

    let mut optimizer = Optimizer::new(&model.params, Hyper::new(config.weight_decay))?;
    let moments = backend.live_bytes() - held;
    let options = StepOptions {
        task,
        label_smoothing: 0.0,
        micro_batch: config.micro_batch,
        checkpointing: config.checkpointing,
    };
    let images = config.batch_size.min(train);
    let batch = empty_batch(&config, classes, task, images);
    let part = empty_batch(&config, classes, task, config.micro_batch.unwrap_or(images).min(images));
    let saved = saved_by_purpose(&model, &part, options)?;

    let mut grads = Grads::new(&model.params);
    forward_backward(&model.vit, &model.params, &batch, options, 0, &mut grads)?;
    optimizer.step(&mut model.params, &mut grads, 0.0)?;
    drop(grads);
    if val > 0 {
        let batch = empty_batch(&config, classes, task, config.batch_size.min(val));
        evaluate_batch(&model.vit, &model.params, &batch, options)?;
    }

    let named = held + moments + trained + saved.values().sum::<usize>();
    let peak = backend.peak_bytes();
    // Gradients take the place of what was saved as the backward pass frees it: only those are counted that are more than it was.
    let gradients = trained.saturating_sub(named.saturating_sub(peak));
    let mut parts = vec![
        ("frozen weights".to_owned(), held - trained),
        ("trained values".to_owned(), trained),
        ("optimiser moments".to_owned(), moments),
        ("gradients".to_owned(), gradients),
    ];
    parts.extend(saved.into_iter().map(|(op, bytes)| (format!("saved by {op}"), bytes)));
    parts.push(("passing through".to_owned(), peak.saturating_sub(named)));
    let parts = parts.into_iter().map(|(purpose, bytes)| (purpose, bytes as u64)).collect();
    Ok(MemoryPlan { parts })
}

fn saved_by_purpose(
    model: &Model<Counting>,
    batch: &Batch,
    options: StepOptions,
) -> Result<BTreeMap<&'static str, usize>> {
    let tape = Tape::new(&model.params);
    let mode = Mode { dropout_seed: Some(0), checkpointing: options.checkpointing };
    // Alive until here: what is counted is what the tape keeps, not what passes through.
    let _logits = model.vit.logits(&tape, &batch.images, batch.indices.len(), mode)?;
    let mut by_op = BTreeMap::new();
    for (op, bytes) in tape.saved_by_op().into_iter().filter(|(_, bytes)| *bytes > 0) {
        *by_op.entry(op).or_insert(0) += bytes;
    }
    Ok(by_op)
}

fn empty_batch(config: &TrainConfig, classes: usize, task: Task, images: usize) -> Batch {
    let multilabel = task == Task::Multilabel;
    Batch {
        images: vec![0; images * config.input_size * config.input_size * 3],
        size: images,
        labels: if multilabel { vec![] } else { vec![0; images] },
        targets: if multilabel { vec![0.0; images * classes] } else { vec![] },
        indices: (0..images).collect(),
    }
}
