//! From a folder to training, validation and test sets.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::folder::{Found, Ignored, LABELS, check_folder, list, read};
use super::split::Share;
use super::{Dataset, Label, formats, nested, plural, split};
use crate::config::{Format, Task};
use crate::task::labels::Labels;
use crate::task::tree::Tree;
use crate::{Error, Result};

/// How a folder is turned into splits.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenOptions {
    /// How the folder is laid out.
    pub format: Format,
    /// What labels are; `None`: hierarchical where there is a tree of them, multi-label where there is `labels.csv`, else multi-class.
    pub task: Option<Task>,
    /// Validation data of its own; goes before a validation split of the folder's.
    pub val_data: Option<PathBuf>,
    /// Share of the training images held back where there is no validation data, 0 (none) to under 1.
    pub val_fraction: f64,
    /// Share of the training images held back for testing first, where there is no test data, 0 (none) to under 1.
    pub test_fraction: f64,
    /// Seed of the splits and of the few shots.
    pub seed: u64,
    /// At most this many training images a class.
    pub shots: Option<usize>,
}

/// What a run trains, validates and tests on. All parts have the same classes in the same order.
#[derive(Clone, Debug, PartialEq)]
pub struct Splits {
    /// Training images.
    pub train: Dataset,
    /// Validation images.
    pub val: Option<Dataset>,
    /// Test images.
    pub test: Option<Dataset>,
    /// What was found, in one line: layout, counts, what was ignored.
    pub description: String,
}

/// Opens a data folder: `train`, `val` (or `valid`, `validation`) and `test` subfolders, or one folder. Each holds class
/// folders (`<class>/<image>`), or images with `labels.csv`. No image is opened yet: [`super::verify`] does that.
///
/// # Errors
/// One line that names the folder or file at fault: nothing there, an empty class folder, fewer than two classes, a class
/// outside training's, a malformed `labels.csv`, a `val_fraction` or `shots` that cannot be met.
pub fn open(dir: &Path, options: &OpenOptions) -> Result<Splits> {
    check_folder(dir, "--data")?;
    check_format(dir, options.format)?;
    if let Some(given) = of_own_layout(dir, options.format, options.task)? {
        check_task(&given, options.task)?;
        return finish(given, options);
    }
    let Some(parts) = parts(dir)? else {
        let found = read(dir, options.task, "--data")?;
        let layout = layout(dir, &found.dataset);
        let described = format!("{}: {layout}", dir.display());
        return finish(
            Given { train: found.dataset, val: None, test: None, ignored: found.ignored, described },
            options,
        );
    };
    let Some(train_dir) = &parts.train else {
        let shown = dir.display();
        return Err(Error::input(format!("{shown}: no train folder beside {}; add {shown}/train", parts.names())));
    };
    let train = read(train_dir, options.task, "--data")?;
    let mut ignored = parts.ignored;
    ignored.add(train.ignored);
    let known = train.dataset.labels();
    let mut held_out = |part: &Option<PathBuf>| -> Result<Option<Dataset>> {
        let Some(part) = part else { return Ok(None) };
        let found = read_known(part, &known, "--data")?;
        ignored.add(found.ignored);
        Ok(Some(found.dataset))
    };
    let (val, test) = (held_out(&parts.val)?, held_out(&parts.test)?);
    let described = format!("{}: {}", dir.display(), parts.names());
    finish(Given { train: train.dataset, val, test, ignored, described }, options)
}

/// Opens labelled images of known classes: the folder's test split, else its validation split, else the folder itself.
///
/// # Errors
/// As [`open`]; a class that is not among the known ones is named.
pub fn open_for_eval(dir: &Path, format: Format, known: &Labels) -> Result<Dataset> {
    check_folder(dir, "--data")?;
    check_format(dir, format)?;
    if let Some(given) = of_own_layout(dir, format, Some(known.task))? {
        check_task(&given, Some(known.task))?;
        let Given { train, val, test, ignored, .. } = given;
        let dataset = test.or(val).unwrap_or(train);
        return renumbered(Found { dataset, ignored }, dir, known, "--data").map(|found| found.dataset);
    }
    held_out_part(dir, known, "--data", |parts| parts.test.or(parts.val)).map(|found| found.dataset)
}

