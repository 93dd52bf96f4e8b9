//! Data sets in their authors' layouts: small copies with the same files, headers and odd cases.

use std::path::Path;

use peftk::config::{Format, Task};
use peftk::data::{Dataset, Label, OpenOptions, Splits, open, open_for_eval};
use peftk::task::labels::Labels;
use tempfile::TempDir;

use crate::{fill, folder, message, options};

/// A folder with these images, and these texts in files.
fn laid_out(images: &[&str], texts: &[(&str, &str)]) -> TempDir {
    let dir = folder(images);
    write(dir.path(), texts);
    dir
}

fn write(dir: &Path, texts: &[(&str, &str)]) {
    for (name, text) in texts {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).expect("folder");
        std::fs::write(path, text).expect("file");
    }
}

fn opened(dir: &TempDir) -> Splits {
    open(dir.path(), &options()).unwrap_or_else(|e| panic!("{e}"))
}

/// `peftk train --data DIR` for an epoch, then eval, which takes the test part.
#[track_caller]
fn trains(dir: &TempDir) {
    let out = tempfile::tempdir().expect("temporary folder");
    let peftk = |args: &[&str]| {
        let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin!("peftk"));
        let output =
            command.current_dir(out.path()).env("CUDA_VISIBLE_DEVICES", "").args(args).output().expect("peftk starts");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output
    };
    let data = dir.path().to_str().expect("UTF-8");
    // The copies are too small for any image to be held back.
    peftk(&["train", "--data", data, "--epochs", "1", "--val-fraction", "0"]);
    let report = peftk(&["eval", "--model", "runs/0001", "--data", data, "--json"]);
    assert!(String::from_utf8_lossy(&report.stdout).contains("\"accuracy\":"), "{report:?}");
}

/// (file's name, class) of every item.
fn pairs(set: &Dataset) -> Vec<(String, String)> {
    let file = |name: String| name.rsplit('/').next().unwrap().to_owned();
    let names = |label: &Label| label.classes().iter().map(|&c| set.classes[c].clone()).collect::<Vec<_>>().join("+");
    set.items.iter().map(|item| (file(item.source.name()), names(&item.label))).collect()
}

fn expect(set: Option<&Dataset>, expected: &[(&str, &str)]) {
    let mut found = pairs(set.expect("this part"));
    found.sort();
    let mut expected: Vec<(String, String)> = expected.iter().map(|(f, c)| (f.to_string(), c.to_string())).collect();
    expected.sort();
    assert_eq!(found, expected);
}

/// With an inner folder, as the archive unpacks, or without.
fn aircraft(root: &str) -> TempDir {
    let ids = ["0034309", "1025794", "1340192", "0056978"];
    let images: Vec<String> = ids.iter().map(|id| format!("{root}images/{id}.jpg")).collect();
    let dir = folder(&images.iter().map(String::as_str).collect::<Vec<_>>());
    let lists = [
        ("variants.txt", "A300B4\nF/A-18\nModel B200\n"),
        ("families.txt", "A300\nF/A-18\nKing Air\n"),
        ("manufacturers.txt", "Airbus\nMcDonnell Douglas\nBeechcraft\n"),
        ("images_variant_train.txt", "0034309 A300B4\n1025794 F/A-18\n"),
        ("images_variant_val.txt", "1340192 Model B200\n"),
        ("images_variant_test.txt", "0056978 F/A-18\n"),
        ("images_family_train.txt", "0034309 A300\n1025794 F/A-18\n1340192 King Air\n"),
        ("images_family_val.txt", ""),
        ("images_family_test.txt", "0056978 F/A-18\n"),
        ("images_manufacturer_train.txt", "0034309 Airbus\n1025794 McDonnell Douglas\n1340192 Beechcraft\n"),
        ("images_manufacturer_val.txt", ""),
        ("images_manufacturer_test.txt", "0056978 McDonnell Douglas\n"),
    ];
    let lists: Vec<(String, &str)> = lists.iter().map(|(name, text)| (format!("{root}{name}"), *text)).collect();
    write(dir.path(), &lists.iter().map(|(name, text)| (name.as_str(), *text)).collect::<Vec<_>>());
    dir
}

