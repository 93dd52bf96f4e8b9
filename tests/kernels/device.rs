//! Opening a device, where there is one and where there is none.

use peftk::Error;
use peftk::gpu::{Arch, Device, probe};

use crate::harness::{Needs, Test};

pub const TESTS: &[Test] = &[
    Test { name: "device::a_missing_device_is_the_users_to_mend", needs: Needs::Nothing, run: missing_device },
    Test { name: "device::a_foreign_build_is_refused", needs: Needs::Gpu, run: foreign_build },
    Test { name: "device::self_test_passes", needs: Needs::Gpu, run: self_test },
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
    let entries = peftk::kernels::table().iter().map(|kernel| kernel.images[0].entries.len()).sum::<usize>();
    assert_eq!(rows.len(), entries, "one row an entry");
    for row in rows {
        println!("    {row:?}");
        assert!(row.passed(), "{row:?}");
        assert!(row.micros > 0.0, "{row:?}");
    }
}
