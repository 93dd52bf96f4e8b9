//! `labels.csv`: `filename`, then one 0/1 column a label, or one column of classes.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::folder::{Found, LABELS, list};
use super::problems::Problems;
use super::{Dataset, Item, Label, Source};
use crate::config::Task;
use crate::{Error, Result};

/// Reads a folder of images with `labels.csv`. Labels are the columns in their order, images by file name in byte order.
///
/// With `task` multiclass every row must have exactly one 1. A file of two columns whose second is called `label` or `class` names each image's
/// class, and classes are then in byte order; but a column of 0 and 1 alone behind `filename` is one label, unless the task says otherwise.
pub(super) fn read(dir: &Path, task: Option<Task>) -> Result<Found> {
    let path = dir.join(LABELS);
    let bytes = std::fs::read(&path).map_err(|e| Error::io("read", &path, e))?;
    let shown = path.display();
    let text =
        String::from_utf8(bytes).map_err(|_| Error::input(format!("{shown}: not UTF-8 text; save it as UTF-8")))?;
    let mut rows = rows(text.trim_start_matches('\u{feff}')).map_err(|e| Error::input(format!("{shown}: {e}")))?;
    if rows.is_empty() {
        return Err(Error::input(format!("{shown}: empty; expected a header `filename,LABEL,...`")));
    }
    let (_, header) = rows.remove(0);
    let mut classes = classes(&header).map_err(|e| Error::input(format!("{shown}: {e}")))?;
    let names_classes = names_classes(&header, &rows, task);
    if task == Some(Task::Hierarchical) {
        return Err(Error::input(format!(
            "{shown}: --task hierarchical needs the tree of its labels in labels.toml beside it; write one or leave --task out"
        )));
    }
    if names_classes {
        if task == Some(Task::Multilabel) {
            return Err(Error::input(format!("{shown}: one class a row is no multi-label set; leave --task out")));
        }
        classes = rows.iter().filter_map(|(_, row)| row.get(1)).map(|class| class.trim().to_owned()).collect();
        classes.sort();
        classes.dedup();
    }
    let task = if names_classes { Some(Task::Multiclass) } else { task };
    let mut items = Vec::new();
    let mut lines: HashMap<PathBuf, (usize, usize)> = HashMap::new();
    let mut problems = Problems::default();
    for (line, row) in &rows {
        let of = if names_classes { item_of_class } else { item };
        let item = of(dir, row, &classes, task).map_err(|e| Error::input(format!("{shown}, line {line}: {e}")));
        let Some(item) = problems.keep(item)? else { continue };
        // As a path, so that ./a.png is a.png.
        let first = lines.entry(dir.join(&row[0])).or_insert((*line, items.len()));
        if first.0 != *line {
            let (file, before): (_, &(&String, Item)) = (&row[0], &items[first.1]);
            let with = if before.1.label == item.label { "" } else { " with another label" };
            let first = first.0;
            let twice =
                Error::input(format!("{shown}, line {line}: {file:?} is on line {first} already{with}; keep one"));
            problems.keep::<()>(Err(twice))?;
            continue;
        }
        items.push((&row[0], item));
    }
    problems.finish()?;
    if items.is_empty() {
        return Err(Error::input(format!("{shown}: no images; expected a line `FILENAME,0,1,...` for each")));
    }
    items.sort_by_key(|(name, _)| *name);
    let items: Vec<Item> = items.into_iter().map(|(_, item)| item).collect();

    let listing = list(dir)?;
    let mut ignored = listing.ignored;
    ignored.not_images -= 1; // the CSV itself
    let named: HashSet<&Source> = items.iter().map(|i| &i.source).collect();
    ignored.unlabelled = listing.images.into_iter().filter(|p| !named.contains(&Source::File(p.clone()))).count();
    // A folder that rows point into is used.
    ignored.folders = listing
        .folders
        .iter()
        .filter(|f| !items.iter().any(|i| matches!(&i.source, Source::File(p) if p.starts_with(f))))
        .count();
    let task = task.unwrap_or(Task::Multilabel);
    Ok(Found { dataset: Dataset { classes, items, task, tree: None }, ignored })
}

/// The label names out of the header.
fn classes(header: &[String]) -> std::result::Result<Vec<String>, String> {
    if !["filename", "path", "file", "image"].iter().any(|name| header[0].trim().eq_ignore_ascii_case(name)) {
        return Err(format!("the header must start with `filename`, found {:?}", header[0]));
    }
    let classes: Vec<String> = header[1..].iter().map(|c| c.trim().to_owned()).collect();
    if classes.is_empty() {
        return Err("no label columns; expected a header `filename,LABEL,...`".into());
    }
    for (i, class) in classes.iter().enumerate() {
        if class.is_empty() {
            return Err(format!("column {} has no name; give it one", i + 2));
        }
        if classes[..i].contains(class) {
            return Err(format!("two columns are called {class:?}; rename or remove one"));
        }
    }
    Ok(classes)
}

