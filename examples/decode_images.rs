//! Decodes the images whose paths come line by line on stdin, as training does, for a comparison with another decoder
//! (tools/compare/decoders.py): a PPM each in a folder, and a line of JSON with its size or why there is none.
//!
//!     find pictures -type f | decode_images OUT

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use peftk::data::{Source, decode};
use serde_json::json;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let out = PathBuf::from(std::env::args().nth(1).ok_or("usage: decode_images OUT <paths")?);
    for (index, path) in std::io::stdin().lock().lines().enumerate() {
        let path = path?;
        let start = Instant::now();
        let decoded = decode(&Source::File(PathBuf::from(&path)));
        let ms = start.elapsed().as_millis() as u64;
        let line = match decoded {
            Ok(image) => {
                write_ppm(&out.join(format!("{index}.ppm")), image.width, image.height, &image.pixels)?;
                json!({ "path": path, "width": image.width, "height": image.height, "ms": ms })
            }
            Err(error) => json!({ "path": path, "reason": error.to_string(), "ms": ms }),
        };
        println!("{line}");
    }
    Ok(())
}

fn write_ppm(path: &Path, width: usize, height: usize, pixels: &[u8]) -> std::io::Result<()> {
    let mut file = std::fs::File::create(path)?;
    write!(file, "P6\n{width} {height}\n255\n")?;
    file.write_all(pixels)
}
