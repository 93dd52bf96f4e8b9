//! Fine-tunes DINOv2 image classifiers: full, frozen backbone, LoRA, DoRA.

pub mod config;
pub mod data;
pub mod error;
pub mod vit;

pub use error::{Error, Result};
