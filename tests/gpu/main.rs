//! Whole training steps on a GPU: golden cases of transformers and peft, equal bits, the memory plan, a full-size model.
//!
//! `cargo test --test gpu [FILTER]`; without a GPU every test is counted as not run.

mod adapters;
#[path = "../golden/case.rs"]
mod case;
mod commands;
mod compare;
mod explain;
mod full_size;
mod golden;
mod guard;
// Shared with tests/kernels, which needs other things.
#[allow(dead_code)]
#[path = "../kernels/harness.rs"]
mod harness;
#[path = "../golden/measure.rs"]
mod measure;
mod memory;
#[path = "../golden/names.rs"]
mod names;
mod precision;
mod runs;
#[path = "../golden/walks.rs"]
mod same_bits;
mod walks;

/// What the shared runner asks about libclang: no test here needs it.
mod bindgen {
    pub fn missing() -> Option<String> {
        None
    }
}

fn main() -> std::process::ExitCode {
    harness::run(&[
        golden::TESTS,
        runs::TESTS,
        memory::TESTS,
        walks::TESTS,
        adapters::TESTS,
        guard::TESTS,
        full_size::TESTS,
        commands::TESTS,
        compare::TESTS,
        explain::TESTS,
        precision::TESTS,
    ])
}
