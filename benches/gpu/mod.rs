//! A GPU with random numbers on it, and how a case is timed there.

pub mod adapters;
pub mod attention;
pub mod lora_matmul;
pub mod matmul;
pub mod packing;
pub mod rows;
pub mod tokens;
pub mod update;

use std::fmt;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use peftk::gpu::{Buf, DType, Device};
use peftk::{Result, kernels};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Tokens of a 224 px image.
pub const TOKENS: usize = 257;
/// Width of ViT-S.
pub const WIDTH: usize = 384;
/// Rows of a batch of 256.
pub const ROWS: usize = 256 * TOKENS;

/// A cuBLAS product of 8192^3 in bf16 on an H100 SXM, TFLOP/s, measured elsewhere: no ceiling of other cards.
const H100_BF16_TFLOPS: f64 = 796.0;
/// Inputs that take turns have this many bytes together: well over an L2 cache of 50 MB.
const ROTATED_BYTES: u64 = 160 << 20;
const MOST_SETS: u64 = 256;
/// Device memory of all cases; none takes more than about 3 GiB.
const ARENA_BYTES: u64 = 6 << 30;
/// Random values that a buffer is tiled with: far more than what memory compression looks at.
const CHUNK: usize = 4 << 20;

/// What a launch does at least: every input read once, every output written once, the products' operations.
#[derive(Clone, Copy, Debug, Default)]
pub struct Work {
    pub bytes: u64,
    pub flops: u64,
}

/// Bytes alone.
pub fn bytes(bytes: usize) -> Work {
    Work { bytes: bytes as u64, flops: 0 }
}

type Run = Box<dyn FnMut() -> Result<()>>;

/// Makes a case's inputs on a GPU and what is timed on them.
type Start = Box<dyn Fn(&Gpu) -> Result<Run>>;

/// One bench.
pub struct Case {
    name: String,
    work: Work,
    start: Start,
}

/// A case: `make` makes buffers, as many sets as it takes to leave the cache; `launch` queues the kernel on one of them.
pub fn case<T: 'static>(
    name: impl Into<String>,
    work: Work,
    make: impl Fn(&Gpu) -> Result<T> + 'static,
    launch: impl Fn(&Device, &mut T) -> Result<()> + Copy + 'static,
) -> Case {
    let start = move |gpu: &Gpu| -> Result<Run> {
        let sets = ROTATED_BYTES.div_ceil(work.bytes.max(1)).clamp(1, MOST_SETS);
        let mut sets = (0..sets).map(|_| make(gpu)).collect::<Result<Vec<T>>>()?;
        let (device, mut turn) = (gpu.device.clone(), 0);
        Ok(Box::new(move || {
            turn = (turn + 1) % sets.len();
            launch(&device, &mut sets[turn])
        }))
    };
    Case { name: name.into(), work, start: Box::new(start) }
}

/// The first GPU.
pub struct Gpu {
    pub device: Device,
    bf16: Buf,
    f32: Buf,
    positive: Buf,
    noise: Buf,
    copy_gb_s: f64,
}

impl Gpu {
    /// Opens it and measures its copies.
    pub fn open() -> Result<Self> {
        kernels::require()?;
        let device = Device::open(0)?;
        let free = device.driver_memory()?.map_or(0, |(free, _)| free);
        device.reserve(ARENA_BYTES.min(free / 10 * 9))?;
        Self::on(device)
    }

    /// On a device without a block on it.
    pub fn on(device: Device) -> Result<Self> {
        let mut rng = ChaCha8Rng::seed_from_u64(0x6b65);
        // The sum of four uniform values: near enough to a normal distribution of standard deviation 1.
        let values: Vec<f32> =
            (0..CHUNK).map(|_| (0..4).map(|_| rng.random_range(-0.866..0.866_f32)).sum::<f32>()).collect();
        let positive: Vec<f32> = (0..CHUNK).map(|_| rng.random_range(0.5..1.5)).collect();
        let mut noise = vec![0_u8; CHUNK];
        rng.fill_bytes(&mut noise);
        let mut gpu = Self {
            bf16: Buf::from_f32(&device, &values, DType::Bf16)?,
            f32: Buf::from_f32(&device, &values, DType::F32)?,
            positive: Buf::from_f32(&device, &positive, DType::F32)?,
            noise: Buf::from_slice(&device, &noise, DType::U8)?,
            device,
            copy_gb_s: 0.0,
        };
        let source = gpu.random(DType::F32, 1 << 28)?;
        let mut target = gpu.out(DType::F32, 1 << 28)?;
        let mut times = Vec::new();
        for _ in 0..10 {
            times.push(gpu.device.time(|| (0..5).try_for_each(|_| target.copy_from(&source)))? / 5.0);
        }
        gpu.copy_gb_s = 2.0 * source.bytes() as f64 / f64::from(median(&mut times)) / 1e3;
        Ok(gpu)
    }

