//! Labels of a tree: from folders within folders, labels.toml, Datumaro's JSON and FGVC-Aircraft's lists.

use peftk::config::{Format, Task};
use peftk::data::{Dataset, Label, OpenOptions, Splits, open, open_for_eval};
use tempfile::TempDir;

use crate::{fill, folder, message, options};

fn opened(dir: &TempDir) -> Splits {
    open(dir.path(), &options()).unwrap_or_else(|e| panic!("{e}"))
}

/// What an image shows, from the root on.
fn shown(set: &Dataset, file: &str) -> Vec<String> {
    let item = set.items.iter().find(|item| item.source.name().ends_with(file)).expect(file);
    let mut labels = item.label.classes();
    labels.sort_by_key(|&label| set.tree.as_ref().expect("a tree").depth(label));
    labels.into_iter().map(|label| set.classes[label].clone()).collect()
}

fn heads(set: &Dataset) -> Vec<Vec<&str>> {
    let tree = set.tree.as_ref().expect("a tree");
    tree.heads().map(|head| head.map(|label| set.classes[label].as_str()).collect()).collect()
}

#[test]
fn folders_within_folders() {
    let dir = folder(&[
        "train/animal/cat/1.png",
        "train/animal/dog/2.png",
        "train/animal/dog/poodle/3.png",
        "train/animal/4.png",
        "train/vehicle/car/5.png",
        "train/vehicle/bus/6.png",
        "val/vehicle/bus/7.png",
        "val/animal/8.png",
        "test/animal/dog/poodle/9.png",
    ]);
    let splits = opened(&dir);
    let train = &splits.train;
    assert_eq!((train.task, train.items.len()), (Task::Hierarchical, 6));
    assert_eq!(heads(train), [vec!["animal", "vehicle"], vec!["cat", "dog"], vec!["bus", "car"]]);
    assert_eq!(shown(train, "3.png"), ["animal", "dog", "poodle"]);
    assert_eq!(shown(train, "4.png"), ["animal"]);
    assert_eq!(train.class_counts(), [4, 2, 1, 2, 1, 1, 1]);
    assert_eq!(shown(splits.val.as_ref().unwrap(), "7.png"), ["vehicle", "bus"]);
    assert_eq!(shown(splits.test.as_ref().unwrap(), "9.png"), ["animal", "dog", "poodle"]);
    let expected = "7 classes, hierarchical on 3 levels, 3 heads, 1 label by itself; train 6 images, val 2";
    assert!(splits.description.contains(expected), "{}", splits.description);

    // Asked for, flat folders are one head.
    let flat = folder(&["a/1.png", "b/2.png"]);
    assert_eq!(opened(&flat).train.task, Task::Multiclass);
    let asked = OpenOptions { task: Some(Task::Hierarchical), ..options() };
    assert_eq!(heads(&open(flat.path(), &asked).unwrap().train), [["a", "b"]]);
    // A folder beside the images of a class is passed over, as it was, unless a tree is asked for.
    let both = folder(&["a/1.png", "a/more/2.png", "b/3.png"]);
    assert_eq!((opened(&both).train.task, opened(&both).train.items.len()), (Task::Multiclass, 2));
    assert_eq!(open(both.path(), &asked).unwrap().train.items.len(), 3);
}

/// What lies under an image's label is unknown where it is yes or no; folders may be called like images; a tree beside is not the parent's.
#[test]
fn folders_say_what_they_say() {
    let dir = folder(&["animal/1.png", "animal/dog/2.png", "vehicle.png/car.jpg/3.png", "vehicle.png/bus/4.png"]);
    let train = opened(&dir).train;
    assert_eq!(train.classes, ["animal", "vehicle.png", "bus", "car.jpg", "dog"]);
    let rows: Vec<_> = train.items.iter().map(|item| (item.source.name(), item.label.clone())).collect();
    let row = |file: &str| rows.iter().find(|row| row.0.ends_with(file)).expect(file).1.clone();
    assert_eq!(row("1.png"), Label::Multi(vec![1.0, 0.0, 0.0, 0.0, -1.0]));
    assert_eq!(row("2.png"), Label::Multi(vec![1.0, 0.0, 0.0, 0.0, 1.0]));
    assert_eq!(row("3.png"), Label::Multi(vec![0.0, 1.0, 0.0, 1.0, 0.0]));

    let outer = folder(&["flat/robin/1.png", "flat/wren/2.png"]);
    std::fs::write(outer.path().join("labels.toml"), TREE).unwrap();
    let flat = open(&outer.path().join("flat"), &options()).unwrap().train;
    assert_eq!((flat.task, &flat.classes[..]), (Task::Multiclass, &["robin".to_owned(), "wren".into()][..]));
}

