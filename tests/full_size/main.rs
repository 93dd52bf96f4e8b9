//! A full-size ViT-S/14: hidden states against transformers' own. The weights (88 MB) are fetched by tools/fetch-weights.sh; a runner of its own,
//! because a test that did not run for want of them has to be counted, not to look green.

#[path = "../golden/measure.rs"]
mod measure;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use measure::{data, error, tensor};
use peftk::autograd::{Params, Tape};
use peftk::config::Pool;
use peftk::data::{Source, decode};
use peftk::io::{BackboneSpec, Classifier, HostTensor};
use peftk::vit::Mode;
use peftk::vit::build::{BuildOptions, build};
use safetensors::SafeTensors;

fn main() -> ExitCode {
    let dir = std::env::var_os("PEFTK_VITS14").map(PathBuf::from);
    let dir = dir.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/vits14"));
    println!("\nrunning 1 test");
    let (passed, ignored) = if dir.join("model.safetensors").exists() {
        hidden_states(dir);
        println!("test hidden_states ... ok");
        (1, 0)
    } else {
        let missing = format!("no weights in {}: run tools/fetch-weights.sh", dir.display());
        if std::env::var_os("PEFTK_REQUIRE_WEIGHTS").is_some() {
            println!(
                "test hidden_states ... FAILED\n\n{missing}\n\ntest result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured"
            );
            return ExitCode::FAILURE;
        }
        println!("test hidden_states ... ignored, not run: {missing}\n\n1 full-size test not run: {missing}");
        (0, 1)
    };
    println!("test result: ok. {passed} passed; 0 failed; {ignored} ignored; 0 measured; 0 filtered out\n");
    ExitCode::SUCCESS
}

fn hidden_states(dir: PathBuf) {
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
    let mut params = Params::new(peftk::cpu::Cpu::new(None).unwrap());
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
