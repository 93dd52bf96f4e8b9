//! Scalars as TensorBoard reads them: TFRecords of `Event` messages, encoded by hand.
//!
//! A record is the length (u64), its masked CRC32C (u32), the bytes, their masked CRC32C (u32), all little-endian. The few
//! fields needed of protobuf's `Event` are wall_time = 1 (double), step = 2 (int64), file_version = 3 (string), summary = 5;
//! of `Summary` value = 1; of its `Value` tag = 1 (string), simple_value = 2 (float).

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::{Error, Result};

/// TensorBoard takes every file with `tfevents` in its name and orders them by name: a run has this one.
pub const FILE_NAME: &str = "events.out.tfevents.0000000001.peftk";

const CRC32C: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI);

/// Protobuf wire types, the low three bits of a field's key.
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;

/// An event file being written.
#[derive(Debug)]
pub struct EventWriter {
    path: PathBuf,
    file: File,
}

impl EventWriter {
    /// A new event file in `dir`, in place of one that is there.
    ///
    /// # Errors
    /// [`Error::Io`] naming the file.
    pub fn create(dir: &Path) -> Result<Self> {
        let path = dir.join(FILE_NAME);
        let file = File::create(&path).map_err(|e| Error::io("create", &path, e))?;
        let mut writer = Self { path, file };
        let mut event = wall_time();
        put_bytes(&mut event, 3, b"brain.Event:2");
        writer.record(&event)?;
        Ok(writer)
    }

    /// The values of several tags at one step.
    ///
    /// # Errors
    /// [`Error::Io`] naming the file.
    pub fn scalars(&mut self, step: u64, values: &[(&str, f64)]) -> Result<()> {
        let mut summary = Vec::new();
        for &(tag, value) in values {
            let mut one = Vec::new();
            put_bytes(&mut one, 1, tag.as_bytes());
            put_key(&mut one, 2, FIXED32);
            one.extend((value as f32).to_le_bytes());
            put_bytes(&mut summary, 1, &one);
        }
        let mut event = wall_time();
        put_key(&mut event, 2, VARINT);
        put_varint(&mut event, step);
        put_bytes(&mut event, 5, &summary);
        self.record(&event)
    }

    fn record(&mut self, data: &[u8]) -> Result<()> {
        let length = (data.len() as u64).to_le_bytes();
        let mut record = Vec::with_capacity(data.len() + 16);
        record.extend(length);
        record.extend(masked_crc(&length).to_le_bytes());
        record.extend(data);
        record.extend(masked_crc(data).to_le_bytes());
        self.file.write_all(&record).map_err(|e| Error::io("write", &self.path, e))
    }
}

/// TFRecord's CRC: rotated and shifted, so that the CRC of data that holds CRCs is no trivial one.
fn masked_crc(data: &[u8]) -> u32 {
    CRC32C.checksum(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// An event that holds its time, seconds since 1970.
fn wall_time() -> Vec<u8> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64());
    let mut event = Vec::new();
    put_key(&mut event, 1, FIXED64);
    event.extend(seconds.to_le_bytes());
    event
}

fn put_key(out: &mut Vec<u8>, field: u64, wire_type: u64) {
    put_varint(out, field << 3 | wire_type);
}

fn put_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_key(out, field, BYTES);
    put_varint(out, bytes.len() as u64);
    out.extend(bytes);
}

/// Seven bits a byte, lowest first, the eighth bit says that more follow.
fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_is_castagnoli_s() {
        // The check value of CRC-32/ISCSI, and RFC 3720's for 32 zero bytes.
        assert_eq!(CRC32C.checksum(b"123456789"), 0xe306_9283);
        assert_eq!(CRC32C.checksum(&[0; 32]), 0x8a91_36aa);
        assert_eq!(masked_crc(&[0; 32]), 0x8a91_36aa_u32.rotate_right(15).wrapping_add(0xa282_ead8));
    }

    #[test]
    fn varints() {
        for (value, bytes) in [(0, vec![0]), (127, vec![127]), (128, vec![0x80, 1]), (300, vec![0xac, 2])] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(out, bytes);
        }
    }

    #[test]
    fn records_frame_the_messages() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::create(dir.path()).unwrap();
        writer.scalars(300, &[("val/loss", 0.5)]).unwrap();
        let bytes = std::fs::read(dir.path().join(FILE_NAME)).unwrap();
        let mut rest = bytes.as_slice();
        let mut messages = Vec::new();
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            assert_eq!(rest[8..12], masked_crc(&rest[..8]).to_le_bytes());
            let data = &rest[12..12 + length];
            assert_eq!(rest[12 + length..16 + length], masked_crc(data).to_le_bytes());
            messages.push(data);
            rest = &rest[16 + length..];
        }
        // The time takes 9 bytes; the rest is fixed.
        assert_eq!(messages.len(), 2);
        assert_eq!(messages[0][9..], *b"\x1a\x0dbrain.Event:2");
        assert_eq!(messages[1][9..], *b"\x10\xac\x02\x2a\x11\x0a\x0f\x0a\x08val/loss\x15\x00\x00\x00\x3f");
    }
}
