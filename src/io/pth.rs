//! Meta's .pth: torch's zip archive of a pickle and raw storages, read without executing anything.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use zip::ZipArchive;

use super::pickle::{self, Pickle};
use super::pickle_value::{Node, View};
use super::state::{HostTensor, StateDict};
use super::{one_line, quoted};
use crate::{Error, Result};

/// Longest pickle that is read; a giant's is under 100 kB. Two of its bytes can ask for a hundred here.
const MAX_PICKLE: u64 = 4 << 20;
/// Most values that the tensors may hold together, per byte of the file. A value takes two bytes or four, so this leaves tied weights; but a
/// file of one storage and thousands of tensors that all are views of it would fill any memory.
const MAX_VALUES_A_BYTE: u64 = 2;

type Archive = ZipArchive<BufReader<File>>;

/// Every tensor of a .pth file that holds a dictionary of tensors, as f32, under the file's names.
///
/// # Errors
/// One line that names the file for what is no such archive, is damaged, or asks for anything but float tensors in a
/// dictionary (the name it asked for is given).
pub fn read(path: &Path) -> Result<StateDict> {
    let file = File::open(path).map_err(|e| Error::io("read", path, e))?;
    read_archive(file).map_err(|what| Error::input(format!("{}: {what}", path.display())))
}

fn read_archive(mut file: File) -> std::result::Result<StateDict, String> {
    let length = file.metadata().map_err(one_line)?.len();
    let mut magic = Vec::new();
    file.by_ref().take(4).read_to_end(&mut magic).map_err(one_line)?;
    if magic.first() == Some(&0x80) {
        return Err("saved in torch's format from before 1.6; torch.load it and torch.save it again".into());
    }
    if !magic.starts_with(b"PK") {
        return Err("not a .pth file: expected torch's zip archive; get the file again".into());
    }
    let mut archive = ZipArchive::new(BufReader::new(file))
        .map_err(|e| format!("damaged zip archive ({}); get the file again", one_line(e)))?;
    let pickle_name = archive
        .file_names()
        .filter_map(|name| Some(name.ok()?.into_owned()))
        .find(|name| name == "data.pkl" || name.ends_with("/data.pkl"))
        .ok_or("not a torch archive: it has no data.pkl")?;
    let root = pickle_name.trim_end_matches("data.pkl").to_owned();
    if let Ok(order) = entry(&mut archive, &format!("{root}byteorder"), 16)
        && order != b"little"
    {
        return Err("saved on a big-endian machine; only little-endian files are read".into());
    }
    let pickle = pickle::read(&entry(&mut archive, &pickle_name, MAX_PICKLE)?)?;
    let most = length.saturating_mul(MAX_VALUES_A_BYTE);
    tensors(&pickle, most, |key, size| entry(&mut archive, &format!("{root}data/{key}"), size))
}

/// A whole entry of the archive, an error if it is longer than `limit`; a size the archive only claims is not trusted.
fn entry(archive: &mut Archive, name: &str, limit: u64) -> std::result::Result<Vec<u8>, String> {
    let damaged = |e: String| format!("entry {} cannot be read ({e})", quoted(name));
    let file = archive.by_name(name).map_err(|e| damaged(one_line(e)))?;
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(|e| damaged(one_line(e)))?;
    if bytes.len() as u64 > limit {
        return Err(damaged(format!("longer than {limit} bytes")));
    }
    Ok(bytes)
}

/// The dictionary's tensors, which hold at most `most` values together.
fn tensors(
    pickle: &Pickle,
    most: u64,
    mut storage: impl FnMut(&str, u64) -> std::result::Result<Vec<u8>, String>,
) -> std::result::Result<StateDict, String> {
    let Node::Dict(items) = &pickle.nodes[pickle.root] else {
        return Err(format!("expected a dictionary of tensors, found {}", pickle.nodes[pickle.root].kind()));
    };
    let mut found = StateDict::new();
    let mut left = most;
    for &(key, value) in items {
        let Node::Text(name) = &pickle.nodes[key] else {
            return Err(format!("expected tensor names as keys, found {}", pickle.nodes[key].kind()));
        };
        let Node::View(view) = &pickle.nodes[value] else {
            return Err(format!("expected a tensor under {}, found {}", quoted(name), pickle.nodes[value].kind()));
        };
        let tensor = gather(view, &mut storage).map_err(|what| format!("tensor {}: {what}", quoted(name)))?;
        left = left.checked_sub(tensor.data.len() as u64).ok_or_else(|| {
            format!("tensor {}: with it there are more values than a file of this length can hold", quoted(name))
        })?;
        if found.insert(name.clone(), tensor).is_some() {
            return Err(format!("tensor {} is there twice", quoted(name)));
        }
    }
    Ok(found)
}

/// Whether the view's values lie in its storage one after the other.
fn is_row_major(view: &View) -> bool {
    let mut step = 1;
    view.shape.iter().zip(&view.stride).rev().all(|(&extent, &stride)| {
        let fits = extent == 1 || stride == step;
        step *= extent;
        fits
    })
}

/// Copies a view out of its storage, row-major.
fn gather(
    view: &View,
    storage: &mut impl FnMut(&str, u64) -> std::result::Result<Vec<u8>, String>,
) -> std::result::Result<HostTensor, String> {
    let outside = || format!("shape {:?} reaches outside its storage of {} values", view.shape, view.storage.count);
    let count = view.shape.iter().try_fold(1usize, |n, &extent| n.checked_mul(extent)).ok_or_else(outside)?;
    let last = view.shape.iter().zip(&view.stride).try_fold(view.offset, |last, (&extent, &stride)| {
        last.checked_add(extent.saturating_sub(1).checked_mul(stride)?)
    });
    // A view never holds more values than its storage here: expanded tensors (stride 0) are no weights, nor are
    // empty ones.
    if count == 0 || count > view.storage.count || last.is_none_or(|last| last >= view.storage.count) {
        return Err(outside());
    }
    let size = view.storage.element.size();
    let bytes = view.storage.count.checked_mul(size).ok_or_else(outside)?;
    let raw = storage(&view.storage.key, bytes as u64)?;
    if raw.len() != bytes {
        return Err(format!("its storage has {} bytes, expected {bytes}", raw.len()));
    }
    let values = view.storage.element.decode(&raw);
    drop(raw);
    if is_row_major(view) {
        let data = if count == values.len() { values } else { values[view.offset..view.offset + count].to_vec() };
        return Ok(HostTensor { shape: view.shape.clone(), data });
    }
    let mut data = Vec::with_capacity(count);
    let mut index = vec![0; view.shape.len()];
    for _ in 0..count {
        let at = index.iter().zip(&view.stride).fold(view.offset, |at, (&i, &stride)| at + i * stride);
        data.push(values[at]);
        for axis in (0..index.len()).rev() {
            index[axis] += 1;
            if index[axis] < view.shape[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
    Ok(HostTensor { shape: view.shape.clone(), data })
}
