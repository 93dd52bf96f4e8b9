//! Parquet files as Hugging Face's `datasets` writes them: fixtures of tools/fixtures/parquet.py, laid out as downloads are.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use peftk::config::{Format, Task};
use peftk::data::{Dataset, OpenOptions, Splits, contact_sheet, decode, decode_bytes, open, open_for_eval, survey};
use peftk::task::labels::Labels;
use tempfile::TempDir;

use crate::{fill, message, options};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/formats/parquet/{name}.parquet"))
}

/// A folder with these fixtures under these names.
fn laid_out(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().expect("folder");
    for (name, to) in files {
        let to = dir.path().join(to);
        std::fs::create_dir_all(to.parent().unwrap()).expect("folder");
        std::fs::copy(fixture(name), to).expect("copied");
    }
    dir
}

fn opened(dir: &TempDir) -> Splits {
    open(dir.path(), &options()).unwrap_or_else(|e| panic!("{e}"))
}

#[track_caller]
fn refused(dir: &TempDir) -> String {
    message(open(dir.path(), &options()), dir.path())
}

/// One fixture as a set of its own.
fn single(name: &str) -> TempDir {
    laid_out(&[(name, "train.parquet")])
}

/// `file[row]=number:classes` of every item; the number is what the image's colour says.
fn items(set: &Dataset) -> Vec<String> {
    let each = set.items.iter().map(|item| {
        let name = item.source.name();
        let image = decode(&item.source).unwrap_or_else(|e| panic!("{e}"));
        let classes: Vec<_> = item.label.classes().into_iter().map(|class| set.classes[class].as_str()).collect();
        format!("{}={}:{}", name.rsplit('/').next().unwrap(), image.pixels[0] / 10, classes.join("+"))
    });
    each.collect()
}

#[test]
fn shards_and_parts_as_the_hub_names_them() {
    let dir = laid_out(&[
        ("classes_0", "data/train-00000-of-00002.parquet"),
        ("classes_1", "data/train-00001-of-00002.parquet"),
        ("classes_val", "data/validation-00000-of-00001.parquet"),
        ("unlabelled", "data/test-00000-of-00001.parquet"),
        ("no_image", "data/.cache/train-00002.parquet"),
    ]);
    let splits = opened(&dir);
    assert_eq!((splits.train.task, &splits.train.classes[..]), (Task::Multiclass, &["cat".into(), "dog".into()][..]));
    let (zero, one) = ("train-00000-of-00002.parquet", "train-00001-of-00002.parquet");
    assert_eq!(
        items(&splits.train),
        [
            format!("{zero}[1]=2:cat"),
            format!("{zero}[3]=4:cat"),
            format!("{one}[0]=6:cat"),
            format!("{zero}[0]=1:dog"),
            format!("{zero}[2]=3:dog"),
            format!("{zero}[4]=5:dog"),
            format!("{one}[1]=7:dog"),
        ]
    );
    let val = "validation-00000-of-00001.parquet";
    assert_eq!(items(splits.val.as_ref().unwrap()), [format!("{val}[0]=8:cat"), format!("{val}[1]=2:dog")]);
    assert!(splits.test.is_none());
    let shown = dir.path().display();
    let expected = format!(
        "{shown}: parquet, labels by \"label\", without 2 rows of test that have no label; 2 classes, multi-class; train 7 images, val 2 images, test none"
    );
    assert_eq!(splits.description, expected);
    let names: HashSet<String> = splits.train.items.iter().map(|item| item.source.name()).collect();
    assert_eq!(names.len(), 7);
    assert!(names.contains(&format!("{shown}/data/{zero}[4]")));
    // The same however often it is opened.
    assert_eq!(opened(&dir), splits);
    let named = OpenOptions { format: Format::Parquet, ..options() };
    assert_eq!(open(dir.path(), &named).expect("named"), splits);
    // Evaluation takes validation, as there are no labels to test with, by training's numbers.
    let classes = ["dog", "cat"].map(str::to_owned);
    let held = open_for_eval(dir.path(), Format::Auto, &Labels::new(Task::Multiclass, &classes)).expect("validation");
    assert_eq!(items(&held), [format!("{val}[0]=8:cat"), format!("{val}[1]=2:dog")]);
    assert_eq!(held.items[0].label.classes(), [1]);

    std::fs::remove_file(dir.path().join(format!("data/{zero}"))).expect("removed");
    assert_eq!(refused(&dir), format!("DIR/data/{zero}: not there, but 1 of these 2 files are; download the rest"));
}

