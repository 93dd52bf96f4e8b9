//! Runs the tests one after another, and counts those that could not run, by what was missing.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::Instant;

use peftk::gpu::{Arch, Device};

/// One test.
pub struct Test {
    /// Its name, unique among all.
    pub name: &'static str,
    /// What must be there for it to run.
    pub needs: Needs,
    /// The test; it fails by panicking.
    pub run: fn(),
}

/// What a test needs beside the executable.
#[derive(Clone, Copy)]
pub enum Needs {
    /// Nothing: it always runs.
    Nothing,
    /// Kernels in the executable: a build with nvcc.
    Kernels,
    /// The source tree, and libclang for bindgen.
    Libclang,
    /// Kernels and a GPU.
    Gpu,
    /// The same, and the weights of a full-size model.
    GpuAndWeights,
    /// Something that one test binary alone knows of.
    Other(&'static Other),
}

/// What a test needs that is known to its binary alone.
pub struct Other {
    /// What the tests are called: `browser`.
    pub what: &'static str,
    /// The environment variable that makes its absence a failure.
    pub variable: &'static str,
    /// What is missing, if anything is.
    pub missing: fn() -> Option<String>,
}

impl Needs {
    /// What of it is missing, and the environment variable that makes that a failure.
    fn missing(self) -> Option<(String, &'static str)> {
        let kernels = || peftk::kernels::require().err().map(|e| (e.to_string(), "PEFTK_REQUIRE_NVCC"));
        match self {
            Self::Nothing => None,
            Self::Kernels => kernels(),
            Self::Libclang => super::bindgen::missing().map(|missing| (missing, "PEFTK_REQUIRE_NVCC")),
            Self::Other(other) => (other.missing)().map(|missing| (missing, other.variable)),
            Self::GpuAndWeights if Self::Gpu.missing().is_none() => {
                let dir = weights();
                let missing = || format!("no weights in {}: run tools/fetch-weights.sh", dir.display());
                (!dir.join("model.safetensors").is_file()).then(|| (missing(), "PEFTK_REQUIRE_WEIGHTS"))
            }
            Self::Gpu | Self::GpuAndWeights => {
                // A build without kernels is a GPU not tested, too.
                let missing = kernels().map(|(missing, _)| missing).or_else(|| peftk::gpu::probe().problem);
                missing.map(|missing| (missing, "PEFTK_REQUIRE_GPU"))
            }
        }
    }

    fn what(self) -> &'static str {
        match self {
            Self::Nothing => "plain",
            Self::Kernels => "embedded kernel",
            Self::Libclang => "libclang",
            Self::Gpu => "GPU",
            Self::GpuAndWeights => "full-size GPU",
            Self::Other(other) => other.what,
        }
    }
}

/// The folder of a full-size model's weights: PEFTK_VITS14, or where tools/fetch-weights.sh puts them.
pub fn weights() -> std::path::PathBuf {
    let dir = std::env::var_os("PEFTK_VITS14").map(std::path::PathBuf::from);
    dir.unwrap_or_else(|| std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("target/vits14"))
}

/// Runs what the command line selects; libtest's arguments are understood as far as they make sense here.
pub fn run(groups: &[&[Test]]) -> ExitCode {
    let arguments = Arguments::parse();
    let tests: Vec<&Test> = groups.iter().copied().flatten().filter(|test| arguments.selects(test.name)).collect();
    if arguments.list {
        for test in &tests {
            println!("{}: test", test.name);
        }
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {} tests", tests.len());
    let start = Instant::now();
    let (mut passed, mut failed) = (0, Vec::new());
    let mut not_run: BTreeMap<(&str, String), usize> = BTreeMap::new();
    for test in tests {
        if let Some((missing, variable)) = test.needs.missing() {
            if std::env::var_os(variable).is_some_and(|value| value == "1") {
                println!("test {} ... FAILED: {variable}=1, but {missing}", test.name);
                failed.push(test.name);
            } else {
                println!("test {} ... ignored, not run: no {}", test.name, test.needs.what());
                *not_run.entry((test.needs.what(), missing)).or_default() += 1;
            }
            continue;
        }
        // The panic's own message goes to stderr, as it happens.
        if catch_unwind(AssertUnwindSafe(test.run)).is_ok() {
            println!("test {} ... ok", test.name);
            passed += 1;
        } else {
            println!("test {} ... FAILED", test.name);
            failed.push(test.name);
        }
    }
    println!();
    for name in &failed {
        println!("failed: {name}");
    }
    for ((what, missing), count) in &not_run {
        println!("{count} {what} tests not run: {missing}");
    }
    let ignored: usize = not_run.values().sum();
    println!(
        "test result: {}. {passed} passed; {} failed; {ignored} ignored; 0 measured; {} filtered out; finished in {:.2}s\n",
        if failed.is_empty() { "ok" } else { "FAILED" },
        failed.len(),
        groups.iter().map(|group| group.len()).sum::<usize>() - passed - failed.len() - ignored,
        start.elapsed().as_secs_f64()
    );
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(101) }
}

/// Runs `test` on the first GPU with every build of the kernels that it can run.
pub fn on_every_arch(test: impl Fn(&Device)) {
    static DEVICES: OnceLock<Vec<Device>> = OnceLock::new();
    let devices = DEVICES.get_or_init(|| {
        let capability = peftk::gpu::probe().devices[0].capability;
        let archs = Arch::ALL.into_iter().filter(|arch| arch.runs_on(capability));
        archs.map(|arch| Device::open_with(0, Some(arch)).expect("the GPU was there a moment ago")).collect()
    });
    assert!(!devices.is_empty(), "no build of the kernels runs on {:?}", peftk::gpu::probe().devices);
    for device in devices {
        test(device);
        device.check_guards().expect("in guard mode, every band is whole");
    }
}

struct Arguments {
    filters: Vec<String>,
    skips: Vec<String>,
    exact: bool,
    list: bool,
    only_ignored: bool,
}

impl Arguments {
    fn parse() -> Self {
        let mut parsed =
            Self { filters: Vec::new(), skips: Vec::new(), exact: false, list: false, only_ignored: false };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--exact" => parsed.exact = true,
                "--list" => parsed.list = true,
                "--ignored" => parsed.only_ignored = true,
                "--skip" => parsed.skips.extend(arguments.next()),
                "--test-threads" | "--format" | "--color" | "--logfile" | "-Z" => drop(arguments.next()),
                flag if flag.starts_with('-') => {}
                filter => parsed.filters.push(filter.to_owned()),
            }
        }
        parsed
    }

    fn selects(&self, name: &str) -> bool {
        let matches = |filter: &String| if self.exact { name == filter } else { name.contains(filter.as_str()) };
        // No test here is marked as ignored: --ignored alone selects none.
        !self.only_ignored
            && (self.filters.is_empty() || self.filters.iter().any(matches))
            && !self.skips.iter().any(matches)
    }
}
