//! The CPU backend against plain loops in f64, on fresh random numbers, and one thread against several.

mod attention;
mod linear;
mod small;

use std::hash::{BuildHasher, RandomState};

use peftk::Result;
use peftk::autograd::Backend;
use peftk::cpu::Cpu;
use peftk::reference::Reference;

/// An operation with its inputs: what it makes on a backend, by name.
trait Case {
    fn run<B: Backend>(&self, backend: &B) -> Result<Vec<(String, B::Buffer)>>;
}

/// Random numbers by seed (SplitMix64). The seed is printed, and taken from PEFTK_TEST_SEED when that is set.
struct Random(u64);

impl Random {
    fn fresh() -> Self {
        let given = std::env::var("PEFTK_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| RandomState::new().hash_one(0) % 1_000_000);
        println!("PEFTK_TEST_SEED={seed}");
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In 0 .. 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Normal numbers.
    fn normal(&mut self, len: usize, std: f64) -> Vec<f32> {
        let mut draw = || (-2.0 * (1.0 - self.unit()).ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos();
        (0..len).map(|_| (std * draw()) as f32).collect()
    }

    /// Numbers in low .. high.
    fn uniform(&mut self, len: usize, low: f64, high: f64) -> Vec<f32> {
        (0..len).map(|_| (low + (high - low) * self.unit()) as f32).collect()
    }
}

/// Runs a case on one thread, on three and in f64: bitwise the same on one and three, and each result within `tolerance` of the
/// largest number in the true one.
fn check(what: &str, tolerance: f64, case: &impl Case) {
    check_over(what, tolerance, 1e-30, case);
}

/// As [`check`], errors measured against `floor` where the largest number is smaller.
fn check_over(what: &str, tolerance: f64, floor: f64, case: &impl Case) {
    let found = run(&Cpu::new(Some(1)).unwrap(), case);
    let threaded = run(&Cpu::new(Some(3)).unwrap(), case);
    let truth = run(&Reference::<f64>::new(), case);
    assert_eq!(found.len(), truth.len(), "{what}: number of results");
    for (((name, found), (_, threaded)), (want_name, want)) in found.iter().zip(&threaded).zip(&truth) {
        assert_eq!((name, found.len()), (want_name, want.len()), "{what}: results");
        let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert!(bits(found) == bits(threaded), "{what}: {name} depends on the number of threads");
        let largest = want.iter().fold(floor, |max, &x| max.max(f64::from(x).abs()));
        let error = found.iter().zip(want).map(|(&a, &b)| (f64::from(a) - f64::from(b)).abs() / largest);
        let error = error.fold(0.0, |max: f64, e| if e <= max { max } else { e });
        println!("{what}: {name}: {error:.1e}");
        assert!(error <= tolerance, "{what}: {name}: error {error:.2e}, over {tolerance:.0e}");
    }
}

fn run<B: Backend>(backend: &B, case: &impl Case) -> Vec<(String, Vec<f32>)> {
    let results = case.run(backend).unwrap();
    results.into_iter().map(|(name, buffer)| (name, backend.download(&buffer).unwrap())).collect()
}
