//! `peftk doctor`: what this machine has, and what to do about what is missing. It always ends with 0: a missing GPU is
//! a fact, not a failure.

use std::path::PathBuf;

use super::table;
use crate::kernels::{self, SelfTest};
use crate::train::Ui;
use crate::{Result, gpu};

#[derive(Debug, clap::Args)]
pub struct Args {}

/// Why it may be slow, once.
fn loading(arch: gpu::Arch) -> &'static str {
    match arch {
        gpu::Arch::Sm90a => "machine code, nothing to compile",
        gpu::Arch::Sm80 => "the driver compiles them the first time, then keeps them in its cache",
    }
}

/// What a line says and, where something is missing, the mend.
struct Fact {
    name: &'static str,
    found: String,
    mend: Option<String>,
}

pub fn main(_args: &Args) -> Result<()> {
    let (gpu, tests) = gpu_facts();
    let mut facts = vec![
        fact("peftk", env!("CARGO_PKG_VERSION").to_owned()),
        fact("CPU threads", format!("{} of {}", rayon::current_num_threads(), available())),
        fact("CPU features", cpu_features()),
    ];
    facts.extend(gpu);
    facts.push(hub_fact());
    let rows: Vec<(&str, String)> = facts.iter().map(|fact| (fact.name, fact.found.clone())).collect();
    let mut text = table::aligned(&rows);
    text.push_str(&self_test_table(&tests));
    let mut mends: Vec<String> =
        facts.iter().filter_map(|fact| Some(format!("  {}: {}\n", fact.name, fact.mend.as_ref()?))).collect();
    for test in tests.iter().filter(|test| !test.passed()) {
        let wrong = "its results are wrong on this GPU: use --device cpu, and report it with this output";
        mends.push(format!("  {}: {}\n", test.kernel, test.problem.as_deref().unwrap_or(wrong)));
    }
    text.push_str(if mends.is_empty() { "\nnothing is missing" } else { "\nwhat to do\n" });
    text.extend(mends);
    Ui::new(true).result(text.trim_end())
}

fn fact(name: &'static str, found: String) -> Fact {
    Fact { name, found, mend: None }
}

fn available() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The vector instructions that the matrix products choose among.
fn cpu_features() -> String {
    #[cfg(target_arch = "x86_64")]
    let found = [
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
    ];
    #[cfg(target_arch = "aarch64")]
    let found = [("neon", std::arch::is_aarch64_feature_detected!("neon"))];
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let found = [("", false)];
    let names: Vec<&str> = found.into_iter().filter(|feature| feature.1).map(|feature| feature.0).collect();
    if names.is_empty() { "none that matter".to_owned() } else { names.join(" ") }
}

/// Driver, devices and kernels; on a GPU each kernel is run against its plain-loop counterpart.
fn gpu_facts() -> (Vec<Fact>, Vec<SelfTest>) {
    let probe = gpu::probe();
    let mut facts = vec![Fact {
        name: "CUDA driver",
        found: probe.driver.clone().unwrap_or_else(|| "none".to_owned()),
        mend: probe.problem.clone(),
    }];
    for (index, device) in probe.devices.iter().enumerate() {
        let (major, minor) = device.capability;
        let memory = table::bytes(device.memory_bytes);
        facts.push(fact("GPU", format!("{index}: {}, capability {major}.{minor}, {memory}", device.name)));
    }
    let built = match kernels::nvcc_release() {
        Some(release) => format!("{} files built by nvcc {release}", kernels::table().len()),
        None => "none".to_owned(),
    };
    facts.push(Fact { name: "kernels", found: built, mend: kernels::require().err().map(|e| e.to_string()) });
    if probe.problem.is_some() || kernels::require().is_err() {
        return (facts, Vec::new());
    }
    match gpu::Device::open(0) {
        Ok(device) => {
            let tests = kernels::self_test(&device);
            let right = tests.iter().filter(|test| test.passed()).count();
            facts.push(fact("self-test", format!("{right} of {} right on GPU 0", tests.len())));
            let (files, time) = device.loaded_kernels();
            facts.push(fact(
                "kernel loading",
                format!("{files} files in {:.2} s; {}", time.as_secs_f64(), loading(device.arch())),
            ));
            (facts, tests)
        }
        Err(error) => {
            let mend = Some(error.to_string());
            facts.push(Fact { name: "self-test", found: "not run".to_owned(), mend });
            (facts, Vec::new())
        }
    }
}

