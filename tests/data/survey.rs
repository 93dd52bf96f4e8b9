//! What `peftk data` finds.

use peftk::data::{contact_sheet, decode_bytes, open, survey};

use crate::{fill, fixture, folder, options};

#[test]
fn sizes_unreadable_files_and_twins_are_found() {
    let dir = folder(&["train/a/1.png", "train/a/2.png", "train/b/3.png", "test/b/4.png"]);
    // One image of another size, a damaged one, and the same bytes in training and testing and under two labels.
    std::fs::copy(fixture("base.png"), dir.path().join("train/b/3.png")).expect("copied");
    let wide = std::fs::read_dir(fixture("base.png").parent().unwrap()).expect("fixtures");
    let wide = wide.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "jpg"));
    let mut wide: Vec<_> = wide.collect();
    wide.sort();
    std::fs::copy(&wide[0], dir.path().join("train/a/2.jpg")).expect("copied");
    std::fs::remove_file(dir.path().join("train/a/2.png")).expect("removed");
    std::fs::write(dir.path().join("train/b/broken.png"), b"no image").expect("written");
    let splits = open(dir.path(), &options()).expect("two classes");
    let calls = std::cell::Cell::new(0);
    let found = survey(&splits, &|_, total| {
        assert_eq!(total, 5);
        calls.set(calls.get() + 1);
    });
    assert_eq!(calls.get(), 5);
    assert_eq!(
        found.parts.iter().map(|part| (part.part, part.images)).collect::<Vec<_>>(),
        [("train", 4), ("test", 1)]
    );
    assert_eq!(found.parts[0].counts, [2, 2]);
    assert_eq!(found.parts[0].imbalance(), Some(1.0));
    assert_eq!(found.unreadable.len(), 1);
    assert!(found.unreadable[0].name.ends_with("train/b/broken.png"), "{:?}", found.unreadable);
    let twins: Vec<_> = found
        .twins
        .iter()
        .map(|twins| {
            let name = |(part, path): &(&str, String)| format!("{part} {}", path.rsplit('/').next().unwrap());
            (name(&twins.images[0]), name(&twins.images[1]), twins.same_label)
        })
        .collect();
    let expected = [("train 1.png", "train 3.png", false), ("train 1.png", "test 4.png", false)];
    assert_eq!(twins, expected.map(|(a, b, same)| (a.to_owned(), b.to_owned(), same)));
    let [least, _, most] = found.parts[0].width.expect("sizes");
    assert!(least <= most && least > 0);
}

#[test]
fn a_contact_sheet_has_a_row_a_class() {
    let dir = folder(&["a/1.png", "b/1.png", "c/1.png"]);
    fill(dir.path(), &["a/2.png"]);
    std::fs::write(dir.path().join("b/2.png"), b"no image").expect("written");
    let splits = open(dir.path(), &options()).expect("three classes");
    let sheet = decode_bytes(&contact_sheet(&splits).expect("a PNG")).expect("an image");
    assert_eq!((sheet.width, sheet.height), (8 * 96, 3 * 96));
    let pixel = |x: usize, y: usize| &sheet.pixels[(y * sheet.width + x) * 3..][..3];
    // The second image of b cannot be read, the third of a is not there: white.
    assert_eq!([pixel(96 + 48, 96 + 48), pixel(2 * 96 + 48, 48)], [&[255; 3], &[255; 3]]);
    assert_eq!(pixel(48, 48), pixel(96 + 48, 48), "one image twice");
}
