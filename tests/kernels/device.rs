//! Opening a device, where there is one and where there is none.

use std::collections::BTreeSet;

use peftk::Error;
use peftk::gpu::{Arch, Device, probe};
use peftk::kernels::SelfTest;

use crate::harness::{Needs, Test};

pub const TESTS: &[Test] = &[
    Test { name: "device::a_missing_device_is_the_users_to_mend", needs: Needs::Nothing, run: missing_device },
    Test { name: "device::a_foreign_build_is_refused", needs: Needs::Gpu, run: foreign_build },
    Test { name: "device::self_test_passes", needs: Needs::Gpu, run: self_test },
    Test { name: "device::self_test_runs_every_kernel_file", needs: Needs::Nothing, run: self_test_of_everything },
];

fn missing_device() {
    let error = Device::open(4096).expect_err("no machine has so many GPUs");
    let message = error.to_string();
    assert!(matches!(error, Error::Input(_)), "{error:?}");
    assert_eq!(message.lines().count(), 1, "{message}");
    match probe().problem {
        Some(problem) => assert_eq!(message, problem),
        None => assert!(message.starts_with("--device cuda:4096: "), "{message}"),
    }
}

fn foreign_build() {
    let device = Device::open_with(0, None).unwrap();
    let capability = device.info().capability;
    assert!(device.arch().runs_on(capability));
    for arch in Arch::ALL.into_iter().filter(|arch| !arch.runs_on(capability)) {
        let message = Device::open_with(0, Some(arch)).expect_err("it would not load").to_string();
        assert!(message.contains(&arch.to_string()), "{message}");
    }
}

fn self_test() {
    let device = Device::open(0).unwrap();
    let rows = peftk::kernels::self_test(&device);
    for row in &rows {
        println!("    {row:?}");
    }
    let timed = |row: &SelfTest| row.micros > 0.0;
    let failed: Vec<&SelfTest> = rows.iter().filter(|row| !row.passed() || !timed(row)).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    let built = peftk::kernels::table().iter();
    let built = built.filter(|kernel| kernel.images.iter().any(|image| image.arch == device.arch()));
    let built: BTreeSet<String> = built.map(|kernel| kernel.name.to_owned()).collect();
    assert_eq!(files(&rows), built, "{}", device.arch());
}

/// Every kernel file is run by a check, and a check names no other. Without a GPU nothing is computed, but every launch is checked: its
/// sizes and its buffers.
fn self_test_of_everything() {
    let sources = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/kernels")).unwrap();
    let sources: BTreeSet<String> = sources
        .filter_map(|entry| Some(entry.unwrap().file_name().to_str()?.strip_suffix(".cu")?.to_owned()))
        .collect();
    assert!(!sources.is_empty());
    for arch in Arch::ALL {
        let rows = peftk::kernels::self_test(&Device::dry(arch));
        for row in &rows {
            assert_eq!((row.arch, &row.problem), (arch, &None), "{row:?}");
        }
        let mut expected = sources.clone();
        expected.retain(|file| arch == Arch::Sm90a || !file.starts_with("sm90_"));
        assert_eq!(files(&rows), expected, "{arch}");
        let names: BTreeSet<&str> = rows.iter().map(|row| row.kernel.as_str()).collect();
        assert_eq!(names.len(), rows.len(), "two checks have one name");
    }
}

fn files(rows: &[SelfTest]) -> BTreeSet<String> {
    rows.iter().map(|row| row.file.to_owned()).collect()
}
