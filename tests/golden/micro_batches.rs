//! A batch gives the same bits however it is walked: in one pass or in micro-batches of any multiple of a granule, with what the backward
//! pass needs kept or recomputed.

use peftk::config::{AdapterSettings, Strategy, TrainConfig};
use peftk::cpu::Cpu;
use peftk::train::bare_step::BareStep;

use crate::walks;

/// Losses and trained values after three steps.
fn run(config: &TrainConfig) -> walks::Outcome {
    let mut step = BareStep::new(Cpu::new(Some(2)).unwrap(), config, "micro", 7).unwrap();
    let losses = (0..3).map(|_| step.run().unwrap()).collect();
    (losses, step.trained().unwrap())
}

#[test]
fn every_walk_gives_the_same_bits() {
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
            batch_size: walks::BATCH,
            input_size: 42,
            micro_batch,
            recompute: Some(recompute),
            ..TrainConfig::default()
        };
        walks::same_bits(name, |images, recompute| run(&config(images, recompute)));
    }
}