/// A label of the tree that no image can have is an error, as a class without images is.
#[test]
fn a_label_without_a_column_has_no_images() {
    let dir = written(
        "filename,dog,cat,car,bus\na.png,1,0,0,0\nb.png,0,1,0,0\nc.png,0,0,1,0\nd.png,0,0,0,1\n",
        &TREE.replace("[parents]\n", "[parents]\npoodle = \"dog\"\n"),
    );
    let error = message(open(dir.path(), &options()), dir.path());
    assert!(error.contains("\"outdoor\" has no training images"), "{error}");
}

#[test]
fn labels_of_one_name_are_told_apart() {
    let dir = folder(&["in/chair/1.png", "in/lamp/2.png", "out/chair/3.png", "out/tree/4.png"]);
    let splits = opened(&dir);
    assert_eq!(splits.train.classes, ["in", "out", "in/chair", "lamp", "out/chair", "tree"]);
    // What is evaluated is found by its whole way, and by a name where that is enough.
    let labels = splits.train.labels();
    let other = folder(&["out/chair/5.png", "in/lamp/6.png", "in/chair/7.png"]);
    let set = open_for_eval(other.path(), Format::Auto, &labels).unwrap();
    assert_eq!(shown(&set, "5.png"), ["out", "out/chair"]);
    let flat = folder(&["lamp/8.png", "tree/9.png"]);
    let set = open_for_eval(flat.path(), Format::Auto, &labels).unwrap();
    assert_eq!((shown(&set, "8.png"), set.task), (vec!["in".to_owned(), "lamp".into()], Task::Hierarchical));
    let strange = folder(&["lamp/8.png", "moon/9.png"]);
    assert_eq!(
        message(open_for_eval(strange.path(), Format::Auto, &labels), strange.path()),
        "--data DIR: class \"moon\" is not one of the 6 trained classes; remove or rename it"
    );
}

const TREE: &str =
    "single = [\"outdoor\"]\n[parents]\ndog = \"animal\"\ncat = \"animal\"\ncar = \"vehicle\"\nbus = \"vehicle\"\n";

/// Images a to d with these two files.
fn written(csv: &str, tree: &str) -> TempDir {
    let dir = folder(&["a.png", "b.png", "c.png", "d.png"]);
    std::fs::write(dir.path().join("labels.csv"), csv).unwrap();
    std::fs::write(dir.path().join("labels.toml"), tree).unwrap();
    dir
}

