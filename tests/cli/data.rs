//! `peftk data`.

use std::path::Path;

use crate::{peftk, refusal, words};

fn pictures(dir: &Path, files: &[&str]) {
    let image = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/images/base.png")).unwrap();
    for file in files {
        let path = dir.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, &image).unwrap();
    }
}

#[test]
fn a_folder_is_described() {
    let dir = tempfile::tempdir().unwrap();
    pictures(
        dir.path(),
        &["set/train/cats/1.png", "set/train/cats/2.png", "set/train/dogs/3.png", "set/val/dogs/4.png"],
    );
    std::fs::write(dir.path().join("set/train/dogs/5.png"), b"no image").unwrap();
    let output = peftk(dir.path(), &words("data set --sheet sheet.png"));
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    for expected in [
        "set: train, val; 2 classes, multi-class; train 4 images, val 1 image, test none",
        "largest class 1.0 x the smallest",
        "cats        2  █",
        "unreadable: 1",
        "  set/train/dogs/5.png: is not a JPEG",
        "the same image twice: 3",
        "train set/train/cats/1.png = train set/train/cats/2.png\n",
        "train set/train/cats/1.png = train set/train/dogs/3.png, with different labels",
        "train set/train/cats/1.png = val set/val/dogs/4.png",
    ] {
        assert!(text.contains(expected), "{expected} in\n{text}");
    }
    let sheet = image::open(dir.path().join("sheet.png")).unwrap();
    assert_eq!((sheet.width(), sheet.height()), (8 * 96, 2 * 96));

    let json = peftk(dir.path(), &words("data set --json"));
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["parts"][0]["counts"], serde_json::json!([2, 2]));
    assert_eq!(json["classes"], serde_json::json!(["cats", "dogs"]));
    assert_eq!(json["unreadable"].as_array().unwrap().len(), 1);
}

#[test]
fn a_format_that_is_not_there_is_one_line() {
    let dir = tempfile::tempdir().unwrap();
    pictures(dir.path(), &["set/cats/1.png", "set/dogs/2.png"]);
    for (format, expected) in [
        ("aircraft", "variants.txt"),
        ("food101", "classes.txt"),
        ("stanford-cars", "no cars_meta.mat"),
        ("cub200", "classes.txt"),
        ("ham10000", "no HAM10000_metadata"),
        ("kitti", "image_2"),
        ("coco", "no annotations/instances_train*.json"),
        ("datumaro", "no annotations/train.json"),
    ] {
        let text = refusal(dir.path(), &format!("data set --format {format}"));
        assert!(text.contains(expected), "{format}: {text}");
    }
    assert!(refusal(dir.path(), "data set --format mnist").contains("--format"));
    assert!(refusal(dir.path(), "data nowhere").contains("there is no such folder"));
}

#[test]
fn a_tree_is_shown_as_one() {
    let dir = tempfile::tempdir().unwrap();
    pictures(dir.path(), &["zoo/animal/cat/1.png", "zoo/animal/dog/2.png", "zoo/vehicle/car/3.png"]);
    let output = peftk(dir.path(), &words("data zoo --quiet"));
    let text = String::from_utf8(output.stdout).unwrap();
    let shown: Vec<&str> = text.lines().filter_map(|line| line.split_once("  █")).map(|line| line.0).collect();
    let expected = ["animal         2", "  cat          1", "  dog          1", "vehicle        1", "  car          1"];
    let squeezed = |line: &str| line.trim_end().to_owned();
    assert_eq!(shown.iter().map(|l| squeezed(l)).collect::<Vec<_>>(), expected, "{text}");
    assert!(text.contains("hierarchical on 2 levels, 2 heads, 1 label by itself"), "{text}");
}
