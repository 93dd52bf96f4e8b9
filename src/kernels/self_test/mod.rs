//! A quick check of every kernel on the machine at hand, for `peftk doctor`: each operation at one small shape, in every type it has, against
//! the plain loops of `reference` in f64.
//!
//! One file a family of operations; each check names the kernel file that it launches.

mod adapters;
mod attention;
mod dora;
mod elementwise;
mod images;
mod lora;
mod norms;
mod products;
mod training;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::gpu::{Arch, Buf, DType, Device};
use crate::{Error, Result};

/// How one kernel did.
#[derive(Debug, Clone, PartialEq)]
pub struct SelfTest {
    /// The operation and its type.
    pub kernel: String,
    /// The kernel file whose entries ran, without `.cu`.
    pub file: &'static str,
    /// The build that ran.
    pub arch: Arch,
    /// The largest error of an output, relative to its largest value in f64; NaN when it did not run or wrote NaN.
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

/// Runs every kernel against its reference. It never fails: what is wrong is told in the rows.
pub fn self_test(device: &Device) -> Vec<SelfTest> {
    let mut bench = Bench { device, random: ChaCha8Rng::seed_from_u64(0), rows: Vec::new() };
    let families = [
        products::checks,
        lora::checks,
        attention::checks,
        norms::checks,
        elementwise::checks,
        images::checks,
        dora::checks,
        adapters::checks,
        training::checks,
    ];
    families.into_iter().for_each(|checks| checks(&mut bench));
    bench.rows
}

const BOTH: [DType; 2] = [DType::F32, DType::Bf16];
/// (the residual stream, activations).
const STREAMS: [(DType, DType); 3] = [(DType::F32, DType::F32), (DType::F32, DType::Bf16), (DType::Bf16, DType::Bf16)];

/// `OPERATION TYPE`.
fn named(operation: &str, dtype: DType) -> String {
    format!("{operation} {}", if dtype == DType::Bf16 { "bf16" } else { "f32" })
}

/// `OPERATION TYPE`, and where the residual stream has another type than the activations that as well.
fn streamed(operation: &str, (stream, activations): (DType, DType)) -> String {
    if stream == activations { named(operation, stream) } else { format!("{operation} bf16, stream f32") }
}

/// What sums of this type may be off; bf16 is rounded before and after.
fn sums(dtype: DType) -> f64 {
    if dtype == DType::Bf16 { 1e-2 } else { 1e-5 }
}

/// What a few operations in f32 and one rounding to this type may be off.
fn rounded(dtype: DType) -> f64 {
    if dtype == DType::Bf16 { 4e-3 } else { 1e-6 }
}

/// Rows of `cols` values with zeros behind, up to `to`.
fn padded(values: &[f64], cols: usize, to: usize) -> Vec<f64> {
    let zeros = || std::iter::repeat_n(0.0, to - cols);
    values.chunks_exact(cols).flat_map(|row| row.iter().copied().chain(zeros())).collect()
}

/// A matrix on the device, and what of it the device has, in f64.
struct Input {
    buf: Buf,
    wide: Vec<f64>,
}

/// The largest relative error and the microseconds of a launch.
type Measured = Result<(f64, f32)>;

/// Where checks get their data from and put their rows.
struct Bench<'d> {
    device: &'d Device,
    random: ChaCha8Rng,
    rows: Vec<SelfTest>,
}

impl Bench<'_> {
    /// Runs a check of an operation of kernel file `file`.
    fn check(&mut self, file: &'static str, kernel: String, tolerance: f64, work: impl FnOnce(&mut Self) -> Measured) {
        let (max_error, micros, problem) = match work(self) {
            Ok((max_error, micros)) => (max_error, micros, None),
            Err(error) => (f64::NAN, f32::NAN, Some(error.to_string())),
        };
        let arch = self.device.arch();
        self.rows.push(SelfTest { kernel, file, arch, max_error, tolerance, micros, problem });
    }

    /// Values on the device, rounded to its type.
    fn put(&self, dtype: DType, values: &[f64]) -> Result<Input> {
        let narrow: Vec<f32> = values.iter().map(|&value| value as f32).collect();
        let buf = Buf::from_f32(self.device, &narrow, dtype)?;
        let wide = wide(&buf)?;
        Ok(Input { buf, wide })
    }

    /// Random values between -`bound` and `bound`.
    fn draw(&mut self, dtype: DType, len: usize, bound: f64) -> Result<Input> {
        let values: Vec<f64> = (0..len).map(|_| self.random.random_range(-bound..bound)).collect();
        self.put(dtype, &values)
    }

    /// Random f32 values of both signs with sizes from 0.5 to 1.5: gains, and with `positive` norms.
    fn draw_gains(&mut self, len: usize, positive: bool) -> Result<Input> {
        let mut value = || {
            let size: f64 = self.random.random_range(0.5..1.5);
            if positive || self.random.random() { size } else { -size }
        };
        let values: Vec<f64> = (0..len).map(|_| value()).collect();
        self.put(DType::F32, &values)
    }

    /// Room for an output, NaN all over (for bytes 255).
    fn room(&self, dtype: DType, len: usize) -> Result<Buf> {
        let mut buf = Buf::uninit(self.device, dtype, len)?;
        buf.fill_bytes(0xff)?;
        Ok(buf)
    }

    /// Launches, compares every output with its truth, then times a second launch: the first also moves the code to the device.
    fn measure<const N: usize>(
        &self,
        mut outputs: [Buf; N],
        truths: [Vec<f64>; N],
        mut launch: impl FnMut(&mut [Buf; N]) -> Result<()>,
    ) -> Measured {
        launch(&mut outputs)?;
        let mut worst = 0.0;
        for (output, truth) in outputs.iter().zip(&truths) {
            worst = larger(worst, relative(&wide(output)?, truth)?);
        }
        let micros = self.device.time(|| launch(&mut outputs))?;
        Ok((worst, micros))
    }
}

fn wide(buf: &Buf) -> Result<Vec<f64>> {
    if buf.dtype() == DType::U8 {
        return Ok(buf.to_vec::<u8>()?.into_iter().map(f64::from).collect());
    }
    Ok(buf.to_f32()?.into_iter().map(f64::from).collect())
}

/// The larger of two errors; NaN, which f64::max would drop, is the largest.
fn larger(a: f64, b: f64) -> f64 {
    if a.is_nan() || b <= a { a } else { b }
}

/// max |ours - truth| / max |truth|.
fn relative(ours: &[f64], truth: &[f64]) -> Result<f64> {
    if ours.len() != truth.len() {
        return Err(Error::shape("self-test", truth.len(), ours.len()));
    }
    let size = truth.iter().fold(f64::MIN_POSITIVE, |size, x| size.max(x.abs()));
    Ok(ours.iter().zip(truth).fold(0.0, |worst, (ours, truth)| larger(worst, (ours - truth).abs())) / size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nan_is_the_largest_error() {
        assert_eq!(relative(&[1.0, -4.5], &[1.0, -4.0]).unwrap(), 0.125);
        for values in [[f64::NAN, 1.0], [1.0, f64::NAN]] {
            assert!(relative(&values, &[1.0, 1.0]).unwrap().is_nan());
        }
        assert!(larger(f64::NAN, 1.0).is_nan() && larger(1.0, f64::NAN).is_nan());
        relative(&[1.0], &[1.0, 2.0]).expect_err("another length");
        assert_eq!(padded(&[1.0, 2.0, 3.0, 4.0], 2, 3), [1.0, 2.0, 0.0, 3.0, 4.0, 0.0]);
    }
}
