//! What the targets share: how a panic is told from a caught one, and folders in memory for readers of paths.

#![allow(dead_code)] // no target needs all of it

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook};
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex};

static LAST_PANIC: Mutex<String> = Mutex::new(String::new());

/// To be the target's `init`.
///
/// libfuzzer-sys sets a hook that aborts at any panic, before it unwinds. But the image decoders have panics, which `decode_bytes` catches on
/// purpose: under that hook each of them would be a crash, though no caller ever sees one. So this hook takes its place. It notes the panic for
/// [`run`], which makes a crash of whatever unwinds that far, and names each place once, so that a run's log lists what was caught.
pub fn init() {
    let places: Mutex<HashSet<String>> = Mutex::default();
    set_hook(Box::new(move |info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        if let Ok(mut last) = LAST_PANIC.lock() {
            *last = info.to_string();
        }
        if places.lock().is_ok_and(|mut places| places.insert(place)) {
            eprintln!("first panic at this place: {info}");
        }
    }));
}

/// Runs a target's body. A panic that nothing in the product caught is a crash of the fuzzer, with its message.
pub fn run(body: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(body)).is_err() {
        if let Ok(last) = LAST_PANIC.lock() {
            eprintln!("uncaught: {last}");
        }
        std::process::abort();
    }
}

/// PEFTK_FUZZ_SAY=1 prints what each run ended with: whether the seeds get as far as they are meant to.
static SAY: LazyLock<bool> = LazyLock::new(|| std::env::var("PEFTK_FUZZ_SAY").is_ok_and(|value| value == "1"));

/// What a run ends with, good or bad, is one line that says something.
pub fn check_reason(reason: &str) {
    if *SAY {
        eprintln!("{reason}");
    }
    assert!(!reason.trim().is_empty(), "an outcome without words");
    assert!(!reason.contains(char::is_control), "an outcome of several lines, or that commands a terminal: {reason:?}");
}

/// A folder of this process, in memory where there is such a place: a target writes to it in every run. What ended processes left is removed,
/// for libFuzzer ends a process in ways that run no destructor.
pub static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    const PREFIX: &str = "peftk-fuzz-";
    let shm = Path::new("/dev/shm");
    let root = if shm.is_dir() { shm.to_owned() } else { std::env::temp_dir() };
    for entry in std::fs::read_dir(&root).expect("the folder for temporary files").flatten() {
        let name = entry.file_name();
        let ended = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.parse::<u32>().ok());
        if ended.is_some_and(|process| !Path::new(&format!("/proc/{process}")).exists()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    let own = root.join(format!("{PREFIX}{}", std::process::id()));
    std::fs::create_dir_all(&own).expect("a folder for temporary files");
    own
});

/// Writes a file in [`FOLDER`], whose folders are made.
pub fn write(path: &str, bytes: &[u8]) -> PathBuf {
    let path = FOLDER.join(path);
    if std::fs::write(&path, bytes).is_err() {
        std::fs::create_dir_all(path.parent().expect("inside the folder")).expect("its folder");
        std::fs::write(&path, bytes).expect("the folder for temporary files takes it");
    }
    path
}
