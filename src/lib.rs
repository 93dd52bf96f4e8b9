//! Fine-tunes DINOv2 image classifiers: full, frozen backbone, LoRA, DoRA.

pub mod cli;
pub mod config;
pub mod error;
pub mod io;
pub mod task;
pub mod train;
pub mod vit;

pub use error::{Error, Result};