#[test]
fn a_table_with_a_tree() {
    // 0/1 columns: ancestors are implied, `outdoor` of b is unknown.
    let dir = written(
        "filename,dog,cat,car,bus,outdoor\na.png,1,0,0,0,1\nb.png,0,1,0,0,\nc.png,0,0,1,0,0\nd.png,0,0,0,1,1\n",
        TREE,
    );
    let splits = opened(&dir);
    let train = &splits.train;
    assert_eq!(heads(train), [vec!["animal", "vehicle"], vec!["cat", "dog"], vec!["bus", "car"]]);
    assert_eq!(shown(train, "a.png"), ["animal", "outdoor", "dog"]);
    let row = |file: &str| match &train.items.iter().find(|i| i.source.name().ends_with(file)).unwrap().label {
        Label::Multi(row) => row.clone(),
        Label::Class(_) => panic!("no row"),
    };
    assert_eq!(row("b.png"), [1.0, 0.0, 1.0, 0.0, 0.0, 0.0, -1.0]);
    assert!(splits.description.contains("labels.csv with labels.toml"), "{}", splits.description);

    // One label a row.
    let dir = written(
        "path,label\na.png,dog\nb.png,cat\nc.png,car\nd.png,bus\n",
        &TREE.replace("single = [\"outdoor\"]\n", ""),
    );
    assert_eq!(shown(&opened(&dir).train, "c.png"), ["vehicle", "car"]);
    // Evaluated by a table alone, with the tree of the model.
    let labels = opened(&dir).train.labels();
    std::fs::remove_file(dir.path().join("labels.toml")).unwrap();
    let set = open_for_eval(dir.path(), Format::Auto, &labels).unwrap();
    assert_eq!(shown(&set, "c.png"), ["vehicle", "car"]);
    let asked = OpenOptions { task: Some(Task::Hierarchical), ..options() };
    let error = message(open(dir.path(), &asked), dir.path());
    assert!(error.contains("needs the tree of its labels in labels.toml"), "{error}");

    // Beside the parts, and beside class folders.
    let dir = folder(&["train/dog/1.png", "train/cat/2.png", "train/car/3.png", "train/bus/4.png", "val/dog/5.png"]);
    std::fs::write(dir.path().join("labels.toml"), TREE.replace("single = [\"outdoor\"]\n", "")).unwrap();
    let splits = opened(&dir);
    assert_eq!(shown(splits.val.as_ref().unwrap(), "5.png"), ["animal", "dog"]);
}

#[test]
fn what_is_wrong_with_a_tree_is_said() {
    const ONE_EACH: &str = "path,label\na.png,dog\nb.png,cat\nc.png,car\nd.png,bus\n";
    let check = |csv: &str, tree: &str, expected: &str| {
        let dir = written(csv, tree);
        let found = message(open(dir.path(), &options()), dir.path());
        assert!(found.contains(expected), "{found}\nfor\n{expected}");
    };
    let plain = TREE.replace("single = [\"outdoor\"]\n", "");
    check(
        &ONE_EACH.replace("car", "ship"),
        &plain,
        "DIR: label \"ship\" is not in DIR/labels.toml; add it there or rename it",
    );
    let circle = format!("{plain}animal = \"dog\"\n");
    check(ONE_EACH, &circle, "DIR/labels.toml: the labels are a circle");
    check(ONE_EACH, &circle, "\"animal\", \"dog\", \"animal\" lies under the next; cut it");
    check(ONE_EACH, "groups = [[\"dog\", \"cat\"], [\"cat\", \"car\", \"bus\"]]\n", "label \"cat\" is in two groups");
    check(
        ONE_EACH,
        "single = [\"dog\"]\ngroups = [[\"dog\", \"cat\", \"car\", \"bus\"]]\n",
        "is in a group and single",
    );
    check(ONE_EACH, "groups = [[\"dog\", 3]]\n", "DIR/labels.toml line 1:");
    check(ONE_EACH, "leaves = []\n", "DIR/labels.toml line 1: unknown field `leaves`");
    check(ONE_EACH, "", "DIR/labels.toml: no labels");
    check(&ONE_EACH.replace("d.png,bus", "d.png,car"), &plain, "label \"bus\" has no training images");
    check(
        "filename,dog,cat,car,bus\na.png,1,1,0,0\nb.png,0,1,0,0\nc.png,0,0,1,0\nd.png,0,0,0,1\n",
        &plain,
        "DIR/a.png: it is labelled \"cat\" and \"dog\", which exclude each other; keep one",
    );
    check(
        "filename,animal,dog,cat,car,bus\na.png,0,1,0,0,0\nb.png,1,0,1,0,0\nc.png,0,0,0,1,0\nd.png,0,0,0,0,1\n",
        &plain,
        "DIR/a.png: it has a label under \"animal\", but 0 for \"animal\" itself; correct one of them",
    );
    check(&format!("{ONE_EACH}a.png,cat\n"), &plain, "\"a.png\" is on line 2 already with another label; keep one");
}

