//! Fine-tunes DINOv2 image classifiers: full, frozen backbone, LoRA, DoRA.

pub mod adapter;
pub mod config;
pub mod error;
pub mod io;
pub mod vit;

pub use error::{Error, Result};
