//! The one error type, and the exit code each kind ends the program with.

use std::path::{Path, PathBuf};

/// What went wrong, in words that name the file or flag, what was expected and what was found.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The user's flags, data, backbone or adapter are wrong. The message is one line and says the mend.
    #[error("{0}")]
    Input(String),
    /// A file could not be read or written (a full disk, a missing folder, no permission).
    #[error("cannot {doing} {path}: {source}", path = path.display())]
    Io {
        /// What was being done: "read", "write", "create".
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// Two shapes in an operation do not fit.
    #[error("{op}: expected {expected}, found {found}")]
    Shape {
        /// The operation or tensor.
        op: String,
        /// The shape that was needed.
        expected: String,
        /// The shape that came.
        found: String,
    },
    /// A loss or gradient stopped being a number.
    #[error("{0}")]
    NonFinite(String),
    /// Ctrl-C: what is saved can be resumed.
    #[error("interrupted")]
    Interrupted,
    /// A device fault or a bug here.
    #[error("{0}")]
    Internal(String),
}

/// The crate's result.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Wrong input by the user, in one line.
    pub fn input(message: impl Into<String>) -> Self {
        Self::Input(message.into())
    }

    /// A file operation that failed; use as `.map_err(|e| Error::io("read", path, e))`.
    pub fn io(doing: &'static str, path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Self::Io { doing, path: path.as_ref().to_owned(), source }
    }

    /// A shape that does not fit.
    pub fn shape(op: impl Into<String>, expected: impl std::fmt::Debug, found: impl std::fmt::Debug) -> Self {
        Self::Shape { op: op.into(), expected: format!("{expected:?}"), found: format!("{found:?}") }
    }

    /// The process's exit code: 2 for what the user can mend, 130 for Ctrl-C, 1 for the rest.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Input(_) | Self::Io { .. } => 2,
            Self::Interrupted => 130,
            Self::Shape { .. } | Self::NonFinite(_) | Self::Internal(_) => 1,
        }
    }
}