#[cfg(unix)]
#[test]
fn a_loop_of_links_and_names_that_are_no_text() {
    use std::os::unix::ffi::OsStrExt;
    let dir = folder(&["a/b/1.png", "a/c/2.png"]);
    std::os::unix::fs::symlink(dir.path().join("a"), dir.path().join("a/b/again")).unwrap();
    let error = message(open(dir.path(), &options()), dir.path());
    assert!(error.contains("a loop of links? remove it"), "{error}");
    let dir = folder(&["a/b/1.png", "a/c/2.png"]);
    std::fs::create_dir(dir.path().join("a").join(std::ffi::OsStr::from_bytes(b"\xff\xfe"))).unwrap();
    let error = message(open(dir.path(), &options()), dir.path());
    assert!(error.contains("must have a name in valid UTF-8; rename it"), "{error}");
}

#[test]
fn datumaro_with_parents() {
    let labels = r#"[{"name":"car","parent":"vehicle"},{"name":"bus","parent":"vehicle"},{"name":"vehicle","parent":""},
        {"name":"animal"},{"name":"wet","parent":""},{"name":"unused","parent":"animal"}]"#;
    let groups = r#"[{"name":"kind","group_type":"exclusive","labels":["vehicle","animal"]},
        {"name":"vehicles","group_type":"exclusive","labels":["car","bus"]},{"name":"wet","labels":["wet"]}]"#;
    let item = |id: &str, labels: &[usize]| {
        let annotations: Vec<String> =
            labels.iter().map(|label| format!(r#"{{"type":"label","label_id":{label}}}"#)).collect();
        format!(r#"{{"id":"{id}","annotations":[{}],"image":{{"path":"{id}.png"}}}}"#, annotations.join(","))
    };
    let file = |labels: &str, items: &[String]| {
        format!(
            r#"{{"categories":{{"label":{{"labels":{labels},"label_groups":{groups}}}}},"items":[{}]}}"#,
            items.join(",")
        )
    };
    let laid_out = |labels: &str| {
        let dir = folder(&["images/train/1.png", "images/train/2.png", "images/train/3.png", "images/val/4.png"]);
        std::fs::create_dir(dir.path().join("annotations")).unwrap();
        let write = |part: &str, items: &[String]| {
            std::fs::write(dir.path().join(format!("annotations/{part}.json")), file(labels, items)).unwrap();
        };
        write("train", &[item("1", &[0, 4]), item("2", &[1]), item("3", &[3])]);
        write("val", &[item("4", &[0])]);
        dir
    };
    let dir = laid_out(labels);
    let splits = opened(&dir);
    assert_eq!(splits.train.task, Task::Hierarchical);
    assert_eq!(heads(&splits.train), [["vehicle", "animal"], ["car", "bus"]]);
    assert_eq!(splits.train.classes, ["vehicle", "animal", "car", "bus", "wet"]);
    assert_eq!(shown(&splits.train, "1.png"), ["vehicle", "wet", "car"]);
    assert_eq!(shown(splits.val.as_ref().unwrap(), "4.png"), ["vehicle", "car"]);
    assert!(splits.description.contains("without a category that no image has"), "{}", splits.description);
    // Labels that may go together do not exclude each other, and a kind of group that nobody knows is refused.
    let path = dir.path().join("annotations/train.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let typed = |kind: &str| {
        let from = r#"{"name":"vehicles","group_type":"exclusive""#;
        std::fs::write(&path, text.replace(from, &from.replace("exclusive", kind))).unwrap();
        open(dir.path(), &options())
    };
    assert_eq!(heads(&typed("inclusive").unwrap().train), [["vehicle", "animal"]]);
    let error = message(typed("loose"), dir.path());
    assert!(error.contains("a label group of type \"loose\""), "{error}");
    std::fs::write(&path, &text).unwrap();
    // Without the tree the same file is multi-label.
    let flat = OpenOptions { task: Some(Task::Multilabel), ..options() };
    assert_eq!(open(dir.path(), &flat).unwrap().train.task, Task::Multilabel);
    // Evaluated with the training's numbers.
    let set = open_for_eval(dir.path(), Format::Auto, &splits.train.labels()).unwrap();
    assert_eq!(shown(&set, "4.png"), ["vehicle", "car"]);

    let dir = laid_out(&labels.replace("\"parent\":\"vehicle\"", "\"parent\":\"ship\""));
    let error = message(open(dir.path(), &options()), dir.path());
    assert!(error.contains("\"ship\", the parent of \"car\", is not one of its labels"), "{error}");
}

#[test]
fn aircraft_on_three_levels() {
    let dir = folder(&["data/images/1.jpg", "data/images/2.jpg", "data/images/3.jpg", "data/images/4.jpg"]);
    let lists = [
        ("variants.txt", "737-300\n737-400\nF/A-18\n"),
        ("families.txt", "Boeing 737\nF/A-18\n"),
        ("manufacturers.txt", "Boeing\nMcDonnell Douglas\n"),
        ("images_variant_train.txt", "1 737-300\n2 737-400\n3 F/A-18\n"),
        ("images_family_train.txt", "1 Boeing 737\n2 Boeing 737\n3 F/A-18\n"),
        ("images_manufacturer_train.txt", "1 Boeing\n2 Boeing\n3 McDonnell Douglas\n"),
        ("images_variant_val.txt", ""),
        ("images_family_val.txt", ""),
        ("images_manufacturer_val.txt", ""),
        ("images_variant_test.txt", "4 737-400\n"),
        ("images_family_test.txt", "4 Boeing 737\n"),
        ("images_manufacturer_test.txt", "4 Boeing\n"),
    ];
    for (name, text) in lists {
        std::fs::write(dir.path().join("data").join(name), text).unwrap();
    }
    // Without being asked it is a set of variants.
    assert_eq!(opened(&dir).train.task, Task::Multiclass);
    let asked = OpenOptions { task: Some(Task::Hierarchical), ..options() };
    let splits = open(dir.path(), &asked).unwrap();
    assert_eq!(heads(&splits.train), [["Boeing", "McDonnell Douglas"], ["737-300", "737-400"]]);
    assert_eq!(
        shown(&splits.train, "3.jpg"),
        ["McDonnell Douglas", "McDonnell Douglas/F/A-18", "McDonnell Douglas/F/A-18/F/A-18"]
    );
    assert_eq!(shown(splits.test.as_ref().unwrap(), "4.jpg"), ["Boeing", "Boeing 737", "737-400"]);
    // The family of a manufacturer with one comes with it.
    let tree = splits.train.tree.as_ref().unwrap();
    let logits: Vec<f32> = splits.train.classes.iter().map(|name| if name == "Boeing" { 1.0 } else { -1.0 }).collect();
    let names: Vec<&str> =
        tree.predict(&logits).into_iter().map(|label| splits.train.classes[label].as_str()).collect();
    assert_eq!(names, ["Boeing", "Boeing 737", "737-300"]);

    std::fs::write(dir.path().join("data/images_family_train.txt"), "1 Boeing 737\n2 F/A-18\n3 F/A-18\n").unwrap();
    let error = message(open(dir.path(), &asked), dir.path());
    assert!(
        error.contains("image 3 has \"F/A-18\" under \"McDonnell Douglas\", others have it under \"Boeing\""),
        "{error}"
    );
    std::fs::write(dir.path().join("data/images_family_train.txt"), "1 Boeing 737\n3 F/A-18\n").unwrap();
    let error = message(open(dir.path(), &asked), dir.path());
    assert!(error.contains("image 2 is not once in each of the lists"), "{error}");
}

/// Held back and few shots: of each deepest label.
#[test]
fn a_tree_is_split_by_its_deepest_labels() {
    let files: Vec<String> = ["a/x", "a/y", "b/z"]
        .iter()
        .flat_map(|folder| (0..10).map(move |number| format!("{folder}/{number}.png")))
        .collect();
    let dir = folder(&[]);
    fill(dir.path(), &files.iter().map(String::as_str).collect::<Vec<_>>());
    let asked = OpenOptions { val_fraction: 0.2, shots: Some(3), ..options() };
    let splits = open(dir.path(), &asked).unwrap();
    // a, b, x, y, and z by itself.
    assert_eq!(splits.train.classes, ["a", "b", "x", "y", "z"]);
    assert_eq!(splits.train.class_counts(), [6, 3, 3, 3, 3]);
    assert_eq!(splits.val.unwrap().class_counts(), [4, 2, 2, 2, 2]);
}
