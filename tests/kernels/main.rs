//! The kernels of kernels/*.cu against their references, one file a kernel, and what can be known of them without a GPU.
//!
//! `cargo test --test kernels [FILTER]`. A test whose needs are not met is counted as ignored and says why;
//! PEFTK_REQUIRE_NVCC=1 and PEFTK_REQUIRE_GPU=1 make that a failure. Names that start with `sanitize_` are small enough for
//! compute-sanitizer. PEFTK_TEST_SEED repeats a run's random data.

mod adamw;
mod adapter_pack;
mod attention;
mod augment;
mod bindgen;
mod device;
mod dora_dropout;
mod dora_norm;
mod dora_norm_backward;
mod entries;
// Shared with tests/gpu, which needs other things.
#[allow(dead_code)]
mod harness;
mod layer_norm;
mod layer_scale;
mod lora_gradients;
mod lora_matmul;
mod loss;
mod magnitude_rescale;
mod manifest;
mod matmul;
mod merge;
mod parts;
mod pointwise;
mod queue;
mod tokens;

fn main() -> std::process::ExitCode {
    harness::run(&[
        device::TESTS,
        queue::TESTS,
        manifest::TESTS,
        bindgen::TESTS,
        matmul::TESTS,
        parts::TESTS,
        lora_matmul::TESTS,
        lora_gradients::TESTS,
        adapter_pack::TESTS,
        dora_norm::TESTS,
        dora_norm_backward::TESTS,
        dora_dropout::TESTS,
        magnitude_rescale::TESTS,
        merge::TESTS,
        attention::TESTS,
        layer_norm::TESTS,
        layer_scale::TESTS,
        pointwise::TESTS,
        tokens::TESTS,
        loss::TESTS,
        adamw::TESTS,
        augment::TESTS,
    ])
}
