//! Which columns are the images and their labels: by what `datasets` noted in the file, else by names and types.

use parquet::basic::{ConvertedType, LogicalType, Repetition, Type as Physical};
use parquet::file::metadata::FileMetaData;
use parquet::schema::types::{ColumnDescriptor, SchemaDescriptor};
use serde_json::Value as Json;

/// Columns of one file, by their index among its leaves.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Columns {
    pub image: Image,
    pub label: LabelColumn,
    /// Columns that could have been the labels.
    pub other_labels: Vec<String>,
}

/// The encoded images.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Image {
    pub name: String,
    pub bytes: usize,
    /// Where an image without bytes is.
    pub path: Option<usize>,
}

/// The labels.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct LabelColumn {
    pub name: String,
    pub leaf: usize,
    pub kind: Kind,
    /// A list of them in each row: the set is multi-label.
    pub list: bool,
    /// The definition level of a list without elements; below it there is no list.
    pub empty: i16,
    /// A ClassLabel's names.
    pub names: Option<Vec<String>>,
}

/// How a label is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Int32,
    Int64,
    Text,
}

/// Names that columns of images, and of labels, have; the first that is there is taken.
const IMAGES: [&str; 2] = ["image", "img"];
const LABELS: [&str; 4] = ["label", "labels", "fine_label", "class"];

type Found<T> = Result<T, String>;

/// The columns, or what is not there and the mend.
pub(super) fn columns(file: &FileMetaData) -> Found<Columns> {
    let features = features(file)?;
    let schema = file.schema_descr();
    let image = image(schema, &features)?;
    let (label, other_labels) = label(schema, &features)?;
    Ok(Columns { image, label, other_labels })
}

/// Whether there is a column of images; where that cannot be told, reading it says why.
pub(super) fn has_images(file: &FileMetaData) -> bool {
    features(file).map_or(true, |features| image(file.schema_descr(), &features).is_ok())
}

/// The columns' types as `datasets` notes them; null where it wrote nothing.
fn features(file: &FileMetaData) -> Found<Json> {
    let pairs = file.key_value_metadata().into_iter().flatten();
    let Some(text) = pairs.into_iter().find(|pair| pair.key == "huggingface").and_then(|pair| pair.value.as_ref())
    else {
        return Ok(Json::Null);
    };
    let noted: Json = serde_json::from_str(text)
        .map_err(|e| format!("its \"huggingface\" metadata is not JSON ({e}); write it again"))?;
    Ok(noted["info"]["features"].clone())
}

/// A top-level column's leaves.
fn leaves<'a>(schema: &'a SchemaDescriptor, name: &str) -> Vec<(usize, &'a ColumnDescriptor)> {
    let of_column = |(index, leaf): (usize, &'a parquet::schema::types::ColumnDescPtr)| (index, leaf.as_ref());
    let all = schema.columns().iter().enumerate().map(of_column);
    all.filter(|(_, leaf)| leaf.path().parts().first().is_some_and(|first| first == name)).collect()
}

/// Top-level columns in the file's order.
fn names(schema: &SchemaDescriptor) -> Vec<&str> {
    schema.root_schema().get_fields().iter().map(|field| field.name()).collect()
}

/// The preferred one of these, else the first.
fn choose<'a>(candidates: &[&'a str], preferred: &[&str]) -> Option<&'a str> {
    let by_name = preferred.iter().find_map(|name| candidates.iter().find(|candidate| *candidate == name));
    by_name.or(candidates.first()).copied()
}

fn image(schema: &SchemaDescriptor, features: &Json) -> Found<Image> {
    let is_noted = |name: &&str| features[*name]["_type"] == "Image";
    let noted: Vec<&str> = names(schema).into_iter().filter(is_noted).collect();
    let has_bytes = |name: &&str| leaves(schema, name).iter().any(|(_, leaf)| is_bytes(leaf, &[*name, "bytes"]));
    let groups: Vec<&str> = names(schema).into_iter().filter(has_bytes).collect();
    let plain = |name: &&str| leaves(schema, name).iter().any(|(_, leaf)| is_bytes(leaf, &[*name]));
    let plain = IMAGES.into_iter().find(|name| plain(name));
    let Some(name) = choose(&noted, &IMAGES).or(choose(&groups, &IMAGES)).or(plain) else {
        return Err(format!(
            "no column of images among {}: expected a struct with bytes, as datasets writes its Image, or binary called image or img",
            list(schema)
        ));
    };
    let leaves = leaves(schema, name);
    let of = |path: &[&str]| leaves.iter().find(|(_, leaf)| is_bytes(leaf, path)).map(|(index, _)| *index);
    let bytes = of(&[name, "bytes"]).or(of(&[name]));
    let bytes =
        bytes.ok_or_else(|| format!("column {name:?} does not hold an image's bytes; cast it to datasets' Image"))?;
    let path = leaves.iter().find(|(_, leaf)| leaf.path().parts() == [name, "path"] && is_text(leaf));
    Ok(Image { name: name.to_owned(), bytes, path: path.map(|(index, _)| *index) })
}