/// One line a kernel, columns aligned; nothing when none ran.
fn self_test_table(tests: &[SelfTest]) -> String {
    if tests.is_empty() {
        return String::new();
    }
    let head = ["kernel", "arch", "max error", "allowed", "time", ""].map(str::to_owned);
    let row = |test: &SelfTest| {
        let verdict = match (&test.problem, test.passed()) {
            (Some(_), _) => "not run",
            (None, false) => "WRONG",
            (None, true) => "",
        };
        [
            test.kernel.clone(),
            test.arch.to_string(),
            format!("{:.1e}", test.max_error),
            format!("{:.0e}", test.tolerance),
            format!("{:.1} us", test.micros),
            verdict.to_owned(),
        ]
    };
    let rows: Vec<[String; 6]> = std::iter::once(head).chain(tests.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let [kernel, arch, error, allowed, time] = [0, 1, 2, 3, 4].map(width);
    let mut text = "\n".to_owned();
    for [name, build, found, most, micros, verdict] in &rows {
        let line =
            format!("{name:kernel$}  {build:arch$}  {found:>error$}  {most:>allowed$}  {micros:>time$}  {verdict}");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Where backbones by name are looked for, and which are there.
fn hub_fact() -> Fact {
    let name = "hub cache";
    let Some(cache) = hub_cache() else {
        let mend = Some("set HF_HOME, or give --backbone a folder or file".to_owned());
        return Fact { name, found: "no home folder".to_owned(), mend };
    };
    let mut found: Vec<String> = std::fs::read_dir(&cache)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|folder| Some(folder.strip_prefix("models--facebook--dinov2")?.to_owned()))
        .map(|size| format!("dinov2{size}"))
        .collect();
    found.sort();
    let mend = found.is_empty().then(|| {
        "no DINOv2 backbone is there; --backbone dinov2-small downloads one, or takes a folder or file".to_owned()
    });
    let held = if found.is_empty() { "no DINOv2".to_owned() } else { found.join(" ") };
    Fact { name, found: format!("{} ({held})", cache.display()), mend }
}

/// The folder that Hugging Face's own tools use, by the same variables.
fn hub_cache() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("HF_HUB_CACHE")
        .or_else(|| Some(variable("HF_HOME")?.join("hub")))
        .or_else(|| Some(variable("XDG_CACHE_HOME")?.join("huggingface/hub")))
        .or_else(|| Some(variable("HOME")?.join(".cache/huggingface/hub")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_a_kernel() {
        let right = SelfTest {
            kernel: "gelu_forward bf16".to_owned(),
            file: "gelu",
            arch: gpu::Arch::Sm90a,
            max_error: 1.24e-3,
            tolerance: 1e-2,
            micros: 3.25,
            problem: None,
        };
        let wrong = SelfTest { max_error: f64::NAN, ..right.clone() };
        let absent = SelfTest { micros: f32::NAN, problem: Some("no room".to_owned()), ..wrong.clone() };
        let arch = gpu::Arch::Sm90a.to_string();
        let expected = format!(
            "\nkernel             {:w$}  max error  allowed    time\n\
             gelu_forward bf16  {arch}     1.2e-3     1e-2  3.2 us\n\
             gelu_forward bf16  {arch}        NaN     1e-2  3.2 us  WRONG\n\
             gelu_forward bf16  {arch}        NaN     1e-2  NaN us  not run\n",
            "arch",
            w = arch.len()
        );
        assert_eq!(self_test_table(&[right, wrong, absent]), expected);
        assert_eq!(self_test_table(&[]), "");
    }
}
