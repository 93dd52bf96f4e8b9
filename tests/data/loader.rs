use std::sync::Arc;
use std::time::{Duration, Instant};

use peftk::config::{Augment, Cache, Resize};
use peftk::data::transform::CropBox;
use peftk::data::{Batch, Dataset, ImageCache, Loader, LoaderOptions, MAX_SOURCE_SIDE, OpenOptions, embedded, open};

use crate::{folder, message, options};

fn loading() -> LoaderOptions {
    LoaderOptions {
        batch_size: 7,
        input_size: 28,
        resize: Resize::Crop,
        augment: Augment::Standard,
        shuffle: true,
        balanced: false,
        seed: 5,
        on_device: false,
    }
}

/// 40 embedded images of 20 classes.
fn small() -> Arc<Dataset> {
    Arc::new(embedded(&OpenOptions { shots: Some(2), ..options() }).expect("embedded data").train)
}

/// Classes of 9, 3 and 1 images.
fn uneven() -> (tempfile::TempDir, Arc<Dataset>) {
    let files = |class: &'static str, count| (0..count).map(move |i| format!("{class}/{i}.png"));
    let all: Vec<_> = files("a", 9).chain(files("b", 3)).chain(files("c", 1)).collect();
    let dir = folder(&all.iter().map(String::as_str).collect::<Vec<_>>());
    let train = open(dir.path(), &options()).expect("three classes").train;
    (dir, Arc::new(train))
}

fn loader(dataset: &Arc<Dataset>, options: LoaderOptions, threads: usize) -> Loader {
    Loader::with_threads(dataset.clone(), options, Arc::new(ImageCache::default()), threads).expect("valid options")
}

fn batches(loader: &Loader, epoch: usize, first: usize) -> Vec<Batch> {
    loader.epoch(epoch, first).collect::<Result<_, _>>().expect("readable")
}

fn indices(batches: &[Batch]) -> Vec<usize> {
    batches.iter().flat_map(|b| b.indices.clone()).collect()
}

#[test]
fn an_epoch_is_the_same_whatever_the_threads_and_wherever_it_is_entered() {
    let dataset = small();
    let one = loader(&dataset, loading(), 1);
    let whole = batches(&one, 3, 0);
    assert_eq!(whole.len(), one.batches_per_epoch());
    assert_eq!(batches(&loader(&dataset, loading(), 4), 3, 0), whole);
    let no_cache = Loader::new(dataset.clone(), loading(), Arc::new(ImageCache::new(0))).expect("valid options");
    assert_eq!(batches(&no_cache, 3, 0), whole);
    let dir = tempfile::tempdir().expect("temporary folder");
    let in_part = Cache { memory: 100_000, disk: 200_000, dir: Some(dir.path().to_owned()) };
    let cache = Arc::new(ImageCache::open(&in_part).expect("a folder"));
    let cached = Loader::new(dataset.clone(), loading(), cache.clone()).expect("valid options");
    for _ in 0..2 {
        assert_eq!(batches(&cached, 3, 0), whole);
    }
    let (memory, file) = cache.images();
    assert!(memory > 0 && file > 0 && memory + file < dataset.items.len(), "{memory} {file}");
    for first in 0..=whole.len() + 1 {
        assert_eq!(batches(&one, 3, first), whole.get(first..).unwrap_or_default(), "from batch {first}");
    }
    assert_ne!(batches(&one, 4, 0), whole);
    assert_ne!(batches(&loader(&dataset, LoaderOptions { seed: 6, ..loading() }, 1), 3, 0), whole);
}

#[test]
fn there_are_as_many_threads_as_rayon_has() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().expect("threads");
    let made = pool.install(|| Loader::new(small(), loading(), Arc::default()));
    assert_eq!(made.expect("valid options").threads(), 3);
}

#[test]
fn every_image_comes_once_with_its_label_and_the_last_batch_is_short() {
    let dataset = small();
    let epoch = batches(&loader(&dataset, loading(), 2), 0, 0);
    assert_eq!(epoch.iter().map(|b| b.size).collect::<Vec<_>>(), [7, 7, 7, 7, 7, 5]);
    let mut seen = indices(&epoch);
    assert!(!seen.is_sorted());
    seen.sort_unstable();
    assert_eq!(seen, (0..40).collect::<Vec<_>>());
    for batch in &epoch {
        assert_eq!((batch.images.len(), batch.indices.len()), (batch.size * 28 * 28 * 3, batch.size));
        let labels: Vec<_> = batch.indices.iter().map(|&i| dataset.items[i].label.classes()[0]).collect();
        assert_eq!(batch.labels, labels);
        assert!(batch.targets.is_empty());
    }
}

