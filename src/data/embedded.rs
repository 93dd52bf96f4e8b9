//! The data set inside the executable: 20 classes of public-domain drawings.

use super::folder::Ignored;
use super::open::{Given, finish};
use super::{Dataset, Item, Label, OpenOptions, Source, Splits};
use crate::config::Task;
use crate::{Error, Result};

/// Written by `tools/embed-data.py`, which describes the container.
static PACKED: &[u8] = include_bytes!("../../assets/openclipart-20.bin");

const MAGIC: &[u8] = b"PEFTKDS\0";
const VERSION: u32 = 1;

/// The embedded data set. Its own validation split is used unless `val_data` is given; `val_fraction` plays no part.
///
/// # Errors
/// As [`super::open`]; a task other than multi-class.
pub fn embedded(options: &OpenOptions) -> Result<Splits> {
    if let Some(task @ (Task::Multilabel | Task::Hierarchical)) = options.task {
        return Err(Error::input(format!(
            "--task {}: the embedded data has one class an image; give --data",
            task.name()
        )));
    }
    // The bytes are the build's own: damage there is a bug, not the user's.
    let [train, val] = unpack(PACKED).ok_or_else(|| Error::Internal("the embedded data set is damaged".into()))?;
    let described = "embedded openclipart-20: train, val".to_owned();
    finish(Given { train, val: Some(val), test: None, ignored: Ignored::default(), described }, options)
}

/// Training and validation set out of the container.
fn unpack(packed: &'static [u8]) -> Option<[Dataset; 2]> {
    let mut reader = Reader(packed);
    if reader.bytes(MAGIC.len())? != MAGIC || reader.u32()? != VERSION {
        return None;
    }
    let classes: Vec<String> = (0..reader.u32()?).map(|_| reader.string()).collect::<Option<_>>()?;
    let mut items = [Vec::new(), Vec::new()];
    for _ in 0..reader.u32()? {
        let split = usize::from(reader.bytes(1)?[0]);
        let class = usize::from(reader.u16()?);
        let file = reader.string()?;
        let length = reader.u32()? as usize;
        let bytes = reader.bytes(length)?;
        let name = format!("embedded/{}/{}/{file}", ["train", "val"].get(split)?, classes.get(class)?);
        items[split].push(Item { source: Source::Memory { name, bytes }, label: Label::Class(class) });
    }
    reader
        .0
        .is_empty()
        .then(|| items.map(|items| Dataset { classes: classes.clone(), items, task: Task::Multiclass, tree: None }))
}

/// What is left to read.
struct Reader(&'static [u8]);

impl Reader {
    fn bytes(&mut self, count: usize) -> Option<&'static [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes(self.bytes(2)?.try_into().ok()?))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.bytes(4)?.try_into().ok()?))
    }

    fn string(&mut self) -> Option<String> {
        let length = usize::from(self.u16()?);
        Some(std::str::from_utf8(self.bytes(length)?).ok()?.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::{PACKED, unpack};

    #[test]
    fn a_damaged_container_is_told() {
        assert!(unpack(PACKED).is_some());
        for cut in [0, 7, 12, 40, 500, PACKED.len() - 1] {
            assert!(unpack(&PACKED[..cut]).is_none(), "cut at {cut}");
        }
    }
}
