//! What is queued: recordings, copies from the host that nobody waits for, results that are read later.

use peftk::gpu::{Buf, DType, Device};
use peftk::kernels::pointwise::{add_assign, scale_assign};
use rand::RngExt;

use crate::augment::fresh;
use crate::harness::{Needs, Test, on_every_arch};

pub const TESTS: &[Test] = &[
    Test { name: "queue::recorded_work_is_replayed_on_what_its_blocks_hold", needs: Needs::Gpu, run: recordings },
    Test { name: "queue::what_cannot_be_replayed_is_not", needs: Needs::Gpu, run: refusals },
    Test { name: "queue::large_copies_arrive_in_their_turn", needs: Needs::Gpu, run: large_copies },
    Test { name: "queue::results_are_those_of_their_time", needs: Needs::Gpu, run: results },
    Test { name: "queue::sanitize_copies_and_results", needs: Needs::Gpu, run: sanitize },
];

/// A device of its own with an arena: recordings need one.
fn with_arena(device: &Device) -> Device {
    let device = Device::open_with(0, Some(device.arch())).unwrap();
    device.reserve(64 << 20).unwrap();
    device
}

fn numbers(device: &Device, values: &[f32]) -> Buf {
    Buf::from_f32(device, values, DType::F32).unwrap()
}

fn recordings() {
    on_every_arch(|device| {
        let device = &with_arena(device);
        let n = 100_003;
        let (mut sum, mut x) = (numbers(device, &vec![1.0; n]), numbers(device, &vec![2.0; n]));
        // Kernels are loaded before anything is recorded.
        scale_assign(device, n, &mut sum, 1.0).unwrap();
        add_assign(device, 4, &mut numbers(device, &[0.0; 4]), &numbers(device, &[0.0; 4])).unwrap();
        let recording = device.record(|| {
            // A block of the work's own.
            let mut twice = Buf::uninit(device, DType::F32, n)?;
            twice.copy_from(&x)?;
            scale_assign(device, n, &mut twice, 2.0)?;
            add_assign(device, n, &mut sum, &twice)
        });
        let recording = recording.unwrap();
        assert!(sum.to_vec::<f32>().unwrap().iter().all(|&x| x == 5.0), "recording also does the work");
        // PEFTK_GUARD=1 looks at each block as it is given back: nothing is recorded then.
        assert_eq!(recording.is_none(), device.is_guarded());
        let Some(recording) = recording else { return };
        for round in 1..4_u8 {
            x.write(&vec![f32::from(round); n]).unwrap();
            sum.write(&vec![0.5_f32; n]).unwrap();
            assert!(device.replay(&recording).unwrap() && device.replay(&recording).unwrap());
            let expected = 0.5 + 4.0 * f32::from(round);
            assert!(sum.to_vec::<f32>().unwrap().iter().all(|&x| x == expected), "{} {round}", device.arch());
        }
    });
}

fn refusals() {
    on_every_arch(|plain| {
        let device = &with_arena(plain);
        let mut x = numbers(device, &[1.0; 300]);
        scale_assign(device, 300, &mut x, 1.0).unwrap();
        let recording = device.record(|| scale_assign(device, 300, &mut x, 2.0)).unwrap();
        assert_eq!(recording.is_none(), device.is_guarded());
        let Some(recording) = recording else { return };
        {
            let _in_the_way = Buf::uninit(device, DType::F32, 10).unwrap();
            assert!(!device.replay(&recording).unwrap(), "a block lies where none lay");
        }
        assert!(device.replay(&recording).unwrap());
        assert_eq!(x.to_vec::<f32>().unwrap()[299], 4.0);
        assert!(plain.replay(&recording).is_err(), "another device's");
        // Work that keeps a block is done, and not recorded.
        let mut kept = None;
        let made = device.record(|| {
            let mut block = Buf::uninit(device, DType::F32, 300)?;
            block.copy_from(&x)?;
            kept = Some(block);
            Ok(())
        });
        assert!(made.unwrap().is_none());
        assert_eq!(kept.unwrap().to_vec::<f32>().unwrap()[0], 4.0);
        // Copies from the host would be made again from memory that is something else then. The device is as good as before.
        let error = device.record(|| x.write(&[3.0_f32; 300])).unwrap_err().to_string();
        assert!(error.contains("from the host"), "{error}");
        x.write(&[3.0_f32; 300]).unwrap();
        assert_eq!(x.to_vec::<f32>().unwrap()[7], 3.0);
        // Outside of an arena nothing is recorded.
        let mut y = numbers(plain, &[1.0; 300]);
        assert!(plain.record(|| scale_assign(plain, 300, &mut y, 2.0)).unwrap().is_none());
        assert_eq!(y.to_vec::<f32>().unwrap()[0], 2.0);
    });
}

/// Copies of many pieces, into a block that queued work is still reading, and beside it.
fn large_copies() {
    copies(3_000_017, 6);
}

fn copies(n: usize, rounds: usize) {
    on_every_arch(|device| {
        let random = &mut fresh();
        let device = &with_arena(device);
        let mut plain = Buf::uninit(device, DType::U8, n).unwrap();
        let mut halves = Buf::uninit(device, DType::U8, 2 * n).unwrap();
        let (mut seen, mut expected) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            let bytes: Vec<u8> = (0..n).map(|_| random.random()).collect();
            plain.write(&bytes).unwrap();
            halves.write_first_half_beside(&bytes, round == 0).unwrap();
            // Read at their time, while the host goes on to the next.
            for from in [&plain, &halves] {
                let mut copy = Buf::uninit(device, DType::U8, n).unwrap();
                copy.copy_range(0, from, n).unwrap();
                seen.push(copy);
            }
            expected.push(bytes);
        }
        for (number, copy) in seen.iter().enumerate() {
            assert!(copy.to_vec::<u8>().unwrap() == expected[number / 2], "{} copy {number}", device.arch());
        }
    });
}

fn results() {
    later(200);
}

fn later(rounds: u16) {
    on_every_arch(|device| {
        let mut x = numbers(device, &[0.0; 4]);
        let mut read = Vec::new();
        for round in 0..rounds {
            // Small copies are kept until a result that was queued behind them is read.
            x.write(&[f32::from(round); 4]).unwrap();
            read.push(x.read_later().unwrap());
        }
        for (round, later) in (0..rounds).zip(read) {
            assert_eq!(later.get::<f32>().unwrap(), [f32::from(round); 4], "{}", device.arch());
        }
        assert!(numbers(device, &[0.0; 17]).read_later().is_err(), "too long for it");
    });
}

fn sanitize() {
    copies(70_001, 2);
    later(5);
}
