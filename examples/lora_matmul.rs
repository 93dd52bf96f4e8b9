//! A program of its own, with its own cudarc context, stream and memory, that launches peftk's fused LoRA matmul:
//! y = g (x W^T + s (x A^T) B^T) + bias in one kernel, for a linear of ViT-S/14 and a batch of 8 images.
//!
//!     cargo run --release --example lora_matmul

use std::error::Error;

use cudarc::driver::{CudaContext, CudaSlice, CudaStream, DevicePtr};
use half::bf16;
use peftk::gpu::{Buf, DType, Device, probe};
use peftk::kernels::matmul::{Layout, LoraAdapter, Matmul, RankProduct, matmul};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Tokens of 8 images, outputs, inputs, and the adapter's rank.
const M: usize = 8 * 257;
const N: usize = 384;
const K: usize = 384;
const RANK: usize = 8;
/// The kernel takes multiples of 16: A's rows and B's columns beyond the rank are zero.
const PADDED: usize = 16;
const SCALE: f32 = 2.0;

fn main() -> Result<(), Box<dyn Error>> {
    // cudarc panics where there is no driver; peftk says what is missing.
    if let Some(problem) = probe().problem {
        return Err(problem.into());
    }
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let mut values = |count: usize, bound: f32| -> Vec<bf16> {
        (0..count).map(|_| bf16::from_f32(random.random_range(-bound..bound))).collect()
    };
    let (x, w) = (values(M * K, 1.0), values(N * K, 0.1));
    let (mut a, mut b) = (values(PADDED * K, 0.1), values(N * PADDED, 0.5));
    a[RANK * K..].fill(bf16::ZERO);
    b.chunks_mut(PADDED).for_each(|row| row[RANK..].fill(bf16::ZERO));
    let gain: Vec<f32> = (0..N).map(|_| random.random_range(0.5..1.5)).collect();
    let bias: Vec<f32> = (0..N).map(|_| random.random_range(-1.0..1.0)).collect();

    // 1. The program's own context, stream and memory.
    let context = CudaContext::new(0)?;
    let stream = context.new_stream()?;
    let (x_own, w_own) = (stream.clone_htod(&x)?, stream.clone_htod(&w)?);
    let (a_own, b_own) = (stream.clone_htod(&a)?, stream.clone_htod(&b)?);
    let (gain_own, bias_own) = (stream.clone_htod(&gain)?, stream.clone_htod(&bias)?);
    let y_own = stream.alloc_zeros::<bf16>(M * N)?;

    // 2. peftk on that stream: what it launches runs behind the copies above and before the copy below.
    let device = Device::on_stream(&stream)?;
    let half = |own: &CudaSlice<bf16>| borrow(&device, &stream, own, DType::Bf16);
    let single = |own: &CudaSlice<f32>| borrow(&device, &stream, own, DType::F32);
    let (x_buf, w_buf, a_buf, b_buf) = (half(&x_own), half(&w_own), half(&a_own), half(&b_own));
    let (gain_buf, bias_buf, mut y_buf) = (single(&gain_own), single(&bias_own), half(&y_own));

    // 3. One launch.
    let mut launch = || {
        let adapter = LoraAdapter {
            first_row: 0,
            rows: N,
            rank_padded: PADDED,
            scale: SCALE,
            b: &b_buf,
            gain: Some(&gain_buf),
            t: RankProduct::InLoop { a: &a_buf, t: None },
        };
        let product = Matmul::new(Layout::Nt, (M, N, K), &x_buf, &w_buf);
        matmul(&device, Matmul { bias: Some(&bias_buf), adapters: vec![adapter], ..product }, &mut y_buf)
    };
    launch()?;
    let micros = device.time(launch)?;

    // 4. The result is in the program's memory.
    let y = stream.clone_dtoh(&y_own)?;
    stream.synchronize()?;

    let wide = |row: &[bf16]| -> Vec<f64> { row.iter().map(|value| value.to_f64()).collect() };
    let dot = |p: &[f64], q: &[f64]| -> f64 { p.iter().zip(q).map(|(p, q)| p * q).sum() };
    let (w, a, b) = (wide(&w), wide(&a), wide(&b));
    let mut worst = 0.0_f64;
    // A few tokens tell: the plain loops take their time.
    for i in (0..M).step_by(97) {
        let x = wide(&x[i * K..][..K]);
        let t: Vec<f64> = a.chunks(K).map(|row| f64::from(SCALE) * dot(&x, row)).collect();
        for j in 0..N {
            let sum = dot(&x, &w[j * K..][..K]) + dot(&t, &b[j * PADDED..][..PADDED]);
            let truth = f64::from(gain[j]) * sum + f64::from(bias[j]);
            let error = (y[i * N + j].to_f64() - truth).abs() / truth.abs().max(1.0);
            worst = if error.is_nan() { f64::INFINITY } else { worst.max(error) };
        }
    }
    println!(
        "{} ({}), m {M} n {N} k {K} rank {RANK}: {micros:.1} us, largest error {worst:.1e}",
        context.name()?,
        device.arch()
    );
    // bf16 has 8 bits; s t is rounded to it twice on its way to B.
    if worst < 0.03 { Ok(()) } else { Err("the result is not what the plain loops say".into()) }
}

/// The program's memory as peftk takes it.
fn borrow<T>(device: &Device, stream: &CudaStream, own: &CudaSlice<T>, dtype: DType) -> Buf {
    let (address, _uses) = own.device_ptr(stream);
    // SAFETY: cudarc's blocks are 256-byte aligned and this long; `own` outlives the launches, and all that touches it is queued on
    // the one stream.
    unsafe { Buf::borrowed(device, address, dtype, own.len()) }
}
