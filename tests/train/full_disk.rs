//! A disk that fills up while a run saves.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::{assert_same_bits, command, done, pictures, text};

/// A small file system in memory, gone at the end.
struct Disk(PathBuf);

impl Disk {
    /// `None` where this may not be mounted.
    fn mount(path: PathBuf) -> Option<Self> {
        std::fs::create_dir(&path).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=3m", "none"]).arg(&path).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self(path))
    }

    /// Takes whatever is left.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("filler");
        let mut file = std::fs::File::create(&path).unwrap();
        while file.write_all(&[0; 1024]).is_ok() {}
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Numbers of steps in a saved state that can be read whole.
fn saved_step(run: &Path) -> Option<u64> {
    let state: serde_json::Value = serde_json::from_slice(&std::fs::read(run.join("last/state.json")).ok()?).ok()?;
    state["step"].as_u64()
}

#[test]
fn a_full_disk_keeps_the_last_good_state() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    pictures(&dir.join("data"), 10, 9);
    let Some(disk) = Disk::mount(dir.join("disk")) else {
        // Said where a reader of the test's output sees it; the saving itself is tested in io and cli.
        eprintln!("NOT RUN: a_full_disk_keeps_the_last_good_state needs to mount a tmpfs (root on Linux)");
        return;
    };
    let flags = "train --data data --backbone random:micro --input-size 28 --batch-size 4 --epochs 20 --lora-dropout 0.1 --quiet";
    done(dir, &format!("{flags} --out whole"));

    let run = dir.join("disk/run");
    let mut child = command(dir, &format!("{flags} --out disk/run"));
    let child = child.env("PEFTK_SAVE_EVERY_S", "0").stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    while saved_step(&run).is_none_or(|step| step < 5) {
        assert!(begun.elapsed() < Duration::from_secs(60), "nothing saved within a minute");
        std::thread::sleep(Duration::from_millis(1));
    }
    let filler = disk.fill();
    let output = child.wait_with_output().unwrap();
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.starts_with("error: cannot write disk/run") && stderr.lines().count() == 1, "{stderr}");
    assert!(stderr.contains("No space left"), "{stderr}");
    // The state is whole, and stays so when going on fails at once for the same reason.
    let step = saved_step(&run).expect("a saved state");
    assert!((5..200).contains(&step), "stopped at step {step}");
    let tensors = std::fs::read(run.join("last/state.safetensors")).unwrap();
    safetensors::SafeTensors::deserialize(&tensors).unwrap();
    let output = command(dir, "train --resume --out disk/run --quiet").env("PEFTK_SAVE_EVERY_S", "0").output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    assert!(std::fs::read(run.join("last/state.safetensors")).unwrap() == tensors);

    std::fs::remove_file(filler).unwrap();
    done(dir, "train --resume --out disk/run --quiet");
    assert_same_bits(&dir.join("whole"), &run);
}
