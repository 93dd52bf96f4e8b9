//! The report of a comparison: its files, its words, and the page in a browser.
//!
//! `cargo test --test compare [FILTER]`; without Chromium the browser's tests are counted as not run (PEFTK_REQUIRE_CHROMIUM=1 makes that a
//! failure). The pages stay in the test's temporary folder, to be looked at.

mod browser;
mod files;
mod made;
mod odd;
// Shared with tests/kernels, which needs other things.
#[allow(dead_code)]
#[path = "../kernels/harness.rs"]
mod harness;
mod tags;

/// What the shared runner asks about libclang: no test here needs it.
mod bindgen {
    pub fn missing() -> Option<String> {
        None
    }
}

fn main() -> std::process::ExitCode {
    harness::run(&[files::TESTS, odd::TESTS, browser::TESTS])
}
