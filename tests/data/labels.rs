use peftk::config::{Format, Task};
use peftk::data::{Label, OpenOptions, open, open_for_eval};
use peftk::task::labels::Labels;
use tempfile::TempDir;

use crate::{folder, message, options};

/// A folder with this `labels.csv` and images `a.png`, `b.png` and `c.png`.
fn labelled(csv: &str) -> TempDir {
    let dir = folder(&["a.png", "b.png", "c.png"]);
    std::fs::write(dir.path().join("labels.csv"), csv).expect("file");
    dir
}

#[test]
fn columns_are_labels_and_rows_are_sorted_by_name() {
    let dir = labelled("filename,z,y\r\nc.png,1,1\r\na.png,0,1\r\n");
    let splits = open(dir.path(), &options()).expect("well formed");
    assert_eq!(
        (splits.train.task, &splits.train.classes[..]),
        (Task::Multilabel, &["z".to_owned(), "y".to_owned()][..])
    );
    let rows: Vec<_> = splits.train.items.iter().map(|i| (i.source.name(), i.label.clone())).collect();
    assert!(rows[0].0.ends_with("a.png") && rows[1].0.ends_with("c.png"), "{rows:?}");
    assert_eq!(rows[0].1, Label::Multi(vec![0.0, 1.0]));
    assert!(splits.description.contains("ignored: 1 image without a label"), "{}", splits.description);
}

#[test]
fn one_label_a_row_may_be_multiclass() {
    let asked = OpenOptions { task: Some(Task::Multiclass), ..options() };
    let dir = labelled("filename,x,y\na.png,1,0\nb.png,0,1\n");
    assert_eq!(open(dir.path(), &asked).expect("one each").train.items[1].label, Label::Class(1));
    let dir = labelled("filename,x,y\na.png,1,1\n");
    assert_eq!(
        message(open(dir.path(), &asked), dir.path()),
        "DIR/labels.csv, line 2: --task multiclass needs exactly one 1 a row; use --task multilabel"
    );
}

#[test]
fn malformed_files_name_the_line_and_the_mend() {
    let check = |csv: &str, expected: &str| {
        let dir = labelled(csv);
        let text = message(open(dir.path(), &options()), dir.path());
        assert_eq!(text, expected, "for {csv:?}");
    };
    check("", "DIR/labels.csv: empty; expected a header `filename,LABEL,...`");
    check("a.png,0,1\n", "DIR/labels.csv: the header must start with `filename`, found \"a.png\"");
    check("filename\na.png\n", "DIR/labels.csv: no label columns; expected a header `filename,LABEL,...`");
    check("filename,x,x\n", "DIR/labels.csv: two columns are called \"x\"; rename or remove one");
    check("filename,x,\n", "DIR/labels.csv: column 3 has no name; give it one");
    check("filename,x\n", "DIR/labels.csv: no images; expected a line `FILENAME,0,1,...` for each");
    check(
        "filename,x\na.png,1\n\nd.png,1\n",
        "DIR/labels.csv, line 4: no file DIR/d.png; correct the name or remove the row",
    );
    check(
        "filename,x\na.png,2\n",
        "DIR/labels.csv, line 2: column \"x\" must be 0 or 1, or empty where it is unknown, found \"2\"",
    );
    check("filename,x\na.png,1,0\n", "DIR/labels.csv, line 2: expected 2 cells as in the header, found 3");
    check("filename,x\n,1\n", "DIR/labels.csv, line 2: no file name in the first column");
    check(
        "filename,x\na.png,1\nb.png,0\n./a.png,1\n",
        "DIR/labels.csv, line 4: \"./a.png\" is on line 2 already; keep one",
    );
    check("filename,x\n\"a.png,1\n", "DIR/labels.csv: line 2: unpaired double quote");
    check("filename,x,y\na.png,1,0\n", "DIR: labels.csv: label \"y\" has no training images; add some or remove it");
}

#[test]
fn all_wrong_lines_are_listed() {
    let dir = labelled("filename,x\na.png,1\ne.png,1\nb.png,2\na.png,0\nc.png\n");
    let text = message(open(dir.path(), &options()), dir.path());
    assert!(text.starts_with("4 entries are wrong: DIR/labels.csv, line 3: no file DIR/e.png"), "{text}");
    for part in [
        "line 4: column \"x\"",
        "line 5: \"a.png\" is on line 2 already with another label",
        "line 6: expected 2 cells",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

/// What is unknown is no label and no lack of one.
#[test]
fn an_empty_cell_is_unknown() {
    let dir = labelled("filename,x,y\na.png,1,\nb.png,?,1\nc.png,-1,0\n");
    let train = open(dir.path(), &options()).expect("well formed").train;
    let rows: Vec<_> = train.items.iter().map(|item| item.label.clone()).collect();
    assert_eq!(rows, [[1.0, -1.0], [-1.0, 1.0], [-1.0, 0.0]].map(|row| Label::Multi(row.to_vec())));
    assert_eq!(train.class_counts(), [1, 1]);
}

#[test]
fn held_back_images_leave_every_label_one_to_train_on() {
    let dir = labelled("filename,x,y\na.png,1,0\nb.png,1,1\nc.png,1,0\n");
    for seed in 0..20 {
        let splits = open(dir.path(), &OpenOptions { val_fraction: 0.34, seed, ..options() }).expect("three images");
        assert!(splits.train.class_counts().iter().all(|&n| n > 0), "seed {seed}");
        assert_eq!(splits.val.expect("held back").items.len(), 1);
    }
}

#[test]
fn evaluation_follows_the_trained_order_of_labels() {
    let dir = labelled("filename,y,x\na.png,1,0\n");
    let classes = ["x".to_owned(), "y".to_owned()];
    let set = open_for_eval(dir.path(), Format::Auto, &Labels::new(Task::Multilabel, &classes)).expect("same labels");
    assert_eq!(set.items[0].label, Label::Multi(vec![0.0, 1.0]));
    let three = ["x".to_owned(), "y".to_owned(), "z".to_owned()];
    assert_eq!(
        message(open_for_eval(dir.path(), Format::Auto, &Labels::new(Task::Multilabel, &three)), dir.path()),
        "--data DIR/labels.csv: no column for label \"z\"; add it"
    );
}
