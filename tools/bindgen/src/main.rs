//! Prints the Rust side of kernels/params.h: the launch parameters of every kernel.
//!
//! From the repository's root: `make params` (needs libclang; `make setup` installs it and LIBCLANG_PATH names its folder).
//! The result is committed, so a build needs neither this tool nor libclang; tests/kernels/bindgen.rs compares the two.

use bindgen::callbacks::{DeriveInfo, ParseCallbacks};

/// Lets Rust send the structs as bytes: bytemuck refuses to compile a struct with padding.
#[derive(Debug)]
struct PlainBytes;

impl ParseCallbacks for PlainBytes {
    fn add_derives(&self, _: &DeriveInfo<'_>) -> Vec<String> {
        vec!["PartialEq".into(), "bytemuck::Pod".into(), "bytemuck::Zeroable".into()]
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (Some(header), Some(rustfmt), None) = (arguments.next(), arguments.next(), arguments.next()) else {
        eprintln!("usage: peftk-bindgen kernels/params.h rustfmt.toml > src/kernels/params.rs");
        std::process::exit(2);
    };
    let result = bindgen::Builder::default()
        .header(header)
        .allowlist_type("Peftk.*")
        .use_core()
        .disable_header_comment()
        .raw_line("//! The launch parameters of every kernel, as kernels/params.h lays them out, with their sizes and offsets checked.")
        .raw_line("//!")
        .raw_line("//! Written by tools/bindgen: edit kernels/params.h, then run `make params`.")
        .parse_callbacks(Box::new(PlainBytes))
        .formatter(bindgen::Formatter::Rustfmt)
        .rustfmt_configuration_file(Some(rustfmt.into()))
        .generate();
    match result {
        Ok(bindings) => print!("{bindings}"),
        Err(error) => {
            eprintln!("error: {error}");
            std::process::exit(1);
        }
    }
}