#[test]
fn an_image_is_augmented_anew_each_epoch_wherever_it_comes() {
    let dataset = small();
    let image = |options: LoaderOptions, epoch: usize, index: usize| {
        let all = batches(&loader(&dataset, options, 2), epoch, 0);
        let batch = all.iter().find(|b| b.indices.contains(&index)).expect("every image comes");
        let at = batch.indices.iter().position(|&i| i == index).expect("found above") * 28 * 28 * 3;
        batch.images[at..at + 28 * 28 * 3].to_vec()
    };
    let in_order = LoaderOptions { shuffle: false, batch_size: 3, ..loading() };
    assert_eq!(image(loading(), 0, 11), image(in_order, 0, 11), "order and batch size play no part");
    assert_ne!(image(loading(), 0, 11), image(loading(), 1, 11));
    let plain = LoaderOptions { augment: Augment::None, ..loading() };
    assert_eq!(image(plain, 0, 11), image(plain, 1, 11));
}

#[test]
fn without_shuffling_the_order_is_the_data_sets() {
    let epoch = batches(&loader(&small(), LoaderOptions { shuffle: false, ..loading() }, 2), 9, 0);
    assert_eq!(indices(&epoch), (0..40).collect::<Vec<_>>());
}

#[test]
fn balanced_classes_come_equally_often() {
    let (_dir, dataset) = uneven();
    let loader = loader(&dataset, LoaderOptions { balanced: true, batch_size: 4, ..loading() }, 2);
    let mut extra = [0; 3];
    for epoch in 0..30 {
        let all = batches(&loader, epoch, 0);
        let mut counts = [0; 3];
        all.iter().flat_map(|b| &b.labels).for_each(|&c| counts[c] += 1);
        assert!(counts.iter().all(|n| (4..=5).contains(n)) && counts.iter().sum::<usize>() == 13, "{counts:?}");
        (0..3).for_each(|c| extra[c] += counts[c] - 4);
        // Of class b's three images, none comes a third time before all have come twice.
        let seen = indices(&all);
        let repeats: Vec<_> = (9..12).map(|i| seen.iter().filter(|&&s| s == i).count()).collect();
        assert!(repeats.iter().all(|n| (1..=2).contains(n)), "{repeats:?}");
    }
    assert!(extra.iter().all(|&n| n > 0), "the odd draw goes round: {extra:?}");

    // The single image of class c comes four or five times, each time augmented its own way.
    let all = batches(&loader, 0, 0);
    let mut views: Vec<&[u8]> = Vec::new();
    for batch in &all {
        let images = batch.images.chunks(28 * 28 * 3).zip(&batch.indices);
        views.extend(images.filter(|(_, i)| **i == 12).map(|(image, _)| image));
    }
    let count = views.len();
    views.sort_unstable();
    views.dedup();
    assert!(count >= 4 && views.len() == count, "{} of {count} differ", views.len());
}

#[test]
fn multilabel_batches_have_targets() {
    let dir = folder(&["a.png", "b.png"]);
    std::fs::write(dir.path().join("labels.csv"), "filename,x,y\na.png,1,0\nb.png,1,1\n").expect("file");
    let dataset = Arc::new(open(dir.path(), &options()).expect("well formed").train);
    let all = batches(&loader(&dataset, LoaderOptions { shuffle: false, ..loading() }, 1), 0, 0);
    assert_eq!((all[0].labels.len(), &all[0].targets[..]), (0, &[1.0, 0.0, 1.0, 1.0][..]));
}

#[test]
fn what_the_device_gets_makes_the_same_squares() {
    let dataset = small();
    let balanced = LoaderOptions { balanced: true, ..loading() };
    let squash = LoaderOptions { augment: Augment::None, resize: Resize::Squash, ..loading() };
    let crop = LoaderOptions { resize: Resize::Crop, ..squash };
    for options in [loading(), balanced, squash, crop] {
        for epoch in 0..3 {
            let ready = batches(&loader(&dataset, options, 2), epoch, 0);
            let raw = batches(&loader(&dataset, LoaderOptions { on_device: true, ..options }, 3), epoch, 0);
            for (raw, ready) in raw.into_iter().zip(ready) {
                let sources = raw.sources.as_ref().expect("asked for");
                assert!(raw.images.is_empty() && ready.sources.is_none());
                assert_eq!((sources.boxes.len(), sources.flips.len()), (raw.size, raw.size));
                assert!(sources.images.iter().zip(&sources.boxes).all(|(i, b)| *b == b.inside(i.width, i.height)));
                assert_eq!(raw.finished(28).expect("crops are inside"), ready);
            }
        }
    }
    let on_device = LoaderOptions { on_device: true, ..loading() };
    let whole = batches(&loader(&dataset, on_device, 1), 2, 0);
    assert_eq!(batches(&loader(&dataset, on_device, 4), 2, 3), whole[3..]);
}

