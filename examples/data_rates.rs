//! How fast images come from files: decoding, decoding with the training transform, and whole epochs of the loader, the first of
//! which decodes and the later of which find their images in the cache. A line of JSON each; tools/compare/data_rates.py
//! measures PIL, torchvision and torch's DataLoader on the same folder.
//!
//!     data_rates FOLDER [SECONDS]
//!
//! The folder is one that `peftk train --data` takes. Single-thread rates are by wall time and by the CPU time of the process, which
//! says more on a machine that others use too. RAYON_NUM_THREADS sets the loader's threads; else there is one a core.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use peftk::config::{Augment, Cache, Format, Resize};
use peftk::data::{Dataset, ImageCache, Loader, LoaderOptions, OpenOptions, Source, decode, open, transform};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

const SIZE: usize = 224;
const BATCH: usize = 64;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    let usage = "usage: data_rates FOLDER [SECONDS a measurement]";
    let mut args = std::env::args().skip(1);
    let folder = args.next().ok_or(usage)?;
    let seconds = Duration::from_secs_f64(args.next().map_or(Ok(5.0), |text| text.parse()).map_err(|_| usage)?);
    let options = OpenOptions {
        format: Format::Auto,
        task: None,
        val_data: None,
        val_fraction: 0.0,
        test_fraction: 0.0,
        seed: 0,
        shots: None,
    };
    let set = Arc::new(open(Path::new(&folder), &options)?.train);
    let say = |what: &str, rate: Rate| {
        let more = [("impl", json!("peftk")), ("what", json!(what)), ("folder", json!(folder))];
        println!("{}", Value::Object(more.into_iter().map(|(k, v)| (k.to_owned(), v)).chain(rate.fields()).collect()));
    };

    say("decode, 1 thread", repeat(&set, seconds, |source, _| decode(source).map(drop))?);
    let mut square = vec![0; SIZE * SIZE * 3];
    let mut both = |source: &Source, rng: &mut ChaCha8Rng| transform::train(&decode(source)?, SIZE, rng, &mut square);
    say("decode + crop to 224 + flip, 1 thread", repeat(&set, seconds, &mut both)?);

    let all = u64::MAX >> 1;
    for (place, cache) in [
        ("memory", Cache { memory: all, disk: 0, dir: None }),
        ("disk", Cache { memory: 0, disk: all, dir: None }),
        ("none", Cache { memory: 0, disk: 0, dir: None }),
    ] {
        let cache = Arc::new(ImageCache::open(&cache)?);
        let options = LoaderOptions {
            batch_size: BATCH,
            input_size: SIZE,
            resize: Resize::Squash,
            augment: Augment::Standard,
            shuffle: true,
            balanced: false,
            seed: 0,
            on_device: false,
        };
        let loader = Loader::new(set.clone(), options, cache)?;
        let walk = |epoch: usize| loader.epoch(epoch, 0).try_for_each(|batch| batch.map(drop));
        let watch = Watch::start();
        walk(0)?;
        say(&format!("loader, first epoch, cache {place}"), watch.stop(set.items.len()));
        let (watch, mut epochs) = (Watch::start(), 0);
        while watch.begun.elapsed() < seconds {
            epochs += 1;
            walk(epochs)?;
        }
        say(&format!("loader, later epochs, cache {place}"), watch.stop(epochs * set.items.len()));
    }
    Ok(())
}

/// Images in a time.
struct Rate {
    images: usize,
    wall_s: f64,
    /// Of all threads; absent where the system does not say.
    cpu_s: Option<f64>,
}

impl Rate {
    fn fields(self) -> impl Iterator<Item = (String, Value)> {
        let rate = |seconds: f64| (self.images as f64 / seconds * 10.0).round() / 10.0;
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load = load.split(' ').next().and_then(|text| text.parse::<f64>().ok());
        [
            ("images", json!(self.images)),
            ("images_per_s", json!(rate(self.wall_s))),
            ("images_per_cpu_s", json!(self.cpu_s.map(rate))),
            ("threads", json!(rayon::current_num_threads())),
            ("load", json!(load)),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
    }
}

struct Watch {
    begun: Instant,
    cpu_s: Option<f64>,
}

impl Watch {
    fn start() -> Self {
        Self { begun: Instant::now(), cpu_s: cpu_s() }
    }

    fn stop(self, images: usize) -> Rate {
        let cpu_s = self.cpu_s.zip(cpu_s()).map(|(before, after)| after - before);
        // A short epoch may be less than a tick of that clock.
        Rate { images, wall_s: self.begun.elapsed().as_secs_f64(), cpu_s: cpu_s.filter(|&seconds| seconds >= 0.1) }
    }
}

/// CPU time of this process: user and system, in the kernel's ticks of 1/100 s.
fn cpu_s() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/stat").ok()?;
    // Behind the name, which may hold anything: state is the first.
    let fields: Vec<&str> = text.rsplit(')').next()?.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / 100.0)
}

/// Goes through the images again and again for at least so long, once before that to have the files in memory.
fn repeat(
    set: &Dataset,
    least: Duration,
    mut one: impl FnMut(&Source, &mut ChaCha8Rng) -> peftk::Result<()>,
) -> Outcome<Rate> {
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let mut walk = || set.items.iter().try_for_each(|item| one(&item.source, &mut rng));
    walk()?;
    let (watch, mut images) = (Watch::start(), 0);
    while watch.begun.elapsed() < least {
        walk()?;
        images += set.items.len();
    }
    Ok(watch.stop(images))
}
