//! The program from outside: exit codes, one `error:` line, streams.

mod bad_flags;
mod bench;
mod data;
mod plan;
mod resume;
mod streams;

use std::path::Path;
use std::process::Output;

/// Runs peftk in `dir` with a home of its own.
fn peftk(dir: &Path, args: &[&str]) -> Output {
    command(dir, args).output().expect("peftk starts")
}

fn command(dir: &Path, args: &[&str]) -> std::process::Command {
    let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin!("peftk"));
    command.current_dir(dir).env("HOME", dir).env("CUDA_VISIBLE_DEVICES", "").args(args);
    for name in ["HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME"] {
        command.env_remove(name);
    }
    command
}

/// The words split at spaces: no test's flag needs one inside.
fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

/// stderr, after the check that it is exactly one `error:` line, stdout empty and the exit code 2.
fn refusal(dir: &Path, line: &str) -> String {
    let output = peftk(dir, &words(line));
    let text = String::from_utf8(output.stderr).expect("stderr is UTF-8");
    assert_eq!(output.status.code(), Some(2), "peftk {line}\n{text}");
    assert!(output.stdout.is_empty(), "peftk {line} wrote to stdout");
    assert!(text.starts_with("error: ") && text.ends_with('\n') && text.lines().count() == 1, "peftk {line}\n{text}");
    text
}
