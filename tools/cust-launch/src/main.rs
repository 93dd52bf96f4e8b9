//! Launches peftk's fused LoRA matmul through cust, from nothing but its PTX and the layout of its parameters.
//!
//!     peftk-cust-launch [lora_matmul_bf16.sm_80.ptx]
//!
//! Without a path the newest one that a build of peftk left under target/ is taken. It computes
//! y = g (x W^T + s (x A^T) B^T) + bias on odd sizes, compares every value with f64 loops on the CPU, and times DINOv2's.

use std::ffi::c_void;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use cust::context::Context;
use cust::event::{Event, EventFlags};
use cust::function::Function;
use cust::memory::{CopyDestination, DeviceBuffer};
use cust::module::Module;
use cust::stream::{Stream, StreamFlags};
use cust::sys::{CUfunction_attribute, cuFuncSetAttribute};

// The file that peftk itself includes: bindgen's view of kernels/params.h.
#[allow(dead_code)]
#[path = "../../../src/kernels/params.rs"]
mod params;
use params::{PeftkGemmAdapter, PeftkGemmParams};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const FILE: &str = "lora_matmul_bf16.sm_80.ptx";
const ENTRY: &str = "lora_matmul_bf16";
// As in kernels/common/gemm_bf16.cuh.
const TILE: u32 = 128;
const THREADS: u32 = 256;
const SHARED_BYTES: u32 = 4 * (2 * 128 * 32 * 2 + 32 * 32 * 2);
/// The rank as the kernel has it: A's rows and B's columns beyond the adapter's rank are zero.
const RANK_PADDED: usize = 16;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<bool> {
    let path = match std::env::args_os().nth(1) {
        Some(path) => PathBuf::from(path),
        None => find_ptx()
            .ok_or_else(|| format!("no {FILE} under target/: build peftk with nvcc, or give the file's path"))?,
    };
    let ptx = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let _context: Context = cust::quick_init().map_err(|e| format!("cannot open the first GPU: {e}"))?;
    let module = Module::from_ptx(&ptx, &[]).map_err(|e| format!("{}: the driver refuses it: {e}", path.display()))?;
    let function = module.get_function(ENTRY).map_err(|e| format!("{}: no entry {ENTRY}: {e}", path.display()))?;
    // More than 48 KB of dynamic shared memory has to be asked for, and cust has no name for it.
    let attribute = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    // SAFETY: the function is alive, and the attribute takes a number of bytes.
    let status = unsafe { cuFuncSetAttribute(function.to_raw(), attribute, SHARED_BYTES.cast_signed()) };
    if status as u32 != 0 {
        return Err(format!("{SHARED_BYTES} bytes of shared memory are refused: {status:?}").into());
    }
    let stream = Stream::new(StreamFlags::NON_BLOCKING, None)?;
    println!("{} from {}", ENTRY, path.display());

    let mut passed = true;
    for (m, n, k, rank) in [(257, 384, 384, 8), (3, 1152, 384, 16), (130, 200, 136, 1)] {
        let case = Case::random(m, n, k, rank);
        let y = OnDevice::new(&case)?.launch(&stream, &function, &case)?;
        let worst = case.worst_error(&y);
        let good = worst <= 1.0;
        passed &= good;
        println!(
            "m {m} n {n} k {k} rank {rank}: largest error {worst:.2} of what bf16 allows  {}",
            if good { "PASS" } else { "FAIL" }
        );
    }

    let case = Case::random(64 * 257, 384, 384, 8);
    let on_device = OnDevice::new(&case)?;
    let params = on_device.params(&case);
    let (start, end) = (Event::new(EventFlags::DEFAULT)?, Event::new(EventFlags::DEFAULT)?);
    let mut times = Vec::new();
    for _ in 0..25 {
        start.record(&stream)?;
        queue(&stream, &function, &params)?;
        end.record(&stream)?;
        end.synchronize()?;
        times.push(end.elapsed_time_f32(&start)? * 1000.0);
    }
    times.sort_by(f32::total_cmp);
    println!("m {} n {} k {} rank 8: {:.1} us", case.m, case.n, case.k, times[times.len() / 2]);
    Ok(passed)
}

/// The newest PTX file that a build of peftk left in its OUT_DIR.
fn find_ptx() -> Option<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"), PathBuf::from);
    let entries = |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let builds = entries(&target).flat_map(|profile| entries(&profile.join("build")).collect::<Vec<_>>());
    let changed = |path: &PathBuf| path.metadata().and_then(|data| data.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    builds.map(|build| build.join("out").join(FILE)).filter(|path| path.is_file()).max_by_key(changed)
}

/// bf16 to the nearest, ties to even.
fn bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

fn wide(x: u16) -> f64 {
    f64::from(f32::from_bits(u32::from(x) << 16))
}

/// A linear with one adapter on all of its outputs.
struct Case {
    m: usize,
    n: usize,
    k: usize,
    scale: f32,
    /// `[m, k]`, as w, a and b in bf16.
    x: Vec<u16>,
    /// `[n, k]`.
    w: Vec<u16>,
    /// `[RANK_PADDED, k]`.
    a: Vec<u16>,
    /// `[n, RANK_PADDED]`.
    b: Vec<u16>,
    /// `[n]`.
    gain: Vec<f32>,
    /// `[n]`.
    bias: Vec<f32>,
}