#[test]
fn other_folders_and_names() {
    for train in
        ["train.parquet", "train/0000.parquet", "default/train/0000.parquet", "SET/train-00000-of-00001.parquet"]
    {
        let test = train.replace("train", "test");
        let dir = laid_out(&[("classes_0", train), ("half_labelled", &test)]);
        let splits = opened(&dir);
        let file = Path::new(train).file_name().unwrap().to_str().unwrap();
        assert_eq!(items(&splits.train)[0], format!("{file}[1]=2:cat"), "{train}");
        let test = splits.test.expect("a part");
        assert_eq!(items(&test), [format!("{}[1]=12:dog", file.replace("train", "test"))], "{train}");
        assert!(splits.description.contains(", without 2 rows of test that have no label;"), "{}", splits.description);
    }
    // Files of no part's name are for training; beside others they are left out.
    let dir = laid_out(&[("classes_0", "0000.parquet"), ("classes_1", "0001.parquet")]);
    assert_eq!(opened(&dir).train.items.len(), 7);
    let dir = laid_out(&[("classes_0", "train.parquet"), ("classes_1", "extra.parquet")]);
    let splits = opened(&dir);
    assert_eq!(splits.train.items.len(), 5);
    assert!(splits.description.contains("labels by \"label\", without extra.parquet;"), "{}", splits.description);
    let dir = laid_out(&[("classes_0", "one/train.parquet"), ("classes_1", "two/train.parquet")]);
    assert_eq!(refused(&dir), "DIR: 2 sets in it (one, two); give the folder of one, as DIR/one");
    // Class folders, or a table, with some other table beside them stay what they are.
    let dir = laid_out(&[("no_image", "metadata.parquet")]);
    fill(dir.path(), &["cat/1.png", "dog/2.png"]);
    assert!(opened(&dir).description.contains("class folders"));
    let named = OpenOptions { format: Format::Parquet, ..options() };
    assert_eq!(
        message(open(dir.path(), &named), dir.path()),
        "DIR/metadata.parquet: no column of images among text, label: expected a struct with bytes, as datasets writes its Image, or binary \
         called image or img"
    );
    let dir = laid_out(&[]);
    assert_eq!(
        message(open(dir.path(), &named), dir.path()),
        "DIR: no .parquet file in it, in its data folder or in one of a part (train, validation, test)"
    );
    let dir = laid_out(&[("no_image", "data/train.parquet")]);
    assert!(refused(&dir).starts_with("DIR/data/train.parquet: no column of images among text, label"));
    // Validation data of its own may be laid out so too.
    let (train, val) = (single("classes_0"), single("classes_val"));
    let own = OpenOptions { val_data: Some(val.path().to_owned()), ..options() };
    assert_eq!(open(train.path(), &own).expect("own validation data").val.unwrap().items.len(), 2);
}

/// Codecs, page versions, dictionaries, images as they are: the same rows.
#[test]
fn however_a_file_is_stored() {
    for name in ["as_is", "version_2", "classes_0"] {
        let expected = ["[1]=2:cat", "[3]=4:cat", "[0]=1:dog", "[2]=3:dog", "[4]=5:dog"];
        let expected = expected.map(|item| format!("train.parquet{item}"));
        assert_eq!(items(&opened(&single(name)).train), expected, "{name}");
    }
    for name in ["gzip", "zstd"] {
        let found = items(&opened(&single(name)).train);
        assert_eq!(found, ["train.parquet[0]=1:cat", "train.parquet[1]=2:dog"], "{name}");
    }
    let found = items(&opened(&single("small_pages")).train);
    assert_eq!(found, ["train.parquet[1]=2:cat", "train.parquet[0]=1:dog", "train.parquet[2]=1:dog"]);
}

