//! Safetensors files: reading to f32, one tensor at a time, and writing f32.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path};

use half::{bf16, f16};
use safetensors::tensor::{Dtype, Metadata, TensorView};

use super::state::{HostTensor, StateDict};
use super::{atomic, one_line, quoted};
use crate::{Error, Result};

/// Longest header that is read; safetensors' own limit.
const MAX_HEADER: u64 = 100_000_000;

/// An element type of a weight file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Element {
    F32,
    F16,
    Bf16,
}

impl Element {
    /// Bytes of one value.
    pub(crate) fn size(self) -> usize {
        if self == Self::F32 { 4 } else { 2 }
    }

    /// Little-endian bytes as f32; exact, as f32 holds every f16 and bf16.
    pub(crate) fn decode(self, bytes: &[u8]) -> Vec<f32> {
        let pairs = || bytes.chunks_exact(2).map(|b| [b[0], b[1]]);
        match self {
            Self::F32 => bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
            Self::F16 => pairs().map(|b| f16::from_le_bytes(b).to_f32()).collect(),
            Self::Bf16 => pairs().map(|b| bf16::from_le_bytes(b).to_f32()).collect(),
        }
    }
}

/// Every tensor of a safetensors file, as f32, under the file's names.
///
/// # Errors
/// One line that names the file (and tensor) for a file that is empty, truncated, longer than its header says, has a
/// header that is no safetensors header, or holds a type other than f32, f16, bf16.
pub fn read(path: &Path) -> Result<StateDict> {
    let io = |e| Error::io("read", path, e);
    let mut file = File::open(path).map_err(io)?;
    let length = file.metadata().map_err(io)?.len();
    read_from(path, &mut file, length)
}

/// The same of a file's bytes, which messages call `name`.
///
/// # Errors
/// As [`read`].
pub fn read_bytes(name: &Path, mut bytes: &[u8]) -> Result<StateDict> {
    let length = bytes.len() as u64;
    read_from(name, &mut bytes, length)
}

fn read_from(path: &Path, file: &mut impl Read, length: u64) -> Result<StateDict> {
    let io = |e| Error::io("read", path, e);
    let metadata = read_header(path, file, length)?;
    let mut tensors = StateDict::new();
    // The header is checked to cover the file without gaps, so offset order is one sequential read.
    for name in metadata.offset_keys() {
        let Some(info) = metadata.info(&name) else { continue };
        let element = match info.dtype {
            Dtype::F32 => Element::F32,
            Dtype::F16 => Element::F16,
            Dtype::BF16 => Element::Bf16,
            other => {
                return Err(Error::input(format!(
                    "{}: tensor {} has type {other:?}, expected F32, F16 or BF16",
                    path.display(),
                    quoted(&name)
                )));
            }
        };
        let mut bytes = vec![0; info.data_offsets.1 - info.data_offsets.0];
        file.read_exact(&mut bytes).map_err(io)?;
        tensors.insert(name, HostTensor { shape: info.shape.clone(), data: element.decode(&bytes) });
    }
    Ok(tensors)
}

fn read_header(path: &Path, file: &mut impl Read, length: u64) -> Result<Metadata> {
    let damaged = |what: String| Error::input(format!("{}: {what}; get the file again", path.display()));
    let mut prefix = [0; 8];
    if length < 8 {
        return Err(damaged(format!("not a safetensors file: {length} bytes, too short for a header")));
    }
    file.read_exact(&mut prefix).map_err(|e| Error::io("read", path, e))?;
    let header = u64::from_le_bytes(prefix);
    if header > MAX_HEADER {
        return Err(damaged(format!("not a safetensors file: it claims a header of {header} bytes")));
    }
    if header > length - 8 {
        return Err(damaged(format!("truncated: the header is {header} bytes, the file {length}")));
    }
    let mut bytes = vec![0; header as usize];
    file.read_exact(&mut bytes).map_err(|e| Error::io("read", path, e))?;
    let metadata: Metadata = serde_json::from_slice(&bytes)
        .map_err(|e| damaged(format!("not a safetensors file: corrupt header ({})", one_line(e))))?;
    let data = metadata.data_len() as u64;
    let expected = data.saturating_add(8 + header);
    if expected != length {
        let what = if length < expected { "truncated" } else { "longer than its header says" };
        return Err(damaged(format!("{what}: expected {expected} bytes, found {length}")));
    }
    Ok(metadata)
}

/// Every tensor of a model in several files, by its `model.safetensors.index.json`.
///
/// # Errors
/// As [`read`]; also for an index that is not one, a shard outside the index's folder, and a tensor that is not in the
/// shard where the index says.
pub fn read_sharded(index: &Path) -> Result<StateDict> {
    let bad = |what: String| Error::input(format!("{}: {what}", index.display()));
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let text = std::fs::read(index).map_err(|e| Error::io("read", index, e))?;
    let Index { weight_map } = serde_json::from_slice(&text)
        .map_err(|e| bad(format!("expected an index of shards with weight_map ({})", one_line(e))))?;
    let folder = index.parent().unwrap_or(Path::new("."));
    let mut tensors = StateDict::new();
    for shard in weight_map.values().collect::<BTreeSet<_>>() {
        let mut parts = Path::new(shard).components();
        if !matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) {
            return Err(bad(format!("shard {} must be a file name in the same folder", quoted(shard))));
        }
        for (name, tensor) in read(&folder.join(shard))? {
            match weight_map.get(&name) {
                Some(said) if said == shard => tensors.insert(name, tensor),
                Some(said) => {
                    return Err(bad(format!("tensor {} is in {shard}, expected in {said}", quoted(&name))));
                }
                None => return Err(bad(format!("tensor {} of {shard} is not in the index", quoted(&name)))),
            };
        }
    }
    match weight_map.iter().find(|(name, _)| !tensors.contains_key(*name)) {
        None => Ok(tensors),
        Some((name, shard)) => Err(bad(format!("tensor {} is not in {}", quoted(name), quoted(shard)))),
    }
}

/// Writes tensors as f32 with the metadata `{"format": "pt"}`, which transformers asks for.
///
/// # Errors
/// [`Error::Io`] where the file cannot be written; the old file, if any, is then still whole.
pub fn write<'a>(path: &Path, tensors: impl IntoIterator<Item = (String, &'a HostTensor)>) -> Result<()> {
    let tensors: Vec<(String, &HostTensor)> = tensors.into_iter().collect();
    let internal = |e| Error::Internal(format!("{}: {}", path.display(), one_line(e)));
    let mut views = Vec::with_capacity(tensors.len());
    for (name, tensor) in &tensors {
        let bytes: &[u8] = bytemuck::cast_slice(&tensor.data);
        views.push((name, TensorView::new(Dtype::F32, tensor.shape.clone(), bytes).map_err(internal)?));
    }
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    atomic::write_file(path, &safetensors::serialize(views, Some(metadata)).map_err(internal)?)
}