#[test]
fn aircraft_has_names_with_slashes_and_spaces() {
    for root in ["data/", ""] {
        let dir = aircraft(root);
        // Model B200 has no training image: that is an error of the set, not of the reader.
        assert!(message(open(dir.path(), &options()), dir.path()).contains("\"Model B200\" has no training images"));
        write(
            dir.path(),
            &[(&format!("{root}images_variant_train.txt"), "0034309 A300B4\n1025794 F/A-18\n1340192 Model B200\n")],
        );
        write(dir.path(), &[(&format!("{root}images_variant_val.txt"), "")]);
        trains(&dir);
        let splits = opened(&dir);
        assert_eq!(splits.train.classes, ["A300B4", "F/A-18", "Model B200"]);
        expect(
            Some(&splits.train),
            &[("0034309.jpg", "A300B4"), ("1025794.jpg", "F/A-18"), ("1340192.jpg", "Model B200")],
        );
        expect(splits.test.as_ref(), &[("0056978.jpg", "F/A-18")]);
        let by = |format| open(dir.path(), &OpenOptions { format, ..options() }).expect("a level");
        expect(by(Format::AircraftFamily).test.as_ref(), &[("0056978.jpg", "F/A-18")]);
        assert_eq!(by(Format::AircraftManufacturer).train.classes, ["Airbus", "McDonnell Douglas", "Beechcraft"]);

        // Evaluation takes the test part, with training's numbers.
        let classes = ["F/A-18", "A300B4", "Model B200"].map(str::to_owned);
        let test =
            open_for_eval(dir.path(), Format::Auto, &Labels::new(Task::Multiclass, &classes)).expect("test part");
        assert_eq!(test.items[0].label, Label::Class(0));
    }
}

#[test]
fn a_wrong_line_is_named() {
    let dir = aircraft("data/");
    let check = |list: &str, expected: &str| {
        write(dir.path(), &[("data/images_variant_test.txt", list)]);
        assert_eq!(message(open(dir.path(), &options()), dir.path()), expected);
    };
    let at = "DIR/data/images_variant_test.txt, line 1:";
    check("0056978 F-18\n", &format!("{at} class \"F-18\" is not in variants.txt"));
    check("0056978\n", &format!("{at} expected two columns, found \"0056978\"; correct the line"));
    check(
        "7777777 F/A-18\n",
        &format!("{at} no file DIR/data/images/7777777.jpg; unpack the images there, or remove the entry"),
    );
    check(
        "1025794 F/A-18\n",
        &format!(
            "{at} DIR/data/images/1025794.jpg is listed at DIR/data/images_variant_train.txt, line 2 already; keep one"
        ),
    );
}

/// All that is wrong with a list is said at once, and of two formats in one folder neither is guessed.
#[test]
fn wrong_entries_are_listed_and_mixed_formats_refused() {
    let dir = aircraft("data/");
    let list = "0034309 A300B4\n1 F/A-18\n2 F/A-18\n1025794 MiG\n0034309 F/A-18\n3 F/A-18\n4 F/A-18\n";
    write(dir.path(), &[("data/images_variant_train.txt", list)]);
    let text = message(open(dir.path(), &options()), dir.path());
    assert!(text.starts_with("6 entries are wrong: DIR/data/images_variant_train.txt, line 2: no file"), "{text}");
    assert!(text.contains("line 4: class \"MiG\" is not in variants.txt"), "{text}");
    assert!(
        text.contains("line 5: DIR/data/images/0034309.jpg is listed at") && text.ends_with("; and 1 more"),
        "{text}"
    );

    write(dir.path(), &[("annotations/train.json", "{}"), ("images/readme.txt", "")]);
    assert_eq!(
        message(open(dir.path(), &options()), dir.path()),
        "DIR: files of aircraft and of datumaro lie there; say which with --format"
    );
}

