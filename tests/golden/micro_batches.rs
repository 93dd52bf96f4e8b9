//! A batch gives the same bits however it is walked: in one pass or in micro-batches of any multiple of a granule, with what the backward
//! pass needs kept or recomputed.

use peftk::autograd::GRANULE_IMAGES;
use peftk::config::{AdapterSettings, Recompute, Strategy, TrainConfig};
use peftk::cpu::Cpu;
use peftk::train::bare_step::BareStep;

/// Losses and trained values after three steps.
fn run(config: &TrainConfig) -> (Vec<f64>, Vec<(String, Vec<f32>)>) {
    let mut step = BareStep::new(Cpu::new(Some(2)).unwrap(), config, "micro", 7).unwrap();
    let losses = (0..3).map(|_| step.run().unwrap()).collect();
    (losses, step.trained().unwrap())
}

#[test]
fn every_walk_gives_the_same_bits() {
    // Two granules and a half.
    let batch_size = 2 * GRANULE_IMAGES + GRANULE_IMAGES / 2;
    let adapted = |targets: &[&str], dropout, dora_norm_grad| {
        let targets = targets.iter().map(|target| (*target).to_owned()).collect();
        Some(AdapterSettings { targets, rank: 4, alpha: 8.0, dropout, dora_norm_grad, ..AdapterSettings::default() })
    };
    let all = ["q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2"];
    for (name, strategy, adapter) in [
        ("full", Strategy::Full, None),
        ("freeze", Strategy::Freeze, None),
        ("lora", Strategy::Lora, adapted(&all, 0.2, false)),
        ("dora", Strategy::Dora, adapted(&["q_proj", "v_proj"], 0.0, false)),
        ("dora norm-grad", Strategy::Dora, adapted(&all, 0.0, true)),
    ] {
        let config = |micro_batch, recompute| TrainConfig {
            strategy,
            adapter: adapter.clone(),
            batch_size,
            input_size: 42,
            micro_batch,
            recompute: Some(recompute),
            ..TrainConfig::default()
        };
        let whole = run(&config(None, Recompute::Nothing));
        assert!(whole.0.iter().all(|loss| loss.is_finite()), "{name}: {:?}", whole.0);
        let walks = [
            (Some(GRANULE_IMAGES), Recompute::Nothing),
            (Some(2 * GRANULE_IMAGES), Recompute::Linears),
            (None, Recompute::Cheap),
            (None, Recompute::Hidden),
            (Some(GRANULE_IMAGES), Recompute::Blocks),
        ];
        for (images, recompute) in walks {
            let walked = run(&config(images, recompute));
            assert_eq!(walked.0, whole.0, "{name}: losses in micro-batches of {images:?}");
            for ((value, own), (_, expected)) in walked.1.iter().zip(&whole.1) {
                let same = own.iter().zip(expected).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "{name}: {value} in micro-batches of {images:?}, recomputed: {recompute:?}");
            }
        }
    }
}
