//! What a classifier looked at, by a GPU and by the CPU: the maps of runs of every strategy and task.

use std::path::Path;

use peftk::autograd::Backend;
use peftk::config::{ModelSource, Precision};
use peftk::cpu::Cpu;
use peftk::cuda::Cuda;
use peftk::data::{Source, decode, transform};
use peftk::explain::Explainer;
use peftk::train::Ui;
use peftk::train::loaded::{Loaded, load};

use crate::commands::{laid_out, run};
use crate::harness::{Needs, Test, on_every_arch};

pub const TESTS: &[Test] = &[Test { name: "explain::maps_are_the_cpus", needs: Needs::Gpu, run: maps }];

/// Images that are explained.
const IMAGES: usize = 3;

fn loaded<B: Backend>(backend: B, dir: &Path) -> Loaded<B> {
    load(backend, &ModelSource::Run(dir.to_owned()), None, None, &Ui::new(true)).unwrap()
}

/// Of each image the map by rollout and those of all labels.
fn maps_of<B: Backend>(loaded: &Loaded<B>) -> Vec<Vec<f64>> {
    let explainer = Explainer::new(&loaded.model.vit, &loaded.model.params).unwrap();
    let size = loaded.model.vit.input_size;
    let labels: Vec<usize> = (0..loaded.model.labels.len()).collect();
    let mut maps = Vec::new();
    for number in 0..IMAGES {
        let path = crate::measure::data().join(format!("multilabel/data/{number}.png"));
        let mut square = vec![0; size * size * 3];
        transform::eval(&decode(&Source::File(path)).unwrap(), size, loaded.resize, &mut square).unwrap();
        maps.extend(explainer.look(&square, true).unwrap().1);
        maps.extend(explainer.gradients(&square, &labels).unwrap());
    }
    maps
}

fn correlation(a: &[f64], b: &[f64]) -> f64 {
    let centred = |x: &[f64]| -> Vec<f64> {
        let mean = x.iter().sum::<f64>() / x.len() as f64;
        x.iter().map(|x| x - mean).collect()
    };
    let (a, b) = (centred(a), centred(b));
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt()
}

/// In f32 within a thousandth of what a map spans, in bf16 with a correlation above 0.98.
fn maps() {
    for (task, flags) in [
        ("multiclass", "--strategy full --lr 5e-4"),
        ("multiclass", "--strategy freeze --pool cls"),
        ("multilabel", "--strategy lora --lr 5e-3 --targets all-linear --backbone random:micro-reg"),
        ("hierarchical", "--strategy dora --lr 5e-3 --targets all-linear --rank 3"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (data, out) = (dir.path().join("data"), dir.path().join("run"));
        laid_out(&data, task);
        let data = data.display();
        let train = format!("train --device cuda --precision f32 --data {data} --val-data {data} --input-size 84");
        run(&format!("{train} --batch-size 4 --epochs 20 {flags} --out {}", out.display()));
        let expected = maps_of(&loaded(Cpu::new(None).unwrap(), &out));
        on_every_arch(|device| {
            for precision in [Precision::F32, Precision::Bf16] {
                let found = maps_of(&loaded(Cuda::new(device, precision), &out));
                assert_eq!(found.len(), expected.len());
                let (mut furthest, mut lowest) = (0.0_f64, 1.0_f64);
                for (found, expected) in found.iter().zip(&expected) {
                    let (low, high) =
                        expected.iter().fold((f64::INFINITY, 0.0_f64), |ends, &x| (ends.0.min(x), ends.1.max(x)));
                    let off = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                    furthest = furthest.max(off / (high - low));
                    lowest = lowest.min(correlation(found, expected));
                }
                let what = format!("{task} {flags} {} {}", device.arch(), precision.name());
                println!("    {what}: off by {furthest:.1e} of the span, correlation {lowest:.5}");
                match precision {
                    Precision::F32 => assert!(furthest < 1e-3, "{what}: off by {furthest:e} of the span"),
                    Precision::Bf16 => assert!(lowest > 0.98, "{what}: correlation {lowest}"),
                }
            }
        });
        // The command itself, with its default numbers.
        let pictures = dir.path().join("pictures");
        let line = format!("explain --model {} --device cuda --out {} {data}", out.display(), pictures.display());
        assert_eq!(String::from_utf8(run(&line).stdout).unwrap().lines().count(), 6, "{task}");
        assert!(std::fs::read_dir(&pictures).unwrap().count() >= 12, "{task}");
    }
}