#[test]
fn which_column_is_the_label() {
    let splits = opened(&single("several_labels"));
    assert_eq!(splits.train.classes, ["apple", "bee", "cow"]);
    assert_eq!(
        items(&splits.train),
        ["[1]=2:apple", "[2]=3:bee", "[0]=1:cow"].map(|item| format!("train.parquet{item}"))
    );
    let described = "parquet, labels by \"fine_label\" and not by coarse_label;";
    assert!(splits.description.contains(described), "{}", splits.description);

    // Without names they are what is there, texts by their bytes and numbers as such.
    let splits = opened(&single("texts"));
    assert_eq!(splits.train.classes, ["cat", "dog"]);
    assert_eq!(
        items(&splits.train),
        ["[1]=2:cat", "[0]=1:dog", "[2]=3:dog"].map(|item| format!("train.parquet{item}"))
    );
    let splits = opened(&single("numbers"));
    assert_eq!(splits.train.classes, ["-1", "9", "10"]);
    // -1 that nothing is trained on is no label.
    let splits = opened(&laid_out(&[("required", "train.parquet"), ("kept_back", "test.parquet")]));
    assert_eq!(splits.train.classes, ["0", "1"]);
    assert_eq!(items(&splits.test.unwrap()), ["test.parquet[2]=3:1"]);
    assert!(splits.description.contains(", without 2 rows of test that have no label;"), "{}", splits.description);
}

#[test]
fn lists_of_labels() {
    let rows = ["[0]=1:dog", "[1]=2:cat+dog", "[2]=3:"].map(|item| format!("train.parquet{item}"));
    for name in ["lists", "lists_once", "lists_of_texts"] {
        let splits = opened(&single(name));
        assert_eq!((splits.train.task, splits.train.classes.len()), (Task::Multilabel, 2), "{name}");
        assert_eq!(items(&splits.train), rows, "{name}");
        let described = "labels by \"labels\", without 1 row of train that has no label; 2 classes, multi-label";
        assert!(splits.description.contains(described), "{}", splits.description);
    }
    assert_eq!(
        refused(&single("lists_with_holes")),
        "DIR/train.parquet[1]: a list of labels with null in it; correct the row"
    );
}

#[test]
fn an_image_may_be_a_file_beside() {
    let dir = single("beside");
    assert_eq!(
        refused(&dir),
        "DIR/train.parquet[1]: no file DIR/images/two.png; unpack the images there, or remove the entry"
    );
    fill(dir.path(), &["images/two.png"]);
    let splits = opened(&dir);
    let names: Vec<_> =
        splits.train.items.iter().map(|item| item.source.name().replace(dir.path().to_str().unwrap(), "DIR")).collect();
    assert_eq!(names, ["DIR/train.parquet[0]", "DIR/images/two.png", "DIR/train.parquet[2]"]);
    splits.train.items.iter().for_each(|item| assert!(decode(&item.source).is_ok()));
    assert_eq!(
        refused(&single("outside")),
        "DIR/train.parquet[1]: no bytes, and the path \"../two.png\" is not inside the data folder; write the set again with its images embedded"
    );
    assert_eq!(
        refused(&single("no_bytes")),
        "DIR/train.parquet[1]: no image: column \"image\" has neither bytes nor a path; remove the row"
    );
}

#[test]
fn what_is_wrong_is_one_line() {
    for (name, expected) in [
        (
            "no_label",
            ": no column of labels among image, caption: expected a ClassLabel of datasets, or a column called label, labels or class; \
             rename the one that is",
        ),
        (
            "fractions",
            ": labels in column \"label\" are DOUBLE, which is not understood; cast them to ClassLabel, int64, string or a list of one of these",
        ),
        ("out_of_range", "[1]: label 2, but column \"label\" has 2 names, 0 to 1; correct the row"),
        (
            "brotli",
            ": column label is compressed by BROTLI, which is not read here; write it again with snappy or zstd",
        ),
        ("encrypted", ": an encrypted Parquet file, which is not read here; write it again without encryption"),
    ] {
        assert_eq!(refused(&single(name)), format!("DIR/train.parquet{expected}"));
    }
    let dir = laid_out(&[("classes_0", "train.parquet"), ("other_names", "test.parquet")]);
    assert_eq!(
        refused(&dir),
        "DIR/test.parquet: label 1 is called \"wolf\", but in DIR/train.parquet \"dog\"; are they of one set?"
    );
    let dir = laid_out(&[("classes_0", "train.parquet"), ("several_labels", "test.parquet")]);
    assert_eq!(
        refused(&dir),
        "DIR/test.parquet: the labels are column \"fine_label\" of numbers, but in DIR/train.parquet \"label\" of numbers; are they of one set?"
    );
    let dir = laid_out(&[("unlabelled", "train.parquet")]);
    assert!(refused(&dir).contains("without 2 rows of train that have no label: no images in any of 2 classes"));
}