/// A data set in its authors' layout; none: a folder of images, or a table of them.
fn of_own_layout(dir: &Path, format: Format, task: Option<Task>) -> Result<Option<Given>> {
    let format = match format {
        Format::Auto if dir.is_dir() => formats::detect(dir)?.unwrap_or(Format::Folder),
        format => format,
    };
    formats::read(dir, format, task).transpose()
}

/// What was asked for has to be what the data set is.
fn check_task(given: &Given, task: Option<Task>) -> Result<()> {
    let own = given.train.task;
    match task {
        Some(task) if task != own => Err(Error::input(format!(
            "--task {}: {} is {}; leave the flag out",
            task.name(),
            given.described,
            own.name()
        ))),
        _ => Ok(()),
    }
}

/// `--format` says what the folder is; a folder that is something else is a mistake in one of them.
fn check_format(dir: &Path, format: Format) -> Result<()> {
    let table = [dir.to_owned(), dir.join("train")].into_iter().find(|part| part.join(LABELS).is_file());
    match (format, table) {
        (Format::Csv, None) => {
            Err(Error::input(format!("--format csv: there is no labels.csv in {} or its train", dir.display())))
        }
        (Format::Folder, Some(part)) => Err(Error::input(format!(
            "--format folder: {} holds labels.csv, which goes before class folders; move it away or leave the flag out",
            part.display()
        ))),
        _ => Ok(()),
    }
}

/// The part of a folder that `choose` picks, or the folder itself if it has no parts.
fn held_out_part(dir: &Path, known: &Labels, flag: &str, choose: impl Fn(Parts) -> Option<PathBuf>) -> Result<Found> {
    check_folder(dir, flag)?;
    let Some(parts) = parts(dir)? else { return read_known(dir, known, flag) };
    let chosen = choose(parts).ok_or_else(|| {
        let shown = dir.display();
        Error::input(format!("{flag} {shown}: only a train folder there; give {shown}/train to use its images"))
    })?;
    read_known(&chosen, known, flag)
}

/// What there is before options apply.
pub(super) struct Given {
    pub train: Dataset,
    pub val: Option<Dataset>,
    pub test: Option<Dataset>,
    pub ignored: Ignored,
    /// Where from and how laid out.
    pub described: String,
}

/// Checks the training classes, finds the validation images and describes the whole.
pub(super) fn finish(given: Given, options: &OpenOptions) -> Result<Splits> {
    let Given { mut train, val, mut test, mut ignored, described } = given;
    let [for_val, for_test] =
        [Share::of("--val-fraction", options.val_fraction)?, Share::of("--test-fraction", options.test_fraction)?];
    check_classes(&train, &described)?;
    if let Some(tree) = &mut train.tree {
        tree.learn_implied(train.items.iter().filter_map(|item| match &item.label {
            Label::Multi(row) => Some(&row[..]),
            Label::Class(_) => None,
        }));
    }
    let mut test_from = String::new();
    if test.is_none() && options.test_fraction > 0.0 {
        let (rest, held) = split::hold_back(train, for_test, options.seed)?;
        (train, test) = (rest, Some(held));
        test_from = format!(" (held back, seed {})", options.seed);
    }
    let (mut val, from) = if let Some(dir) = &options.val_data {
        check_folder(dir, "--val-data")?;
        let known = train.labels();
        let found = match of_own_layout(dir, Format::Auto, Some(train.task))? {
            Some(given) => {
                check_task(&given, Some(train.task))?;
                let Given { train: all, val, test, ignored, .. } = given;
                let found = Found { dataset: val.or(test).unwrap_or(all), ignored };
                renumbered(found, dir, &known, "--val-data")?
            }
            None => {
                let choose = |parts: Parts| parts.val.or(parts.test);
                held_out_part(dir, &known, "--val-data", choose)?
            }
        };
        ignored.add(found.ignored);
        (Some(found.dataset), format!(" ({})", dir.display()))
    } else if val.is_some() || options.val_fraction == 0.0 {
        (val, String::new())
    } else {
        let (rest, held) = split::hold_back(train, for_val, options.seed)?;
        train = rest;
        (Some(held), format!(" (held back, seed {})", options.seed))
    };
    if let Some(shots) = options.shots {
        split::few_shot(&mut train, shots, options.seed)?;
    }
    for set in val.iter_mut().chain(&mut test) {
        set.tree = train.tree.clone();
    }
    let count = |part: &Option<Dataset>| part.as_ref().map_or("none".into(), |d| plural(d.items.len(), "image"));
    let mut description = format!(
        "{described}; {} classes, {}; train {}, val {}{from}, test {}{test_from}",
        train.classes.len(),
        match train.task {
            Task::Multiclass => "multi-class".to_owned(),
            Task::Multilabel => "multi-label".into(),
            Task::Hierarchical => train.tree.as_ref().map_or_else(String::new, described_tree),
        },
        plural(train.items.len(), "image"),
        count(&val),
        count(&test)
    );
    if ignored != Ignored::default() {
        description.push_str(&format!("; ignored: {ignored}"));
    }
    Ok(Splits { train, val, test, description })
}

