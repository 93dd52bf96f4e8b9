//! What goes where: help, versions, doctor, closed and full outputs.

use std::process::Stdio;

use super::{command, peftk, words};

#[test]
fn help_and_version_end_with_0() {
    let dir = tempfile::tempdir().unwrap();
    for line in ["--help", "--version", "help train"].map(str::to_owned).into_iter().chain(
        ["train", "eval", "predict", "explain", "merge", "plan", "data", "bench", "doctor"]
            .map(|command| format!("{command} --help")),
    ) {
        let output = peftk(dir.path(), &words(&line));
        assert_eq!(output.status.code(), Some(0), "peftk {line}");
        assert!(!output.stdout.is_empty() && output.stderr.is_empty(), "peftk {line}");
    }
    let version = peftk(dir.path(), &["--version"]).stdout;
    assert_eq!(String::from_utf8(version).unwrap(), concat!("peftk ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn doctor_tells_what_is_there_and_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let look = || {
        let output = peftk(dir.path(), &["doctor"]);
        assert_eq!(output.status.code(), Some(0));
        assert!(output.stderr.is_empty());
        String::from_utf8(output.stdout).unwrap()
    };
    let bare = look();
    for part in ["CPU threads", "CUDA driver", "kernels", "hub cache", "what to do", "dinov2-small downloads"] {
        assert!(bare.contains(part), "{part} is missing in\n{bare}");
    }
    std::fs::create_dir_all(dir.path().join(".cache/huggingface/hub/models--facebook--dinov2-small")).unwrap();
    let found = look();
    assert!(found.contains("(dinov2-small)") && !found.contains("dinov2-small downloads"), "{found}");
}

#[test]
fn a_reader_that_went_away_is_no_failure() {
    let dir = tempfile::tempdir().unwrap();
    for line in ["doctor", "--help"] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = command(dir.path(), &words(line)).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "peftk {line}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stderr.is_empty());
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_output_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = command(dir.path(), &["doctor"]).stdout(full).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.starts_with("error: cannot write stdout") && text.lines().count() == 1, "{text}");
}