#[test]
fn food_101() {
    let dir = laid_out(
        &["images/apple_pie/1.jpg", "images/apple_pie/2.jpg", "images/waffles/3.jpg", "images/waffles/4.jpg"],
        &[
            ("meta/classes.txt", "apple_pie\nwaffles\n"),
            ("meta/train.txt", "apple_pie/1\nwaffles/3\n"),
            ("meta/test.txt", "apple_pie/2\nwaffles/4\n"),
        ],
    );
    trains(&dir);
    let splits = opened(&dir);
    expect(Some(&splits.train), &[("1.jpg", "apple_pie"), ("3.jpg", "waffles")]);
    expect(splits.test.as_ref(), &[("2.jpg", "apple_pie"), ("4.jpg", "waffles")]);
    write(dir.path(), &[("meta/test.txt", "pizza/2\n")]);
    assert_eq!(
        message(open(dir.path(), &options()), dir.path()),
        "DIR/meta/test.txt, line 1: expected CLASS/ID with a class of meta/classes.txt, found \"pizza/2\""
    );
}

#[test]
fn stanford_cars_count_from_1() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/formats");
    let dir = folder(&[]);
    for part in [
        "cars_train/00001",
        "cars_train/00002",
        "cars_train/00003",
        "cars_train/00004",
        "cars_test/00001",
        "cars_test/00002",
    ] {
        fill(dir.path(), &[&format!("{part}.jpg")]);
    }
    std::fs::create_dir(dir.path().join("devkit")).expect("folder");
    for (name, to) in [("cars_meta", "devkit/"), ("cars_train_annos", "devkit/"), ("cars_test_annos_withlabels", "")] {
        let to = dir.path().join(format!("{to}{name}.mat"));
        std::fs::copy(fixtures.join(format!("{name}.mat")), to).expect("copied");
    }
    trains(&dir);
    let splits = opened(&dir);
    let names = ["AM General Hummer SUV 2000", "Ram C/V Cargo Van Minivan 2012", "smart fortwo Convertible 2012"];
    assert_eq!(splits.train.classes, names);
    expect(
        Some(&splits.train),
        &[("00001.jpg", names[2]), ("00002.jpg", names[0]), ("00003.jpg", names[1]), ("00004.jpg", names[0])],
    );
    expect(splits.test.as_ref(), &[("00001.jpg", names[1]), ("00002.jpg", names[2])]);
    // Without the labels that came later there is no test part.
    std::fs::remove_file(dir.path().join("cars_test_annos_withlabels.mat")).expect("removed");
    assert!(opened(&dir).test.is_none());
    std::fs::write(dir.path().join("devkit/cars_meta.mat"), "MATLAB 7.3 MAT-file").expect("written");
    assert_eq!(
        message(open(dir.path(), &options()), dir.path()),
        "DIR/devkit/cars_meta.mat: not a MAT-file: shorter than its header; is it the data set's own file?"
    );
}

#[test]
fn cub_200() {
    let files = ["001.Black_footed_Albatross/a.png", "001.Black_footed_Albatross/b.png", "002.Laysan_Albatross/c.png"];
    let images = files.map(|file| format!("CUB_200_2011/images/{file}"));
    let list: Vec<String> = files.iter().enumerate().map(|(i, file)| format!("{} {file}", i + 1)).collect();
    let dir = laid_out(
        &images.each_ref().map(String::as_str),
        &[
            ("CUB_200_2011/images.txt", &list.join("\n")),
            ("CUB_200_2011/image_class_labels.txt", "1 1\n2 1\n3 2\n"),
            ("CUB_200_2011/train_test_split.txt", "1 1\n2 0\n3 1\n"),
            ("CUB_200_2011/classes.txt", "1 001.Black_footed_Albatross\n2 002.Laysan_Albatross\n"),
        ],
    );
    trains(&dir);
    let splits = opened(&dir);
    expect(Some(&splits.train), &[("a.png", "001.Black_footed_Albatross"), ("c.png", "002.Laysan_Albatross")]);
    expect(splits.test.as_ref(), &[("b.png", "001.Black_footed_Albatross")]);
    write(dir.path(), &[("CUB_200_2011/image_class_labels.txt", "1 1\n2 1\n3 3\n")]);
    assert_eq!(
        message(open(dir.path(), &options()), dir.path()),
        "DIR/CUB_200_2011/image_class_labels.txt, line 3: expected a number from 1 to 2, found \"3\""
    );
}

