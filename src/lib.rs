//! Fine-tunes DINOv2 image classifiers: full, frozen backbone, LoRA, DoRA.

// Unsafe code has two homes: the driver calls and the launchers.
#![deny(unsafe_code)]

pub mod adapter;
pub mod autograd;
pub mod cli;
pub mod compare;
pub mod config;
pub mod cpu;
pub mod cuda;
pub mod data;
pub mod error;
pub mod explain;
pub mod geometry;
#[allow(unsafe_code)]
pub mod gpu;
pub mod io;
#[allow(unsafe_code)]
pub mod kernels;
pub mod reference;
pub mod task;
pub mod train;
pub mod vit;

pub use error::{Error, Result};
