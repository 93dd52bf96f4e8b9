//! `peftk doctor`: what this machine has, and what to do about what is missing. It always ends with 0: a missing GPU is
//! a fact, not a failure.

use std::path::PathBuf;

use super::table;
use crate::train::Ui;
use crate::{Result, gpu, kernels};

#[derive(Debug, clap::Args)]
pub struct Args {}

/// What a line says and, where something is missing, the mend.
struct Fact {
    name: &'static str,
    found: String,
    mend: Option<String>,
}

pub fn main(_args: &Args) -> Result<()> {
    let mut facts = vec![
        fact("peftk", env!("CARGO_PKG_VERSION").to_owned()),
        fact("CPU threads", format!("{} of {}", rayon::current_num_threads(), available())),
        fact("CPU features", cpu_features()),
    ];
    facts.extend(gpu_facts());
    facts.push(hub_fact());
    let rows: Vec<(&str, String)> = facts.iter().map(|fact| (fact.name, fact.found.clone())).collect();
    let mut text = table::aligned(&rows);
    let mends: Vec<String> =
        facts.iter().filter_map(|fact| Some(format!("  {}: {}\n", fact.name, fact.mend.as_ref()?))).collect();
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
fn gpu_facts() -> Vec<Fact> {
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
        Some(release) => format!("{} built by nvcc {release}; training runs on the CPU so far", kernels::table().len()),
        None => "none".to_owned(),
    };
    facts.push(Fact { name: "kernels", found: built, mend: kernels::require().err().map(|e| e.to_string()) });
    if probe.problem.is_none() && kernels::require().is_ok() {
        facts.extend(self_tests());
    }
    facts
}

fn self_tests() -> Vec<Fact> {
    let device = match gpu::Device::open(0) {
        Ok(device) => device,
        Err(error) => {
            return vec![Fact { name: "self-test", found: "not run".to_owned(), mend: Some(error.to_string()) }];
        }
    };
    kernels::self_test(&device)
        .into_iter()
        .map(|test| {
            let found = format!(
                "{} {}: {}, error {:.1e} of {:.0e}, {:.1} us",
                test.kernel,
                test.arch,
                if test.passed() { "right" } else { "WRONG" },
                test.max_error,
                test.tolerance,
                test.micros
            );
            Fact { name: "self-test", found, mend: test.problem }
        })
        .collect()
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
