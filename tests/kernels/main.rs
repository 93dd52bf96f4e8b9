//! The kernels of kernels/*.cu against their references, one file a kernel, and what can be known of them without a GPU.
//!
//! `cargo test --test kernels [FILTER]`. A test whose needs are not met is counted as ignored and says why;
//! PEFTK_REQUIRE_NVCC=1 and PEFTK_REQUIRE_GPU=1 make that a failure. Names that start with `sanitize_` are small enough for
//! compute-sanitizer. PEFTK_TEST_SEED repeats a run's random data.

mod bindgen;
mod device;
mod dora_norm;
mod harness;
mod manifest;

fn main() -> std::process::ExitCode {
    harness::run(&[device::TESTS, manifest::TESTS, bindgen::TESTS, dora_norm::TESTS])
}
