//! Random damage never panics: whatever comes back is a value or a one-line error.

use std::path::Path;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use peftk::adapter::{self, AdapterConfig};
use peftk::io::tensor_file;

use crate::adapters::adapter;
use crate::common::{open, packed, state, tiny};
use crate::pth::{Pickle, SAVED_BY_TORCH, archive};

const ROUNDS: usize = 2_000;

/// Damages a file over and over: bytes changed (mostly in `hot`, where its structure is), cut, or doubled.
fn damage(path: &Path, hot: std::ops::Range<usize>, read: impl Fn() -> peftk::Result<()>) {
    let good = std::fs::read(path).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut failed = 0;
    for _ in 0..ROUNDS {
        let mut bytes = good.clone();
        for _ in 0..rng.random_range(1..6) {
            let at = if rng.random_bool(0.8) { rng.random_range(hot.clone()) } else { rng.random_range(0..good.len()) };
            bytes[at] = rng.random();
        }
        if rng.random_bool(0.1) {
            bytes.truncate(rng.random_range(0..good.len()));
        }
        if rng.random_bool(0.05) {
            bytes.extend_from_within(..);
        }
        std::fs::write(path, &bytes).unwrap();
        if let Err(error) = read() {
            assert!(!error.to_string().contains('\n'), "{error}");
            assert_eq!(error.exit_code(), 2, "{error}");
            failed += 1;
        }
    }
    assert!(failed > ROUNDS / 4, "only {failed} of {ROUNDS} were noticed");
}

#[test]
fn damaged_safetensors() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.safetensors");
    let config = tiny(true, 4);
    // The large ones only make the file slow to write.
    let few = packed(&state(&config), &config, false).into_iter().filter(|(_, tensor)| tensor.data.len() <= 1024);
    crate::common::write(&path, &few.collect());
    damage(&path, 0..3000, || open(&path).map(drop));
    let one = state(&config).into_iter().filter(|(name, _)| name.starts_with("layernorm"));
    crate::common::write(&path, &one.collect());
    damage(&path, 0..200, || tensor_file::read(&path).map(drop));
}

#[test]
fn damaged_pth() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.pth");
    std::fs::write(&path, SAVED_BY_TORCH).unwrap();
    let central = SAVED_BY_TORCH.len() - 2000..SAVED_BY_TORCH.len();
    damage(&path, central, || open(&path).map(drop));
    // By hand and small, so that the pickle itself takes most of the hits; the archive's checksum is that of the damage.
    archive(&path, &Pickle::entry("cls_token", |p| p.tensor(8, 0, &[2, 4], &[1, 2])), &[0.5; 8]);
    damage(&path, 30..250, || open(&path).map(drop));
}

#[test]
fn damaged_pickles() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.pth");
    let good = Pickle::entry("cls_token", |p| p.tensor(8, 0, &[2, 4], &[1, 2]));
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    for _ in 0..ROUNDS {
        let mut pickle = good.clone();
        for _ in 0..rng.random_range(1..4) {
            pickle.set(rng.random_range(0..pickle.len()), rng.random());
        }
        archive(&path, &pickle, &[0.5; 8]);
        let text = open(&path).unwrap_err().to_string();
        assert!(!text.contains('\n'), "{text}");
    }
}

#[test]
fn damaged_adapters() {
    let dir = tempfile::tempdir().unwrap();
    let model = tiny(false, 0);
    let config = AdapterConfig { rank: 1, rank_pattern: vec![("v_proj".into(), 2)], ..AdapterConfig::default() };
    adapter::write(dir.path(), &adapter(config, &model), false, None).unwrap();
    let read = || adapter::read(dir.path())?.check(&model);
    for (file, hot) in [("adapter_config.json", 0..900), ("adapter_model.safetensors", 0..1200)] {
        let path = dir.path().join(file);
        let good = std::fs::read(&path).unwrap();
        damage(&path, hot, read);
        std::fs::write(&path, good).unwrap();
    }
    read().unwrap();
}
