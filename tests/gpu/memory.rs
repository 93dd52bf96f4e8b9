//! What a dry run plans is what the GPU's arena holds at most.

use std::sync::Arc;

use peftk::autograd::{Asymmetric, Backend, Grads};
use peftk::config::{Precision, Recompute, Strategy, Task, TrainConfig};
use peftk::cuda::Cuda;
use peftk::data::transform::CropBox;
use peftk::data::{Batch, RgbImage, Sources};
use peftk::gpu::{Arch, Device};
use peftk::io::BackboneSpec;
use peftk::task::criterion::Criterion;
use peftk::task::labels::Labels;
use peftk::train::model::Model;
use peftk::train::optimizer::{Hyper, Optimizer};
use peftk::train::plan::{Load, plan};
use peftk::train::step::{StepOptions, evaluate_batch, forward_backward};
use peftk::vit::VitConfig;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::harness::{Needs, Test};

pub const TESTS: &[Test] = &[
    Test { name: "memory::a_plan_needs_no_gpu", needs: Needs::Nothing, run: plans_without_a_gpu },
    Test { name: "memory::every_loss_is_planned", needs: Needs::Nothing, run: every_loss_is_planned },
    Test { name: "memory::the_plan_holds", needs: Needs::Gpu, run: the_plan_holds },
];

const CLASSES: usize = 7;
const IMAGES: (usize, usize) = (21, 9);

fn config(strategy: Strategy, micro_batch: Option<usize>) -> TrainConfig {
    let mut config = TrainConfig { strategy, batch_size: 8, micro_batch, ..TrainConfig::default() };
    config.recompute = Some(if micro_batch == Some(2) { Recompute::BLOCKS } else { Recompute::NOTHING });
    if !strategy.has_adapter() {
        config.adapter = None;
    }
    config
}

fn cases() -> impl Iterator<Item = TrainConfig> {
    let strategies = [Strategy::Full, Strategy::Freeze, Strategy::Lora, Strategy::Dora];
    strategies.into_iter().flat_map(|strategy| [None, Some(4), Some(2)].map(|micro| config(strategy, micro)))
}

fn planned(config: &TrainConfig, arch: Arch) -> u64 {
    let vit = peftk::io::load(&BackboneSpec::Embedded, &mut |_| {}).unwrap().config;
    let load = Load { classes: CLASSES, criterion: Criterion::CROSS_ENTROPY, images: IMAGES, crops: true };
    plan(Cuda::new(&Device::dry(arch), Precision::Bf16), config, &vit, load).unwrap().total()
}

/// ViT-S/14 at 224 px, so that activations outweigh the block that images pass through.
fn plans_without_a_gpu() {
    let mut totals = Vec::new();
    for config in cases() {
        let config = TrainConfig { input_size: 224, batch_size: 32, ..config };
        let config = TrainConfig { micro_batch: config.micro_batch.map(|micro| 4 * micro), ..config };
        let vit = VitConfig::named("small").unwrap();
        let load = Load { classes: 100, criterion: Criterion::CROSS_ENTROPY, images: (70, 30), crops: true };
        let dry = Cuda::new(&Device::dry(Arch::Sm80), Precision::Bf16);
        totals.push(plan(dry, &config, &vit, load).unwrap().total());
    }
    for (strategy, planned) in totals.chunks_exact(3).enumerate() {
        println!("    planned: {planned:?}");
        let falls = planned[0] > planned[1] && planned[1] > planned[2];
        // A frozen backbone keeps nothing: a smaller micro-batch saves little, and recomputing nothing.
        assert!(falls || (strategy == 1 && planned[0] >= planned[1]), "smaller micro-batches take less: {totals:?}");
    }
}

