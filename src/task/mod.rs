//! What labels are: one class an image, or any number of labels.

pub mod metrics;
pub mod multilabel_metrics;