    fn tiled(&self, from: &Buf, len: usize) -> Result<Buf> {
        let mut buf = self.out(from.dtype(), len)?;
        for first in (0..len).step_by(from.len()) {
            buf.copy_range(first, from, from.len().min(len - first))?;
        }
        Ok(buf)
    }

    /// About normally distributed, f32 or bf16.
    pub fn random(&self, dtype: DType, len: usize) -> Result<Buf> {
        self.tiled(if dtype == DType::Bf16 { &self.bf16 } else { &self.f32 }, len)
    }

    /// f32 between 0.5 and 1.5: norms, gains, second moments.
    pub fn positive(&self, len: usize) -> Result<Buf> {
        self.tiled(&self.positive, len)
    }

    /// Random bytes.
    pub fn pixels(&self, len: usize) -> Result<Buf> {
        self.tiled(&self.noise, len)
    }

    /// A block to be written.
    pub fn out(&self, dtype: DType, len: usize) -> Result<Buf> {
        Buf::uninit(&self.device, dtype, len)
    }

    /// Runs a family's cases.
    pub fn bench(&self, criterion: &mut Criterion, family: &str, cases: Vec<Case>) {
        let mut group = criterion.benchmark_group(family);
        for Case { name, work, start } in cases {
            group.throughput(match work.flops {
                0 => Throughput::BytesDecimal(work.bytes),
                flops => Throughput::Elements(flops),
            });
            // Made when criterion asks for it: a filter may leave it out.
            let mut run = None;
            let mut times = Vec::new();
            group.bench_function(&name, |b| {
                let run = run.get_or_insert_with(|| start(self).unwrap_or_else(|e| panic!("{family}/{name}: {e}")));
                b.iter_custom(|launches| {
                    let micros = self.device.time(|| (0..launches).try_for_each(|_| run()));
                    let micros = f64::from(micros.unwrap_or_else(|e| panic!("{family}/{name}: {e}")));
                    times.push((micros / launches as f64) as f32);
                    Duration::from_secs_f64(micros * 1e-6)
                });
            });
            if run.is_some() {
                // Criterion's ten samples, without the warm-up before them.
                let mut samples = times.split_off(times.len().saturating_sub(10));
                self.print(&format!("{family}/{name}"), work, f64::from(median(&mut samples)));
            }
        }
        group.finish();
    }

    /// Queues each case once; returns how many there are.
    pub fn check(&self, family: &str, cases: Vec<Case>) -> usize {
        for Case { name, start, .. } in &cases {
            start(self).and_then(|mut run| run()).unwrap_or_else(|e| panic!("{family}/{name}: {e}"));
        }
        cases.len()
    }

    fn print(&self, name: &str, work: Work, micros: f64) {
        let gb_s = work.bytes as f64 / micros / 1e3;
        let mut line =
            format!("= {name:<58} {micros:>9.1} us {gb_s:>6.0} GB/s {:>5.1}%", 100.0 * gb_s / self.copy_gb_s);
        if work.flops > 0 {
            let tflops = work.flops as f64 / micros / 1e6;
            line += &format!(" {tflops:>6.1} TFLOP/s");
            if self.is_h100() {
                line += &format!(" {:>5.1}%", 100.0 * tflops / H100_BF16_TFLOPS);
            }
        }
        println!("{line}");
    }

    fn is_h100(&self) -> bool {
        self.device.info().name.contains("H100")
    }
}

impl fmt::Display for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, arch) = (&self.device.info().name, self.device.arch());
        write!(f, "= {name}, kernels for {arch}; copy of 1 GiB: {:.0} GB/s, read and written", self.copy_gb_s)?;
        if self.is_h100() {
            write!(f, "; bf16 products: {H100_BF16_TFLOPS} TFLOP/s, not measured here")?;
        }
        Ok(())
    }
}

fn median(times: &mut [f32]) -> f32 {
    times.sort_by(f32::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f32::NAN)
}