/// Whether a leaf is one string of bytes in each row.
fn is_bytes(leaf: &ColumnDescriptor, path: &[&str]) -> bool {
    leaf.path().parts() == path
        && leaf.physical_type() == Physical::BYTE_ARRAY
        && leaf.max_rep_level() == 0
        && (path.len() > 1 || leaf.converted_type() == ConvertedType::NONE)
}

fn is_text(leaf: &ColumnDescriptor) -> bool {
    leaf.physical_type() == Physical::BYTE_ARRAY
        && leaf.max_rep_level() <= 1
        && matches!(leaf.converted_type(), ConvertedType::NONE | ConvertedType::UTF8 | ConvertedType::ENUM)
}

/// The labels, and the other columns that could have been them.
fn label(schema: &SchemaDescriptor, features: &Json) -> Found<(LabelColumn, Vec<String>)> {
    let all = names(schema);
    let is_class = |name: &&str| class_label(&features[*name]).is_some();
    let mut candidates: Vec<&str> = all.iter().copied().filter(is_class).collect();
    if candidates.is_empty() {
        candidates = LABELS.into_iter().filter(|name| all.contains(name)).collect();
    }
    let Some(name) = choose(&candidates, &LABELS) else {
        return Err(format!(
            "no column of labels among {}: expected a ClassLabel of datasets, or a column called label, labels or class; rename the one that is",
            list(schema)
        ));
    };
    let (leaf, kind, list, empty) = stored(schema, name)?;
    let names = class_label(&features[name]).map(|noted| class_names(noted, name)).transpose()?;
    if names.is_some() && kind == Kind::Text {
        return Err(format!("column {name:?} is a ClassLabel, but holds text; cast it to ClassLabel or to string"));
    }
    let others = candidates.into_iter().filter(|other| *other != name).map(str::to_owned).collect();
    Ok((LabelColumn { name: name.to_owned(), leaf, kind, list, empty, names }, others))
}

/// How labels lie in a column: its leaf, their type, whether there are several a row, the level of none.
fn stored(schema: &SchemaDescriptor, name: &str) -> Found<(usize, Kind, bool, i16)> {
    let of_kind = |what: &str| {
        format!(
            "labels in column {name:?} are {what}, which is not understood; cast them to ClassLabel, int64, string or a list of one of these"
        )
    };
    let leaves = leaves(schema, name);
    let &[(index, leaf)] = &leaves[..] else { return Err(of_kind(&format!("structs of {} columns", leaves.len()))) };
    if leaf.max_rep_level() > 1 {
        return Err(of_kind("lists of lists"));
    }
    let logical = leaf.logical_type_ref();
    let integer = matches!(logical, None | Some(LogicalType::Integer(_)));
    let kind = match leaf.physical_type() {
        Physical::INT32 if integer => Kind::Int32,
        Physical::INT64 if integer => Kind::Int64,
        Physical::BYTE_ARRAY if is_text(leaf) => Kind::Text,
        other => return Err(of_kind(&logical.map_or(format!("{other}"), |logical| format!("{logical:?}")))),
    };
    let list = leaf.max_rep_level() == 1;
    // What is optional below the list's own repeated group is an element; above it, the list.
    let own = i16::from(leaf.self_type().get_basic_info().repetition() == Repetition::OPTIONAL);
    Ok((index, kind, list, leaf.max_def_level() - own - 1))
}

/// A ClassLabel, be it of the column or of the lists in it: `Sequence`, `List`, or in brackets as it was written once.
fn class_label(noted: &Json) -> Option<&Json> {
    let inner = [noted, &noted["feature"], &noted[0]];
    inner.into_iter().find(|noted| noted["_type"] == "ClassLabel")
}

fn class_names(noted: &Json, column: &str) -> Found<Vec<String>> {
    let texts = noted["names"].as_array().into_iter().flatten().map(|name| name.as_str().map(str::to_owned));
    let names: Option<Vec<String>> = texts.collect();
    match (names, noted["num_classes"].as_u64()) {
        (Some(names), _) if !names.is_empty() => Ok(names),
        (_, Some(count @ 1..=0xffff)) => Ok((0..count).map(|class| class.to_string()).collect()),
        _ => Err(format!("ClassLabel {column:?} has no names; cast the column again with its names")),
    }
}

/// All columns, for a message.
fn list(schema: &SchemaDescriptor) -> String {
    let all = names(schema);
    let shown = all.iter().take(12).copied().collect::<Vec<_>>().join(", ");
    if all.len() > 12 { format!("{shown} and {} more", all.len() - 12) } else { shown }
}
