//! Backbones under timm's and Meta's names: features after the final norm against timm's own model and Meta's mathematics.

use std::path::Path;

use peftk::autograd::{Params, Tape};
use peftk::config::Pool;
use peftk::io::{BackboneSpec, Classifier, HostTensor, load};
use peftk::vit::build::{BuildOptions, build};
use peftk::vit::{Family, Mode};
use safetensors::SafeTensors;

use crate::{cpu, error, tensor};

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

#[test]
fn features_of_timm_and_meta_files() {
    let bytes = std::fs::read(folder().join("tiny_features.safetensors")).unwrap();
    let answers = SafeTensors::deserialize(&bytes).unwrap();
    let images = answers.tensor("images").unwrap();
    assert_eq!(images.shape(), [2, 3, 56, 56]);
    // Stored channel by channel; the model takes pixels.
    let planes = images.data();
    let pixels: Vec<u8> = (0..2 * 56 * 56 * 3)
        .map(|at| {
            let (image, rest) = (at / (56 * 56 * 3), at % (56 * 56 * 3));
            planes[image * 3 * 56 * 56 + rest % 3 * 56 * 56 + rest / 3]
        })
        .collect();
    let files = [
        ("timm_tiny.safetensors", Family::Timm, 0, false),
        ("timm_tiny_reg.safetensors", Family::Timm, 4, false),
        ("timm_tiny_swiglu.safetensors", Family::Timm, 0, true),
        ("meta_tiny.pth", Family::Meta, 0, false),
        ("meta_tiny_reg_swiglu_half.pth", Family::Meta, 4, true),
    ];
    for (file, family, registers, swiglu) in files {
        let backbone = load(&BackboneSpec::File(folder().join(file)), &mut |_| {}).unwrap();
        let config = &backbone.config;
        assert_eq!((config.family, config.registers, config.swiglu), (family, registers, swiglu), "{file}");
        let head = Classifier {
            weight: HostTensor::filled(&[2, 2 * config.hidden], 0.0),
            bias: HostTensor::filled(&[2], 0.0),
        };
        let options = BuildOptions {
            train_backbone: false,
            train: false,
            adapter: None,
            dora_norm_grad: false,
            pool: Pool::ClsMean,
            input_size: 56,
        };
        let mut params = Params::new(cpu());
        let vit = build(&mut params, config, backbone.state.clone(), &head, &options).unwrap();
        let tape = Tape::inference(&params);
        let features = vit.features(&tape, &pixels, 2, Mode::default()).unwrap();
        let got = features.array().download(params.backend()).unwrap();
        let name = file.split('.').next().unwrap();
        let wrong = error(&got, &tensor(&answers, name).0, 0.0);
        assert!(wrong < 1e-5, "{file}: {wrong:.2e}");
    }
}

/// A pickle that would run a command is refused before anything in it runs; a file of torch's older format is refused in words.
#[test]
fn dangerous_and_old_files_are_refused() {
    let refused = |file: &str| load(&BackboneSpec::File(folder().join(file)), &mut |_| {}).unwrap_err().to_string();
    assert!(refused("malicious.pth").contains("system"), "{}", refused("malicious.pth"));
    assert!(!Path::new("peftk-pickle-was-executed").exists());
    assert!(refused("legacy_format.pth").contains("legacy_format.pth"));
}
