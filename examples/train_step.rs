//! Takes training steps on random images on a GPU, for a profiler to look at, and prints one JSON line: `peftk bench --json` with what only
//! development needs.
//!
//!     train_step [--strategy full|freeze|lora|dora] [--batch N] [--steps N] [--warmup N] [--targets q,v|all-linear] [--rank N]
//!                [--size small|base|large] [--micro-batch N] [--f32] [--f32-residual] [--profile]
//!
//! `--profile` marks the counted steps for tools that wait for it (tools/profile.sh).

use std::process::ExitCode;

use clap::Parser;
use peftk::config::{AdapterSettings, Device, Precision, Strategy, TrainConfig};
use peftk::gpu::DType;
use peftk::train::Ui;
use peftk::train::bench::{Case, bench};
use peftk::{Error, Result};

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
        device: Device::Cuda(0),
        precision: Some(if args.f32 { Precision::F32 } else { Precision::Bf16 }),
        ..TrainConfig::default()
    };
    let case = Case {
        config,
        size: args.size.clone(),
        classes: CLASSES,
        memory: "fast".to_owned(),
        targets: args.targets.clone(),
        warmup: args.warmup,
        steps: args.steps,
        residual: args.f32_residual.then_some(DType::F32),
        profile: args.profile,
    };
    let ui = Ui::new(true);
    bench(&[case], &ui, &mut |line| {
        let text = serde_json::to_string(line).map_err(|e| Error::Internal(format!("a line is not JSON: {e}")))?;
        ui.result(&text)
    })
}
