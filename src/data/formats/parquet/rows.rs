//! The rows of one file: where each image's bytes are, and its labels.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};

use parquet::basic::Compression;
use parquet::column::reader::{get_column_reader, get_typed_column_reader};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, RowGroupReader};
use parquet::file::serialized_reader::SerializedFileReader;

use super::columns::{Columns, Kind, columns, has_images};
use super::labels::{Labels, Value, Values};
use super::pages::{Bounded, Chunks};
use crate::data::packed::{Copies, Place, Span};
use crate::{Error, Result};

/// Rows decoded at a time.
const BATCH: usize = 16;

/// What was read of one file.
pub(super) struct Shard {
    pub path: PathBuf,
    pub columns: Columns,
    /// By row.
    pub labels: Vec<Labels>,
    /// By row; none for a row without a label, or whose image is not in the file.
    pub places: Vec<Option<Place>>,
    /// Where those images are, by row.
    pub paths: BTreeMap<usize, String>,
}

/// Whether a file is of a set of images; one that is damaged is, so that reading it says what is wrong.
pub(super) fn is_of_images(path: &Path) -> bool {
    let read = || open(path).map(|(_, reader)| has_images(reader.metadata().file_metadata()));
    std::panic::catch_unwind(read).is_ok_and(|read| read.unwrap_or(true))
}

/// Reads one file. Images that it compresses are copied.
///
/// # Errors
/// One line that names the file, the row where it is known, and the mend.
pub(super) fn read(path: &Path, values: &mut Values, copies: &mut Copies) -> Result<Shard> {
    // The crate asserts some of what it expects; a damaged file must end in a line like any other.
    let read = std::panic::catch_unwind(AssertUnwindSafe(|| read_all(path, values, copies)));
    read.unwrap_or_else(|_| Err(damaged(path, "its pages are not as its header says")))
}

fn damaged(path: &Path, what: &str) -> Error {
    let what = what.split_whitespace().collect::<Vec<_>>().join(" ");
    Error::input(format!("{}: damaged or encrypted: {what}; download or write it again", path.display()))
}

fn of_parquet(path: &Path) -> impl Fn(ParquetError) -> Error {
    |error| damaged(path, error.to_string().trim_start_matches("Parquet error: "))
}

fn at(path: &Path, row: usize, what: &str) -> Error {
    Error::input(format!("{}[{row}]: {what}", path.display()))
}

fn open(path: &Path) -> Result<(Chunks, SerializedFileReader<Chunks>)> {
    let wrong = |what: &str| Error::input(format!("{}: {what}", path.display()));
    let chunks = Chunks::open(path).map_err(|e| Error::io("read", path, e))?;
    let (first, last) = chunks.ends().map_err(|e| Error::io("read", path, e))?;
    if first.starts_with(b"version https://git-lfs") {
        return Err(wrong("a Git LFS pointer and not the file itself; run git lfs pull in its repository"));
    }
    if first.starts_with(b"PARE") || &last == b"PARE" {
        return Err(wrong("an encrypted Parquet file, which is not read here; write it again without encryption"));
    }
    if !first.starts_with(b"PAR1") {
        return Err(wrong("not a Parquet file: it does not begin with PAR1; download or write it again"));
    }
    if &last != b"PAR1" {
        return Err(wrong("cut off: it does not end with PAR1; download it again"));
    }
    let reader = SerializedFileReader::new(chunks.clone()).map_err(of_parquet(path))?;
    Ok((chunks, reader))
}

fn read_all(path: &Path, values: &mut Values, copies: &mut Copies) -> Result<Shard> {
    let (chunks, reader) = open(path)?;
    let columns = columns(reader.metadata().file_metadata())
        .map_err(|what| Error::input(format!("{}: {what}", path.display())))?;
    let mut shard =
        Shard { path: path.to_owned(), columns, labels: Vec::new(), places: Vec::new(), paths: BTreeMap::new() };
    for index in 0..reader.num_row_groups() {
        let group = reader.get_row_group(index).map_err(of_parquet(path))?;
        read_labels(&mut shard, &*group, values)?;
        read_images(&mut shard, &*group, &chunks, copies)?;
    }
    Ok(shard)
}

