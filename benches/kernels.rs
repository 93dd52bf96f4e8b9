//! Every kernel at DINOv2's shapes: ViT-S/14 at 224 px, so 257 tokens an image, batch 256, where telling 32; ViT-B for products and
//! attention. Times are the GPU's own, by events, on random data that is never still in the L2 cache from the launch before.
//!
//!     cargo bench --bench kernels [-- FILTER]
//!
//! Beside criterion's report each bench has a line that begins with `=`: microseconds a launch, GB/s and TFLOP/s with their share of what
//! the card can do. Copying 1 GiB is measured first, in the same process; for products the ceiling is a figure, see gpu/mod.rs. What takes
//! under some 5 us is the time of a launch, not of a kernel. Without a GPU or kernels it says so and ends; PEFTK_BENCH_DRY=1 checks the
//! cases' sizes there.

mod gpu;

use std::time::Duration;

use criterion::Criterion;
use peftk::gpu::{Arch, Device};

type Family = (&'static str, fn() -> Vec<gpu::Case>);

const FAMILIES: [Family; 8] = [
    ("matmul", gpu::matmul::cases),
    ("lora_matmul", gpu::lora_matmul::cases),
    ("attention", gpu::attention::cases),
    ("adapters", gpu::adapters::cases),
    ("packing", gpu::packing::cases),
    ("rows", gpu::rows::cases),
    ("tokens", gpu::tokens::cases),
    ("update", gpu::update::cases),
];

fn main() {
    if std::env::var_os("PEFTK_BENCH_DRY").is_some() {
        return check();
    }
    let mut criterion = Criterion::default()
        .sample_size(10)
        .nresamples(2000)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(250))
        .without_plots()
        .configure_from_args();
    let gpu = match gpu::Gpu::open() {
        Ok(gpu) => gpu,
        Err(error) => return println!("no kernel is timed: {error}"),
    };
    println!("{gpu}");
    for (family, cases) in FAMILIES {
        gpu.bench(&mut criterion, family, cases());
    }
    criterion.final_summary();
}

/// Every case once on a device that is not there: sizes and types are checked, and what memory they take.
fn check() {
    for arch in Arch::ALL {
        let gpu = gpu::Gpu::on(Device::dry(arch)).expect("a dry device");
        let count: usize = FAMILIES.iter().map(|(family, cases)| gpu.check(family, cases())).sum();
        println!("{arch}: {count} cases, {} MiB at most", gpu.device.usage().peak >> 20);
    }
}
