//! Training from outside: the program on small folders of images, and what it leaves behind.

#![allow(missing_docs)]

mod bad_adapters;
mod bad_input;
#[cfg(unix)]
mod compare;
mod defaults;
mod docs;
#[cfg(unix)]
mod explain;
mod features;
#[cfg(target_os = "linux")]
mod full_disk;
mod golden;
mod heads;
mod learns;
mod memory;
mod metrics;
mod neighbours;
#[cfg(unix)]
mod resume;
mod same_bits;
#[cfg(unix)]
mod tasks;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use image::{Rgb, RgbImage};
use serde_json::Value;

/// The program in `dir`, with a home of its own and no way to a hub. `line` is split at spaces.
fn command(dir: &Path, line: &str) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("peftk"));
    command
        .current_dir(dir)
        .args(line.split_whitespace())
        .env("HOME", dir)
        .env("CUDA_VISIBLE_DEVICES", "")
        .stdin(Stdio::null());
    command.env("HTTPS_PROXY", "http://127.0.0.1:9").env("HTTP_PROXY", "http://127.0.0.1:9");
    for name in
        ["HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME", "RAYON_NUM_THREADS", "PEFTK_SAVE_EVERY_S", "PEFTK_FEATURE_CACHE"]
    {
        command.env_remove(name);
    }
    command
}

fn peftk(dir: &Path, line: &str) -> Output {
    command(dir, line).output().expect("peftk starts")
}

/// stdout of a call that ends well.
#[track_caller]
fn done(dir: &Path, line: &str) -> String {
    let output = peftk(dir, line);
    assert!(output.status.success(), "peftk {line}\n{}", text(&output.stderr));
    text(&output.stdout)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// The `error:` line of a call that ends with `code`; there must be exactly one, and it is the last. With --quiet it is all there is.
#[track_caller]
fn failure(dir: &Path, line: &str, code: i32) -> String {
    let output = peftk(dir, line);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "peftk {line}\n{stderr}");
    let errors: Vec<&str> = stderr.lines().filter(|line| line.starts_with("error:")).collect();
    assert!(errors.len() == 1 && stderr.lines().last() == Some(errors[0]), "peftk {line}\n{stderr}");
    if line.contains("--quiet") {
        assert_eq!(stderr.lines().count(), 1, "peftk {line}\n{stderr}");
    }
    assert!(output.stdout.is_empty(), "peftk {line} wrote to stdout");
    errors[0].to_owned()
}

/// The lines of a run's log of one kind.
fn lines(run: &Path, kind: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).expect("metrics.jsonl");
    let lines = text.lines().map(|line| serde_json::from_str(line).expect("a line is JSON"));
    lines.filter(|line: &Value| line["kind"] == kind).collect()
}

fn losses(run: &Path) -> Vec<f64> {
    lines(run, "step").iter().map(|line| line["loss"].as_f64().expect("a loss")).collect()
}

/// Logits of `predict --json` by path, as `arguments` name model and images.
#[track_caller]
fn logits(dir: &Path, arguments: &str) -> BTreeMap<PathBuf, Vec<f64>> {
    let out = done(dir, &format!("predict --json {arguments}"));
    let line = |line: &str| {
        let value: Value = serde_json::from_str(line).expect("a line is JSON");
        let logits = value["logits"].as_array().expect("logits").iter().map(|x| x.as_f64().expect("a number"));
        (PathBuf::from(value["path"].as_str().expect("a path")), logits.collect())
    };
    out.lines().map(line).collect()
}

/// Largest difference over the largest number expected.
fn difference(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
    let difference = found.iter().zip(expected).fold(0.0, |most: f64, (a, b)| most.max((a - b).abs()));
    assert!(largest > 0.0 && difference.is_finite());
    difference / largest
}

/// What must not depend on when a run was made: its files, without the times in them.
fn bits(run: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![run.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(run).expect("inside").to_owned();
            let mut bytes = std::fs::read(&path).expect("a file");
            if name == Path::new("metrics.jsonl") {
                let line = |line: &str| {
                    let mut value: Value = serde_json::from_str(line).expect("a line is JSON");
                    let object = value.as_object_mut().expect("an object");
                    object.retain(|key, _| !matches!(&key[..], "images_per_s" | "wall_s"));
                    format!("{value}\n")
                };
                bytes = text(&bytes).lines().map(line).collect::<String>().into_bytes();
            }
            // These two hold times beside what the log and the tensors say.
            if name != Path::new("last/state.json") && !name.to_string_lossy().starts_with("events.out.tfevents") {
                found.insert(name, bytes);
            }
        }
    }
    found
}

/// Fails naming the file that differs.
#[track_caller]
fn assert_same_bits(one: &Path, other: &Path) {
    let (one, other) = (bits(one), bits(other));
    assert_eq!(one.keys().collect::<Vec<_>>(), other.keys().collect::<Vec<_>>());
    for (name, bytes) in &one {
        if bytes != &other[name] && name == Path::new("metrics.jsonl") {
            let [one, other] = [bytes, &other[name]].map(|bytes| text(bytes));
            let at = one.lines().zip(other.lines()).find(|(a, b)| a != b);
            panic!(
                "{} differs: {} and {} lines, first {at:?}",
                name.display(),
                one.lines().count(),
                other.lines().count()
            );
        }
        assert!(bytes == &other[name], "{} differs", name.display());
    }
}

/// Class folders `disc`, `flat` and `stripes` with `each` PNGs of 28 to 56 pixels, shapes and brightness varied, with noise.
fn pictures(dir: &Path, each: u32, seed: u32) {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let mut random = move |below: u32| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state % below
    };
    for class in ["disc", "flat", "stripes"] {
        let folder = dir.join(class);
        std::fs::create_dir_all(&folder).expect("a folder");
        for number in 0..each {
            let (width, height) = (28 + random(29), 28 + random(29));
            let (dark, light, phase) = (20 + random(30), 190 + random(30), random(8));
            let picture = RgbImage::from_fn(width, height, |x, y| {
                let (dx, dy) = (x as f32 - width as f32 / 2.0, y as f32 - height as f32 / 2.0);
                let radius = width.min(height) as f32 * 0.35;
                let level = match class {
                    "disc" if dx * dx + dy * dy < radius * radius => light,
                    "stripes" if (y + phase) / 4 % 2 == 0 => light,
                    "flat" => (dark + light) / 2,
                    _ => dark,
                };
                Rgb([0; 3].map(|_: u8| (level + random(25)) as u8))
            });
            picture.save(folder.join(format!("{number:03}.png"))).expect("an image is written");
        }
    }
}
