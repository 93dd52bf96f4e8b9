use std::cell::RefCell;
use std::path::Path;

use peftk::data::{ImageCache, open, verify};

use crate::{fill, fixture, folder, message, options};

/// Two classes of which `a` has every kind of bad file beside good ones.
fn with_bad_files() -> tempfile::TempDir {
    let dir = folder(&["a/good.png", "b/good.png", "a/folder.jpg/"]);
    let a = dir.path().join("a");
    std::fs::write(a.join("empty.png"), b"").expect("file");
    std::fs::write(a.join("text.png"), b"text").expect("file");
    let photo = std::fs::read(fixture("photo.jpg")).expect("fixture");
    std::fs::write(a.join("cut60.jpg"), &photo[..photo.len() * 6 / 10]).expect("file");
    std::fs::write(a.join("cut95.jpg"), &photo[..photo.len() * 95 / 100]).expect("file");
    std::fs::write(a.join("zcut.jpg"), &photo[..50]).expect("file");
    dir
}

#[test]
fn bad_files_stop_the_run_with_a_list() {
    let dir = with_bad_files();
    let mut splits = open(dir.path(), &options()).expect("names are fine");
    let result = verify(&mut [&mut splits.train], false, &ImageCache::default(), &|_, _| {});
    assert_eq!(
        message(result, dir.path()),
        "6 of 8 images cannot be read: DIR/a/cut60.jpg (is a truncated JPEG (no end-of-image marker)), \
         DIR/a/cut95.jpg (is a truncated JPEG (no end-of-image marker)), DIR/a/empty.png (is empty (0 bytes)), \
         DIR/a/folder.jpg (is a folder, not an image file), \
         DIR/a/text.png (is not a JPEG, PNG, WebP, BMP or TIFF image) and 1 more: \
         replace or remove them, or train with --skip-bad"
    );
}

#[test]
fn skip_bad_removes_them_and_says_which() {
    let dir = with_bad_files();
    let mut splits = open(dir.path(), &options()).expect("names are fine");
    let seen = RefCell::new(Vec::new());
    let progress = |done, total| seen.borrow_mut().push((done, total));
    let bad = verify(&mut [&mut splits.train], true, &ImageCache::default(), &progress).expect("a good one each");
    assert_eq!(bad.len(), 6);
    assert!(bad[2].name.ends_with("a/empty.png") && bad[2].reason == "is empty (0 bytes)", "{bad:?}");
    assert_eq!(splits.train.class_counts(), [1, 1]);
    assert_eq!(seen.into_inner(), (1..=8).map(|done| (done, 8)).collect::<Vec<_>>());
}

#[test]
fn a_class_must_keep_an_image() {
    let dir = with_bad_files();
    std::fs::remove_file(dir.path().join("a/good.png")).expect("remove");
    let mut splits = open(dir.path(), &options()).expect("names are fine");
    let result = verify(&mut [&mut splits.train], true, &ImageCache::default(), &|_, _| {});
    assert_eq!(
        message(result, dir.path()),
        "--skip-bad leaves class \"a\" without images: none of its 6 can be read; add readable ones or remove the class"
    );
}

#[test]
fn validation_may_lose_a_class_but_not_all() {
    let dir = folder(&["train/a/1.png", "train/b/1.png", "val/a/1.png"]);
    fill(dir.path(), &["val/b/"]);
    std::fs::write(dir.path().join("val/b/bad.png"), b"").expect("file");
    let check = |kept: Option<usize>| {
        let mut splits = open(dir.path(), &options()).expect("names are fine");
        let val = splits.val.as_mut().expect("validation");
        let result = verify(&mut [&mut splits.train, &mut *val], true, &ImageCache::default(), &|_, _| {});
        match kept {
            Some(kept) => assert_eq!((result.expect("enough left").len(), val.items.len()), (1, kept)),
            None => {
                assert_eq!(
                    message(result, Path::new("/nowhere")),
                    "--skip-bad leaves nothing: none of 1 image can be read"
                )
            }
        }
    };
    check(Some(1));
    std::fs::remove_file(dir.path().join("val/a/1.png")).expect("remove");
    check(None);
}

#[test]
fn the_cache_keeps_to_its_size() {
    let dir = folder(&["a/1.png", "a/2.png", "b/1.png"]);
    let image = 24 * 16 * 3;
    for (room, kept) in [(0, 0), (image - 1, 0), (image, 1), (2 * image + 5, 2), (1 << 20, 3)] {
        let cache = ImageCache::new(room);
        let mut splits = open(dir.path(), &options()).expect("names are fine");
        verify(&mut [&mut splits.train], false, &cache, &|_, _| {}).expect("readable");
        verify(&mut [&mut splits.train], false, &cache, &|_, _| {}).expect("readable again");
        assert_eq!(cache.bytes(), kept * image, "room {room}");
    }
}
