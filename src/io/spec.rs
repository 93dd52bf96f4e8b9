//! What `--backbone` names.

use std::path::{Path, PathBuf};

use crate::vit::VitConfig;
use crate::{Error, Result};

/// Where a backbone comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackboneSpec {
    /// A folder as transformers writes it.
    Folder(PathBuf),
    /// A single `.safetensors` or `.pth` file.
    File(PathBuf),
    /// A published model by its short name, `dinov2-small` to `dinov2-giant-reg`.
    Hub {
        /// The short name.
        name: String,
    },
    /// Random weights of a named size.
    Random {
        /// `micro`, `small`, `base`, `large`, `giant`, each also with `-reg`.
        size: String,
    },
    /// The micro backbone inside the executable.
    Embedded,
}

/// The published sizes.
const SIZES: [&str; 4] = ["small", "base", "large", "giant"];

impl BackboneSpec {
    /// Reads `--backbone`: `embedded`, `random:SIZE`, a path, or a published name.
    ///
    /// What looks like a path (it has a separator, starts with `.` or `~`, exists, or ends in `.safetensors` or `.pth`)
    /// is a path and never a name on a hub.
    ///
    /// # Errors
    /// A path that is not there, an unknown size or name.
    pub fn parse(text: &str) -> Result<Self> {
        if let Some(size) = text.strip_prefix("random:") {
            VitConfig::named(size)?;
            return Ok(Self::Random { size: size.to_owned() });
        }
        if text == "embedded" {
            return Ok(Self::Embedded);
        }
        let path = Path::new(text);
        if path.is_dir() {
            return Ok(Self::Folder(path.to_owned()));
        }
        if path.exists() {
            return Ok(Self::File(path.to_owned()));
        }
        let ends = |suffix| text.to_ascii_lowercase().ends_with(suffix);
        let separator = text.contains(['/', '\\']);
        if separator || text.starts_with(['.', '~']) || ends(".safetensors") || ends(".pth") {
            let hint = match text.strip_prefix("facebook/") {
                Some(_) => "; published models go by short names, such as dinov2-small or dinov2-small-reg",
                None => "",
            };
            return Err(Error::input(format!("backbone {}: no such file or folder{hint}", super::quoted(text))));
        }
        let size = text.strip_prefix("dinov2-").map(|size| size.strip_suffix("-reg").unwrap_or(size));
        if size.is_some_and(|size| SIZES.contains(&size)) {
            return Ok(Self::Hub { name: text.to_owned() });
        }
        Err(Error::input(format!(
            "backbone {}: expected dinov2-small, -base, -large or -giant (each also with -reg), random:SIZE, or the path \
             of a folder, .safetensors or .pth file",
            super::quoted(text)
        )))
    }
}