/// Whether the second of two columns names classes.
fn names_classes(header: &[String], rows: &[(usize, Vec<String>)], task: Option<Task>) -> bool {
    let called_so = |name: &String| ["label", "class"].iter().any(|own| name.trim().eq_ignore_ascii_case(own));
    let [first, second] = header else { return false };
    if called_so(second) && !first.trim().eq_ignore_ascii_case("filename") {
        return true;
    }
    if let Some(task) = task {
        return called_so(second) && task == Task::Multiclass;
    }
    called_so(second)
        && rows.iter().any(|(_, row)| row.get(1).is_some_and(|cell| !matches!(cell.trim(), "0" | "1" | "")))
}

/// One row's image and the class that it names.
fn item_of_class(
    dir: &Path,
    row: &[String],
    classes: &[String],
    _task: Option<Task>,
) -> std::result::Result<Item, String> {
    let source = source(dir, row, 2)?;
    let name = row[1].trim();
    if name.is_empty() {
        return Err("no class in the second column; name it or remove the row".into());
    }
    let class = classes.iter().position(|class| class == name).ok_or("a class that is not there")?;
    Ok(Item { source, label: Label::Class(class) })
}

/// One row's image and label.
fn item(dir: &Path, row: &[String], classes: &[String], task: Option<Task>) -> std::result::Result<Item, String> {
    let source = source(dir, row, classes.len() + 1)?;
    let mut values = Vec::with_capacity(classes.len());
    for (cell, class) in row[1..].iter().zip(classes) {
        values.push(match cell.trim() {
            "0" => 0.0,
            "1" => 1.0,
            // Nobody knows.
            "" | "-1" | "?" if task != Some(Task::Multiclass) => -1.0,
            other => {
                return Err(format!("column {class:?} must be 0 or 1, or empty where it is unknown, found {other:?}"));
            }
        });
    }
    let label = if task == Some(Task::Multiclass) {
        let mut set = (0..values.len()).filter(|&c| values[c] == 1.0);
        match (set.next(), set.next()) {
            (Some(class), None) => Label::Class(class),
            _ => return Err("--task multiclass needs exactly one 1 a row; use --task multilabel".into()),
        }
    } else {
        Label::Multi(values)
    };
    Ok(Item { source, label })
}

/// The image of a row that must have `expected` cells.
fn source(dir: &Path, row: &[String], expected: usize) -> std::result::Result<Source, String> {
    let found = row.len();
    if found != expected {
        return Err(format!("expected {expected} cells as in the header, found {found}"));
    }
    let name = &row[0];
    if name.is_empty() {
        return Err("no file name in the first column".into());
    }
    let path = dir.join(name);
    if !path.exists() {
        return Err(format!("no file {}; correct the name or remove the row", path.display()));
    }
    Ok(Source::File(path))
}

/// Splits text into (line number from 1, cells); blank lines are left out. A cell may be in double quotes, with `""` for
/// one of them inside; a line break inside a cell is not supported.
pub(super) fn rows(text: &str) -> std::result::Result<Vec<(usize, Vec<String>)>, String> {
    let lines = text.lines().enumerate().map(|(i, line)| (i + 1, line)).filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(n, line)| cells(line).map(|c| (n, c)).ok_or_else(|| format!("line {n}: unpaired double quote")))
        .collect()
}

/// One line's cells; `None` if a quote is not closed or followed by more than a comma.
fn cells(line: &str) -> Option<Vec<String>> {
    let mut cells = Vec::new();
    let mut rest = line;
    loop {
        let (cell, after) = match rest.strip_prefix('"') {
            None => match rest.find(',') {
                None => (rest.to_owned(), ""),
                Some(comma) => (rest[..comma].to_owned(), &rest[comma..]),
            },
            Some(mut quoted) => {
                let mut cell = String::new();
                loop {
                    let end = quoted.find('"')?;
                    cell.push_str(&quoted[..end]);
                    quoted = &quoted[end + 1..];
                    let Some(more) = quoted.strip_prefix('"') else { break (cell, quoted) };
                    cell.push('"');
                    quoted = more;
                }
            }
        };
        cells.push(cell);
        if after.is_empty() {
            return Some(cells);
        }
        rest = after.strip_prefix(',')?;
    }
}

#[cfg(test)]
mod tests {
    use super::{cells, rows};

    #[test]
    fn cells_follow_commas_and_quotes() {
        let check = |line: &str, expected: &[&str]| assert_eq!(cells(line).expect(line), expected, "{line}");
        check("a.png,0,1", &["a.png", "0", "1"]);
        check("a,,", &["a", "", ""]);
        check(r#""a, b.png",1"#, &["a, b.png", "1"]);
        check(r#""a ""b"".png",1"#, &[r#"a "b".png"#, "1"]);
        check(r#""""#, &[""]);
        assert_eq!(cells(r#""a,1"#), None);
        assert_eq!(cells(r#""a"b,1"#), None);
    }

    #[test]
    fn blank_lines_keep_the_count() {
        let rows = rows("filename,a\r\n\r\nx.png,1\r\n").expect("well formed");
        assert_eq!(rows.iter().map(|r| r.0).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(rows[1].1, ["x.png", "1"]);
    }
}