/// A column's value in one row.
enum Cell<'a, T> {
    Null,
    /// One, or a list's; and whether some in the list are null.
    Values(&'a [T], bool),
}

/// Calls `each` with a column's cells in a row group, and `between` after every few.
fn column<T: DataType>(
    path: &Path,
    group: &dyn RowGroupReader,
    leaf: usize,
    empty: i16,
    mut each: impl FnMut(usize, Cell<'_, T::T>) -> Result<()>,
    between: impl Fn(),
) -> Result<()> {
    let chunk = group.metadata().column(leaf);
    let codec = chunk.compression();
    if !matches!(codec, Compression::UNCOMPRESSED | Compression::SNAPPY | Compression::GZIP(_) | Compression::ZSTD(_)) {
        // Without the level behind it.
        let codec = codec.to_string();
        let codec = codec.split('(').next().unwrap_or_default();
        return Err(Error::input(format!(
            "{}: column {} is compressed by {codec}, which is not read here; write it again with snappy or zstd",
            path.display(),
            chunk.column_path().string()
        )));
    }
    let described = chunk.column_descr_ptr();
    let (most, repeated) = (described.max_def_level(), described.max_rep_level() > 0);
    let pages = group.get_column_page_reader(leaf).map_err(of_parquet(path))?;
    let mut reader = get_typed_column_reader::<T>(get_column_reader(described, Box::new(Bounded(pages))));
    let expected = usize::try_from(group.metadata().num_rows()).unwrap_or(0);
    let (mut row, mut definitions, mut repetitions, mut values) = (0, Vec::new(), Vec::new(), Vec::new());
    loop {
        definitions.clear();
        repetitions.clear();
        values.clear();
        let read = reader.read_records(BATCH, Some(&mut definitions), Some(&mut repetitions), &mut values);
        let (records, _, levels) = read.map_err(of_parquet(path))?;
        if records == 0 || row + records > expected {
            row += records;
            break;
        }
        let (mut level, mut value) = (0, 0);
        while level < levels {
            let start = level;
            level += 1;
            while repeated && repetitions.get(level).is_some_and(|&level| level > 0) {
                level += 1;
            }
            // Without levels every value is there.
            let own = definitions.get(start..level).unwrap_or_default();
            let count = if most == 0 { level - start } else { own.iter().filter(|&&level| level == most).count() };
            let own_values = values.get(value..value + count).ok_or_else(|| damaged(path, "fewer values than rows"))?;
            value += count;
            let first = own.first().copied().unwrap_or(most);
            let null = if repeated { first < empty } else { first < most };
            let holes = repeated && own.iter().any(|&level| level > empty && level < most);
            each(row, if null { Cell::Null } else { Cell::Values(own_values, holes) })?;
            row += 1;
        }
        between();
    }
    if row == expected {
        return Ok(());
    }
    Err(damaged(path, &format!("{row} or more rows in column {}, not {expected}", chunk.column_path().string())))
}

/// Appends the labels of a row group.
fn read_labels(shard: &mut Shard, group: &dyn RowGroupReader, values: &mut Values) -> Result<()> {
    let Shard { path, columns, labels, .. } = shard;
    let column_of = &columns.label;
    let names = column_of.names.as_ref().map(Vec::len);
    let mut int = |value: i64| match names {
        Some(_) if value == -1 && !column_of.list => Ok(None),
        Some(names) => u32::try_from(value).ok().filter(|&label| (label as usize) < names).map(Some).ok_or_else(|| {
            format!(
                "label {value}, but column {:?} has {names} names, 0 to {}; correct the row",
                column_of.name,
                names - 1
            )
        }),
        None => values.number(Value::Int(value)).map(Some),
    };
    let (leaf, empty, first) = (column_of.leaf, column_of.empty, labels.len());
    match column_of.kind {
        Kind::Int32 => {
            let each = |row, cell: Cell<'_, i32>| {
                labels
                    .push(labels_of(cell, column_of.list, |&v| int(v.into())).map_err(|e| at(path, first + row, &e))?);
                Ok(())
            };
            column::<Int32Type>(path, group, leaf, empty, each, || ())
        }
        Kind::Int64 => {
            let each = |row, cell: Cell<'_, i64>| {
                labels.push(labels_of(cell, column_of.list, |&v| int(v)).map_err(|e| at(path, first + row, &e))?);
                Ok(())
            };
            column::<Int64Type>(path, group, leaf, empty, each, || ())
        }
        Kind::Text => {
            let mut text = |value: &ByteArray| {
                let text = value.as_utf8().map_err(|_| "a label that is not UTF-8; correct the row".to_owned())?;
                if text.is_empty() { Ok(None) } else { values.number(Value::Text(text.to_owned())).map(Some) }
            };
            let each = |row, cell: Cell<'_, ByteArray>| {
                labels.push(labels_of(cell, column_of.list, &mut text).map_err(|e| at(path, first + row, &e))?);
                Ok(())
            };
            column::<ByteArrayType>(path, group, leaf, empty, each, || ())
        }
    }
}

