//! The image decoder, from bytes of any kind.

#![no_main]

mod common;

use libfuzzer_sys::fuzz_target;
use peftk::data::{MAX_PIXELS, decode_bytes};

fuzz_target!(init: common::init(), |bytes: &[u8]| {
    common::run(|| match decode_bytes(bytes) {
        Ok(image) => {
            let pixels = image.width * image.height;
            assert!(pixels > 0 && pixels as u64 <= MAX_PIXELS, "{image:?}");
            assert_eq!(image.pixels.len(), pixels * 3, "{image:?}");
            common::check_reason(&format!("{image:?}"));
        }
        Err(reason) => common::check_reason(&reason),
    });
});