/// Training needs two classes (multi-label: one label), each with an image.
fn check_classes(train: &Dataset, described: &str) -> Result<()> {
    let what = if train.task == Task::Multiclass { "class" } else { "label" };
    if train.items.is_empty() {
        return Err(Error::input(format!("{described}: no images in any of {} classes", train.classes.len())));
    }
    if let Some(class) = train.class_counts().iter().position(|&n| n == 0) {
        let name = &train.classes[class];
        return Err(Error::input(format!(
            "{described}: {what} {name:?} has no training images; add some or remove it"
        )));
    }
    if let (Task::Multiclass, [only]) = (train.task, &train.classes[..]) {
        return Err(Error::input(format!("{described}: one class only, {only:?}; a classifier needs at least two")));
    }
    Ok(())
}

/// Reads a folder whose classes must be among known ones, and numbers its labels as they do.
fn read_known(dir: &Path, known: &Labels, flag: &str) -> Result<Found> {
    let task = match known.task {
        // The known tree stands in for one that is not written down; a folder may be as flat as it likes.
        Task::Hierarchical if dir.join(LABELS).is_file() || nested::tree_file(dir).is_some() => None,
        task => Some(task),
    };
    renumbered(read(dir, task, flag)?, dir, known, flag)
}

/// The same images with their labels numbered as the known ones are, which must hold all of them.
fn renumbered(mut found: Found, dir: &Path, known: &Labels, flag: &str) -> Result<Found> {
    let shown = dir.display();
    let own = Labels { tree: found.dataset.tree.take(), ..Labels::new(found.dataset.task, &found.dataset.classes) };
    // In a tree by the whole way down, else by name.
    let by_way: HashMap<String, usize> = (0..known.len()).map(|label| (known.full_name(label), label)).collect();
    let place = |label: usize| {
        let name = &own.names[label];
        by_way.get(&own.full_name(label)).copied().or_else(|| known.names.iter().position(|known| known == name))
    };
    let mut index = Vec::with_capacity(own.len());
    for label in 0..own.len() {
        index.push(place(label).ok_or_else(|| {
            Error::input(format!(
                "{flag} {shown}: class {:?} is not one of the {} trained classes; remove or rename it",
                own.names[label],
                known.len()
            ))
        })?);
    }
    if let (Task::Multilabel, Some(lacking)) = (known.task, known.names.iter().find(|c| !own.names.contains(c))) {
        return Err(Error::input(format!("{flag} {shown}/{LABELS}: no column for label {lacking:?}; add it")));
    }
    for item in &mut found.dataset.items {
        match (&mut item.label, &known.tree) {
            (_, Some(tree)) => *item = nested::in_tree(item.clone(), tree, &known.names, |label| Some(index[label]))?,
            (Label::Class(class), None) => *class = index[*class],
            (Label::Multi(row), None) => {
                let read = std::mem::replace(row, vec![0.0; known.len()]);
                read.into_iter().zip(&index).for_each(|(value, &c)| row[c] = value);
            }
        }
    }
    if found.dataset.items.is_empty() {
        return Err(Error::input(format!("{flag} {shown}: no images in its {} class folders", own.len())));
    }
    (found.dataset.classes, found.dataset.task) = (known.names.clone(), known.task);
    found.dataset.tree = known.tree.clone();
    Ok(found)
}

