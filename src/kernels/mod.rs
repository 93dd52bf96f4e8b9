//! The CUDA kernels of kernels/*.cu: their embedded PTX and, one file a kernel, a typed launcher that checks shapes first.
//!
//! [`table()`] is what the build embedded: nothing when it found no nvcc (`make setup` installs one). Every kernel has a plain-loop
//! counterpart in `reference`, tests in tests/kernels/ and a row in [`self_test`].

pub mod adamw;
pub mod adapter_pack;
pub mod attention;
pub mod augment;
pub(crate) mod check;
pub mod column_sum;
pub mod cut;
pub mod dora_dropout;
pub mod dora_norm;
pub mod dora_norm_backward;
mod entry;
pub mod layer_norm;
pub mod layer_scale;
pub mod lora_gradients;
mod lora_launches;
pub mod loss;
pub mod magnitude_rescale;
pub mod matmul;
pub mod merge;
pub mod params;
pub mod pointwise;
mod self_test;
mod sm90_matmul;
pub mod table;
pub mod tokens;

pub use dora_norm::{DoraNorm, DoraNormShape, MAX_RANK};
pub use self_test::{SelfTest, self_test};

use crate::gpu::{Arch, Device, Function, Module};
use crate::{Error, Result};

/// One file of kernels/, as the build compiled it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelInfo {
    /// The file's name without `.cu`.
    pub name: &'static str,
    /// Its PTX for every architecture.
    pub images: &'static [Image],
}

/// A kernel file's PTX for one architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Image {
    /// What it was compiled for.
    pub arch: Arch,
    /// The PTX text.
    pub ptx: &'static str,
    /// The same as machine code, where it is for one GPU alone.
    pub machine: Option<&'static [u8]>,
    /// What can be launched in it.
    pub entries: &'static [EntryInfo],
}

/// One entry of a kernel file and what ptxas says it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryInfo {
    /// The entry's name, as `extern "C"` gives it.
    pub name: &'static str,
    /// Registers a thread.
    pub registers: u32,
    /// Bytes a thread spills to memory, stores and loads together.
    pub spill_bytes: u32,
    /// Static shared memory a block, in bytes.
    pub shared_bytes: u32,
    /// Whether it waits for the launch before it by itself and so may begin early: kernels/common/pdl.cuh.
    pub waits: bool,
}

mod embedded {
    include!(concat!(env!("OUT_DIR"), "/kernel_table.rs"));
}

/// Every kernel that this executable carries, by name; empty for a build without nvcc.
pub fn table() -> &'static [KernelInfo] {
    embedded::TABLE
}

/// The release of the nvcc that compiled the kernels; None for a build without nvcc.
pub fn nvcc_release() -> Option<&'static str> {
    embedded::NVCC
}

/// Fails when this executable carries no kernels.
///
/// # Errors
/// [`Error::Input`], with the mend.
pub fn require() -> Result<()> {
    if table().is_empty() {
        return Err(Error::input(
            "this peftk was built without nvcc and has no GPU kernels: run 'make setup' and build it again, or use --device cpu",
        ));
    }
    Ok(())
}

/// Entry `entry` of kernel file `file` on a device; loaded when it is first asked for, then kept.
///
/// # Errors
/// [`Error::Input`] when this executable carries no kernels; as [`Module::load`].
pub fn function(device: &Device, file: &'static str, entry: &'static str) -> Result<Function> {
    device.cached_function((file, entry), || {
        // A dry run needs no kernels: it is how a build without nvcc plans memory.
        if device.is_dry() {
            Module::load(device, file, "", Vec::new())?.function(entry)
        } else {
            load(device, file)?.function(entry)
        }
    })
}

/// Loads kernel file `name` on a device, in the build that the device was opened for.
///
/// # Errors
/// [`Error::Input`] when this executable carries no kernels; as [`Module::load`].
fn load(device: &Device, name: &str) -> Result<Module> {
    require()?;
    let kernel = table().iter().find(|kernel| kernel.name == name);
    let kernel = kernel.ok_or_else(|| Error::Internal(format!("no kernel file {name} was embedded")))?;
    let image = kernel.images.iter().find(|image| image.arch == device.arch());
    let image = image.ok_or_else(|| Error::Internal(format!("kernel {name} was not built for {}", device.arch())))?;
    let waiting = image.entries.iter().filter(|entry| entry.waits).map(|entry| entry.name).collect();
    Module::load_once(device, kernel.name, image.ptx, image.machine, waiting)
}
