//! What labels are.

use serde::{Deserialize, Serialize};

/// What a label is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// One class an image: softmax and cross-entropy.
    Multiclass,
    /// Any number of labels an image: one sigmoid a label, binary cross-entropy or the asymmetric loss.
    Multilabel,
    /// Labels of a tree: a softmax for each group that excludes each other, a sigmoid for each label by itself.
    Hierarchical,
}

impl Task {
    /// Its name, as `--task` and config.toml have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Multiclass => "multiclass",
            Self::Multilabel => "multilabel",
            Self::Hierarchical => "hierarchical",
        }
    }
}
