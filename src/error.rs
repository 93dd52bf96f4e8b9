//! The one error type, and the exit code each kind ends the program with.

use std::path::{Path, PathBuf};

/// What went wrong, in words that name the file or flag, what was expected and what was found.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The user's flags, data, backbone or adapter are wrong. The message is one line and says the mend.
    #[error("{0}")]
    Input(String),
    /// A file could not be read or written (a full disk, a missing folder, no permission).
    #[error("cannot {doing} {path}: {source}", path = one_line(&path.display().to_string()))]
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
        Self::Input(one_line(&message.into()))
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

/// `text` with its line breaks and indents made single spaces, and other control characters escaped: messages repeat names out of files,
/// which must neither break a line nor command a terminal.
pub(crate) fn one_line(text: &str) -> String {
    let lines = text.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty());
    let line = lines.collect::<Vec<_>>().join(" ");
    if !line.contains(char::is_control) {
        return line;
    }
    line.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_out_of_files_break_no_line_and_command_no_terminal() {
        let error = Error::input("labels.csv, line 2: no file a\r\u{1b}[2J\0b.png;\n  correct the name");
        assert_eq!(error.to_string(), "labels.csv, line 2: no file a \\u{1b}[2J\\u{0}b.png; correct the name");
        let error = Error::io("read", "a\nb\u{1b}", std::io::ErrorKind::NotFound.into());
        assert_eq!(error.to_string(), "cannot read a b\\u{1b}: entity not found");
        assert_eq!(Error::input("Käse, 2 x 3").to_string(), "Käse, 2 x 3");
    }
}
