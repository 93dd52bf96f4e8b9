//! Comparisons with invented numbers, and their reports.

use std::path::{Path, PathBuf};

use peftk::compare::example;
use peftk::compare::published::GSOC2025;
use peftk::compare::report::{self, ContactSheet, Extras};
use peftk::compare::results::{EpochPoint, Outcome, Results, Variant};
use peftk::config::Strategy;

/// A report in a folder of its own below the tests' temporary one.
pub fn written(name: &str, results: &Results, extras: &Extras) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compare").join(name);
    let _ = std::fs::remove_dir_all(&dir);
    report::write(&dir, results, extras).unwrap();
    dir
}

/// The example with everything that a report can hold.
pub fn full() -> (Results, Extras<'static>) {
    let mut results = example::results();
    results.datasets[0].name = "CUB_200_2011".into();
    let sheet = ContactSheet { dataset: 1, caption: "Taken for \"<another>\"".into(), png: picture() };
    (results, Extras { published: Some(&GSOC2025), contact_sheets: vec![sheet] })
}

/// A small PNG, for want of photographs.
fn picture() -> Vec<u8> {
    let mut png = std::io::Cursor::new(Vec::new());
    let pixels = image::RgbImage::from_fn(64, 32, |x, y| image::Rgb([x as u8 * 4, y as u8 * 8, 128]));
    pixels.write_to(&mut png, image::ImageFormat::Png).unwrap();
    png.into_inner()
}

/// The example with names and texts that no page has room for.
pub fn long_names() -> Results {
    let mut results = example::results();
    let long = "a_name_without_any_space_".repeat(4);
    results.datasets.iter_mut().for_each(|set| set.name = format!("{long}{}", set.name));
    results.variants.iter_mut().for_each(|variant| variant.name = format!("{}{long}", variant.name));
    for text in [&mut results.device, &mut results.backbone, &mut results.protocol.rates, &mut results.protocol.split] {
        *text = long.clone();
    }
    results.note = Some(long.clone());
    for cell in &mut results.cells {
        cell.config["data"] = long.clone().into();
        if let Outcome::Failed { reason } = &mut cell.outcome {
            *reason = long.clone();
        }
    }
    results
}

/// Seven data sets, six variants with two ranks of each adapter, three seeds, thirty epochs: what a long comparison looks like.
pub fn large() -> Results {
    let mut results = example::results();
    let variant = |strategy: Strategy, rank: Option<usize>, name: &str| Variant { strategy, rank, name: name.into() };
    results.variants = vec![
        variant(Strategy::Full, None, "full"),
        variant(Strategy::Freeze, None, "freeze"),
        variant(Strategy::Lora, Some(8), "lora r8"),
        variant(Strategy::Lora, Some(16), "lora r16"),
        variant(Strategy::Dora, Some(8), "dora r8"),
        variant(Strategy::Dora, Some(16), "dora r16"),
    ];
    let names =
        ["fgvc-aircraft", "food-101", "stanford-cars", "CUB_200_2011", "ham10000", "resisc45", "kitti-distance"];
    let info = results.datasets[0].clone();
    results.datasets = names
        .iter()
        .map(|name| {
            let mut info = info.clone();
            (info.name, info.test) = ((*name).into(), 3333);
            info
        })
        .collect();
    let cell = results.cells[0].clone();
    results.cells.clear();
    for (set, set_level) in [0.45, 0.86, 0.70, 0.80, 0.72, 0.90, 0.68].into_iter().enumerate() {
        for (v, gain) in [0.0, -0.07, 0.021, 0.026, 0.024, 0.031].into_iter().enumerate() {
            for seed in 0..3 {
                let mut cell = cell.clone();
                (cell.dataset, cell.variant, cell.seed) = (set, v, seed);
                cell.run = format!("runs/{}/{}/seed-{seed}", names[set], results.variants[v].name);
                cell.config["strategy"] = results.variants[v].strategy.name().into();
                if let Outcome::Done(m) = &mut cell.outcome {
                    // Noise without a generator: the same every time.
                    let noise = ((set * 37 + v * 17 + seed as usize * 29) % 13) as f64 / 13.0 - 0.5;
                    m.test_accuracy = set_level + gain + 0.012 * noise;
                    m.val_accuracy = m.test_accuracy + 0.01;
                    m.peak_bytes = [4_030, 550, 1_590, 1_620, 1_690, 1_730][v] << 20;
                    m.trained_parameters = [22_071_572, 38_500, 185_956, 333_412, 195_172, 342_628][v];
                    m.train_s = [1900.0, 240.0, 1100.0, 1130.0, 1290.0, 1330.0][v] + 10.0 * noise;
                    m.curve = (1..=30)
                        .map(|epoch| EpochPoint {
                            epoch,
                            train_loss: 2.0 / epoch as f64,
                            val_loss: 2.2 / epoch as f64,
                            val_accuracy: m.val_accuracy * (1.0 - 0.6 * (-(epoch as f64) / (4.0 + v as f64)).exp()),
                        })
                        .collect();
                }
                results.cells.push(cell);
            }
        }
    }
    results.tuning.clear();
    results
}
