//! The data module from outside: folders, decoding, transforms, batches.

#![allow(missing_docs)]

mod decode;
mod embedded;
mod folders;
mod formats;
mod labels;
mod loader;
mod parquet;
mod survey;
mod transforms;
mod trees;
mod verify;

use std::path::{Path, PathBuf};

use peftk::config::Format;
use peftk::data::{OpenOptions, RgbImage, Source, decode};
use tempfile::TempDir;

/// The path of a test image.
fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/images").join(name)
}

/// A decoded test image.
fn picture(name: &str) -> RgbImage {
    decode(&Source::File(fixture(name))).expect(name)
}

/// Mean absolute difference of two images of the same size, in levels.
fn mean_difference(a: &RgbImage, b: &RgbImage) -> f64 {
    assert_eq!((a.width, a.height, a.pixels.len()), (b.width, b.height, b.pixels.len()));
    let total: u64 = a.pixels.iter().zip(&b.pixels).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
    total as f64 / a.pixels.len() as f64
}

/// No validation, seed 1, whatever task.
fn options() -> OpenOptions {
    OpenOptions {
        format: Format::Auto,
        task: None,
        val_data: None,
        val_fraction: 0.0,
        test_fraction: 0.0,
        seed: 1,
        shots: None,
    }
}

/// A folder with these files: the small PNG where the name is an image's, else a line of text; a name that ends in a
/// slash is an empty folder.
fn folder(files: &[&str]) -> TempDir {
    let dir = tempfile::tempdir().expect("temporary folder");
    fill(dir.path(), files);
    dir
}

/// Adds files to a folder as [`folder`] does.
fn fill(dir: &Path, files: &[&str]) {
    let image = std::fs::read(fixture("base.png")).expect("fixture");
    for file in files {
        let path = dir.join(file);
        let parent = if file.ends_with('/') { &path } else { path.parent().expect("inside the folder") };
        std::fs::create_dir_all(parent).expect("folder");
        if !file.ends_with('/') {
            let is_image = peftk::data::has_image_extension(&path);
            std::fs::write(&path, if is_image { &image[..] } else { b"text\n" }).expect("file");
        }
    }
}

/// The error's one line, with the folder's path as DIR.
#[track_caller]
fn message<T>(result: peftk::Result<T>, dir: &Path) -> String {
    let Err(error) = result else { panic!("expected an error") };
    assert_eq!(error.exit_code(), 2, "{error}");
    let text = error.to_string();
    assert!(!text.contains('\n'), "more than one line: {text}");
    text.replace(&dir.display().to_string(), "DIR")
}
