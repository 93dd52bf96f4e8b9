//! MATLAB's level 5 MAT-files ("MAT-File Format", MathWorks), as far as label files use them: numbers, text, cells and structs, plain or
//! compressed. Every length is checked before it is believed.

use std::io::Read;
use std::path::Path;

use flate2::read::ZlibDecoder;

use crate::{Error, Result};

/// What a file may hold, and a compressed variable unpack to: the labels of a set take a few MB. A number takes eight times as much here.
const MOST_BYTES: u64 = 32 << 20;
/// Cells in structs in cells: label files have three levels.
const MOST_DEPTH: usize = 16;
/// Fields of a struct: label files have six. A name takes a byte in a file and fifty here.
const MOST_FIELDS: usize = 1024;

/// A variable's value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// Numbers of any type, column by column.
    Numbers(Vec<f64>),
    /// Text.
    Text(String),
    /// A cell array.
    Cells(Vec<Value>),
    /// A struct array: names, and for each element its fields.
    Structs(Vec<String>, Vec<Vec<Value>>),
}

impl Value {
    /// A field of every element of a struct array.
    pub(super) fn field(&self, name: &str) -> Option<Vec<&Self>> {
        let Self::Structs(names, elements) = self else { return None };
        let at = names.iter().position(|own| own == name)?;
        Some(elements.iter().map(|element| &element[at]).collect())
    }

    /// Its only number.
    pub(super) fn number(&self) -> Option<f64> {
        match self {
            Self::Numbers(values) => values.first().copied().filter(|_| values.len() == 1),
            _ => None,
        }
    }

    /// Its text.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The texts of a cell array.
    pub(super) fn texts(&self) -> Option<Vec<String>> {
        let Self::Cells(cells) = self else { return None };
        cells.iter().map(|cell| cell.text().map(str::to_owned)).collect()
    }
}

/// A variable of a file.
///
/// # Errors
/// What is damaged, and where; a file of another version; a variable that is not there.
pub(super) fn variable(path: &Path, name: &str) -> Result<Value> {
    let shown = path.display();
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(path).map_err(|e| Error::io("read", path, e))?;
    opened.take(MOST_BYTES).read_to_end(&mut bytes).map_err(|e| Error::io("read", path, e))?;
    let found =
        find(&bytes, name).map_err(|what| Error::input(format!("{shown}: {what}; is it the data set's own file?")))?;
    found.ok_or_else(|| Error::input(format!("{shown}: no variable {name:?} in it")))
}

type Parsed<T> = std::result::Result<T, String>;

/// The variable of this name. The others are unpacked one after the other, and only their names are read.
fn find(bytes: &[u8], name: &str) -> Parsed<Option<Value>> {
    let header = bytes.get(..128).ok_or("not a MAT-file: shorter than its header")?;
    match (&header[126..128], header[125]) {
        (b"IM", 1) => {}
        (b"MI", _) => {
            return Err("a big-endian MAT-file is not supported; save it again on a little-endian machine".into());
        }
        _ => return Err("not a MAT-file of level 5 (save it with -v7)".into()),
    }
    let mut rest = Reader { bytes: &bytes[128..] };
    let of_name = |data: &[u8]| if name_of(data)? == name { matrix(data, 0) } else { Ok(None) };
    while !rest.bytes.is_empty() {
        let element = rest.element()?;
        match element.kind {
            COMPRESSED => {
                let mut unpacked = Vec::new();
                let read = ZlibDecoder::new(element.data).take(MOST_BYTES).read_to_end(&mut unpacked);
                read.map_err(|e| format!("a compressed variable is damaged: {e}"))?;
                if unpacked.len() as u64 == MOST_BYTES {
                    return Err(format!("a variable of more than {} MiB", MOST_BYTES >> 20));
                }
                let inner = Reader { bytes: &unpacked }.element()?;
                if inner.kind == MATRIX
                    && let Some((_, value)) = of_name(inner.data)?
                {
                    return Ok(Some(value));
                }
            }
            MATRIX => {
                if let Some((_, value)) = of_name(element.data)? {
                    return Ok(Some(value));
                }
            }
            _ => {}
        }
    }
    Ok(None)
}

