//! Meta's .pth files. Bytes that begin as a zip archive does are the file; any others are its pickle, put into an archive with storages to refer
//! to, for no mutation would keep the archive's checksum.

#![no_main]

mod common;

use std::io::{Cursor, Write};
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use peftk::io::{BackboneSpec, load};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

/// An archive without its pickle. A storage's name is the number of its values of 2 bytes: what a backbone of width 64 is made of.
static STORAGES: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    for values in [2_usize, 64, 192, 4096, 12288] {
        let bytes: Vec<u8> = (0..values).flat_map(|value| [value as u8, 0x3c]).collect();
        archive.start_file(format!("archive/data/{values}"), SimpleFileOptions::default()).expect("a name");
        archive.write_all(&bytes).expect("memory takes it");
    }
    archive.finish().expect("an archive").into_inner()
});

fn around(pickle: &[u8]) -> Vec<u8> {
    let mut archive = ZipWriter::new_append(Cursor::new(STORAGES.clone())).expect("an archive");
    archive.start_file("archive/data.pkl", SimpleFileOptions::default()).expect("a name");
    archive.write_all(pickle).expect("memory takes it");
    archive.finish().expect("an archive").into_inner()
}

fuzz_target!(init: common::init(), |bytes: &[u8]| {
    common::run(|| {
        let path = if bytes.starts_with(b"PK") {
            common::write("weights.pth", bytes)
        } else {
            common::write("weights.pth", &around(bytes))
        };
        match load(&BackboneSpec::File(path), &mut |_| ()) {
            Ok(backbone) => common::check_reason(&backbone.source),
            Err(error) => common::check_reason(&error.to_string()),
        }
    });
});
