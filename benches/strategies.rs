//! A whole training step of each strategy on ViT-S/14, 224 px, 100 classes; images a second.
//!
//! On a GPU: bf16, batches of 256, 64 and 16, adapters on q,v at rank 8 and on all linears at rank 16, the fastest plan within 20 GiB and
//! for batch 256 that of `--memory fast` too, wall time with the upload of the images; LoRA of ViT-B/14 and ViT-L/14 at batch 64. Without
//! one, or with PEFTK_BENCH_CPU=1, on the CPU: f32, batch 8, adapters on q,v at rank 8; tools/compare/cpu_peer.py times the same step of
//! transformers + peft.

use std::time::{Duration, Instant};

use criterion::{Criterion, SamplingMode, Throughput};
use peftk::config::{AdapterSettings, Precision, Strategy, TrainConfig};
use peftk::cpu::Cpu;
use peftk::gpu::{Device, probe};
use peftk::kernels;
use peftk::train::bare_step::BareStep;

const CLASSES: usize = 100;

fn config(strategy: Strategy, batch_size: usize, targets: &[&str], rank: usize) -> TrainConfig {
    let adapter = strategy.has_adapter().then(|| AdapterSettings {
        targets: targets.iter().map(|&target| target.to_owned()).collect(),
        rank,
        alpha: rank as f64,
        ..AdapterSettings::default()
    });
    TrainConfig { strategy, adapter, batch_size, input_size: 224, ..TrainConfig::default() }
}

const QV: &[&str] = &["q_proj", "v_proj"];
const ALL: &[&str] = &["all-linear"];
/// Device memory that leaves a plan free to be as fast as it can.
const PLENTY: u64 = 20 << 30;

fn on_cpu(c: &mut Criterion) {
    const BATCH: usize = 8;
    let mut group = c.benchmark_group("step ViT-S/14 224px batch 8");
    group.throughput(Throughput::Elements(BATCH as u64)).sample_size(10);
    group.warm_up_time(Duration::from_secs(3)).measurement_time(Duration::from_secs(20));
    for strategy in [Strategy::Lora, Strategy::Dora, Strategy::Full, Strategy::Freeze] {
        let cpu = Cpu::new(None).expect("the CPU");
        let config = config(strategy, BATCH, QV, 8);
        let mut step = BareStep::new(cpu, &config, "small", CLASSES).expect("a model");
        group.bench_function(strategy.name(), |b| b.iter(|| step.run().expect("a step")));
    }
    group.finish();
}

type Case = (&'static str, Strategy, &'static [&'static str], usize);

const CASES: [Case; 6] = [
    ("full", Strategy::Full, QV, 8),
    ("freeze", Strategy::Freeze, QV, 8),
    ("lora q,v r8", Strategy::Lora, QV, 8),
    ("dora q,v r8", Strategy::Dora, QV, 8),
    ("lora all-linear r16", Strategy::Lora, ALL, 16),
    ("dora all-linear r16", Strategy::Dora, ALL, 16),
];
/// Of larger models.
const LORA: [Case; 1] = [CASES[2]];

fn on_gpu(c: &mut Criterion) {
    for batch in [256, 64, 16] {
        group_on_gpu(c, ("ViT-S/14", "small"), batch, Some(PLENTY), &CASES);
    }
    group_on_gpu(c, ("ViT-S/14", "small"), 256, None, &CASES);
    group_on_gpu(c, ("ViT-B/14", "base"), 64, Some(PLENTY), &LORA);
    group_on_gpu(c, ("ViT-L/14", "large"), 64, Some(PLENTY), &LORA);
}

/// The cases at one batch size: the fastest step within a budget, or without one that of `--memory fast`.
fn group_on_gpu(c: &mut Criterion, (model, size): (&str, &str), batch: usize, budget: Option<u64>, cases: &[Case]) {
    let walk = if budget.is_some() { "" } else { " memory fast" };
    let mut group = c.benchmark_group(format!("step {model} 224px bf16 batch {batch}{walk}"));
    group.throughput(Throughput::Elements(batch as u64)).sample_size(10).sampling_mode(SamplingMode::Flat);
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    for &(name, strategy, targets, rank) in cases {
        // One device a case: its arena is made once. Opened when criterion asks for the case, which a filter may leave out.
        let mut open = None;
        let mut times = Vec::new();
        group.bench_function(name, |b| {
            let (device, step, _) = open.get_or_insert_with(|| {
                let device = Device::open(0).expect("the GPU");
                let config = TrainConfig { memory_budget: budget, ..config(strategy, batch, targets, rank) };
                let (step, plan) =
                    BareStep::on_gpu(&device, Precision::Bf16, None, &config, size, CLASSES).expect("a model");
                (device, step, plan)
            });
            b.iter_custom(|steps| {
                device.synchronize().expect("the GPU");
                let start = Instant::now();
                // As a run does it: a step is waited for when the next is queued.
                for _ in 0..steps {
                    step.queue().expect("a step");
                }
                step.finish().expect("a step");
                device.synchronize().expect("the GPU");
                let time = start.elapsed();
                times.push(time.as_secs_f64() / steps as f64);
                time
            });
        });
        let Some((device, step, plan)) = &open else { continue };
        // The samples, without the warm-up before them.
        let mut samples = times.split_off(times.len().saturating_sub(10));
        samples.sort_by(f64::total_cmp);
        let seconds = samples[samples.len() / 2];
        let (micro, recompute) = step.walk();
        println!(
            "= {model} batch {batch:<4} {name:<20} {:>8.2} ms/step {:>8.0} images/s  planned {:>6.0} MiB, peak {:>6.0} MiB  \
             {} at once, computed again: {recompute}",
            seconds * 1e3,
            batch as f64 / seconds,
            plan.total() as f64 / f64::from(1 << 20),
            device.usage().peak as f64 / f64::from(1 << 20),
            micro.unwrap_or(batch),
        );
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let problem = kernels::require().err().map(|e| e.to_string()).or_else(|| probe().problem);
    match problem {
        _ if std::env::var_os("PEFTK_BENCH_CPU").is_some_and(|value| value == "1") => on_cpu(&mut criterion),
        Some(problem) => {
            eprintln!("on the CPU: {problem}");
            on_cpu(&mut criterion);
        }
        None => on_gpu(&mut criterion),
    }
    criterion.final_summary();
}