#[test]
fn an_image_too_long_for_the_device_is_a_square_already() {
    let dir = folder(&["a/1.png", "b/1.png"]);
    let long = image::RgbImage::from_fn(MAX_SOURCE_SIDE as u32 + 1, 2, |x, y| image::Rgb([(x / 70) as u8, y as u8, 9]));
    long.save(dir.path().join("b/2.png")).expect("file");
    let dataset = Arc::new(open(dir.path(), &options()).expect("two classes").train);
    for augment in [Augment::Standard, Augment::None] {
        let ready = LoaderOptions { shuffle: false, augment, ..loading() };
        let raw = batches(&loader(&dataset, LoaderOptions { on_device: true, ..ready }, 2), 0, 0).remove(0);
        let sources = raw.sources.as_ref().expect("asked for");
        assert_eq!((sources.images[2].width, sources.images[2].height), (28, 28));
        assert_eq!((sources.boxes[2], sources.flips[2]), (CropBox::whole(28, 28), false));
        assert_eq!(raw.finished(28).expect("crops are inside"), batches(&loader(&dataset, ready, 2), 0, 0)[0]);
    }
}

#[test]
fn images_are_packed_one_after_another() {
    let on_device = LoaderOptions { on_device: true, ..loading() };
    let batch = batches(&loader(&small(), on_device, 2), 0, 0).remove(0);
    let sources = batch.sources.expect("asked for");
    let (offsets, length) = sources.layout();
    let mut packed = vec![7; length + 3];
    sources.pack(&mut packed).expect("long enough");
    let mut end = 0;
    for (image, &offset) in sources.images.iter().zip(&offsets) {
        let offset = usize::try_from(offset).expect("small");
        assert!(offset % 16 == 0 && offset >= end && offset < end + 16);
        end = offset + image.pixels.len();
        assert_eq!(packed[offset..end], image.pixels);
    }
    assert!(length % 16 == 0 && length >= end && packed[end..].iter().all(|&byte| byte == 7));
    sources.pack(&mut packed[..length - 1]).expect_err("too short");
}

#[test]
fn an_epoch_may_be_dropped_at_any_point() {
    let loader = loader(&small(), LoaderOptions { batch_size: 1, ..loading() }, 2);
    let start = Instant::now();
    for taken in 0..6 {
        let mut epoch = loader.epoch(0, 0);
        assert_eq!(epoch.by_ref().take(taken).count(), taken);
        drop(epoch);
    }
    assert!(start.elapsed() < Duration::from_secs(20), "dropping waits: {:?}", start.elapsed());
}

#[test]
fn a_file_that_goes_missing_ends_the_epoch_with_its_name() {
    let (dir, dataset) = uneven();
    std::fs::remove_file(dir.path().join("a/5.png")).expect("remove");
    for on_device in [false, true] {
        let loader = loader(&dataset, LoaderOptions { shuffle: false, batch_size: 4, on_device, ..loading() }, 2);
        let mut epoch = loader.epoch(0, 0);
        assert!(epoch.next().expect("first batch").is_ok());
        let text = message(epoch.next().expect("second batch"), dir.path());
        assert!(text.starts_with("DIR/a/5.png: cannot be read"), "{text}");
        assert!(epoch.next().is_none());
    }
}

#[test]
fn options_that_contradict_each_other_are_errors() {
    let dataset = small();
    let check = |options: LoaderOptions, expected: &str| {
        let made = Loader::new(dataset.clone(), options, Arc::new(ImageCache::default()));
        assert_eq!(message(made, std::path::Path::new("/nowhere")), expected);
    };
    check(LoaderOptions { batch_size: 0, ..loading() }, "--batch-size must be at least 1, found 0");
    check(LoaderOptions { input_size: 0, ..loading() }, "--input-size must be at least 1 pixel, found 0");
    check(
        LoaderOptions { balanced: true, shuffle: false, ..loading() },
        "--balanced draws at random, which --no-shuffle forbids: leave one out",
    );
}

#[test]
fn an_epoch_without_images_reads_none() {
    let (dir, dataset) = uneven();
    for options in [loading(), LoaderOptions { balanced: true, on_device: true, ..loading() }] {
        let loader = Loader::new(dataset.clone(), options, Arc::new(ImageCache::new(0))).expect("valid options");
        let expected = batches(&loader, 2, 1);
        let ordered: Vec<_> = loader.every_image().collect::<Result<_, _>>().expect("readable");
        assert_eq!(indices(&ordered), (0..13).collect::<Vec<_>>());
        assert!(ordered.iter().all(|batch| batch.sources.is_some() == options.on_device));

        let aside = dir.path().with_extension("aside");
        std::fs::rename(dir.path(), &aside).expect("rename");
        assert!(loader.epoch(2, 1).next().expect("a batch").is_err() && loader.every_image().next().unwrap().is_err());
        let bare: Vec<_> = loader.epoch_without_images(2, 1).collect::<Result<_, _>>().expect("nothing is read");
        std::fs::rename(&aside, dir.path()).expect("rename");
        let without = |batch: Batch| Batch { images: vec![], sources: None, ..batch };
        assert_eq!(bare, expected.into_iter().map(without).collect::<Vec<_>>());
    }
}
