//! A whole training step of each strategy on the CPU: ViT-S/14, 224 px, batch 8, 100 classes, q,v at rank 8; images a second.
//!
//! tools/compare/cpu_peer.py times the same step of transformers + peft.

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use peftk::autograd::Grads;
use peftk::config::{AdapterSettings, Strategy, Task, TrainConfig};
use peftk::cpu::Cpu;
use peftk::data::Batch;
use peftk::io::{BackboneSpec, load};
use peftk::train::model::Model;
use peftk::train::optimizer::{Hyper, Optimizer};
use peftk::train::step::{StepOptions, forward_backward};
use rand::{RngExt, SeedableRng};

const BATCH: usize = 8;
const SIZE: usize = 224;
const CLASSES: usize = 100;

fn strategies(c: &mut Criterion) {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(0);
    let batch = Batch {
        images: (0..BATCH * SIZE * SIZE * 3).map(|_| rng.random()).collect(),
        size: BATCH,
        labels: (0..BATCH).map(|_| rng.random_range(0..CLASSES)).collect(),
        targets: vec![],
        indices: (0..BATCH).collect(),
    };
    let labels: Vec<String> = (0..CLASSES).map(|i| i.to_string()).collect();
    let options = StepOptions { task: Task::Multiclass, label_smoothing: 0.0, micro_batch: None, checkpointing: false };
    let mut group = c.benchmark_group("step ViT-S/14 224px batch 8");
    group.throughput(Throughput::Elements(BATCH as u64)).sample_size(10);
    group.warm_up_time(Duration::from_secs(3)).measurement_time(Duration::from_secs(20));
    for strategy in [Strategy::Lora, Strategy::Dora, Strategy::Full, Strategy::Freeze] {
        let spec = BackboneSpec::Random { size: "small".into() };
        let backbone = load(&spec, &mut |_| {}).expect("random weights");
        let adapter = strategy.has_adapter().then(AdapterSettings::default);
        let config = TrainConfig { strategy, adapter, input_size: SIZE, ..TrainConfig::default() };
        let cpu = Cpu::new(None).expect("the CPU");
        let mut model =
            Model::for_training(cpu, &config, backbone, &labels, Task::Multiclass, &mut |_| {}).expect("a model");
        let mut optimizer = Optimizer::new(&model.params, Hyper::new(0.05)).expect("an optimiser");
        group.bench_function(strategy.name(), |b| {
            b.iter(|| {
                let mut grads = Grads::new(&model.params);
                let loss = forward_backward(&model.vit, &model.params, &batch, options, 0, &mut grads).expect("a step");
                optimizer.step(&mut model.params, &mut grads, 1e-4).expect("an update");
                loss
            });
        });
    }
    group.finish();
}

criterion_group!(benches, strategies);
criterion_main!(benches);
