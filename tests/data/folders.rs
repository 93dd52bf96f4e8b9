use std::path::PathBuf;

use peftk::config::{Format, Task};
use peftk::data::{Dataset, OpenOptions, open, open_for_eval};
use peftk::task::labels::Labels;

use crate::{fill, folder, message, options};

/// `class/file` of every item.
fn names(set: &Dataset) -> Vec<String> {
    let name =
        |path: String| path.rsplit('/').take(2).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("/");
    set.items.iter().map(|i| name(i.source.name())).collect()
}

#[test]
fn classes_and_files_come_in_byte_order() {
    let dir = folder(&["b/2.png", "b/10.png", "a/x.JPG", "B/1.webp", "ä/1.tif", "a/Y.bmp"]);
    let train = open(dir.path(), &options()).expect("four classes").train;
    assert_eq!(train.classes, ["B", "a", "b", "ä"]);
    assert_eq!(names(&train), ["B/1.webp", "a/Y.bmp", "a/x.JPG", "b/10.png", "b/2.png", "ä/1.tif"]);
    assert_eq!(train.class_counts(), [1, 2, 2, 1]);
}

#[test]
fn what_is_ignored_is_counted() {
    let dir = folder(&["a/1.png", "b/1.png", "a/notes.txt", "a/.hidden.png", "a/deeper/2.png", "loose.png", "README"]);
    let splits = open(dir.path(), &options()).expect("two classes");
    assert_eq!(splits.train.items.len(), 2);
    assert_eq!(
        splits.description.replace(&dir.path().display().to_string(), "DIR"),
        "DIR: class folders; 2 classes, multi-class; train 2 images, val none, test none; \
         ignored: 2 files that are not images, 1 image without a label, 1 folder, 1 hidden entry"
    );
}

#[test]
fn split_folders_are_found() {
    for val in ["val", "valid", "validation"] {
        let val_image = format!("{val}/b/1.png");
        let dir =
            folder(&["train/a/1.png", "train/b/1.png", "train/b/2.png", &val_image, "test/a/1.png", "other/x.png"]);
        let splits = open(dir.path(), &OpenOptions { val_fraction: 0.5, ..options() }).expect("train, val, test");
        assert_eq!(splits.train.items.len(), 3, "the split there is goes before val_fraction");
        let (val, test) = (splits.val.expect("val"), splits.test.expect("test"));
        // Numbered as training does, though that split lacks class a.
        assert_eq!((val.class_counts(), test.class_counts()), (vec![0, 1], vec![1, 0]));
        assert!(splits.description.ends_with("ignored: 1 folder"), "{}", splits.description);
    }
}

#[test]
fn a_class_may_be_called_train() {
    let dir = folder(&["train/1.png", "bus/1.png", "car/1.png"]);
    assert_eq!(open(dir.path(), &options()).expect("vehicles").train.classes, ["bus", "car", "train"]);
    let dir = folder(&["train/1.png", "test/1.png"]);
    assert_eq!(
        message(open(dir.path(), &options()), dir.path()),
        "DIR/test: no class folders; expected DIR/test/<class>/<image>, or labels.csv"
    );
}

#[test]
fn bad_folders_are_named_with_the_mend() {
    let check = |files: &[&str], expected: &str| {
        let dir = folder(files);
        assert_eq!(message(open(dir.path(), &options()), dir.path()), expected, "for {files:?}");
    };
    check(&[], "DIR: no class folders (and 0 images outside of any); expected DIR/<class>/<image>, or labels.csv");
    check(
        &["1.png"],
        "DIR: no class folders (and 1 image outside of any); expected DIR/<class>/<image>, or labels.csv",
    );
    check(&["a/", "b/x.txt"], "DIR: class folders: no images in any of 2 classes");
    check(&["a/1.png", "b/"], "DIR: class folders: class \"b\" has no training images; add some or remove it");
    check(&["a/1.png"], "DIR: class folders: one class only, \"a\"; a classifier needs at least two");
    check(&["test/a/1.png", "val/a/1.png"], "DIR: no train folder beside val, test; add DIR/train");
    check(
        &["train/a/1.png", "train/b/1.png", "val/c/1.png"],
        "--data DIR/val: class \"c\" is not one of the 2 trained classes; remove or rename it",
    );
    check(&["train/a/1.png", "train/b/1.png", "val/a/"], "--data DIR/val: no images in its 1 class folders");
    check(
        &["train/a/1.png", "val/a/1.png", "valid/a/1.png"],
        "DIR: two validation folders, one called \"val\"; keep one",
    );
}

#[test]
fn a_path_that_is_no_folder_is_told() {
    let dir = folder(&["file.txt"]);
    let check = |name: &str, expected: &str| {
        let path = dir.path().join(name);
        assert_eq!(message(open(&path, &options()), dir.path()), expected);
        assert_eq!(
            message(open_for_eval(&path, Format::Auto, &Labels::new(Task::Multiclass, &[])), dir.path()),
            expected
        );
    };
    let mend = "give a folder of class folders, or one with labels.csv";
    check("missing", &format!("--data DIR/missing: there is no such folder; {mend}"));
    check("file.txt", &format!("--data DIR/file.txt: is a file, not a folder; {mend}"));
}

