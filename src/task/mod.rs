//! What labels are: one class an image, any number of labels, or a way through a tree of them.

pub mod criterion;
pub mod labels;
pub mod metrics;
pub mod multilabel_metrics;
pub mod thresholds;
pub mod tree;
pub mod tree_metrics;
