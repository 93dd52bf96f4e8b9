//! A full-size ViT-S/14: hidden states against transformers' own. The weights (88 MB) are fetched by tools/fetch-weights.sh.

use std::path::PathBuf;

use peftk::autograd::{Params, Tape};
use peftk::config::Pool;
use peftk::data::{Source, decode};
use peftk::io::{BackboneSpec, Classifier, HostTensor};
use peftk::vit::Mode;
use peftk::vit::build::{BuildOptions, build};
use safetensors::SafeTensors;

use crate::{cpu, data, error, tensor};

#[test]
fn hidden_states() {
    let dir = std::env::var_os("PEFTK_VITS14").map(PathBuf::from);
    let dir = dir.unwrap_or_else(|| data().join("../../../target/vits14"));
    if !dir.join("model.safetensors").exists() {
        let missing = format!("1 full-size test not run: no weights in {}: run tools/fetch-weights.sh", dir.display());
        assert!(std::env::var_os("PEFTK_REQUIRE_WEIGHTS").is_none(), "{missing}");
        eprintln!("{missing}");
        return;
    }
    let golden = data().join("vits14_224");
    let bytes = std::fs::read(golden.join("tensors.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut images = Vec::new();
    for name in ["0.png", "1.png"] {
        let image = decode(&Source::File(golden.join(name))).unwrap();
        assert_eq!((image.width, image.height), (224, 224));
        images.extend(image.pixels);
    }
    let backbone = peftk::io::load(&BackboneSpec::Folder(dir), &mut |_| {}).unwrap();
    let head = Classifier {
        weight: HostTensor { shape: vec![2, 768], data: vec![0.0; 2 * 768] },
        bias: HostTensor { shape: vec![2], data: vec![0.0; 2] },
    };
    let options = BuildOptions {
        train_backbone: false,
        train: false,
        adapter: None,
        dora_norm_grad: false,
        pool: Pool::ClsMean,
        input_size: 224,
    };
    let mut params = Params::new(cpu());
    let vit = build(&mut params, &backbone.config, backbone.state, &head, &options).unwrap();
    let tape = Tape::inference(&params);
    let x = vit.embed(&tape, &images, 2, Mode::default()).unwrap();
    let first = vit.run_blocks(&tape, x, 2, 1, Mode::default()).unwrap().array().download(params.backend()).unwrap();
    let wrong = error(&first, &tensor(&file, "hidden_after_block_1").0, 0.0);
    assert!(wrong < 1e-5, "after block 1: {wrong:.2e}");
    let last = vit.features(&tape, &images, 2, Mode::default()).unwrap().array().download(params.backend()).unwrap();
    let wrong = error(&last, &tensor(&file, "last_hidden_state").0, 0.0);
    assert!(wrong < 1e-5, "last hidden state: {wrong:.2e}");
}
