//! The ways to walk a batch, and that they give the same bits: tests/golden on the CPU, tests/gpu on a GPU.

use peftk::autograd::GRANULE_IMAGES;
use peftk::config::Recompute;

/// Two granules and a half.
pub const BATCH: usize = 2 * GRANULE_IMAGES + GRANULE_IMAGES / 2;

/// Losses, and trained values by name.
pub type Outcome = (Vec<f64>, Vec<(String, Vec<f32>)>);

/// `run` with so many images at once (none: all) and so much recomputed ends as the whole batch at once with nothing recomputed.
pub fn same_bits(what: &str, run: impl Fn(Option<usize>, Recompute) -> Outcome) {
    let whole = run(None, Recompute::NOTHING);
    assert!(whole.0.iter().all(|loss| loss.is_finite()) && !whole.1.is_empty(), "{what}: {:?}", whole.0);
    let walks = [
        (Some(GRANULE_IMAGES), Recompute::NOTHING),
        (Some(2 * GRANULE_IMAGES), Recompute::POINTWISE),
        (None, Recompute::QKV),
        (None, Recompute::HIDDEN),
        (Some(GRANULE_IMAGES), Recompute::BLOCKS),
    ];
    for (images, recompute) in walks {
        let walked = run(images, recompute);
        let what = format!("{what}: {images:?} images at once, recomputed: {recompute:?}");
        assert_eq!(walked.0, whole.0, "{what}: losses");
        assert_eq!(walked.1.len(), whole.1.len(), "{what}");
        for ((value, own), (_, expected)) in walked.1.iter().zip(&whole.1) {
            let same = own.len() == expected.len() && own.iter().zip(expected).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same, "{what}: {value}");
        }
    }
}
