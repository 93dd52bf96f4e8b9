//! The golden cases on the GPU, in f32 and bf16, with every build of the kernels that the GPU runs. How errors are measured and what they
//! may be: tests/golden/data/README.md.

use peftk::autograd::{Backend, Grads, Params};
use peftk::config::{Precision, Recompute};
use peftk::cuda::Cuda;
use peftk::gpu::Device;
use peftk::train::optimizer::{Hyper, Optimizer};
use peftk::train::step::{StepOptions, forward_backward};
use safetensors::SafeTensors;

use crate::case::Case;
use crate::harness::{Needs, Test, on_every_arch};
use crate::measure::{error, largest, tensor};
use crate::names::find;

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        pub const TESTS: &[Test] = &[$(
            Test { name: concat!("golden::", stringify!($name)), needs: Needs::Gpu, run: || check(stringify!($name)) },
        )*];
    };
}

cases! { full, freeze, lora_qv, lora_all, dora_qv, dora_all, patterns, registers, swiglu, multilabel, legacy_names }

/// What the numbers may be off by.
struct Bounds {
    logits: f64,
    /// Largest difference, or 1 - cosine.
    grads: f64,
    losses: f64,
    finals: f64,
}

const F32: Bounds = Bounds { logits: 1e-4, grads: 1e-4, losses: 1e-4, finals: 1e-4 };
const BF16: Bounds = Bounds { logits: 2e-2, grads: 1e-3, losses: 2e-2, finals: 1e-1 };

fn check(name: &str) {
    let case = Case::read(name);
    on_every_arch(|device| {
        for precision in [Precision::F32, Precision::Bf16] {
            run(name, &case, device, precision, |options| options);
        }
        // Micro-batches and recomputation change nothing but rounding.
        run(name, &case, device, Precision::F32, |options| StepOptions {
            micro_batch: Some(4),
            recompute: Recompute::BLOCKS,
            ..options
        });
    });
}

fn run(name: &str, case: &Case, device: &Device, precision: Precision, options: impl Fn(StepOptions) -> StepOptions) {
    let bounds = if precision == Precision::F32 { F32 } else { BF16 };
    let what = format!("{name} {} {}", device.arch(), precision.name());
    let file = SafeTensors::deserialize(&case.tensors).unwrap();
    let (vit, mut params) = case.model(Cuda::new(device, precision));
    let options = options(case.options());

    let logits = error(&case.logits(&vit, &params), &tensor(&file, "logits").0, 0.0);
    assert!(logits < bounds.logits, "{what}: logits {logits:.2e}");

    let mut grads = Grads::new(&params);
    let loss = forward_backward(&vit, &params, &case.batch, &options, 0, &mut grads).unwrap();
    let expected = tensor(&file, "loss").0[0];
    let wrong = (loss - expected).abs() / expected.abs().max(0.2);
    assert!(wrong < bounds.losses, "{what}: loss {loss} for {expected}");
    let worst = check_grads(&what, precision, &bounds, &file, &params, &grads);

    let hyper = &case.json["optimizer"];
    let mut optimizer = Optimizer::new(&params, Hyper::new(hyper["weight_decay"].as_f64().unwrap())).unwrap();
    let mut worst_loss = 0.0_f64;
    for (step, &expected) in tensor(&file, "losses").0.iter().enumerate() {
        let mut grads = Grads::new(&params);
        let loss = forward_backward(&vit, &params, &case.batch, &options, 0, &mut grads).unwrap();
        let wrong = (loss - expected).abs() / expected.abs().max(0.2);
        assert!(wrong < bounds.losses, "{what}: loss {loss} for {expected} at step {step}");
        worst_loss = worst_loss.max(wrong);
        optimizer.step(&mut params, &mut grads, hyper["lr"].as_f64().unwrap()).unwrap();
    }
    // After four updates: copies of weights that were not updated would show here.
    let finals = error(&case.logits(&vit, &params), &tensor(&file, "final_logits").0, 0.0);
    assert!(finals < bounds.finals, "{what}: final logits {finals:.2e}");
    if precision == Precision::F32 {
        for tensor_name in file.names().iter().filter(|n| n.starts_with("final.")) {
            let place = find(&params, tensor_name.trim_start_matches("final."));
            let got = params.download(place.id).unwrap();
            let wrong = error(place.of(&got), &tensor(&file, tensor_name).0, 0.0);
            assert!(wrong < bounds.finals, "{what}: {tensor_name} {wrong:.2e}");
        }
    }
    println!(
        "    {what}: logits {logits:.1e}, gradients {worst:.1e}, losses {worst_loss:.1e}, final logits {finals:.1e}"
    );
}

/// The worst gradient: its largest error in f32, 1 - cosine in bf16.
fn check_grads<B: Backend>(
    what: &str,
    precision: Precision,
    bounds: &Bounds,
    file: &SafeTensors<'_>,
    params: &Params<B>,
    grads: &Grads<B>,
) -> f64 {
    let names: Vec<_> = file.names().into_iter().filter(|n| n.starts_with("grad.")).collect();
    let floor = 1e-3 * names.iter().map(|n| largest(&tensor(file, n).0)).fold(0.0, f64::max);
    let mut worst = 0.0_f64;
    for tensor_name in &names {
        let expected = tensor(file, tensor_name).0;
        let place = find(params, tensor_name.trim_start_matches("grad."));
        let Some(grad) = grads.get(place.id) else { panic!("{what}: no gradient for {tensor_name}") };
        let got = grad.download(params.backend()).unwrap();
        let wrong = match precision {
            Precision::F32 => error(place.of(&got), &expected, floor),
            // Below the floor a gradient is noise: its direction says nothing.
            Precision::Bf16 if largest(&expected) < floor => continue,
            Precision::Bf16 => 1.0 - cosine(place.of(&got), &expected),
        };
        assert!(wrong < bounds.grads, "{what}: {tensor_name} {wrong:.2e}");
        worst = worst.max(wrong);
    }
    if !names.is_empty() {
        let trained: usize = params.trainable().map(|(_, p)| p.value.elements()).sum();
        let compared: usize = names.iter().map(|n| tensor(file, n).0.len()).sum();
        assert_eq!(trained, compared, "{what}: trained values and golden gradients");
    }
    worst
}

/// The cosine of the angle between two gradients; NaN where one holds NaN, which is below every bound.
pub fn cosine(a: &[f32], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let dot = |f: fn(f64, f64) -> f64| a.iter().zip(b).map(|(&x, &y)| f(f64::from(x), y)).sum::<f64>();
    let (ab, aa, bb) = (dot(|x, y| x * y), dot(|x, _| x * x), dot(|_, y| y * y));
    let cosine = ab / (aa * bb).sqrt();
    if cosine.is_nan() { f64::NEG_INFINITY } else { cosine }
}