/// One cell's labels by number.
fn labels_of<T>(
    cell: Cell<'_, T>,
    list: bool,
    mut number: impl FnMut(&T) -> std::result::Result<Option<u32>, String>,
) -> std::result::Result<Labels, String> {
    match cell {
        Cell::Null => Ok(Labels::None),
        Cell::Values(_, true) => Err("a list of labels with null in it; correct the row".into()),
        Cell::Values(values, _) if list => {
            let numbers: std::result::Result<Vec<_>, String> = values.iter().map(number).collect();
            Ok(Labels::Many(numbers?.into_iter().flatten().collect()))
        }
        Cell::Values(values, _) => {
            let label = values.first().map(&mut number).transpose()?.flatten();
            Ok(label.map_or(Labels::None, Labels::One))
        }
    }
}

/// Appends where the images of a row group are.
fn read_images(shard: &mut Shard, group: &dyn RowGroupReader, chunks: &Chunks, copies: &mut Copies) -> Result<()> {
    let Shard { path, columns, labels, places, paths } = shard;
    let first = places.len();
    let mut lacking = Vec::new();
    chunks.keep(group.metadata().column(columns.image.bytes).compression() == Compression::UNCOMPRESSED);
    let each = |row: usize, cell: Cell<'_, ByteArray>| {
        let row = first + row;
        let place = match cell {
            _ if matches!(labels.get(row), Some(Labels::None)) => None,
            Cell::Values([value], _) => Some(match (chunks.offset_of(value.data()), u32::try_from(value.len())) {
                (Some(offset), Ok(length)) => Place::Inside(Span { offset, length }),
                _ => copies.add(value.data())?,
            }),
            _ => {
                lacking.push(row);
                None
            }
        };
        places.push(place);
        Ok(())
    };
    column::<ByteArrayType>(path, group, columns.image.bytes, 0, each, || chunks.trim())?;
    chunks.keep(false);
    let no_image = |row| {
        let column = &columns.image.name;
        at(path, row, &format!("no image: column {column:?} has neither bytes nor a path; remove the row"))
    };
    let (Some(&row), Some(leaf)) = (lacking.first(), columns.image.path) else {
        return lacking.first().map_or(Ok(()), |&row| Err(no_image(row)));
    };
    let mut lacking = lacking.into_iter().peekable();
    let each = |row: usize, cell: Cell<'_, ByteArray>| {
        if lacking.next_if_eq(&(first + row)).is_none() {
            return Ok(());
        }
        let Cell::Values([text], _) = cell else { return Err(no_image(first + row)) };
        let text = text.as_utf8().map_err(|_| at(path, first + row, "a path that is not UTF-8; correct the row"))?;
        paths.insert(first + row, text.to_owned());
        Ok(())
    };
    column::<ByteArrayType>(path, group, leaf, 0, each, || ())?;
    // The path column has as many rows as the image column, or that was an error.
    if lacking.next().is_none() { Ok(()) } else { Err(no_image(row)) }
}
