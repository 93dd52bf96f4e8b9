//! What is wrong with a data set's lists, collected: who mends one line wants to know of the others.

use crate::{Error, Result};

/// Problems in one message at most.
const LISTED: usize = 5;

/// Mistakes of the user's in one data set.
#[derive(Debug, Default)]
pub(super) struct Problems {
    first: Vec<String>,
    count: usize,
}

impl Problems {
    /// What came out well; a mistake of the user's is kept for later.
    ///
    /// # Errors
    /// What is no such mistake: a file that cannot be read.
    pub fn keep<T>(&mut self, result: Result<T>) -> Result<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(Error::Input(text)) => {
                self.count += 1;
                if self.first.len() < LISTED {
                    self.first.push(text);
                }
                Ok(None)
            }
            Err(other) => Err(other),
        }
    }

    /// # Errors
    /// One line with all that was kept, if anything was: each names its file and line, and the mend.
    pub fn finish(&mut self) -> Result<()> {
        let first = std::mem::take(&mut self.first);
        match (self.count, &first[..]) {
            (0, _) => Ok(()),
            (_, [only]) => Err(Error::input(only.clone())),
            (count, first) => {
                let more = if count > LISTED { format!("; and {} more", count - LISTED) } else { String::new() };
                Err(Error::input(format!("{count} entries are wrong: {}{more}", first.join("; "))))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_itself_and_many_are_counted() {
        let mut problems = Problems::default();
        assert!(problems.finish().is_ok());
        assert_eq!(problems.keep(Ok(3)).unwrap(), Some(3));
        let wrong = |n: usize| Err::<(), _>(Error::input(format!("line {n}: wrong")));
        assert!(problems.keep(wrong(1)).unwrap().is_none());
        assert_eq!(problems.finish().unwrap_err().to_string(), "line 1: wrong");
        let mut problems = Problems::default();
        (1..8).for_each(|n| assert!(problems.keep(wrong(n)).unwrap().is_none()));
        let text = problems.finish().unwrap_err().to_string();
        assert!(
            text.starts_with("7 entries are wrong: line 1: wrong; line 2") && text.ends_with("; and 2 more"),
            "{text}"
        );
        assert!(problems.keep(Err::<(), _>(Error::Interrupted)).is_err());
    }
}
