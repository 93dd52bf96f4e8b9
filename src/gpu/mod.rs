//! Everything that speaks to the CUDA driver: finding devices, memory, loading kernels, launching them.
//!
//! libcuda is opened when it is first asked for, so a program on a machine without a driver runs and can say what is missing.
//! Nothing above this module names cudarc; `unsafe` stays here and in the launchers of `kernels`, each with its reason.

mod arena;
mod buffer;
mod context;
mod dry;
mod dtype;
mod energy;
mod error;
mod guard;
mod module;
mod probe;
pub mod profile;
mod recording;
mod tensor_map;
mod upload;

pub use buffer::Buf;
pub use context::{Device, Usage};
pub use dtype::DType;
pub use energy::EnergyMeter;
pub use module::{Arch, Function, Grid, Module};
pub use probe::{DeviceInfo, Probe, probe};
pub use recording::Recording;
pub use tensor_map::{MatrixMap, TensorMapWords};
pub use upload::Later;
