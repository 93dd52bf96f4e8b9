//! Compiles kernels/*.cu to PTX and embeds it: one text a kernel file and architecture, with what each entry needs.
//!
//! nvcc is looked for in PEFTK_NVCC, NVCC, the repository's own .venv (`make setup`), PATH and CUDA_HOME, in that order, and is
//! only ever run, never taken apart. Without it the build succeeds with an empty table, so a program for the CPU alone, and says
//! so once; PEFTK_REQUIRE_NVCC=1 makes that an error. PEFTK_NVCC=none asks for the CPU build.
//!
//! Written to OUT_DIR: NAME.sm_80.ptx, NAME.sm_90a.ptx and kernel_table.rs, which src/kernels/mod.rs includes. The commit goes to the
//! crate as PEFTK_BUILT_FROM.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, thread};

/// nvcc's name of each architecture and the variant of `gpu::Arch` it stands for.
const ARCHS: [(&str, &str); 2] = [("80", "Sm80"), ("90a", "Sm90a")];

fn main() {
    if let Err(message) = build() {
        eprintln!("error: {message}");
        std::process::exit(1);
    }
}

fn build() -> Result<(), String> {
    println!("cargo:rerun-if-changed=build.rs");
    // A folder stands for every file in it: the kernels, common/*.cuh and params.h.
    println!("cargo:rerun-if-changed=kernels");
    println!("cargo:rustc-env=PEFTK_BUILT_FROM={}", commit());
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo did not set OUT_DIR")?);
    let table = match find_nvcc()? {
        Some((nvcc, version)) => compile_all(&nvcc, &version, &out)?,
        None => {
            println!("cargo:rerun-if-env-changed=PEFTK_REQUIRE_NVCC");
            const MEND: &str = "run 'make setup' and build again";
            if env::var_os("PEFTK_REQUIRE_NVCC").is_some_and(|value| value == "1") {
                return Err(format!("PEFTK_REQUIRE_NVCC=1, but no nvcc was found: {MEND}"));
            }
            println!("cargo:warning=built without nvcc, so this peftk runs on the CPU alone; for GPUs {MEND}");
            "use super::KernelInfo;\npub(super) static NVCC: Option<&str> = None;\npub(super) static TABLE: &[KernelInfo] = &[];\n".to_owned()
        }
    };
    let path = out.join("kernel_table.rs");
    fs::write(&path, table).map_err(|e| format!("cannot write {}: {e}", path.display()))
}

/// What `peftk bench` says it was built from: PEFTK_COMMIT where it is set (a build from an archive), else the commit checked out here,
/// else "unknown". What is not committed yet does not show.
fn commit() -> String {
    println!("cargo:rerun-if-env-changed=PEFTK_COMMIT");
    let named = env::var("PEFTK_COMMIT").ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
    named.or_else(checked_out).unwrap_or_else(|| "unknown".to_owned())
}

/// The commit of HEAD, 12 digits of it; none where this folder is no root of a git repository. Read from git's own files, so that it needs
/// no git and so that what a later build has to watch is known: those files alone, and only ones that are there, because cargo takes a
/// missing one as changed in every build.
fn checked_out() -> Option<String> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR")?);
    let dot_git = root.join(".git");
    // In a worktree .git is a file that names the worktree's folder, and that names the one with the branches.
    let git = match fs::read_to_string(&dot_git) {
        Ok(text) => root.join(text.strip_prefix("gitdir:")?.trim()),
        Err(_) => dot_git,
    };
    let head = fs::read_to_string(git.join("HEAD")).ok()?;
    println!("cargo:rerun-if-changed={}", git.join("HEAD").display());
    let Some(branch) = head.trim().strip_prefix("ref: ") else { return short(head.trim()) };
    let shared = fs::read_to_string(git.join("commondir")).map_or_else(|_| git.clone(), |text| git.join(text.trim()));
    let file = shared.join(branch);
    // A packed branch has no file before its next commit: the folder where that one will appear is watched.
    println!("cargo:rerun-if-changed={}", file.ancestors().find(|path| path.exists())?.display());
    if let Ok(hash) = fs::read_to_string(&file) {
        return short(hash.trim());
    }
    let packed = fs::read_to_string(shared.join("packed-refs")).ok()?;
    let mut lines = packed.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(_, name)| *name == branch).and_then(|(hash, _)| short(hash))
}

fn short(hash: &str) -> Option<String> {
    let is_hash = hash.len() >= 40 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hash.then(|| hash[..12].to_owned())
}