/// A matrix's name alone.
fn name_of(data: &[u8]) -> Parsed<String> {
    let mut reader = Reader { bytes: data };
    reader.element()?;
    reader.element()?;
    Ok(String::from_utf8_lossy(reader.element()?.data).into_owned())
}

const MATRIX: u32 = 14;
const COMPRESSED: u32 = 15;

struct Element<'a> {
    kind: u32,
    data: &'a [u8],
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Parsed<&'a [u8]> {
        let taken = self.bytes.get(..count).ok_or("cut off in the middle")?;
        self.bytes = &self.bytes[count..];
        Ok(taken)
    }

    fn number(&mut self) -> Parsed<u32> {
        let bytes = self.take(4)?;
        Ok(u32::from_le_bytes(bytes.try_into().map_err(|_| "cut off in the middle")?))
    }

    /// The next element and its padding. Up to 4 bytes lie in the tag itself.
    fn element(&mut self) -> Parsed<Element<'a>> {
        let first = self.number()?;
        if first >> 16 != 0 {
            let (kind, count) = (first & 0xffff, (first >> 16) as usize);
            let data = self.take(4)?;
            return Ok(Element { kind, data: data.get(..count).ok_or("a small element of over 4 bytes")? });
        }
        let count = self.number()? as usize;
        let data = self.take(count)?;
        if first != COMPRESSED {
            let padding = count.next_multiple_of(8) - count;
            // The last element of a file may lack it.
            self.take(padding.min(self.bytes.len()))?;
        }
        Ok(Element { kind: first, data })
    }
}

/// A matrix's name and value; none for a class that no label file uses.
fn matrix(data: &[u8], depth: usize) -> Parsed<Option<(String, Value)>> {
    if depth > MOST_DEPTH {
        return Err(format!("nested more than {MOST_DEPTH} deep"));
    }
    let mut reader = Reader { bytes: data };
    if data.is_empty() {
        return Ok(Some((String::new(), Value::Numbers(Vec::new()))));
    }
    let class = reader.element()?.data.first().copied().ok_or("a matrix without flags")?;
    let sizes = integers(&reader.element()?)?;
    let name = String::from_utf8_lossy(reader.element()?.data).into_owned();
    let count = sizes.iter().try_fold(1_usize, |all, &size| all.checked_mul(usize::try_from(size).ok()?));
    // An element takes at least 8 bytes, a number at least one: no count is larger than the data.
    let count = count.filter(|&count| count <= data.len()).ok_or("a matrix of more elements than the file has")?;
    let inner = |reader: &mut Reader<'_>| -> Parsed<Value> {
        let element = reader.element()?;
        if element.kind != MATRIX {
            return Err(format!("expected a matrix inside {name:?}, found an element of type {}", element.kind));
        }
        let found = matrix(element.data, depth + 1)?;
        found.map(|(_, value)| value).ok_or_else(|| format!("a value of an unknown kind inside {name:?}"))
    };
    let value = match class {
        1 => Value::Cells((0..count).map(|_| inner(&mut reader)).collect::<Parsed<_>>()?),
        2 => {
            let length = integers(&reader.element()?)?.first().copied().unwrap_or(0);
            let length = usize::try_from(length).ok().filter(|&length| length > 0).ok_or("fields without names")?;
            let names = reader.element()?.data.chunks(length);
            // Elements without fields would take memory for each of a number that costs nothing to write.
            if !(1..=MOST_FIELDS).contains(&names.len()) {
                return Err(format!("a struct of {} fields, expected 1 to {MOST_FIELDS}", names.len()));
            }
            let until_zero = |name: &[u8]| {
                String::from_utf8_lossy(name.split(|&byte| byte == 0).next().unwrap_or_default()).into_owned()
            };
            let names: Vec<String> = names.map(until_zero).collect();
            let mut elements = Vec::new();
            for _ in 0..count {
                elements.push(names.iter().map(|_| inner(&mut reader)).collect::<Parsed<Vec<_>>>()?);
            }
            Value::Structs(names, elements)
        }
        4 => Value::Text(text(&reader.element()?)?),
        6..=15 => Value::Numbers(numbers(&reader.element()?)?),
        _ => return Ok(None),
    };
    Ok(Some((name, value)))
}

