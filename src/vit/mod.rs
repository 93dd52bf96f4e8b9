//! DINOv2: its shape, its weights' names, its forward pass.

mod block;
pub mod build;
pub mod config;
pub mod export;
mod linear;
mod model;
pub mod names;
pub mod positions;
mod trace;

pub use block::{Block, Norm};
pub use config::{Family, VitConfig};
pub use linear::{Linear, Mode, SiteAdapter};
pub use model::Vit;
pub use trace::Attention;