#[test]
fn ham10000_keeps_a_lesion_s_images_together() {
    // Forty lesions of one to three images and two diagnoses, in both folders.
    let mut table = String::from("lesion_id,image_id,dx,dx_type,age,sex,localization\n");
    let mut images = Vec::new();
    for lesion in 0..40 {
        for image in 0..=lesion % 3 {
            let id = format!("ISIC_{lesion:03}{image}");
            let dx = if lesion % 2 == 0 { "nv" } else { "mel" };
            table.push_str(&format!("HAM_{lesion:07},{id},{dx},histo,80.0,male,scalp\n"));
            images.push((format!("HAM10000_images_part_{}/{id}", 1 + lesion % 2), lesion));
        }
    }
    let dir = folder(&[]);
    for (path, _) in &images {
        fill(dir.path(), &[&format!("{path}.jpg")]);
    }
    write(dir.path(), &[("HAM10000_metadata", &table)]);
    trains(&dir);
    let splits = opened(&dir);
    assert_eq!(splits.train.classes, ["mel", "nv"]);
    let (val, test) = (splits.val.as_ref().expect("val"), splits.test.as_ref().expect("test"));
    let lesions = |set: &Dataset| -> std::collections::BTreeSet<String> {
        pairs(set).into_iter().map(|(file, _)| file[..8].to_owned()).collect()
    };
    let parts = [&splits.train, val, test].map(lesions);
    for (a, b) in [(0, 1), (0, 2), (1, 2)] {
        assert!(parts[a].is_disjoint(&parts[b]), "a lesion is in two parts");
    }
    assert_eq!(parts.iter().map(|part| part.len()).sum::<usize>(), 40);
    let sizes = [&splits.train, val, test].map(|set| set.items.len());
    let total = images.len() as f64;
    for (size, share) in sizes.iter().zip([0.6, 0.2, 0.2]) {
        assert!((*size as f64 - share * total).abs() <= 4.0, "{sizes:?} of {total}");
    }
    // The split is everybody's: the seed of a run does not move it.
    let other = open(dir.path(), &OpenOptions { seed: 7, ..options() }).expect("the same");
    assert_eq!(other.train, splits.train);

    write(dir.path(), &[("HAM10000_metadata", "lesion_id,image_id,dx\nHAM_0,,nv\n")]);
    assert_eq!(
        message(open(dir.path(), &options()), dir.path()),
        "DIR/HAM10000_metadata, line 2: column \"image_id\" is empty; fill it"
    );
}

#[test]
fn kitti_by_the_nearest_vehicle() {
    let object = |kind: &str, z: f64| format!("{kind} 0.00 0 -1.5 599 156 629 189 2.8 0.8 1.2 0.4 1.4 {z} -1.6\n");
    let labels = [
        ("000000", object("Car", 7.99) + &object("Pedestrian", 2.0)),
        ("000001", object("Van", 20.0) + &object("Car", 45.0)),
        ("000002", object("Truck", 20.01) + "DontCare -1 -1 -10 503 169 590 190 -1 -1 -1 -1000 -1000 -1000 -10\n"),
        ("000003", "DontCare -1 -1 -10 503 169 590 190 -1 -1 -1 -1000 -1000 -1000 -10\n".to_owned()),
    ];
    // Ten of each, or a class has nothing to train on.
    let mut images = Vec::new();
    let mut texts = Vec::new();
    for copy in 0..10 {
        for (name, text) in &labels {
            let name = format!("{copy}{name}");
            images.push(format!("training/image_2/{name}.png"));
            texts.push((format!("training/label_2/{name}.txt"), text.clone()));
        }
    }
    let dir = folder(&images.iter().map(String::as_str).collect::<Vec<_>>());
    write(dir.path(), &texts.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect::<Vec<_>>());
    trains(&dir);
    let splits = opened(&dir);
    assert_eq!(splits.train.classes, ["up to 8 m", "8 to 20 m", "over 20 m", "no vehicle"]);
    for (set, each) in [(Some(&splits.train), 6), (splits.val.as_ref(), 2), (splits.test.as_ref(), 2)] {
        let set = set.expect("part");
        assert_eq!(set.class_counts(), [each; 4]);
        for (file, class) in pairs(set) {
            let expected = file.trim_end_matches(".png").chars().last().unwrap().to_digit(10).unwrap() as usize;
            assert_eq!(set.classes[expected], class, "{file}");
        }
    }
    write(dir.path(), &[("training/label_2/0000000.txt", "Car 0 0 1 2 3\n")]);
    assert_eq!(
        message(open(dir.path(), &options()), dir.path()),
        "DIR/training/label_2/0000000.txt, line 1: expected 15 columns with z in the 14th; correct the line"
    );
}

