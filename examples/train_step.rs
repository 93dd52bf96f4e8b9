//! Takes training steps on random images, for a profiler to look at, and prints one JSON line.
//!
//!     train_step [--strategy full|freeze|lora|dora] [--batch N] [--steps N] [--warmup N] [--targets q,v|all-linear] [--rank N]
//!                [--size small|base|large] [--micro-batch N] [--f32] [--f32-residual] [--profile]
//!
//! `--profile` marks the counted steps for tools that wait for it (tools/profile.sh).

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use peftk::config::{AdapterSettings, Precision, Strategy, TrainConfig};
use peftk::gpu::{DType, Device};
use peftk::train::bare_step::BareStep;
use peftk::{Error, Result, kernels};

const CLASSES: usize = 100;

#[derive(Parser)]
struct Args {
    #[arg(long, default_value = "dora")]
    strategy: String,
    #[arg(long, default_value_t = 256)]
    batch: usize,
    #[arg(long, default_value_t = 20)]
    steps: usize,
    /// Steps before the counted ones.
    #[arg(long, default_value_t = 3)]
    warmup: usize,
    #[arg(long, default_value = "q,v")]
    targets: String,
    #[arg(long, default_value_t = 8)]
    rank: usize,
    #[arg(long, default_value = "small")]
    size: String,
    #[arg(long)]
    micro_batch: Option<usize>,
    #[arg(long)]
    f32: bool,
    /// The residual stream in f32.
    #[arg(long)]
    f32_residual: bool,
    #[arg(long)]
    profile: bool,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let strategy = [Strategy::Full, Strategy::Freeze, Strategy::Lora, Strategy::Dora]
        .into_iter()
        .find(|strategy| strategy.name() == args.strategy)
        .ok_or_else(|| Error::input(format!("--strategy {}: expected full, freeze, lora or dora", args.strategy)))?;
    let long = |name: &str| match name {
        "q" | "k" | "v" | "o" => format!("{name}_proj"),
        other => other.to_owned(),
    };
    let adapter = strategy.has_adapter().then(|| AdapterSettings {
        targets: args.targets.split(',').map(long).collect(),
        rank: args.rank,
        alpha: args.rank as f64,
        ..AdapterSettings::default()
    });
    let config = TrainConfig {
        strategy,
        adapter,
        batch_size: args.batch,
        micro_batch: args.micro_batch,
        input_size: 224,
        ..TrainConfig::default()
    };
    kernels::require()?;
    let device = Device::open(0)?;
    let precision = if args.f32 { Precision::F32 } else { Precision::Bf16 };
    let free = || Ok::<u64, Error>(device.driver_memory()?.map_or(0, |(free, _)| free));
    let before = free()?;
    let (mut step, plan) =
        BareStep::on_gpu(&device, precision, args.f32_residual.then_some(DType::F32), &config, &args.size, CLASSES)?;
    for _ in 0..args.warmup {
        step.run()?;
    }
    let mut work = || {
        device.synchronize()?;
        let start = Instant::now();
        let mut loss = f64::NAN;
        for _ in 0..args.steps {
            loss = step.run()?;
        }
        device.synchronize()?;
        Ok((start.elapsed().as_secs_f64() / args.steps.max(1) as f64, loss))
    };
    let (seconds, loss) = if args.profile { device.profiled(work)? } else { work()? };
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let line = serde_json::json!({
        "strategy": strategy.name(),
        "size": args.size,
        "batch": args.batch,
        "micro_batch": args.micro_batch,
        "targets": strategy.has_adapter().then_some(&args.targets),
        "rank": strategy.has_adapter().then_some(args.rank),
        "precision": precision.name(),
        "ms_per_step": seconds * 1e3,
        "images_per_s": args.batch as f64 / seconds,
        "planned_mib": mib(plan.total()),
        "peak_mib": mib(device.usage().peak),
        // What the driver has less of than before the arena: with the kernels' code, without the empty context.
        "device_mib": mib(before.saturating_sub(free()?)),
        "loss": loss,
        "device": device.info().name,
        "kernels": device.arch().to_string(),
    });
    println!("{line}");
    Ok(())
}
