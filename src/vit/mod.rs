//! DINOv2: its shape, its weights' names, its forward pass.

pub mod config;
pub mod names;

pub use config::{Family, VitConfig};
