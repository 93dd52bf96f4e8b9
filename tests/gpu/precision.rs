//! What the residual stream's type costs: features and gradients in bf16 mode with the stream in bf16 and in f32, against f32 mode, for the
//! sizes S, L and g. What was decided from it stands in ARCHITECTURE.md.

use peftk::adapter;
use peftk::autograd::{Grads, Params, Tape};
use peftk::config::{AdapterSettings, Pool, Precision, Recompute};
use peftk::cuda::Cuda;
use peftk::data::Batch;
use peftk::gpu::{DType, Device};
use peftk::io::{Backbone, BackboneSpec, Classifier, HostTensor};
use peftk::task::criterion::Criterion;
use peftk::train::step::{StepOptions, forward_backward};
use peftk::vit::Mode;
use peftk::vit::build::{BuildOptions, build};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::golden::cosine;
use crate::harness::{Needs, Test, weights};

pub const TESTS: &[Test] =
    &[Test { name: "precision::residual_stream_of_s_l_and_g", needs: Needs::Gpu, run: residual_stream }];

const SIDE: usize = 224;
const IMAGES: usize = 2;
const CLASSES: usize = 10;

/// Features, and all gradients of a LoRA adapter in one row.
struct Outcome {
    features: Vec<f32>,
    grads: Vec<f32>,
}

fn run(backbone: &Backbone, device: &Device, precision: Precision, residual: DType) -> Outcome {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let batch = Batch {
        images: (0..IMAGES * SIDE * SIDE * 3).map(|_| rng.random()).collect(),
        size: IMAGES,
        labels: vec![1, 7],
        indices: (0..IMAGES).collect(),
        ..Batch::default()
    };
    let mut state = backbone.state.clone();
    let mut file = adapter::init(&AdapterSettings::default(), false, &backbone.config, &mut state, 3).unwrap();
    for module in &mut file.modules {
        module.b.data.iter_mut().for_each(|b| *b = rng.random_range(-0.01..0.01));
    }
    let width = 2 * backbone.config.hidden;
    let head = Classifier {
        weight: HostTensor {
            shape: vec![CLASSES, width],
            data: (0..CLASSES * width).map(|_| rng.random_range(-0.05..0.05)).collect(),
        },
        bias: HostTensor { shape: vec![CLASSES], data: vec![0.0; CLASSES] },
    };
    let options = BuildOptions {
        train_backbone: false,
        train: true,
        adapter: Some(&file),
        dora_norm_grad: false,
        pool: Pool::ClsMean,
        input_size: SIDE,
    };
    let mut params = Params::new(Cuda::new(device, precision).with_residual(residual));
    let vit = build(&mut params, &backbone.config, state, &head, &options).unwrap();
    let features = {
        let tape = Tape::inference(&params);
        let features = vit.features(&tape, &batch.images, IMAGES, Mode::default()).unwrap();
        features.array().download(params.backend()).unwrap()
    };
    let options = StepOptions { criterion: Criterion::CROSS_ENTROPY, micro_batch: None, recompute: Recompute::NOTHING };
    let mut grads = Grads::new(&params);
    forward_backward(&vit, &params, &batch, &options, 0, &mut grads).unwrap();
    let grads = params
        .trainable()
        .filter(|(_, param)| param.name.contains("lora"))
        .flat_map(|(id, _)| grads.get(id).unwrap().download(params.backend()).unwrap())
        .collect();
    Outcome { features, grads }
}

fn residual_stream() {
    for size in ["small", "large", "giant"] {
        let spec = match size {
            "small" if weights().join("model.safetensors").is_file() => BackboneSpec::Folder(weights()),
            size => BackboneSpec::Random { size: size.into() },
        };
        let backbone = peftk::io::load(&spec, &mut |_| {}).unwrap();
        let device = Device::open(0).unwrap();
        let exact = run(&backbone, &device, Precision::F32, DType::F32);
        let most = exact.features.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
        let wide: Vec<f64> = exact.grads.iter().map(|&x| f64::from(x)).collect();
        for residual in [DType::F32, DType::Bf16] {
            let found = run(&backbone, &device, Precision::Bf16, residual);
            let pairs = || found.features.iter().zip(&exact.features);
            let largest =
                pairs().fold(0.0_f32, |w, (a, b)| if (a - b).is_nan() { f32::NAN } else { w.max((a - b).abs()) });
            let square = |f: &dyn Fn(&f32, &f32) -> f32| pairs().map(|(a, b)| f64::from(f(a, b)).powi(2)).sum::<f64>();
            let relative = (square(&|a, b| a - b) / square(&|_, b| *b)).sqrt();
            let cosine = cosine(&found.grads, &wide);
            println!(
                "    {size} ({}), residual {residual:?}: features {:.1e} at most, {relative:.1e} in the mean square; adapter gradients' cosine {cosine:.6}",
                backbone.source,
                largest / most
            );
            assert!(relative < 3e-2 && cosine > 0.99, "{size} {residual:?}: {relative:.2e}, cosine {cosine}");
        }
    }
}
