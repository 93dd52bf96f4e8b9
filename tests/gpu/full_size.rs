//! A full-size ViT-S/14 on the GPU: hidden states against transformers' own in f64. Weights: tools/fetch-weights.sh, or PEFTK_VITS14.

use peftk::autograd::{Backend, Params, Tape};
use peftk::config::{Pool, Precision};
use peftk::cpu::Cpu;
use peftk::cuda::Cuda;
use peftk::data::{Source, decode};
use peftk::io::{Backbone, BackboneSpec, Classifier, HostTensor};
use peftk::vit::Mode;
use peftk::vit::build::{BuildOptions, build};
use safetensors::SafeTensors;

use crate::harness::{Needs, Test, on_every_arch, weights};
use crate::measure::{data, error, tensor};

pub const TESTS: &[Test] =
    &[Test { name: "full_size::hidden_states_of_vit_s14", needs: Needs::GpuAndWeights, run: hidden_states }];

fn hidden_states() {
    let golden = data().join("vits14_224");
    let bytes = std::fs::read(golden.join("tensors.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut images = Vec::new();
    for name in ["0.png", "1.png"] {
        images.extend(decode(&Source::File(golden.join(name))).unwrap().pixels);
    }
    let backbone = peftk::io::load(&BackboneSpec::Folder(weights()), &mut |_| {}).unwrap();
    let head = Classifier {
        weight: HostTensor { shape: vec![2, 768], data: vec![0.0; 2 * 768] },
        bias: HostTensor { shape: vec![2], data: vec![0.0; 2] },
    };
    // Weights in f16 are other weights than transformers had: then the CPU backend, which is tested against it, is the measure.
    let exact = std::fs::metadata(weights().join("model.safetensors")).unwrap().len() > 80_000_000;
    let (cpu_one, cpu_all) = states(Cpu::new(None).unwrap(), &backbone, &head, &images);
    let golden = |name: &str, cpu: &[f32]| -> Vec<f64> {
        if exact { tensor(&file, name).0 } else { cpu.iter().map(|&x| f64::from(x)).collect() }
    };
    let (one, all) = (golden("hidden_after_block_1", &cpu_one), golden("last_hidden_state", &cpu_all));
    on_every_arch(|device| {
        // The cases' 2e-2 is for logits; hidden states are nearer to where bf16 rounds.
        for (precision, bound) in [(Precision::F32, 1e-4), (Precision::Bf16, 3e-2)] {
            let (first, last) = states(Cuda::new(device, precision), &backbone, &head, &images);
            let (after_one, after_all) = (error(&first, &one, 0.0), error(&last, &all, 0.0));
            println!("    {} {} (golden: {exact}): {after_one:.1e}, {after_all:.1e}", device.arch(), precision.name());
            assert!(after_one < bound && after_all < bound, "{precision:?}: {after_one:.2e}, {after_all:.2e}");
        }
    });
}

/// Hidden states after one block, and after all and the final norm.
fn states<B: Backend>(backend: B, backbone: &Backbone, head: &Classifier, images: &[u8]) -> (Vec<f32>, Vec<f32>) {
    let options = BuildOptions {
        train_backbone: false,
        train: false,
        adapter: None,
        dora_norm_grad: false,
        pool: Pool::ClsMean,
        input_size: 224,
    };
    let mut params = Params::new(backend);
    let vit = build(&mut params, &backbone.config, backbone.state.clone(), head, &options).unwrap();
    let tape = Tape::inference(&params);
    let x = vit.embed(&tape, images, 2, Mode::default()).unwrap();
    let first = vit.run_blocks(&tape, x, 2, 1, Mode::default()).unwrap();
    let last = vit.features(&tape, images, 2, Mode::default()).unwrap();
    [first, last].map(|x| x.array().download(params.backend()).unwrap()).into()
}
