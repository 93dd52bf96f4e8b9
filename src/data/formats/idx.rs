//! MNIST's IDX files (LeCun et al. 1998), plain or gzipped, as Fashion-MNIST has them: grey images of one size in one file, labels in another.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::read::GzDecoder;

use super::{Listed, Part, index_of, lines};
use crate::config::Task;
use crate::data::open::Given;
use crate::data::{GreyImages, Label, Source};
use crate::{Error, Result};

/// What images and labels may unpack to: MNIST's take 47 MB.
const MOST_BYTES: u64 = 4 << 30;

/// A file of this name, or of it with `.gz`.
fn file(dir: &Path, name: &str) -> Option<PathBuf> {
    // Some copies have a dot before `idx`.
    let dotted = name.replace("-idx", ".idx");
    [name, &dotted].iter().flat_map(|name| [dir.join(name), dir.join(format!("{name}.gz"))]).find(|path| path.is_file())
}

const TRAIN: (&str, &str) = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte");
const TEST: (&str, &str) = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte");

pub(super) fn lies_in(dir: &Path) -> bool {
    file(dir, TRAIN.0).is_some() && file(dir, TRAIN.1).is_some()
}

/// Class names are the numbers, or the lines of `classes.txt` where there is one.
pub(super) fn read(dir: &Path) -> Result<Given> {
    let mut parts = Vec::new();
    for (part, (images, labels)) in [(Part::Train, TRAIN), (Part::Test, TEST)] {
        let (Some(images), Some(labels)) = (file(dir, images), file(dir, labels)) else {
            if part == Part::Train {
                return Err(Error::input(format!("{}: no {} and {}, plain or .gz", dir.display(), TRAIN.0, TRAIN.1)));
            }
            continue;
        };
        let (pixels, sizes) = unpacked(&images, 3)?;
        let (values, count) = unpacked(&labels, 1)?;
        if sizes[0] != count[0] {
            return Err(Error::input(format!(
                "{}: {} images, {} has {} labels; are they of one set?",
                images.display(),
                sizes[0],
                labels.display(),
                count[0]
            )));
        }
        let images = GreyImages { name: images.display().to_string(), width: sizes[2], height: sizes[1], pixels };
        parts.push((part, Arc::new(images), values, labels));
    }
    let names = dir.join("classes.txt");
    let classes: Vec<String> = if names.is_file() {
        lines::lines(&names)?.into_iter().map(|line| line.text.trim().to_owned()).collect()
    } else {
        let most = parts.iter().flat_map(|part| &part.2).max().copied().unwrap_or(0);
        (0..=most).map(|class| class.to_string()).collect()
    };
    index_of(&classes, &names.display().to_string())?;
    let mut listed = Listed::new(classes, Task::Multiclass);
    for (part, images, values, labels) in parts {
        for (index, label) in values.into_iter().enumerate() {
            let source = Source::Grey { images: images.clone(), index };
            let place = format!("{}, label {index}", labels.display());
            listed.entry(|listed| listed.add_source(part, source, Label::Class(label.into()), &place))?;
        }
    }
    listed.given(format!("{}: IDX files", dir.display()))
}

/// The bytes behind the header, and the sizes in it.
fn unpacked(path: &Path, dimensions: usize) -> Result<(Vec<u8>, Vec<usize>)> {
    let shown = path.display();
    let wrong = |what: &str| Error::input(format!("{shown}: {what}"));
    let opened = std::fs::File::open(path).map_err(|e| Error::io("read", path, e))?;
    let gzipped = path.extension().is_some_and(|ending| ending == "gz");
    let mut reader: Box<dyn Read> =
        if gzipped { Box::new(GzDecoder::new(std::io::BufReader::new(opened))) } else { Box::new(opened) };
    let mut header = vec![0; 4 + 4 * dimensions];
    reader.read_exact(&mut header).map_err(|e| wrong(&format!("no IDX header: {e}")))?;
    if header[..4] != [0, 0, 8, dimensions as u8] {
        return Err(wrong(&format!("not an IDX file of bytes in {dimensions} dimensions")));
    }
    let size = |chunk: &[u8]| u32::from_be_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]) as usize;
    let sizes: Vec<usize> = header[4..].chunks_exact(4).map(size).collect();
    let bytes = sizes.iter().try_fold(1_u64, |all, &size| all.checked_mul(size as u64));
    let bytes = bytes.filter(|&bytes| bytes > 0 && bytes <= MOST_BYTES).ok_or_else(|| wrong("sizes that cannot be"))?;
    let mut data = Vec::new();
    reader.take(bytes + 1).read_to_end(&mut data).map_err(|e| wrong(&format!("cannot be unpacked: {e}")))?;
    if data.len() as u64 != bytes {
        let found = if (data.len() as u64) < bytes { "fewer" } else { "more" };
        return Err(wrong(&format!("{found} bytes than the {bytes} that its header says")));
    }
    Ok((data, sizes))
}
