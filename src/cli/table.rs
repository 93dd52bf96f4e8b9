//! Small tables and numbers for people.

use std::fmt::Write;

use crate::compare::numbers;

/// Two columns, the first as wide as its longest cell, each line with its line break.
pub fn aligned<K: AsRef<str>, V: AsRef<str>>(rows: &[(K, V)]) -> String {
    let width = rows.iter().map(|row| row.0.as_ref().chars().count()).max().unwrap_or(0);
    rows.iter().fold(String::new(), |mut text, (key, value)| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{:width$}  {}", key.as_ref(), value.as_ref());
        text
    })
}

/// Columns of a table whose lines are printed one by one: words to the left, numbers to the right, two spaces between them.
#[derive(Debug)]
pub struct Columns(Vec<(usize, Side)>);

/// Where a cell stands in its column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Left,
    Right,
}

impl Columns {
    /// Columns of at least these widths, in characters.
    pub fn new(columns: impl IntoIterator<Item = (usize, Side)>) -> Self {
        Self(columns.into_iter().collect())
    }

    /// A line, without its line break. A cell that is too wide pushes what follows; one behind the last column stands as it is.
    pub fn line<S: AsRef<str>>(&self, cells: &[S]) -> String {
        let columns = self.0.iter().copied().chain(std::iter::repeat((0, Side::Left)));
        let padded: Vec<String> = columns
            .zip(cells.iter().map(AsRef::as_ref))
            .map(|((width, side), cell)| match side {
                Side::Left => format!("{cell:width$}"),
                Side::Right => format!("{cell:>width$}"),
            })
            .collect();
        padded.join("  ").trim_end().to_owned()
    }
}

/// A bar of block characters, `part` of `whole` in `width` columns to an eighth of one; what is there at all is seen.
pub fn bar(part: u64, whole: u64, width: usize) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (share(part, whole) * (8 * width) as f64).round() as usize;
    let eighths = if part == 0 { 0 } else { eighths.clamp(1, 8 * width) };
    "█".repeat(eighths / 8) + EIGHTHS[eighths % 8]
}

/// `part` of `whole`, from 0 to 1; of nothing, 0.
pub fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// 1234567 as 1,234,567.
pub fn count(value: u64) -> String {
    numbers::count(value as f64)
}

/// Bytes in the binary unit that fits.
pub fn bytes(value: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match units.into_iter().find(|(_, shift)| value >> shift > 0) {
        Some((unit, shift)) => format!("{:.1} {unit}", value as f64 / (1u64 << shift) as f64),
        None => format!("{value} B"),
    }
}

/// Seconds as hours, minutes and seconds.
pub fn duration(seconds: f64) -> String {
    if seconds < 60.0 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds.round() as u64;
    let (hours, minutes, seconds) = (whole / 3600, whole / 60 % 60, whole % 60);
    if hours > 0 { format!("{hours} h {minutes} min") } else { format!("{minutes} min {seconds} s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!([0, 999, 1000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0, 1023, 1024, 3 << 29].map(bytes), ["0 B", "1023 B", "1.0 KiB", "1.5 GiB"]);
        assert_eq!([0.04, 59.0, 83.4, 7260.0].map(duration), ["0.0 s", "59.0 s", "1 min 23 s", "2 h 1 min"]);
    }

    #[test]
    fn columns() {
        assert_eq!(aligned(&[("a", "1"), ("bcd", "2")]), "a    1\nbcd  2\n");
    }

    #[test]
    fn lines_one_by_one() {
        let columns = Columns::new([(4, Side::Left), (5, Side::Right), (3, Side::Left)]);
        assert_eq!(columns.line(&["ab", "1.5", "x"]), "ab      1.5  x");
        assert_eq!(columns.line(&["longer", "1.5"]), "longer    1.5");
        assert_eq!(columns.line(&["ä", "", "x", "behind them"]), "ä            x    behind them");
    }

    #[test]
    fn bars_are_in_proportion() {
        let cases = [
            (0, 100, ""),
            (100, 100, "████"),
            (50, 100, "██"),
            (25, 100, "█"),
            (28, 100, "█▏"),
            (62, 100, "██▌"),
            (99, 100, "████"),
            (97, 100, "███▉"),
            // Too little for an eighth, and yet not nothing.
            (1, 1 << 40, "▏"),
            (u64::MAX, u64::MAX, "████"),
            (0, 0, ""),
            // More than all there is.
            (7, 0, "▏"),
            (200, 100, "████"),
        ];
        for (part, whole, expected) in cases {
            assert_eq!(bar(part, whole, 4), expected, "{part} of {whole}");
        }
        assert_eq!((share(1, 4), share(0, 0)), (0.25, 0.0));
    }
}