#[test]
fn multilabel_needs_a_table() {
    let dir = folder(&["a/1.png", "b/1.png"]);
    let asked = OpenOptions { task: Some(Task::Multilabel), ..options() };
    assert_eq!(
        message(open(dir.path(), &asked), dir.path()),
        "DIR: --task multilabel needs labels.csv there (filename, then one 0/1 column a label), found none; \
         add it or leave --task out"
    );
}

/// Classes a, b, c of 10, 5 and 4 images.
fn three_classes() -> tempfile::TempDir {
    let files = |class: &'static str, count| (0..count).map(move |i| format!("{class}/{i}.png"));
    let all: Vec<_> = files("a", 10).chain(files("b", 5)).chain(files("c", 4)).collect();
    folder(&all.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn the_held_back_part_is_stratified_and_follows_the_seed() {
    let dir = three_classes();
    let held = |seed| {
        let splits = open(dir.path(), &OpenOptions { val_fraction: 0.3, seed, ..options() }).expect("enough images");
        let val = splits.val.expect("held back");
        assert_eq!((splits.train.class_counts(), val.class_counts()), (vec![7, 3, 3], vec![3, 2, 1]));
        let (train, val) = (names(&splits.train), names(&val));
        assert!(val.is_sorted() && train.is_sorted() && val.iter().all(|n| !train.contains(n)));
        val
    };
    assert_eq!(held(1), held(1));
    assert_ne!(held(1), held(2));
}

#[test]
fn fractions_and_shots_out_of_range_are_errors() {
    let dir = three_classes();
    let check = |options: OpenOptions, expected: &str| {
        assert_eq!(message(open(dir.path(), &options), dir.path()), expected);
    };
    for (fraction, shown) in [(1.0, "1"), (-0.1, "-0.1"), (f64::NAN, "NaN")] {
        let expected = format!("--val-fraction must be at least 0 and less than 1, found {shown}");
        check(OpenOptions { val_fraction: fraction, ..options() }, &expected);
    }
    check(
        OpenOptions { val_fraction: 0.9, ..options() },
        "--val-fraction 0.9 takes all 5 images of class \"b\", leaving none to train on; lower it or add images",
    );
    check(
        OpenOptions { val_fraction: 0.01, ..options() },
        "--val-fraction 0.01 of 19 images rounds to none a class; raise it, give --val-data, or use 0 for no validation",
    );
    check(OpenOptions { shots: Some(0), ..options() }, "--shots must be at least 1, found 0");
}

#[test]
fn shots_limit_each_class_by_seed() {
    let dir = three_classes();
    let kept = |seed| {
        let train = open(dir.path(), &OpenOptions { shots: Some(4), seed, ..options() }).expect("few shots").train;
        assert_eq!(train.class_counts(), [4, 4, 4]);
        names(&train)
    };
    assert_eq!(kept(3), kept(3));
    assert_ne!(kept(3), kept(4));
}

#[test]
fn validation_data_of_its_own_goes_first() {
    let dir = folder(&["train/a/1.png", "train/b/1.png", "val/a/1.png"]);
    let own = folder(&["b/1.png", "b/2.png"]);
    let with = |path: PathBuf| OpenOptions { val_data: Some(path), ..options() };
    let splits = open(dir.path(), &with(own.path().to_owned())).expect("own validation data");
    assert_eq!(splits.val.expect("given").class_counts(), [0, 2]);
    fill(own.path(), &["c/1.png"]);
    assert_eq!(
        message(open(dir.path(), &with(own.path().to_owned())), own.path()),
        "--val-data DIR: class \"c\" is not one of the 2 trained classes; remove or rename it"
    );
}

#[test]
fn evaluation_takes_test_then_val_then_the_folder() {
    let classes = ["a".to_owned(), "b".to_owned()];
    let count = |files: &[&str]| {
        open_for_eval(folder(files).path(), Format::Auto, &Labels::new(Task::Multiclass, &classes))
            .expect("images")
            .items
            .len()
    };
    assert_eq!(count(&["train/a/1.png", "val/a/1.png", "test/a/1.png", "test/b/1.png"]), 2);
    assert_eq!(count(&["train/a/1.png", "train/a/2.png", "val/a/1.png"]), 1);
    assert_eq!(count(&["b/1.png", "b/2.png", "b/3.png"]), 3);
    let dir = folder(&["train/a/1.png"]);
    assert_eq!(
        message(open_for_eval(dir.path(), Format::Auto, &Labels::new(Task::Multiclass, &classes)), dir.path()),
        "--data DIR: only a train folder there; give DIR/train to use its images"
    );
    let dir = folder(&["c/1.png"]);
    assert_eq!(
        message(open_for_eval(dir.path(), Format::Auto, &Labels::new(Task::Multiclass, &classes)), dir.path()),
        "--data DIR: class \"c\" is not one of the 2 trained classes; remove or rename it"
    );
}
