//! What a run may trade for memory.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Points of the plan between speed and memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Memory {
    /// As fast as in little memory it can be.
    #[default]
    Fast,
    /// About half of that memory.
    Balanced,
    /// A fifth of it.
    Lean,
}

impl Memory {
    /// Every one, the fastest first.
    pub const ALL: [Self; 3] = [Self::Fast, Self::Balanced, Self::Lean];

    /// Its name in flags and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Balanced => "balanced",
            Self::Lean => "lean",
        }
    }
}

/// How much the backward pass computes again instead of having it kept; each includes those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing.
    #[default]
    Nothing,
    /// Query, key and value: what one product gives back is three times as wide as what it reads.
    Qkv,
    /// The output of the MLP's first linear too.
    Hidden,
    /// LayerNorm's outputs too, and GELU's.
    Pointwise,
    /// All within a block: its input alone is kept.
    Blocks,
}

impl Level {
    /// Every one, in order.
    pub const ALL: [Self; 5] = [Self::Nothing, Self::Qkv, Self::Hidden, Self::Pointwise, Self::Blocks];

    fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Qkv => "qkv",
            Self::Hidden => "hidden",
            Self::Pointwise => "pointwise",
            Self::Blocks => "blocks",
        }
    }

    /// One less.
    fn before(self) -> Self {
        match self {
            Self::Nothing | Self::Qkv => Self::Nothing,
            Self::Hidden => Self::Qkv,
            Self::Pointwise => Self::Hidden,
            Self::Blocks => Self::Pointwise,
        }
    }
}

/// What the backward pass computes again, block by block: a level in the first blocks, one less in the others. The numbers are the same bits.
/// In files `hidden`, or `hidden:5` for the first five blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Recompute {
    level: Level,
    /// None: in all of them.
    first: Option<u16>,
}

impl Recompute {
    /// Nothing in any block.
    pub const NOTHING: Self = Self::everywhere(Level::Nothing);
    /// [`Level::Qkv`] in all.
    pub const QKV: Self = Self::everywhere(Level::Qkv);
    /// [`Level::Hidden`] in all.
    pub const HIDDEN: Self = Self::everywhere(Level::Hidden);
    /// [`Level::Pointwise`] in all.
    pub const POINTWISE: Self = Self::everywhere(Level::Pointwise);
    /// [`Level::Blocks`] in all.
    pub const BLOCKS: Self = Self::everywhere(Level::Blocks);

    /// A level in all blocks.
    pub const fn everywhere(level: Level) -> Self {
        Self { level, first: None }
    }

    /// A level in the first `blocks`, one less in the others.
    pub fn in_first(level: Level, blocks: u16) -> Self {
        Self { level, first: Some(blocks) }
    }

    /// What is computed again in one of them.
    pub fn of_block(self, index: usize) -> Level {
        match self.first {
            Some(first) if index >= usize::from(first) => self.level.before(),
            _ => self.level,
        }
    }

    /// The level, and in how many of the first blocks where that is not all.
    pub fn parts(self) -> (Level, Option<u16>) {
        (self.level, self.first)
    }
}

impl fmt::Display for Recompute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first {
            Some(first) => write!(f, "{}:{first}", self.level.name()),
            None => f.write_str(self.level.name()),
        }
    }
}

impl From<Recompute> for String {
    fn from(recompute: Recompute) -> Self {
        recompute.to_string()
    }
}

impl TryFrom<String> for Recompute {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let (name, first) = match text.split_once(':') {
            Some((name, first)) => (name, Some(first)),
            None => (text.as_str(), None),
        };
        let level = Level::ALL.into_iter().find(|level| level.name() == name);
        let first = first.map(str::parse).transpose().ok();
        let wrong = || {
            format!(
                "'{text}': expected nothing, qkv, hidden, pointwise or blocks, or as hidden:5 for the first 5 blocks"
            )
        };
        Ok(Self { level: level.ok_or_else(wrong)?, first: first.ok_or_else(wrong)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_blocks_compute_more_again() {
        let some = Recompute::in_first(Level::Hidden, 2);
        assert_eq!([0, 1, 2, 11].map(|i| some.of_block(i)), [Level::Hidden, Level::Hidden, Level::Qkv, Level::Qkv]);
        assert_eq!([0, 40].map(|i| Recompute::BLOCKS.of_block(i)), [Level::Blocks, Level::Blocks]);
        assert_eq!(Recompute::in_first(Level::Qkv, 0).of_block(0), Level::Nothing);
    }

    #[test]
    fn files_hold_it_as_text() {
        for (recompute, text) in [(Recompute::QKV, "qkv"), (Recompute::in_first(Level::Pointwise, 7), "pointwise:7")] {
            assert_eq!(recompute.to_string(), text);
            assert_eq!(Recompute::try_from(text.to_owned()), Ok(recompute));
        }
        for wrong in ["much", "qkv:", "qkv:-1", "hidden:x", ""] {
            assert!(Recompute::try_from(wrong.to_owned()).unwrap_err().contains("hidden:5"), "{wrong}");
        }
    }
}