#[test]
fn damage_is_one_line_and_never_a_panic() {
    let dir = tempfile::tempdir().expect("folder");
    let path = dir.path().join("train.parquet");
    let with = |bytes: &[u8]| {
        std::fs::write(&path, bytes).expect("written");
        // Named, as damage to a column's name makes it a table of something else.
        open(dir.path(), &OpenOptions { format: Format::Parquet, ..options() })
    };
    let whole = std::fs::read(fixture("classes_0")).expect("fixture");
    for (bytes, expected) in [
        (&whole[..whole.len() / 2], "cut off: it does not end with PAR1; download it again"),
        (b"PAR1PAR1", "damaged or encrypted: "),
        (b"PARX and more", "not a Parquet file: it does not begin with PAR1; download or write it again"),
        (b"", "not a Parquet file: it does not begin with PAR1; download or write it again"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n",
            "a Git LFS pointer and not the file itself; run git lfs pull in its repository",
        ),
    ] {
        let text = message(with(bytes), dir.path());
        assert!(text.starts_with(&format!("DIR/train.parquet: {expected}")), "{text}");
    }
    let columns = message(with(&std::fs::read(fixture("encrypted_columns")).expect("fixture")), dir.path());
    assert!(columns.starts_with("DIR/train.parquet: damaged or encrypted: "), "{columns}");
    // Every third byte in turn: what comes out is a set, or one line with the file's name.
    for name in ["classes_0", "lists", "as_is", "zstd"] {
        let whole = std::fs::read(fixture(name)).expect("fixture");
        for at in (4..whole.len()).step_by(3) {
            let mut damaged = whole.clone();
            damaged[at] ^= [0xff, 0x01, 0x80][at / 3 % 3];
            match with(&damaged) {
                Ok(splits) => splits.train.items.iter().for_each(|item| drop(decode(&item.source))),
                Err(error) => {
                    let text = error.to_string();
                    assert!(text.contains("parquet") && !text.contains('\n'), "{name}, byte {at}: {text}");
                }
            }
        }
    }
}

#[test]
fn survey_and_contact_sheet() {
    let dir =
        laid_out(&[("classes_0", "train.parquet"), ("classes_val", "validation.parquet"), ("as_is", "test.parquet")]);
    let splits = opened(&dir);
    let found = survey(&splits, &|_, total| assert_eq!(total, 12));
    assert!(found.unreadable.is_empty(), "{:?}", found.unreadable);
    assert_eq!(found.parts[0].width, Some([8, 8, 8]));
    // 2 is in all of them, and all of the test part is training's, compressed there and as it is here.
    let twins: Vec<_> = found.twins.iter().map(|twins| (&twins.images, twins.same_label)).collect();
    assert_eq!(twins.len(), 6, "{twins:?}");
    let name = |file: &str, row: usize| format!("{}/{file}.parquet[{row}]", dir.path().display());
    assert!(twins.contains(&(&[("train", name("train", 1)), ("val", name("validation", 1))], false)));
    assert!(twins.contains(&(&[("train", name("train", 4)), ("test", name("test", 4))], true)));
    let sheet = decode_bytes(&contact_sheet(&splits).expect("a PNG")).expect("an image");
    let pixel = |x: usize, y: usize| sheet.pixels[(y * sheet.width + x) * 3];
    assert_eq!([pixel(48, 48), pixel(96 + 48, 48), pixel(48, 96 + 48)], [20, 40, 10]);
}
