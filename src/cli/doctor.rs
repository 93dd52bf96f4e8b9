//! `peftk doctor`: what this machine has, and what to do about what is missing. It always ends with 0: a missing GPU is
//! a fact, not a failure.

use std::path::PathBuf;

use super::table;
use crate::Result;
use crate::train::Ui;

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

/// The driver as the kernel module tells of itself, without opening it.
fn gpu_facts() -> Vec<Fact> {
    let module = std::fs::read_to_string("/proc/driver/nvidia/version").ok();
    let driver = module.as_deref().and_then(|text| text.lines().next()).map(str::to_owned);
    let mend = driver.is_none().then(|| "training runs on the CPU; a GPU needs NVIDIA's driver".to_owned());
    vec![
        Fact { name: "NVIDIA driver", found: driver.unwrap_or_else(|| "none".to_owned()), mend },
        fact("kernels", "this build trains on the CPU only".to_owned()),
    ]
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
