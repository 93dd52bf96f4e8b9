//! Adapters: which linears have one, of what rank and scale, and peft's two files.

pub mod config;
mod config_json;
pub mod file;
mod init;
mod patterns;
mod svd;

pub use config::{AdapterConfig, NameFamily, Site, Targets};
pub use file::{AdapterFile, AdapterModule, read, write};
pub use init::{as_plain, init, principal};
