//! Logits, losses, gradients, training steps and merged weights against what transformers and peft compute themselves in f64
//! (tests/golden/data/README.md says how the cases were made and how errors are measured).

mod case;
mod cases;
mod families;
mod files;
mod fixtures;
mod measure;
mod micro_batches;
mod names;
mod walks;

pub(crate) use measure::{data, error, largest, tensor};

/// The fast CPU backend.
fn cpu() -> peftk::cpu::Cpu {
    peftk::cpu::Cpu::new(None).unwrap()
}
