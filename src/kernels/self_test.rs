//! A quick check of every kernel on the machine at hand, for `peftk doctor`.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{DoraNorm, DoraNormShape};
use crate::Result;
use crate::gpu::{Arch, Buffer, Device};
use crate::reference;

/// How one kernel did.
#[derive(Debug, Clone, PartialEq)]
pub struct SelfTest {
    /// The kernel's entry.
    pub kernel: &'static str,
    /// The build that ran.
    pub arch: Arch,
    /// The largest relative error against the plain loops in f64; NaN when it did not run.
    pub max_error: f64,
    /// What `max_error` may be.
    pub tolerance: f64,
    /// What one launch took on the GPU, in microseconds; NaN when it did not run.
    pub micros: f32,
    /// Why it did not run, in one line.
    pub problem: Option<String>,
}

impl SelfTest {
    /// Whether it ran and was right.
    pub fn passed(&self) -> bool {
        self.problem.is_none() && self.max_error <= self.tolerance
    }
}

/// Runs a kernel: the largest relative error, and the microseconds of one launch.
type Check = fn(&Device) -> Result<(f64, f32)>;

/// Every entry, what its error may be, and its check.
const CHECKS: [(&str, f64, Check); 1] = [("dora_norm_f32", 1e-6, dora_norm)];

/// Runs every kernel once against its reference. It never fails: what is wrong is told in the rows.
pub fn self_test(device: &Device) -> Vec<SelfTest> {
    let row = |(kernel, tolerance, check): (&'static str, f64, Check)| {
        let (max_error, micros, problem) = match check(device) {
            Ok((max_error, micros)) => (max_error, micros, None),
            Err(e) => (f64::NAN, f32::NAN, Some(e.to_string())),
        };
        SelfTest { kernel, arch: device.arch(), max_error, tolerance, micros, problem }
    };
    CHECKS.into_iter().map(row).collect()
}

/// The norms of one attention projection of ViT-S/14 with rank 8.
fn dora_norm(device: &Device) -> Result<(f64, f32)> {
    let (rows, cols, rank, scale) = (384, 384, 8, 1.0);
    let mut random = ChaCha8Rng::seed_from_u64(0);
    let mut values = |n: usize| -> Vec<f32> { (0..n).map(|_| random.random_range(-1.0..1.0)).collect() };
    let (w, a, b) = (values(rows * cols), values(rank * cols), values(rows * rank));

    let kernel = DoraNorm::new(device)?;
    let [dw, da, db] =
        [Buffer::from_slice(device, &w)?, Buffer::from_slice(device, &a)?, Buffer::from_slice(device, &b)?];
    let mut norm = Buffer::from_slice(device, &vec![f32::NAN; rows])?;
    let shape = DoraNormShape { rows, cols, rank };
    // The first launch is not the one to time: it also moves the code to the device.
    kernel.launch(shape, scale, &dw, &da, &db, &mut norm)?;
    let micros = device.time(|| kernel.launch(shape, scale, &dw, &da, &db, &mut norm))?;

    let wide = |values: &[f32]| -> Vec<f64> { values.iter().map(|&x| f64::from(x)).collect() };
    let truth = reference::dora_norm::dora_norm(&wide(&w), &wide(&a), &wide(&b), f64::from(scale), rows, cols, rank);
    let errors = norm.to_vec()?.into_iter().zip(truth).map(|(ours, truth)| (f64::from(ours) - truth).abs() / truth);
    // f64::max would drop a NaN, and a value the kernel never wrote is one.
    Ok((errors.fold(0.0, |worst, e| if worst.is_nan() || e <= worst { worst } else { e }), micros))
}
