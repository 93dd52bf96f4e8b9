//! Data folders: labels.csv, and the files of labels of every format. The first byte says which file the others are and how the folder is opened;
//! the images are there, but empty, for no format opens them. Where a format has several files, zeros or a length part them.

#![no_main]

mod common;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use peftk::config::{Format, Task};
use peftk::data::{OpenOptions, Source, decode, open};

/// The file that makes the Stanford Cars complete where the other one is given.
const CARS_META: &[u8] = include_bytes!("../../../tests/fixtures/formats/cars_meta.mat");
const CARS_TRAIN: &[u8] = include_bytes!("../../../tests/fixtures/formats/cars_train_annos.mat");

/// Each format's images.
const IMAGES: [&str; 26] = [
    "csv/a.png",
    "csv/b.png",
    "csv/c/d.jpg",
    "cars_meta/cars_train/00001.jpg",
    "cars_meta/cars_train/00002.jpg",
    "cars_meta/cars_train/00003.jpg",
    "cars_meta/cars_train/00004.jpg",
    "cars_annos/cars_train/00001.jpg",
    "cars_annos/cars_train/00002.jpg",
    "cars_annos/cars_train/00003.jpg",
    "cars_annos/cars_train/00004.jpg",
    "coco/train/a.jpg",
    "coco/train/b.jpg",
    "datumaro/images/train/a.jpg",
    "datumaro/images/train/b.jpg",
    "ham10000/HAM10000_images_part_1/a.jpg",
    "ham10000/HAM10000_images_part_1/b.jpg",
    "ham10000/HAM10000_images_part_2/c.jpg",
    "cub/images/a.jpg",
    "cub/images/b.jpg",
    "kitti/training/image_2/a.png",
    "kitti/training/image_2/b.png",
    "aircraft/images/a.jpg",
    "aircraft/images/b.jpg",
    "food/images/x/a.jpg",
    "food/images/y/b.jpg",
];

static SET_UP: LazyLock<()> = LazyLock::new(|| {
    for image in IMAGES {
        common::write(image, b"");
    }
    common::write("cars_meta/cars_train_annos.mat", CARS_TRAIN);
    common::write("cars_annos/cars_meta.mat", CARS_META);
});

/// Writes the files from what is between zeros.
fn write_texts(folder: &str, names: &[&str], bytes: &[u8]) {
    let mut texts = bytes.splitn(names.len(), |&byte| byte == 0);
    for name in names {
        common::write(&format!("{folder}/{name}"), texts.next().unwrap_or_default());
    }
}

/// Writes two files; the first's length is in two bytes.
fn write_pair(folder: &str, names: [&str; 2], bytes: &[u8]) {
    let (length, bytes) = bytes.split_at(bytes.len().min(2));
    let length = length.iter().fold(0, |all, &byte| all << 8 | usize::from(byte));
    let (first, second) = bytes.split_at(length.min(bytes.len()));
    common::write(&format!("{folder}/{}", names[0]), first);
    common::write(&format!("{folder}/{}", names[1]), second);
}

fn run(bytes: &[u8]) {
    let Some((&first, bytes)) = bytes.split_first() else { return };
    LazyLock::force(&SET_UP);
    let (folder, format) = match first % 12 {
        0 => ("csv", Format::Auto),
        1 => ("idx", Format::Idx),
        2 => ("idx_gz", Format::Idx),
        3 => ("cars_meta", Format::StanfordCars),
        4 => ("cars_annos", Format::StanfordCars),
        5 => ("coco", Format::Coco),
        6 => ("datumaro", Format::Datumaro),
        7 => ("ham10000", Format::Ham10000),
        8 => ("cub", Format::Cub200),
        9 => ("kitti", Format::Kitti),
        10 => ("aircraft", Format::Aircraft),
        _ => ("food", Format::Food101),
    };
    match folder {
        "csv" => write_texts(folder, &["labels.csv"], bytes),
        "idx" => write_pair(folder, ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"], bytes),
        "idx_gz" => write_pair(folder, ["train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"], bytes),
        "cars_meta" => drop(common::write("cars_meta/cars_meta.mat", bytes)),
        "cars_annos" => drop(common::write("cars_annos/cars_train_annos.mat", bytes)),
        "coco" => drop(common::write("coco/train/_annotations.coco.json", bytes)),
        "datumaro" => drop(common::write("datumaro/annotations/train.json", bytes)),
        "ham10000" => drop(common::write("ham10000/HAM10000_metadata.csv", bytes)),
        "cub" => {
            let names = ["classes.txt", "images.txt", "image_class_labels.txt", "train_test_split.txt"];
            write_texts(folder, &names, bytes);
        }
        "kitti" => write_texts(folder, &["training/label_2/a.txt", "training/label_2/b.txt"], bytes),
        "aircraft" => {
            let lists = ["train", "val", "test"].map(|part| format!("images_variant_{part}.txt"));
            write_texts(folder, &["variants.txt", &lists[0], &lists[1], &lists[2]], bytes);
        }
        _ => write_texts(folder, &["meta/classes.txt", "meta/train.txt", "meta/test.txt"], bytes),
    }
    let way = first / 12;
    let options = OpenOptions {
        format,
        task: [None, Some(Task::Multiclass), Some(Task::Multilabel)][usize::from(way % 3)],
        val_data: None,
        val_fraction: if way / 3 % 2 == 0 { 0.0 } else { 0.3 },
        test_fraction: 0.0,
        seed: 0,
        shots: (way / 6 % 2 == 1).then_some(1),
    };
    match open(&common::FOLDER.join(folder), &options) {
        Ok(splits) => {
            common::check_reason(&splits.description);
            let parts = [Some(splits.train), splits.val, splits.test];
            for dataset in parts.iter().flatten() {
                for item in &dataset.items {
                    for class in item.label.classes() {
                        assert!(class < dataset.classes.len(), "{item:?}");
                    }
                }
                // Grey images are in memory already, so they can only be whole.
                for item in dataset.items.iter().filter(|item| matches!(item.source, Source::Grey { .. })).take(2) {
                    let image = decode(&item.source).expect("an image of an IDX file");
                    assert_eq!(image.pixels.len(), image.width * image.height * 3);
                }
            }
        }
        Err(error) => common::check_reason(&error.to_string()),
    }
}

fuzz_target!(init: common::init(), |bytes: &[u8]| common::run(|| run(bytes)));