impl Case {
    fn random(m: usize, n: usize, k: usize, rank: usize) -> Self {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ (m * n * k) as u64;
        let mut uniform = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
        };
        let mut values =
            |count: usize, bound: f32| -> Vec<u16> { (0..count).map(|_| bf16(bound * uniform())).collect() };
        let bound = (3.0 / k as f32).sqrt();
        let (x, w) = (values(m * k, 1.0), values(n * k, bound));
        let (mut a, mut b) = (values(RANK_PADDED * k, bound), values(n * RANK_PADDED, 0.5));
        a[rank * k..].fill(0);
        b.iter_mut().enumerate().filter(|(i, _)| i % RANK_PADDED >= rank).for_each(|(_, value)| *value = 0);
        let gain = (0..n).map(|_| 1.0 + 0.5 * uniform()).collect();
        let bias = (0..n).map(|_| uniform()).collect();
        Self { m, n, k, scale: 2.0, x, w, a, b, gain, bias }
    }

    /// The largest error, in units of what a result rounded to bf16 and an s t rounded to bf16 may be off by.
    fn worst_error(&self, y: &[u16]) -> f64 {
        let Self { n, k, .. } = *self;
        let mut worst = 0.0_f64;
        for (i, x) in self.x.chunks(k).enumerate() {
            let dot = |row: &[u16]| -> f64 { x.iter().zip(row).map(|(&x, &w)| wide(x) * wide(w)).sum() };
            let t: Vec<f64> = self.a.chunks(k).map(|row| f64::from(self.scale) * dot(row)).collect();
            for j in 0..n {
                let delta = self.b[j * RANK_PADDED..][..RANK_PADDED].iter().zip(&t).map(|(&b, &t)| wide(b) * t);
                let (gain, bias) = (f64::from(self.gain[j]), f64::from(self.bias[j]));
                let sizes: f64 = delta.clone().map(f64::abs).sum();
                let truth = gain * (dot(&self.w[j * k..][..k]) + delta.sum::<f64>()) + bias;
                // Half a unit in the last place of the result; t is rounded as it is stored and as it is scaled.
                let allowed = 2.0_f64.powi(-8) * truth.abs() + 2.0_f64.powi(-7) * (gain * sizes).abs() + 1e-5;
                let error = (wide(y[i * n + j]) - truth).abs() / allowed;
                worst = if error.is_nan() { f64::INFINITY } else { worst.max(error) };
            }
        }
        worst
    }
}

/// A case's memory.
struct OnDevice {
    x: DeviceBuffer<u16>,
    w: DeviceBuffer<u16>,
    a: DeviceBuffer<u16>,
    b: DeviceBuffer<u16>,
    gain: DeviceBuffer<f32>,
    bias: DeviceBuffer<f32>,
    t: DeviceBuffer<u16>,
    y: DeviceBuffer<u16>,
}

impl OnDevice {
    fn new(case: &Case) -> Result<Self> {
        // NaN, so that a value that the kernel does not write is seen.
        let poison = |count: usize| DeviceBuffer::from_slice(&vec![0x7fc1_u16; count]);
        Ok(Self {
            x: DeviceBuffer::from_slice(&case.x)?,
            w: DeviceBuffer::from_slice(&case.w)?,
            a: DeviceBuffer::from_slice(&case.a)?,
            b: DeviceBuffer::from_slice(&case.b)?,
            gain: DeviceBuffer::from_slice(&case.gain)?,
            bias: DeviceBuffer::from_slice(&case.bias)?,
            t: poison(case.m * RANK_PADDED)?,
            y: poison(case.m * case.n)?,
        })
    }

    fn params(&self, case: &Case) -> PeftkGemmParams {
        // Sizes here are small.
        let size = |size: usize| size as u32;
        let mut params = <PeftkGemmParams as bytemuck::Zeroable>::zeroed();
        params.a = self.x.as_device_ptr().as_raw();
        params.b = self.w.as_device_ptr().as_raw();
        params.c = self.y.as_device_ptr().as_raw();
        params.bias = self.bias.as_device_ptr().as_raw();
        params.adapters[0] = PeftkGemmAdapter {
            a: self.a.as_device_ptr().as_raw(),
            b: self.b.as_device_ptr().as_raw(),
            gain: self.gain.as_device_ptr().as_raw(),
            t: self.t.as_device_ptr().as_raw(),
            scale: case.scale,
            first_row: 0,
            rows: size(case.n),
            rank_padded: size(RANK_PADDED),
        };
        (params.m, params.n, params.k) = (size(case.m), size(case.n), size(case.k));
        (params.lda, params.ldb) = (params.k, params.k);
        (params.splits, params.k_per_split) = (1, params.k);
        params
    }

    fn launch(&self, stream: &Stream, function: &Function<'_>, case: &Case) -> Result<Vec<u16>> {
        queue(stream, function, &self.params(case))?;
        stream.synchronize()?;
        let mut y = vec![0; case.m * case.n];
        self.y.copy_to(&mut y)?;
        Ok(y)
    }
}

/// Queues one launch of the kernel.
fn queue(stream: &Stream, function: &Function<'_>, params: &PeftkGemmParams) -> Result<()> {
    let grid = (params.n.div_ceil(TILE), params.m.div_ceil(TILE), 1);
    let arguments = [std::ptr::from_ref(params).cast_mut().cast::<c_void>()];
    // SAFETY: the entry takes one PeftkGemmParams, which the driver copies; its addresses are buffers of the case's sizes that are
    // alive until the stream has been waited for, and the grid covers every tile.
    unsafe { stream.launch(function, grid, THREADS, SHARED_BYTES, &arguments)? };
    Ok(())
}
