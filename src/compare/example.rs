//! A small comparison with invented numbers, for tests of what is made of one.

use serde_json::{Map, json};

use super::results::*;
use crate::config::{Strategy, Task};

/// Two data sets, four variants, three seeds; one cell failed for want of memory.
pub fn results() -> Results {
    let variant = |strategy: Strategy| Variant {
        strategy,
        rank: strategy.has_adapter().then_some(8),
        name: strategy.name().to_owned(),
    };
    let variants = [Strategy::Full, Strategy::Freeze, Strategy::Lora, Strategy::Dora].map(variant).to_vec();
    let dataset = |name: &str, task: Task, measure: &str| DatasetInfo {
        name: name.to_owned(),
        description: format!("{name}: train, val, test; 3 classes"),
        task,
        classes: 3,
        train: 120,
        val: 30,
        test: 60,
        epochs: 4,
        batch_size: 16,
        input_size: 56,
        measure: measure.to_owned(),
    };
    let datasets = vec![
        dataset("birds", Task::Multiclass, "top-1"),
        dataset("parts & <pieces>", Task::Hierarchical, "whole paths"),
    ];
    let seeds = vec![0, 1, 2];
    let mut cells = Vec::new();
    for set in 0..datasets.len() {
        for (v, variant) in variants.iter().enumerate() {
            for &seed in &seeds {
                let outcome = if (set, v, seed) == (1, 0, 2) {
                    Outcome::Failed { reason: "no GPU memory: 1.2 GiB asked, 0.9 GiB free; give --memory lean".into() }
                } else {
                    Outcome::Done(Box::new(measured(set, v, seed)))
                };
                cells.push(Cell {
                    dataset: set,
                    variant: v,
                    seed,
                    run: format!("runs/{}/{}/seed-{seed}", ["birds", "parts"][set], variant.name),
                    config: json!({"strategy": variant.name, "lr": 1e-3, "seed": seed}),
                    outcome,
                });
            }
        }
    }
    let trial = |round, lr, epochs, accuracy| Trial {
        round,
        lr,
        epochs,
        val_accuracy: Some(accuracy),
        val_loss: Some(1.0 - accuracy),
        reason: None,
    };
    Results {
        version: "0.1.0".into(),
        commit: "0123456".into(),
        device: "CPU, 2 threads, f32".into(),
        backbone: "embedded".into(),
        note: Some("invented numbers".into()),
        protocol: Protocol {
            seeds,
            rates: "the defaults".into(),
            split: "as the data has it".into(),
            memory_budget: None,
        },
        datasets,
        variants,
        cells,
        tuning: vec![Tuning {
            dataset: 0,
            variant: 2,
            trials: vec![trial(1, 1e-3, 1, 0.5), trial(1, 4e-3, 1, 0.4), trial(2, 1e-3, 2, 0.6)],
            lr: 1e-3,
            epochs: 4,
        }],
    }
}

fn measured(set: usize, variant: usize, seed: u64) -> Measured {
    let accuracy = [0.60, 0.52, 0.66, 0.65][variant] + [0.0, 0.1][set] + [0.0, 0.01, -0.01][seed as usize];
    let train_s = [8.0, 1.0, 5.0, 5.5][variant];
    Measured {
        commit: "0123456".into(),
        device: "CPU, 2 threads, f32".into(),
        settled: json!({}),
        head: "head: fresh, from the seed".into(),
        test_accuracy: accuracy,
        test_loss: 1.0 - accuracy,
        test_more: Map::from_iter([("macro_f1".to_owned(), json!(accuracy - 0.02))]),
        val_accuracy: accuracy + 0.02,
        best_epoch: 3,
        epochs: 4,
        steps: 32,
        peak_bytes: [1_200, 120, 500, 510][variant] << 20,
        planned_bytes: [1_200, 120, 500, 510][variant] << 20,
        images_per_s: 480.0 / train_s,
        seconds_per_epoch: train_s / 4.0,
        train_s,
        wall_s: train_s + 2.0,
        energy_j: Some(300.0 * train_s),
        trained_parameters: [22_071_572, 15_380, 162_836, 172_052][variant],
        parameters: 22_071_572,
        saved_bytes: [88_300_000, 88_300_000, 660_000, 700_000][variant],
        curve: (1..=4)
            .map(|epoch| EpochPoint {
                epoch,
                train_loss: 2.0 / epoch as f64,
                val_loss: 2.2 / epoch as f64,
                val_accuracy: (accuracy + 0.02) * if epoch == 3 { 1.0 } else { 0.9 },
            })
            .collect(),
    }
}
