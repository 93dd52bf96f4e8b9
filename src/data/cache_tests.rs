//! Tests of the cache's bounds and of what comes back from each of its places.

use std::path::Path;

use super::*;

/// Files of 8 x 4 pixels.
const BYTES: usize = 8 * 4 * 3;

fn sources(dir: &Path, count: usize) -> Vec<Source> {
    let one = |number: usize| {
        let path = dir.join(format!("{number}.png"));
        let pixel = |x, y| image::Rgb([(x * 30) as u8, (y * 60) as u8, (number * 20) as u8]);
        image::RgbImage::from_fn(8, 4, pixel).save(&path).unwrap();
        Source::File(path)
    };
    (0..count).map(one).collect()
}

fn settings(memory: usize, disk: usize, dir: &Path) -> Cache {
    Cache { memory: memory as u64, disk: disk as u64, dir: Some(dir.to_owned()) }
}

#[test]
fn what_memory_has_no_room_for_goes_to_the_file_and_comes_back_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let images = sources(dir.path(), 7);
    let expected: Vec<_> = images.iter().map(|s| decode(s).unwrap()).collect();
    let files = || std::fs::read_dir(dir.path()).unwrap().count();
    let before = files();
    for (memory, disk, kept) in [
        (0, 0, (0, 0)),
        (2 * BYTES, 0, (2, 0)),
        (2 * BYTES + 1, 3 * BYTES + BYTES - 1, (2, 3)),
        (0, 7 * BYTES, (0, 7)),
        (BYTES, 1 << 20, (1, 6)),
        (7 * BYTES, 1 << 20, (7, 0)),
    ] {
        let cache = ImageCache::open(&settings(memory, disk, dir.path())).unwrap();
        assert_eq!(files(), before, "the file has no name");
        for _ in 0..3 {
            for (source, expected) in images.iter().zip(&expected) {
                assert!(*cache.get(source).unwrap() == *expected);
            }
        }
        assert_eq!((cache.images(), cache.bytes()), (kept, kept.0 * BYTES));
    }
    // Nothing but the cache is left to read.
    let cache = ImageCache::open(&settings(BYTES, 3 * BYTES, dir.path())).unwrap();
    images.iter().for_each(|source| drop(cache.get(source).unwrap()));
    (0..7).for_each(|n| std::fs::remove_file(dir.path().join(format!("{n}.png"))).unwrap());
    let found: Vec<_> = images.iter().map(|source| cache.get(source).ok().map(|image| (*image).clone())).collect();
    assert!(found[..4].iter().zip(&expected).all(|(found, expected)| found.as_ref() == Some(expected)));
    assert!(found[4..].iter().all(Option::is_none));
}

#[test]
fn many_threads_get_the_same_pixels() {
    let dir = tempfile::tempdir().unwrap();
    let images = sources(dir.path(), 12);
    let expected: Vec<_> = images.iter().map(|s| decode(s).unwrap()).collect();
    let cache = ImageCache::open(&settings(3 * BYTES, 6 * BYTES, dir.path())).unwrap();
    std::thread::scope(|scope| {
        for first in 0..8 {
            let (cache, images, expected) = (&cache, &images, &expected);
            scope.spawn(move || {
                for at in (0..images.len() * 20).map(|step| (first + step * 5) % images.len()) {
                    assert!(*cache.get(&images[at]).unwrap() == expected[at]);
                }
            });
        }
    });
    assert_eq!(cache.images(), (3, 6));
}

#[test]
fn a_full_disk_is_said_and_stops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let images = sources(dir.path(), 4);
    let full = std::fs::OpenOptions::new().read(true).write(true).open("/dev/full").unwrap();
    let cache = ImageCache { file: Some(CacheFile::over(full, 1 << 20)), ..ImageCache::new(BYTES) };
    for source in images.iter().chain(&images) {
        assert!(*cache.get(source).unwrap() == decode(source).unwrap());
    }
    assert_eq!(cache.images(), (1, 0));
    let words = cache.words(4);
    assert!(words.contains("0 images in a file in DIR (0.0 MiB"), "{words}");
    assert!(words.contains("DIR takes no more: No space left on device"), "{words}");
    assert!(words.contains("; 3 images are decoded anew each time") && !words.contains('\n'), "{words}");
}

#[test]
fn a_file_that_cannot_be_read_leaves_the_images() {
    let dir = tempfile::tempdir().unwrap();
    let images = sources(dir.path(), 2);
    let path = dir.path().join("write-only");
    let file = std::fs::File::create(&path).unwrap();
    let cache = ImageCache { file: Some(CacheFile::over(file, 1 << 20)), ..ImageCache::new(0) };
    for source in images.iter().chain(&images) {
        assert!(*cache.get(source).unwrap() == decode(source).unwrap());
    }
    assert_eq!(cache.images(), (0, 2));
}

#[test]
fn a_folder_that_is_not_there_is_named_with_its_flag() {
    let dir = tempfile::tempdir().unwrap();
    let error = ImageCache::open(&settings(0, 1, &dir.path().join("none"))).err().unwrap().to_string();
    assert!(error.starts_with("--cache: ") && error.contains("none") && !error.contains('\n'), "{error}");
}

#[test]
fn one_line_says_what_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let images = sources(dir.path(), 3);
    let words = |cache: ImageCache| {
        images.iter().for_each(|source| drop(cache.get(source).unwrap()));
        cache.words(3)
    };
    assert_eq!(words(ImageCache::default()), "cache: 3 of 3 decoded images in memory (0.0 MiB of 1024.0 MiB)");
    let none = words(ImageCache::new(0));
    assert_eq!(none, "cache: none; 3 images are decoded anew each time: --cache says how many are kept");
    let both = words(ImageCache::open(&settings(BYTES, BYTES, dir.path())).unwrap());
    let file = format!("1 image in a file in {} (0.0 MiB of 0.0 MiB)", dir.path().display());
    assert!(
        both.starts_with("cache: 1 of 3 decoded") && both.contains(&file) && both.contains("; 1 image is"),
        "{both}"
    );
}