/// What tells the labels of a folder.
fn layout(dir: &Path, set: &Dataset) -> &'static str {
    match (set.task, dir.join(LABELS).is_file(), nested::tree_file(dir).is_some()) {
        (Task::Hierarchical, true, _) => "labels.csv with labels.toml",
        (Task::Hierarchical, false, true) => "class folders with labels.toml",
        (Task::Hierarchical, false, false) => "folders within folders",
        (_, true, _) => LABELS,
        _ => "class folders",
    }
}

/// `hierarchical on 3 levels, 5 heads, 2 labels by themselves`.
fn described_tree(tree: &Tree) -> String {
    let (heads, single) = (tree.heads().count(), tree.single().len());
    let single = match single {
        0 => String::new(),
        1 => ", 1 label by itself".to_owned(),
        more => format!(", {more} labels by themselves"),
    };
    format!("hierarchical on {}, {}{single}", plural(tree.levels(), "level"), plural(heads, "head"))
}

/// The split folders inside a data folder.
struct Parts {
    train: Option<PathBuf>,
    val: Option<PathBuf>,
    test: Option<PathBuf>,
    ignored: Ignored,
}

impl Parts {
    /// `train, val, test`, as the folders are called.
    fn names(&self) -> String {
        let parts = [&self.train, &self.val, &self.test].into_iter().flatten();
        parts.filter_map(|p| p.file_name()?.to_str()).collect::<Vec<_>>().join(", ")
    }
}

/// The split folders, if the folder is laid out so: a folder is a split and not a class of that name (a `train` beside a
/// `car` and a `bus`) if it holds class folders or `labels.csv` itself.
fn parts(dir: &Path) -> Result<Option<Parts>> {
    if dir.join(LABELS).is_file() {
        return Ok(None);
    }
    let listing = list(dir)?;
    let mut parts = Parts { train: None, val: None, test: None, ignored: listing.ignored };
    parts.ignored.unlabelled += listing.images.len();
    let (mut splits, mut flat) = (Vec::new(), Vec::new());
    let mut others = 0;
    for folder in listing.folders {
        let slot = match folder.file_name().and_then(|n| n.to_str()) {
            Some("train") => &mut parts.train,
            Some("val" | "valid" | "validation") => &mut parts.val,
            Some("test") => &mut parts.test,
            _ => {
                others += 1;
                continue;
            }
        };
        let known = if has_parts(&folder)? { &mut splits } else { &mut flat };
        known.push(folder.clone());
        if let Some(first) = slot.replace(folder) {
            let shown = dir.display();
            let first = first.file_name().unwrap_or_default().display().to_string();
            return Err(Error::input(format!("{shown}: two validation folders, one called {first:?}; keep one")));
        }
    }
    let train_is_split = parts.train.as_ref().is_some_and(|t| splits.contains(t));
    let all_named_so = others == 0 && !(splits.is_empty() && flat.is_empty());
    if !train_is_split && !all_named_so {
        return Ok(None);
    }
    if let Some(folder) = flat.first() {
        let shown = folder.display();
        return Err(Error::input(format!("{shown}: no class folders; expected {shown}/<class>/<image>, or {LABELS}")));
    }
    parts.ignored.folders += others;
    Ok(Some(parts))
}

/// Whether a folder holds folders or `labels.csv`.
fn has_parts(dir: &Path) -> Result<bool> {
    Ok(dir.join(LABELS).is_file() || !list(dir)?.folders.is_empty())
}