/// The first nvcc that runs, with its release. One that is named and does not run is an error: nobody names one to have another.
fn find_nvcc() -> Result<Option<(PathBuf, String)>, String> {
    for variable in ["PEFTK_NVCC", "NVCC"] {
        println!("cargo:rerun-if-env-changed={variable}");
        let Some(named) = env::var_os(variable).filter(|value| !value.is_empty()) else { continue };
        if named == "none" {
            return Ok(None);
        }
        let nvcc = PathBuf::from(named);
        return match release(&nvcc) {
            Ok(release) => Ok(Some((nvcc, release))),
            Err(e) => Err(format!("{variable} names {}, which is no nvcc that runs here ({e})", nvcc.display())),
        };
    }
    // Where the search ends decides what a later build has to watch: `make setup` touches build.rs, the rest are variables.
    if let Some(nvcc) = nvcc_in_venv() {
        println!("cargo:rerun-if-changed={}", nvcc.display());
        return match release(&nvcc) {
            Ok(release) => Ok(Some((nvcc, release))),
            Err(e) => Err(format!("{} does not run ({e}): remove .venv and run 'make setup'", nvcc.display())),
        };
    }
    println!("cargo:rerun-if-env-changed=PATH");
    if let Ok(release) = release(Path::new("nvcc")) {
        return Ok(Some((PathBuf::from("nvcc"), release)));
    }
    println!("cargo:rerun-if-env-changed=CUDA_HOME");
    let Some(home) = env::var_os("CUDA_HOME").filter(|value| !value.is_empty()) else { return Ok(None) };
    let nvcc = Path::new(&home).join("bin/nvcc");
    Ok(release(&nvcc).ok().map(|release| (nvcc, release)))
}

fn nvcc_in_venv() -> Option<PathBuf> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR")?);
    let pythons = fs::read_dir(root.join(".venv/lib")).ok()?;
    pythons.flatten().map(|entry| entry.path().join("site-packages/nvidia/cu13/bin/nvcc")).find(|nvcc| nvcc.is_file())
}

/// The line of `nvcc --version` that names the release.
fn release(nvcc: &Path) -> Result<String, String> {
    let output = Command::new(nvcc).arg("--version").output().map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find(|line| line.contains("release"));
    line.map(|line| line.trim().to_owned()).ok_or_else(|| "its --version names no release".to_owned())
}

/// Compiles every kernel, several at once, and returns the table's source.
fn compile_all(nvcc: &Path, release: &str, out: &Path) -> Result<String, String> {
    let entries = fs::read_dir("kernels").map_err(|e| format!("cannot read kernels: {e}"))?;
    let mut kernels: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "cu"))
        .collect();
    kernels.sort();
    let workers =
        env::var("NUM_JOBS").ok().and_then(|jobs| jobs.parse().ok()).unwrap_or(1).clamp(1, kernels.len().max(1));
    let kernels = kernels.as_slice();
    let mut rows: Vec<(usize, Result<String, String>)> = thread::scope(|scope| {
        let work = |worker: usize| {
            let share = kernels.iter().enumerate().skip(worker).step_by(workers);
            share.map(|(index, kernel)| (index, compile(nvcc, release, kernel, out))).collect::<Vec<_>>()
        };
        let threads: Vec<_> = (0..workers).map(|worker| scope.spawn(move || work(worker))).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("compiling does not panic")).collect()
    });
    rows.sort_by_key(|(index, _)| *index);
    let mut table = format!(
        "use super::{{Arch, EntryInfo, Image, KernelInfo}};\npub(super) static NVCC: Option<&str> = Some({release:?});\n"
    );
    table.push_str("pub(super) static TABLE: &[KernelInfo] = &[\n");
    for (_, row) in rows {
        table.push_str(&row?);
    }
    table.push_str("];\n");
    Ok(table)
}

/// Compiles one kernel file for every architecture and returns its row of the table. Files named `sm90_` use what Hopper alone has.
fn compile(nvcc: &Path, release: &str, kernel: &Path, out: &Path) -> Result<String, String> {
    let name = kernel.file_stem().and_then(|stem| stem.to_str()).ok_or("a kernel's file name is not UTF-8")?;
    let mut row = format!("    KernelInfo {{\n        name: {name:?},\n        images: &[\n");
    let mut sources = format!("{release}\n");
    read_sources(kernel, &mut Vec::new(), &mut sources)?;
    for (arch, variant) in ARCHS.into_iter().filter(|(arch, _)| *arch == "90a" || !name.starts_with("sm90_")) {
        let ptx = out.join(format!("{name}.sm_{arch}.ptx"));
        let report = report(nvcc, kernel, arch, &sources, &ptx)?;
        let entries = entries(&report);
        if entries.is_empty() {
            return Err(format!("{}: no extern \"C\" __global__ function in it (sm_{arch})", kernel.display()));
        }
        let text = fs::read_to_string(&ptx).map_err(|e| format!("cannot read {}: {e}", ptx.display()))?;
        let _ = writeln!(row, "            Image {{\n                arch: Arch::{variant},");
        // Machine code for the one GPU that the build is for: its PTX would take the driver half a minute to compile the first time.
        let machine = match arch {
            "90a" => format!("Some(include_bytes!({:?}))", ptx.with_extension("cubin")),
            _ => "None".to_owned(),
        };
        let _ = writeln!(
            row,
            "                ptx: include_str!({ptx:?}),\n                machine: {machine},\n                entries: &["
        );
        for entry in entries {
            let Entry { name, registers, spill_bytes, shared_bytes } = entry;
            let waits = waits(&text, &name);
            let _ = writeln!(
                row,
                "                    EntryInfo {{ name: {name:?}, registers: {registers}, spill_bytes: {spill_bytes}, \
                 shared_bytes: {shared_bytes}, waits: {waits} }},"
            );
        }
        row.push_str("                ],\n            },\n");
    }
    row.push_str("        ],\n    },\n");
    Ok(row)
}

