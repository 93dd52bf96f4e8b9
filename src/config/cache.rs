//! Where decoded images are kept, and how much of them.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What is decoded once is kept: up to a size in memory, and what has no room there up to another in one file. It changes no bit
/// of a run. On the command line and in files `MEMORY[,DISK[,DIR]]`: `4GiB`, `4GiB,100GiB`, `none,100GiB,/scratch`, `none`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Cache {
    /// Bytes of pixels in memory; 0: none.
    pub memory: u64,
    /// Bytes of pixels in the file; 0: there is no file.
    pub disk: u64,
    /// The folder of the file; absent: `$TMPDIR`, else `/var/tmp`.
    pub dir: Option<PathBuf>,
}

impl Cache {
    /// Whether it is the one that is taken where none is given.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for Cache {
    /// 1 GiB of memory, no file.
    fn default() -> Self {
        Self { memory: 1 << 30, disk: 0, dir: None }
    }
}

impl FromStr for Cache {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let size = |part: &str| match part.trim() {
            "none" => Ok(0),
            part => bytes(part).map_err(|_| {
                format!(
                    "'{part}' is neither none nor a size: expected MEMORY[,DISK[,DIR]], such as 4GiB or 4GiB,100GiB"
                )
            }),
        };
        let mut parts = text.splitn(3, ',');
        let memory = size(parts.next().unwrap_or_default())?;
        let disk = parts.next().map_or(Ok(0), size)?;
        let dir = parts.next().map(str::trim);
        match dir {
            Some("") => Err("a folder is to follow the second comma; leave the comma out, or name one".to_owned()),
            Some(_) if disk == 0 => Err(format!("'{text}' has a folder and no room in it: give a size before it")),
            dir => Ok(Self { memory, disk, dir: dir.map(PathBuf::from) }),
        }
    }
}

impl fmt::Display for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&exact(self.memory))?;
        if self.disk > 0 {
            write!(f, ",{}", exact(self.disk))?;
        }
        self.dir.as_ref().map_or(Ok(()), |dir| write!(f, ",{}", dir.display()))
    }
}

impl TryFrom<String> for Cache {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Cache> for String {
    fn from(cache: Cache) -> Self {
        cache.to_string()
    }
}

/// A size in bytes: a number with B, KiB, MiB, GiB (or KB, MB, GB: powers of 1000).
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "b" => 1.0,
        "kib" => 1024.0,
        "mib" => 1024.0 * 1024.0,
        "gib" => 1024.0 * 1024.0 * 1024.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        _ => return Err(format!("'{text}' is no size: expected a number with MiB or GiB, such as 2GiB")),
    };
    match number.parse::<f64>() {
        Ok(number) if number > 0.0 && number * factor < 1e18 => Ok((number * factor) as u64),
        _ => Err(format!("'{text}' is no size: expected a number above 0 with MiB or GiB, such as 2GiB")),
    }
}

/// A number of bytes in the largest unit that divides it: [`bytes`] gives the same number.
fn exact(bytes: u64) -> String {
    let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
    let unit = units.into_iter().find(|(_, unit)| bytes > 0 && bytes.is_multiple_of(*unit));
    unit.map_or_else(|| "none".to_owned(), |(name, unit)| format!("{}{name}", bytes / unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_then_disk_then_folder() {
        let cache = |memory, disk, dir: Option<&str>| Cache { memory, disk, dir: dir.map(PathBuf::from) };
        for (text, expected, written) in [
            ("none", cache(0, 0, None), "none"),
            ("1GiB", Cache::default(), "1GiB"),
            ("4 gib, 100GiB", cache(4 << 30, 100 << 30, None), "4GiB,100GiB"),
            ("none,1.5KiB,/a b,c", cache(0, 1536, Some("/a b,c")), "none,1536B,/a b,c"),
            ("2MB,none", cache(2_000_000, 0, None), "2000000B"),
        ] {
            let read: Cache = text.parse().unwrap();
            assert_eq!((&read, read.to_string().as_str()), (&expected, written));
            assert_eq!(written.parse(), Ok(expected));
        }
        for wrong in ["", "4", "much", "4GiB,", "4GiB,disk", "-1GiB", "0GiB", "1GiB,1GiB,", "1GiB,none,/scratch"] {
            let error = wrong.parse::<Cache>().unwrap_err();
            assert!(!error.contains('\n') && error.contains("expected") | error.contains("folder"), "{wrong}: {error}");
        }
    }
}
