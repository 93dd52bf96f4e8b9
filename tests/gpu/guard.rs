//! Guard mode: a write past a block's end is told, memory that nothing was written to is NaN, and a training step has neither.

use peftk::config::{Precision, Strategy};
use peftk::cuda::Cuda;
use peftk::gpu::{Arch, Buf, DType, Device};

use crate::harness::{Needs, Test, on_every_arch};
use crate::runs::{Setup, all_bits, train};

pub const TESTS: &[Test] = &[
    Test { name: "guard::a_plan_counts_the_bands", needs: Needs::Nothing, run: plan_with_bands },
    Test { name: "guard::a_write_past_an_end_is_told", needs: Needs::Gpu, run: writes_past_an_end },
    Test { name: "guard::memory_not_written_is_nan", needs: Needs::Gpu, run: not_written_is_nan },
    Test { name: "guard::a_training_step_breaks_nothing", needs: Needs::Gpu, run: whole_steps },
];

const STRATEGIES: [Strategy; 4] = [Strategy::Full, Strategy::Freeze, Strategy::Lora, Strategy::Dora];

/// A device in guard mode, with an arena of that size where one is given.
fn guarded(arena: Option<u64>) -> Device {
    let device = Device::open(0).unwrap();
    device.guard().unwrap();
    if let Some(bytes) = arena {
        device.reserve(bytes).unwrap();
    }
    device
}

/// `bytes` from `before` bytes ahead of a block's start on, as a kernel that miscounts would see it.
fn astray(device: &Device, block: &Buf, before: usize, bytes: usize) -> Buf {
    // SAFETY: in guard mode a block has 256 bytes on both sides, and no test goes farther; its callers pass multiples of 16 for `before`.
    unsafe { Buf::borrowed(device, block.address() - before as u64, DType::U8, bytes) }
}

/// Three steps and an update each: losses and all trained values.
fn steps(device: &Device, strategy: Strategy, precision: Precision) -> (Vec<f64>, Vec<u32>) {
    let (vit, mut params) = Setup::new(strategy).model(Cuda::new(device, precision));
    let losses = train(&vit, &mut params, 3, 1e-3, Some(0.5));
    let bits = all_bits(&params);
    device.check_guards().unwrap();
    (losses, bits)
}

/// The most memory that these steps take in guard mode, from a dry device.
fn planned(arch: Arch, strategy: Strategy, precision: Precision) -> u64 {
    let dry = Device::dry(arch);
    dry.guard().unwrap();
    steps(&dry, strategy, precision);
    dry.usage().peak
}

fn plan_with_bands() {
    for strategy in STRATEGIES {
        let plain = Device::dry(Arch::Sm80);
        steps(&plain, strategy, Precision::Bf16);
        let (plain, with_bands) = (plain.usage().peak, planned(Arch::Sm80, strategy, Precision::Bf16));
        // PEFTK_GUARD=1 puts both into guard mode.
        let same = Device::dry(Arch::Sm80).is_guarded();
        assert!(if same { with_bands == plain } else { with_bands > plain }, "{strategy:?}: {plain}, {with_bands}");
        println!("    {strategy:?}: {plain} bytes, with bands {with_bands}");
    }
}

