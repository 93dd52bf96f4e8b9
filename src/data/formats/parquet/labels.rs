//! Labels as they are read, before it is known which classes there are.

use std::collections::HashMap;

/// Different labels that a column may hold.
const MOST_CLASSES: usize = 1 << 16;

/// A label as it is stored; numbers are ordered as such, texts by their bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Value {
    Int(i64),
    Text(String),
}

/// The different labels of a set, numbered as they come.
#[derive(Default)]
pub(super) struct Values {
    index: HashMap<Value, u32>,
}

impl Values {
    pub(super) fn number(&mut self, value: Value) -> std::result::Result<u32, String> {
        let next = self.index.len();
        if next >= MOST_CLASSES && !self.index.contains_key(&value) {
            return Err(format!("more than {MOST_CLASSES} different labels; is the column what it is called?"));
        }
        // No more than `MOST_CLASSES`.
        Ok(*self.index.entry(value).or_insert(next as u32))
    }

    /// In the order of their numbers.
    pub(super) fn into_list(self) -> Vec<Value> {
        let mut all: Vec<(Value, u32)> = self.index.into_iter().collect();
        all.sort_by_key(|(_, number)| *number);
        all.into_iter().map(|(value, _)| value).collect()
    }
}

/// A row's labels, by number.
#[derive(Clone, Debug)]
pub(super) enum Labels {
    /// None is given: null, an empty text, or a ClassLabel of -1.
    None,
    One(u32),
    Many(Box<[u32]>),
}