#[test]
fn resisc45_is_found_by_its_classes() {
    let mut classes: Vec<String> = (0..41).map(|i| format!("class_{i:02}")).collect();
    classes.extend(["chaparral", "thermal_power_station", "sparse_residential", "wetland"].map(str::to_owned));
    let images: Vec<String> =
        classes.iter().flat_map(|c| (1..=5).map(move |i| format!("{c}/{c}_{i:03}.png"))).collect();
    let dir = folder(&images.iter().map(String::as_str).collect::<Vec<_>>());
    trains(&dir);
    let splits = opened(&dir);
    assert!(splits.description.contains("RESISC45"), "{}", splits.description);
    let counts =
        [&splits.train, splits.val.as_ref().unwrap(), splits.test.as_ref().unwrap()].map(|set| set.class_counts());
    assert_eq!(counts, [vec![3; 45], vec![1; 45], vec![1; 45]]);
    // One class less, and it is a folder of images like any other.
    std::fs::remove_dir_all(dir.path().join("class_00")).expect("removed");
    assert!(opened(&dir).description.contains("class folders"));
    let asked = OpenOptions { format: Format::Resisc45, ..options() };
    assert_eq!(open(dir.path(), &asked).expect("as asked").train.classes.len(), 44);
}

const COCO: &str = r#"{"images":[{"id":7,"file_name":"a.png","width":9,"height":9},{"id":9,"file_name":"b.png"},{"id":11,"file_name":"c.png"}],
"annotations":[{"id":1,"image_id":7,"category_id":18},{"id":2,"image_id":7,"category_id":1},{"id":3,"image_id":7,"category_id":1},
{"id":4,"image_id":9,"category_id":18}],"categories":[{"id":18,"name":"dog"},{"id":1,"name":"person"}]}"#;