/// A loss with a constant on the device takes that much more, and none fails on a device that computes nothing.
fn every_loss_is_planned() {
    let vit = VitConfig::named("micro").unwrap();
    let single = Asymmetric { gamma_positive: 0.0, gamma_negative: 1.0, clip: 0.05, positive_weight: 0.8 };
    let weights = Some(vec![1.0; CLASSES].into());
    let mut totals = Vec::new();
    for criterion in [
        Criterion::CROSS_ENTROPY,
        Criterion::Classes { smoothing: 0.1, weights },
        Criterion::Binary,
        Criterion::Labels { begins: [0].into(), smoothing: 0.0, single },
        Criterion::Labels { begins: [0, 3, 5].into(), smoothing: 0.1, single },
    ] {
        for arch in [Arch::Sm80, Arch::Sm90a] {
            let load = Load { classes: CLASSES, criterion: criterion.clone(), images: IMAGES, crops: true };
            let dry = Cuda::new(&Device::dry(arch), Precision::Bf16);
            let config = TrainConfig { input_size: 56, ..config(Strategy::Dora, None) };
            let planned = plan(dry, &config, &vit, load).unwrap();
            let staged = planned.parts.iter().find(|part| part.0 == "images and labels").map(|part| part.1);
            totals.push((arch, criterion.takes_classes(), staged.unwrap()));
        }
    }
    // In pairs of builds: none, weights; none, where the labels begin, where three heads begin.
    let staged: Vec<u64> = totals.iter().step_by(2).map(|total| total.2).collect();
    assert!(staged[1] > staged[0], "weights take no memory: {totals:?}");
    assert!(staged[3] > staged[2] && staged[4] >= staged[3], "where heads begin takes no memory: {totals:?}");
}

fn the_plan_holds() {
    for config in cases() {
        let arch = Device::open(0).unwrap().arch();
        let planned = planned(&config, arch);
        let device = Device::open(0).unwrap();
        device.reserve(planned).unwrap();
        let backbone = peftk::io::load(&BackboneSpec::Embedded, &mut |_| {}).unwrap();
        let names: Vec<String> = (0..CLASSES).map(|i| i.to_string()).collect();
        let labels = Labels::new(Task::Multiclass, &names);
        let backend = Cuda::new(&device, Precision::Bf16);
        let mut model = Model::for_training(backend.clone(), &config, backbone, labels, &mut |_| {}).unwrap();
        let mut optimizer = Optimizer::new(&model.params, Hyper::new(0.05)).unwrap();
        let options = StepOptions {
            criterion: Criterion::CROSS_ENTROPY,
            micro_batch: config.micro_batch,
            recompute: config.recompute.unwrap_or_default(),
        };
        let mut grads = Grads::with_blocks(&model.params).unwrap();
        for images in [8, 8, 5, 8, 8, 5] {
            let batch = random_batch(images);
            grads.restart();
            let loss = forward_backward(&model.vit, &model.params, &batch, &options, 0, &mut grads).unwrap();
            assert!(loss.is_finite());
            optimizer.step(&mut model.params, &mut grads, 1e-3).unwrap();
        }
        for images in [8, 1] {
            evaluate_batch(&model.vit, &model.params, &random_batch(images), &options).unwrap();
        }
        let peak = backend.peak_bytes();
        let off = peak.abs_diff(planned) as f64 / planned as f64;
        println!("    {:?} micro-batch {:?}: planned {planned}, peak {peak}", config.strategy, config.micro_batch);
        assert!(off <= 0.01, "{:?} {:?}: planned {planned}, peak {peak}", config.strategy, config.micro_batch);
    }
}

/// Images of different sizes, which the device crops.
fn random_batch(images: usize) -> Batch {
    let mut rng = ChaCha8Rng::seed_from_u64(images as u64);
    let mut sources = Sources { images: vec![], boxes: vec![], flips: vec![] };
    for index in 0..images {
        let (width, height) = (40 + 13 * index, 90 + 7 * index);
        let pixels = (0..width * height * 3).map(|_| rng.random()).collect();
        sources.images.push(Arc::new(RgbImage { width, height, pixels }));
        sources.boxes.push(CropBox { left: 3.0, top: 10.5, width: 30.0, height: 60.25 });
        sources.flips.push(index % 2 == 1);
    }
    Batch {
        sources: Some(sources),
        size: images,
        labels: (0..images).map(|_| rng.random_range(0..CLASSES)).collect(),
        indices: (0..images).collect(),
        ..Batch::default()
    }
}
