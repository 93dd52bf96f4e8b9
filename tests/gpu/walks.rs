//! A batch gives the same bits on a GPU however it is walked, as tests/golden/micro_batches.rs has it on the CPU; and the memory of every
//! mode is what was planned.

use peftk::config::{AdapterSettings, Memory, Precision, Recompute, Strategy, TrainConfig};
use peftk::cuda::Cuda;
use peftk::gpu::{Arch, Device};
use peftk::train::bare_step::BareStep;

use crate::harness::{Needs, Test, on_every_arch};

pub const TESTS: &[Test] = &[
    Test { name: "walks::every_walk_gives_the_same_bits", needs: Needs::Gpu, run: same_bits },
    Test { name: "walks::recorded_passes_give_the_same_bits", needs: Needs::Gpu, run: recorded },
    Test { name: "walks::every_mode_is_planned", needs: Needs::Gpu, run: modes },
];

fn adapted(targets: &[&str], rank: usize, dropout: f64, dora_norm_grad: bool) -> Option<AdapterSettings> {
    let targets = targets.iter().map(|target| (*target).to_owned()).collect();
    Some(AdapterSettings { targets, rank, alpha: 8.0, dropout, dora_norm_grad, ..AdapterSettings::default() })
}

const ALL: [&str; 6] = ["q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2"];

/// Strategies and adapters of every kind.
fn cases() -> [(&'static str, Strategy, Option<AdapterSettings>); 7] {
    [
        ("full", Strategy::Full, None),
        ("freeze", Strategy::Freeze, None),
        ("lora", Strategy::Lora, adapted(&["q_proj", "v_proj"], 8, 0.0, false)),
        ("lora, dropout", Strategy::Lora, adapted(&ALL, 4, 0.2, false)),
        ("lora, rank 40", Strategy::Lora, adapted(&ALL, 40, 0.0, false)),
        ("dora", Strategy::Dora, adapted(&["q_proj", "v_proj"], 8, 0.0, false)),
        ("dora, all, norm-grad", Strategy::Dora, adapted(&ALL, 16, 0.0, true)),
    ]
}

fn same_bits() {
    on_every_arch(|device| {
        for ((name, strategy, adapter), precision) in
            cases().iter().flat_map(|case| [Precision::Bf16, Precision::F32].map(|precision| (case, precision)))
        {
            let what = format!("{} {precision:?} {name}", device.arch());
            crate::same_bits::same_bits(&what, |micro_batch, recompute| {
                let config = TrainConfig {
                    strategy: *strategy,
                    adapter: adapter.clone(),
                    batch_size: crate::same_bits::BATCH,
                    input_size: 70,
                    micro_batch,
                    recompute: Some(recompute),
                    ..TrainConfig::default()
                };
                let mut step = BareStep::new(Cuda::new(device, precision), &config, "micro", 7).unwrap();
                let losses: Vec<f64> = (0..3).map(|_| step.run().unwrap()).collect();
                (losses, step.trained().unwrap())
            });
        }
    });
}

/// In an arena passes are recorded and replayed, on a device without one never: three granules, of which the first writes the sums.
fn recorded() {
    on_every_arch(|plain| {
        for (name, strategy, adapter) in cases() {
            let what = format!("{} {name}", plain.arch());
            let dropout = adapter.as_ref().is_some_and(|adapter| adapter.dropout > 0.0);
            let config = TrainConfig {
                strategy,
                adapter,
                batch_size: 48,
                input_size: 70,
                micro_batch: Some(16),
                recompute: Some(Recompute::HIDDEN),
                grad_clip: Some(0.5),
                ..TrainConfig::default()
            };
            let run = |step: &mut BareStep<Cuda>| {
                let losses: Vec<f64> = (0..5).map(|_| step.run().unwrap()).collect();
                (losses, step.trained().unwrap(), step.replayed())
            };
            let expected = run(&mut BareStep::new(Cuda::new(plain, Precision::Bf16), &config, "micro", 7).unwrap());
            let device = Device::open_with(0, Some(plain.arch())).unwrap();
            let (mut step, plan) = BareStep::on_gpu(&device, Precision::Bf16, None, &config, "micro", 7).unwrap();
            let found = run(&mut step);
            assert_eq!((&found.0, &found.1), (&expected.0, &expected.1), "{what}");
            // Steps 1 and 2 run and record; with dropout, and with PEFTK_GUARD=1, nothing is.
            let replayed = if dropout || device.is_guarded() { 0 } else { 1 + 3 * 3 };
            assert_eq!((expected.2, found.2), (0, replayed), "{what}: passes replayed");
            assert!(device.usage().peak <= plan.total(), "{what}: {} of {}", device.usage().peak, plan.total());
        }
    });
}

/// Strategies, modes and batch sizes on S and B: planned, and the arena's peak after more steps than the plan plays.
fn modes() {
    let arch = Device::open(0).unwrap().arch();
    let sizes: &[&str] = if arch == Arch::Sm80 { &["small"] } else { &["small", "base"] };
    for (size, strategy) in sizes
        .iter()
        .flat_map(|size| [Strategy::Full, Strategy::Freeze, Strategy::Lora, Strategy::Dora].map(|s| (size, s)))
    {
        for (memory, batch_size) in [Memory::Fast, Memory::Balanced, Memory::Lean]
            .into_iter()
            .flat_map(|memory| [16, 64, 72].map(|n| (memory, n)))
        {
            let device = Device::open(0).unwrap();
            let config = TrainConfig {
                strategy,
                adapter: strategy.has_adapter().then(AdapterSettings::default),
                batch_size,
                memory,
                input_size: 224,
                ..TrainConfig::default()
            };
            let (mut step, plan) = BareStep::on_gpu(&device, Precision::Bf16, None, &config, size, 100).unwrap();
            for _ in 0..5 {
                step.run().unwrap();
            }
            let (planned, peak) = (plan.total(), device.usage().peak);
            println!("    {size} {} {} {batch_size}: planned {planned}, peak {peak}", strategy.name(), memory.name());
            assert!(
                peak.abs_diff(planned) as f64 <= 0.01 * planned as f64,
                "{size} {strategy:?} {memory:?} {batch_size}"
            );
        }
    }
}
