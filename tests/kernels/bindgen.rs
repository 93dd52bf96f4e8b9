//! src/kernels/params.rs is what bindgen makes of kernels/params.h.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{Needs, Test};

pub const TESTS: &[Test] =
    &[Test { name: "bindgen::params_rs_is_up_to_date", needs: Needs::Libclang, run: params_rs_is_up_to_date }];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Why bindgen can't run here; None when it can.
pub fn missing() -> Option<String> {
    if !root().join("kernels/params.h").is_file() {
        return Some("the source tree is not on this machine".to_owned());
    }
    libclang().is_none().then(|| "libclang was not found: run 'make setup', or set LIBCLANG_PATH".to_owned())
}

/// LIBCLANG_PATH, or the folder of libclang in the repository's .venv.
fn libclang() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("LIBCLANG_PATH") {
        return Some(path.into());
    }
    let pythons = std::fs::read_dir(root().join(".venv/lib")).ok()?;
    let folders = pythons.flatten().map(|entry| entry.path().join("site-packages/clang/native"));
    folders.into_iter().find(|folder| folder.join("libclang.so").is_file())
}

fn params_rs_is_up_to_date() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["run", "--quiet", "--locked", "--manifest-path", "tools/bindgen/Cargo.toml", "--", "kernels/params.h"])
        .arg(root().join("rustfmt.toml"))
        .current_dir(root())
        .env("LIBCLANG_PATH", libclang().expect("missing() found it"))
        // Not the folder that the running cargo may have locked.
        .env("CARGO_TARGET_DIR", root().join("target/bindgen"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "tools/bindgen failed:\n{}", String::from_utf8_lossy(&output.stderr));
    let committed = std::fs::read_to_string(root().join("src/kernels/params.rs")).unwrap();
    let generated = String::from_utf8(output.stdout).unwrap();
    assert!(generated.contains("struct PeftkDoraNormParams"), "bindgen found no structs:\n{generated}");
    let differing = generated.lines().zip(committed.lines()).find(|(new, old)| new != old);
    assert!(
        generated == committed,
        "src/kernels/params.rs is not what kernels/params.h says: run 'make params'; {differing:?}"
    );
}
