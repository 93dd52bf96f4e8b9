//! Text files of one entry a line.

use std::path::Path;

use super::text;
use crate::{Error, Result};

/// A line that is not empty, and what to call it in a message.
pub(super) struct Line {
    pub(super) text: String,
    pub(super) place: String,
}

impl Line {
    /// Two columns: up to the first white space, and the rest, which may hold more.
    pub(super) fn two(&self) -> Result<(&str, &str)> {
        self.text
            .split_once(char::is_whitespace)
            .map(|(first, rest)| (first, rest.trim()))
            .filter(|(first, rest)| !first.is_empty() && !rest.is_empty())
            .ok_or_else(|| {
                Error::input(format!("{}: expected two columns, found {:?}; correct the line", self.place, self.text))
            })
    }

    /// A number from 1 to `most` in a column, less 1.
    pub(super) fn counted_from_1(&self, column: &str, most: usize) -> Result<usize> {
        let number = column.parse::<usize>().ok().filter(|number| (1..=most).contains(number));
        number.map(|number| number - 1).ok_or_else(|| {
            Error::input(format!("{}: expected a number from 1 to {most}, found {column:?}", self.place))
        })
    }
}

/// The lines of a file.
pub(super) fn lines(path: &Path) -> Result<Vec<Line>> {
    let text = text(path)?;
    let numbered = text.lines().map(str::trim_end).enumerate().filter(|(_, line)| !line.trim().is_empty());
    Ok(numbered
        .map(|(i, line)| Line { text: line.to_owned(), place: format!("{}, line {}", path.display(), i + 1) })
        .collect())
}