#[test]
fn coco_labels_are_the_categories_in_an_image() {
    let expected = [("a.png", "person+dog"), ("b.png", "dog"), ("c.png", "")];
    let dir = laid_out(
        &["train2017/a.png", "train2017/b.png", "train2017/c.png"],
        &[("annotations/instances_train2017.json", COCO)],
    );
    trains(&dir);
    let splits = opened(&dir);
    assert_eq!(
        (splits.train.task, &splits.train.classes[..]),
        (Task::Multilabel, &["person".to_owned(), "dog".into()][..])
    );
    expect(Some(&splits.train), &expected);
    let dir = laid_out(
        &["train/a.png", "train/b.png", "train/c.png", "valid/a.png", "valid/b.png", "valid/c.png"],
        &[("train/_annotations.coco.json", COCO), ("valid/_annotations.coco.json", COCO)],
    );
    expect(opened(&dir).val.as_ref(), &expected);
    // A super-category, as exports have it, is no label; one that only another part has is a mistake.
    let with_super = COCO.replace(r#""categories":["#, r#""categories":[{"id":0,"name":"animals"},"#);
    write(dir.path(), &[("train/_annotations.coco.json", &with_super), ("valid/_annotations.coco.json", &with_super)]);
    let splits = opened(&dir);
    assert_eq!(splits.train.classes, ["person", "dog"]);
    assert!(splits.description.contains("COCO, without a category that no image has"), "{}", splits.description);
    expect(splits.val.as_ref(), &expected);
    let other = with_super.replace(r#""image_id":9,"category_id":18"#, r#""image_id":9,"category_id":0"#);
    write(dir.path(), &[("valid/_annotations.coco.json", &other)]);
    assert!(message(open(dir.path(), &options()), dir.path()).contains("label \"animals\" has no training images"));
    write(dir.path(), &[("train/_annotations.coco.json", COCO), ("valid/_annotations.coco.json", COCO)]);
    // Validation data of its own may be laid out so too.
    let own = OpenOptions { val_data: Some(dir.path().to_owned()), ..options() };
    expect(open(dir.path(), &own).expect("own validation data").val.as_ref(), &expected);
    let wrong = COCO.replace("\"category_id\":18", "\"category_id\":3");
    write(dir.path(), &[("valid/_annotations.coco.json", &wrong)]);
    assert_eq!(
        message(open(dir.path(), &options()), dir.path()),
        "DIR/valid/_annotations.coco.json: an annotation's category 3 is not in the file"
    );
    let asked = OpenOptions { task: Some(Task::Multiclass), ..options() };
    write(dir.path(), &[("valid/_annotations.coco.json", COCO)]);
    assert_eq!(
        message(open(dir.path(), &asked), dir.path()),
        "--task multiclass: DIR: COCO is multilabel; leave the flag out"
    );
}

#[test]
fn datumaro_is_multiclass_where_every_item_has_one_label() {
    let file = |items: &str| {
        format!(
            r#"{{"info":{{}},"categories":{{"label":{{"labels":[{{"name":"cat","parent":"","attributes":[]}},{{"name":"dog","parent":""}}],
"attributes":[]}}}},"items":[{items}]}}"#
        )
    };
    let item = |id: &str, path: &str, labels: &[usize]| {
        let labels: Vec<String> = labels
            .iter()
            .map(|l| format!(r#"{{"id":0,"type":"label","attributes":{{}},"group":0,"label_id":{l}}}"#))
            .collect();
        format!(r#"{{"id":"{id}","annotations":[{}],"image":{{"path":"{path}","size":[8,8]}}}}"#, labels.join(","))
    };
    let train = file(&[item("a", "a.png", &[0]), item("b", "", &[1])].join(","));
    let test = file(&item("c", "c.png", &[1]));
    let dir = laid_out(
        &["images/train/a.png", "images/train/b.png", "images/test/c.png"],
        &[("annotations/train.json", &train), ("annotations/test.json", &test)],
    );
    trains(&dir);
    let splits = opened(&dir);
    assert_eq!(splits.train.task, Task::Multiclass);
    expect(Some(&splits.train), &[("a.png", "cat"), ("b.png", "dog")]);
    expect(splits.test.as_ref(), &[("c.png", "dog")]);
    write(dir.path(), &[("annotations/test.json", &file(&item("c", "c.png", &[0, 1])))]);
    let splits = opened(&dir);
    assert_eq!(splits.train.task, Task::Multilabel);
    expect(splits.test.as_ref(), &[("c.png", "cat+dog")]);
    write(dir.path(), &[("annotations/test.json", &file(&item("c", "c.png", &[2])))]);
    assert_eq!(
        message(open(dir.path(), &options()), dir.path()),
        "DIR/annotations/test.json, item \"c\": label_id 2 of 2 labels"
    );
}

#[test]
fn a_table_may_name_classes() {
    let dir =
        laid_out(&["a.png", "b.png", "c.png"], &[("labels.csv", "path,label\nb.png,dog\na.png,cat\nc.png,dog\n")]);
    let splits = opened(&dir);
    assert_eq!(splits.train.task, Task::Multiclass);
    expect(Some(&splits.train), &[("a.png", "cat"), ("b.png", "dog"), ("c.png", "dog")]);
    write(dir.path(), &[("labels.csv", "path,label\nb.png,dog\na.png,\n")]);
    assert_eq!(
        message(open(dir.path(), &options()), dir.path()),
        "DIR/labels.csv, line 3: no class in the second column; name it or remove the row"
    );
    let classes = ["cat", "dog"].map(str::to_owned);
    assert_eq!(
        message(
            open_for_eval(
                folder(&["cat/1.png", "dog/2.png"]).path(),
                Format::Csv,
                &Labels::new(Task::Multiclass, &classes)
            ),
            dir.path()
        )
        .split(" in ")
        .next(),
        Some("--format csv: there is no labels.csv")
    );
    // Numbers are classes too, whichever of them a part holds.
    let parts = [
        ("train/labels.csv", "path,label\na.png,0\nb.png,1\nc.png,2\n"),
        ("val/labels.csv", "path,label\na.png,1\nb.png,0\n"),
    ];
    let numbers = laid_out(&["train/a.png", "train/b.png", "train/c.png", "val/a.png", "val/b.png"], &parts);
    let splits = opened(&numbers);
    assert_eq!(splits.train.classes, ["0", "1", "2"]);
    expect(splits.val.as_ref(), &[("a.png", "1"), ("b.png", "0")]);
    write(
        numbers.path(),
        &[
            ("train/labels.csv", "filename,class\na.png,0\nb.png,1\nc.png,2\n"),
            ("val/labels.csv", "filename,class\na.png,1\n"),
        ],
    );
    expect(opened(&numbers).val.as_ref(), &[("a.png", "1")]);
    // Behind `filename` a column of 0 and 1 alone is one label.
    write(dir.path(), &[("labels.csv", "filename,label\nb.png,0\na.png,1\nc.png,1\n")]);
    assert_eq!(opened(&dir).train.task, Task::Multilabel);
}

/// An IDX file of bytes.
fn idx(sizes: &[u32], data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, sizes.len() as u8];
    sizes.iter().for_each(|size| bytes.extend(size.to_be_bytes()));
    bytes.extend(data);
    bytes
}

#[test]
fn idx_files_plain_and_gzipped() {
    use std::io::Write;
    let dir = tempfile::tempdir().expect("folder");
    let write = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).expect("file");
    let images: Vec<u8> = (0..4 * 6).collect();
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gz.write_all(&idx(&[4, 3, 2], &images)).expect("packed");
    write("train-images-idx3-ubyte.gz", &gz.finish().expect("packed"));
    write("train-labels-idx1-ubyte", &idx(&[4], &[1, 0, 2, 1]));
    write("t10k-images-idx3-ubyte", &idx(&[1, 3, 2], &images[6..12]));
    write("t10k-labels-idx1-ubyte", &idx(&[1], &[2]));
    let splits = open(dir.path(), &options()).expect("IDX");
    assert_eq!(splits.train.classes, ["0", "1", "2"]);
    assert_eq!(
        (splits.train.class_counts(), splits.test.as_ref().unwrap().class_counts()),
        (vec![1, 2, 1], vec![0, 0, 1])
    );
    // By class: the second image is the only one of class 0.
    let first = peftk::data::decode(&splits.train.items[0].source).expect("an image");
    assert_eq!((first.width, first.height), (2, 3));
    assert_eq!(first.pixels, (6..12).flat_map(|level| [level; 3]).collect::<Vec<u8>>());
    assert!(splits.train.items[0].source.name().ends_with("train-images-idx3-ubyte.gz[1]"));

    write("classes.txt", b"bag\nboot\ncoat\n");
    assert_eq!(open(dir.path(), &options()).expect("named").train.classes, ["bag", "boot", "coat"]);
    write("classes.txt", b"bag\nboot\n");
    assert_eq!(
        message(open(dir.path(), &options()), dir.path()),
        "2 entries are wrong: DIR/train-labels-idx1-ubyte, label 2: label 2, counted from 0, but there are 2 classes; correct one of them; \
         DIR/t10k-labels-idx1-ubyte, label 0: label 2, counted from 0, but there are 2 classes; correct one of them"
    );
    std::fs::remove_file(dir.path().join("classes.txt")).expect("removed");
    for (bytes, expected) in [
        (idx(&[4], &[1, 0, 2]), "fewer bytes than the 4 that its header says"),
        (idx(&[4], &[1, 0, 2, 1, 1]), "more bytes than the 4 that its header says"),
        (idx(&[u32::MAX], &[1]), "fewer bytes than the 4294967295 that its header says"),
        (vec![0, 0, 8], "no IDX header: failed to fill whole buffer"),
        (idx(&[2, 2], &[1; 4]), "not an IDX file of bytes in 1 dimensions"),
    ] {
        write("train-labels-idx1-ubyte", &bytes);
        let text = message(open(dir.path(), &options()), dir.path());
        assert_eq!(text, format!("DIR/train-labels-idx1-ubyte: {expected}"));
    }
    write("train-labels-idx1-ubyte", &idx(&[3], &[1, 0, 2]));
    assert_eq!(
        message(open(dir.path(), &options()), dir.path()),
        "DIR/train-images-idx3-ubyte.gz: 4 images, DIR/train-labels-idx1-ubyte has 3 labels; are they of one set?"
    );
}