fn text(element: &Element<'_>) -> Parsed<String> {
    let wrong = |_| "text that is not valid".to_owned();
    match element.kind {
        // UTF-16, or codes of 16 bits.
        4 | 17 => {
            let units: Vec<u16> = element.data.chunks_exact(2).map(|c| u16::from_le_bytes([c[0], c[1]])).collect();
            String::from_utf16(&units).map_err(|e| wrong(e.to_string()))
        }
        1 | 2 | 16 => String::from_utf8(element.data.to_vec()).map_err(|e| wrong(e.to_string())),
        other => Err(format!("text of an unknown type {other}")),
    }
}

fn integers(element: &Element<'_>) -> Parsed<Vec<i64>> {
    Ok(numbers(element)?.into_iter().map(|value| value as i64).collect())
}

fn numbers(element: &Element<'_>) -> Parsed<Vec<f64>> {
    macro_rules! of {
        ($type:ty) => {{
            const SIZE: usize = size_of::<$type>();
            let each = |chunk: &[u8]| {
                chunk.try_into().map_or(f64::NAN, |bytes: [u8; SIZE]| <$type>::from_le_bytes(bytes) as f64)
            };
            Ok(element.data.chunks_exact(SIZE).map(each).collect())
        }};
    }
    match element.kind {
        1 => of!(i8),
        2 => of!(u8),
        3 => of!(i16),
        4 => of!(u16),
        5 => of!(i32),
        6 => of!(u32),
        7 => of!(f32),
        9 => of!(f64),
        12 => of!(i64),
        13 => of!(u64),
        other => Err(format!("numbers of an unknown type {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn element(kind: u32, data: &[u8]) -> Vec<u8> {
        let mut bytes = [kind.to_le_bytes(), (data.len() as u32).to_le_bytes()].concat();
        bytes.extend(data);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }

    fn array(class: u8, count: i32, name: &str, body: &[u8]) -> Vec<u8> {
        let flags = element(6, &[class, 0, 0, 0, 0, 0, 0, 0]);
        let sizes = element(5, &[1_i32.to_le_bytes(), count.to_le_bytes()].concat());
        element(MATRIX, &[flags, sizes, element(1, name.as_bytes()), body.to_vec()].concat())
    }

    fn file(body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![b' '; 128];
        bytes[124..128].copy_from_slice(&[0, 1, b'I', b'M']);
        bytes.extend(body);
        bytes
    }

    #[test]
    fn damage_is_an_error_and_never_a_panic() {
        let inner = array(4, 2, "", &element(16, b"ab"));
        let whole = file(&array(1, 1, "cells", &inner));
        assert_eq!(find(&whole, "cells").unwrap(), Some(Value::Cells(vec![Value::Text("ab".into())])));
        assert_eq!(find(&whole, "other").unwrap(), None);
        for cut in 0..whole.len() {
            let _ = find(&whole[..cut], "cells");
        }
        for at in 128..whole.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut damaged = whole.clone();
                damaged[at] = value;
                let _ = find(&damaged, "cells");
            }
        }
        assert!(find(&file(&array(6, i32::MAX, "n", &element(9, &[0; 8]))), "n").is_err(), "more than the file has");
        let fields = |names: &[u8]| [element(5, &1_i32.to_le_bytes()), element(1, names)].concat();
        let empty = file(&array(2, 100, "s", &[fields(b""), vec![0; 200]].concat()));
        assert!(find(&empty, "s").unwrap_err().contains("0 fields"), "elements that take nothing in the file");
        let many = file(&array(2, 0, "s", &fields(&[b'a'; 2000])));
        assert!(find(&many, "s").unwrap_err().contains("2000 fields"));
        let mut deep = array(4, 1, "", &element(16, b"a"));
        for _ in 0..40 {
            deep = array(1, 1, "", &deep);
        }
        assert!(find(&file(&deep), "").unwrap_err().contains("deep"));
    }
}