/// Writes a kernel file's PTX and returns what ptxas says of it. Where the last build compiled the same sources, its result stands.
fn report(nvcc: &Path, kernel: &Path, arch: &str, sources: &str, ptx: &Path) -> Result<String, String> {
    let (key, said) = (ptx.with_extension("key"), ptx.with_extension("report"));
    if ptx.is_file()
        && ptx.with_extension("cubin").is_file()
        && fs::read_to_string(&key).is_ok_and(|last| last == sources)
        && let Ok(report) = fs::read_to_string(&said)
    {
        return Ok(report);
    }
    let _ = fs::remove_file(&key);
    let mut command = Command::new(nvcc);
    command.args(["-ptx", "-std=c++17", "-Ikernels", &format!("-arch=compute_{arch}"), "-o"]).arg(ptx).arg(kernel);
    run(&mut command, kernel)?;
    // Assembling that same text shows that it assembles, and what it takes.
    let mut command = Command::new(nvcc);
    command.args(["-cubin", "-Xptxas=-v", &format!("-arch=sm_{arch}"), "-o"]);
    let report = run(command.arg(ptx.with_extension("cubin")).arg(ptx), kernel)?;
    let write = |path: &Path, text: &str| fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()));
    write(&said, &report)?;
    // Last, so that it stands for a finished compilation.
    write(&key, sources)?;
    Ok(report)
}

/// Appends the text of a kernel file and of all that it includes from kernels/, each once.
fn read_sources(path: &Path, seen: &mut Vec<PathBuf>, text: &mut String) -> Result<(), String> {
    if seen.iter().any(|other| other == path) {
        return Ok(());
    }
    seen.push(path.to_owned());
    let source = fs::read_to_string(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    for line in source.lines().filter_map(|line| line.trim_start().strip_prefix("#include \"")) {
        let name = line.split('"').next().unwrap_or_default();
        let beside = path.with_file_name(name);
        let found = if beside.is_file() { beside } else { Path::new("kernels").join(name) };
        read_sources(&found, seen, text)?;
    }
    text.push_str(&source);
    Ok(())
}

/// Runs nvcc and returns what it said on stderr; a failure is an error that holds all of it.
fn run(command: &mut Command, kernel: &Path) -> Result<String, String> {
    let output = command.output().map_err(|e| format!("cannot run {command:?}: {e}"))?;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let stdout = String::from_utf8_lossy(&output.stdout);
    let failed = || format!("nvcc failed on {} ({}):\n{command:?}\n{stdout}{stderr}", kernel.display(), output.status);
    if output.status.success() { Ok(stderr) } else { Err(failed()) }
}

/// What ptxas says of one entry.
#[derive(Default)]
struct Entry {
    name: String,
    registers: u32,
    spill_bytes: u32,
    shared_bytes: u32,
}

/// Reads ptxas's report: a line that names an entry, then lines of numbers, each before its unit.
fn entries(report: &str) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    for line in report.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            let name = rest.split('\'').next().unwrap_or_default().to_owned();
            entries.push(Entry { name, ..Entry::default() });
        }
        let Some(entry) = entries.last_mut() else { continue };
        for part in line.split([',', ':']) {
            let words: Vec<&str> = part.split_whitespace().collect();
            match words.as_slice() {
                ["Used", number, "registers"] => entry.registers = number.parse().unwrap_or(u32::MAX),
                // Stores and loads of the entry, and of functions it calls: any of them is one too many.
                [number, "bytes", "spill", _] => entry.spill_bytes += number.parse().unwrap_or(u32::MAX / 2),
                [number, "bytes", "smem"] => entry.shared_bytes = number.parse().unwrap_or(u32::MAX),
                _ => {}
            }
        }
    }
    entries
}

/// Whether an entry waits for the launch before it (kernels/common/pdl.cuh), so that it may be launched early. Each entry's text is looked
/// at by itself: of two in one file one may wait.
fn waits(ptx: &str, entry: &str) -> bool {
    let mut texts = ptx.split(".entry ").skip(1);
    let text = texts.find_map(|text| text.strip_prefix(entry).filter(|rest| rest.starts_with('(')));
    // Up to the brace that closes it: what follows may be a function's.
    text.and_then(|text| text.split("\n}").next()).is_some_and(|text| text.contains("griddepcontrol.wait"))
}
