//! Fine-tunes DINOv2 image classifiers: full, frozen backbone, LoRA, DoRA.

pub mod adapter;
pub mod autograd;
pub mod cli;
pub mod config;
pub mod cpu;
pub mod data;
pub mod error;
pub mod gpu;
pub mod io;
pub mod kernels;
pub mod reference;
pub mod task;
pub mod train;
pub mod vit;

pub use error::{Error, Result};