fn writes_past_an_end() {
    for arena in [None, Some(8 << 20)] {
        let device = guarded(arena);
        for (dtype, len) in [(DType::F32, 1000), (DType::Bf16, 333), (DType::U8, 7), (DType::F32, 64)] {
            let (element, bytes) = (dtype.bytes(), len * dtype.bytes());
            let block = Buf::zeros(&device, dtype, len).unwrap();
            let other = Buf::zeros(&device, dtype, len).unwrap();
            device.check_guards().unwrap();
            let expect = |error: peftk::Error, address: u64, band: &str| {
                let message = error.to_string();
                let named = format!("block of {len} {dtype:?} ({bytes} bytes) at {address:#x}");
                assert!(message.contains(&named), "{arena:?}: {message}");
                assert!(message.contains(band), "{arena:?}: {message}, but expected {band}");
                assert_eq!(message.contains(" of the arena"), arena.is_some(), "{message}");
                assert!(!message.contains(&format!("{:#x}", other.address())), "{message}");
            };
            let after = format!("the band after it is damaged from byte {bytes} to byte {}", bytes + element - 1);
            let before = "the band before it is damaged from byte -16 to byte -1";

            // One element too many, while the block lives; it is told once.
            astray(&device, &block, 0, bytes + element).fill_bytes(0).unwrap();
            expect(device.check_guards().expect_err("a live block's band is broken"), block.address(), &after);
            device.check_guards().unwrap();

            // Ahead of it; told when it was given back, by a wait. A borrowed view is given back without a word.
            astray(&device, &block, 16, 16).fill_bytes(0).unwrap();
            device.synchronize().unwrap();
            let address = block.address();
            drop(block);
            expect(device.synchronize().expect_err("a block was given back"), address, before);
            device.synchronize().unwrap();

            // NaN is not what bands are made of; told by a download, of whatever block.
            let block = Buf::zeros(&device, dtype, len).unwrap();
            let address = block.address();
            astray(&device, &block, 0, bytes + element).fill_bytes(0xFF).unwrap();
            drop(block);
            let download = || match dtype {
                DType::U8 => other.to_vec::<u8>().map(drop),
                _ => other.to_f32().map(drop),
            };
            expect(download().expect_err("a block was given back"), address, &after);
            download().unwrap();
        }
        device.check_guards().unwrap();
        assert_eq!(device.usage().in_use, 0);
    }
}

fn not_written_is_nan() {
    // In an arena: there what was given back can still be read.
    let device = guarded(Some(8 << 20));
    for (dtype, len) in [(DType::F32, 1000), (DType::Bf16, 333)] {
        let block = Buf::uninit(&device, dtype, len).unwrap();
        assert!(block.to_f32().unwrap().iter().all(|x| x.is_nan()), "{dtype:?}: before the first write");
        let block = Buf::from_f32(&device, &vec![1.5; len], dtype).unwrap();
        assert!(block.to_f32().unwrap().iter().all(|&x| x == 1.5), "{dtype:?}: written");
        // SAFETY: the arena stays allocated, and no block is made while this is read.
        let stale = unsafe { Buf::borrowed(&device, block.address(), dtype, len) };
        drop(block);
        assert!(stale.to_f32().unwrap().iter().all(|x| x.is_nan()), "{dtype:?}: after it was given back");
        let block = Buf::zeros(&device, dtype, len).unwrap();
        // SAFETY: the band after a block has 256 bytes.
        let longer = unsafe { Buf::borrowed(&device, block.address(), dtype, len + 8) };
        let read = longer.to_f32().unwrap();
        assert!(read[..len].iter().all(|&x| x == 0.0) && read[len..].iter().all(|x| x.is_nan()), "{dtype:?}: the band");
    }
    device.check_guards().unwrap();
}

/// The same bits as without guards, in allocations and in an arena of what a dry device takes; every band whole.
fn whole_steps() {
    on_every_arch(|plain| {
        let open = || {
            let device = Device::open_with(0, Some(plain.arch())).unwrap();
            device.guard().unwrap();
            device
        };
        for (strategy, precision) in
            STRATEGIES.into_iter().flat_map(|s| [Precision::F32, Precision::Bf16].map(|p| (s, p)))
        {
            let expected = steps(plain, strategy, precision);
            assert!(expected.0.iter().all(|loss| loss.is_finite()), "{strategy:?}: {:?}", expected.0);
            let single = open();
            let in_arena = open();
            let planned = planned(plain.arch(), strategy, precision);
            in_arena.reserve(planned).unwrap();
            for device in [&single, &in_arena] {
                let found = steps(device, strategy, precision);
                assert_eq!(found.0, expected.0, "{strategy:?} {precision:?}");
                assert!(found.1 == expected.1, "{strategy:?} {precision:?}: guard mode changes values");
                // What was given back since the last check.
                device.synchronize().unwrap();
                assert_eq!(device.usage().in_use, 0);
            }
            let peak = in_arena.usage().peak;
            assert!(
                peak.abs_diff(planned) * 100 <= planned,
                "{strategy:?} {precision:?}: planned {planned}, peak {peak}"
            );
        }
    });
}
