//! Kernels on a device: which build suits it, loading the PTX, launching an entry.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytemuck::Pod;
use cudarc::driver::sys::{self, CUfunction_attribute, CUresult};
use cudarc::driver::{CudaFunction, CudaModule, CudaStream};
use cudarc::nvrtc::Ptx;

use super::{Device, error};
use crate::{Error, Result};

/// What a kernel's PTX was compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Arch {
    /// compute_80: runs on compute capability 8.0 and everything later.
    Sm80,
    /// compute_90a, with Hopper's own instructions: runs on capability 9.0 and on nothing else.
    Sm90a,
}

impl Arch {
    /// Every architecture that kernels are built for, the general one first.
    pub const ALL: [Self; 2] = [Self::Sm80, Self::Sm90a];

    /// The best build for a device; None where none runs.
    pub fn for_capability(capability: (u32, u32)) -> Option<Self> {
        Self::ALL.into_iter().rev().find(|arch| arch.runs_on(capability))
    }

    /// Whether a device of this compute capability, (major, minor), runs this build.
    pub fn runs_on(self, capability: (u32, u32)) -> bool {
        match self {
            Self::Sm80 => capability >= (8, 0),
            Self::Sm90a => capability == (9, 0),
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sm80 => "sm_80",
            Self::Sm90a => "sm_90a",
        })
    }
}

impl FromStr for Arch {
    type Err = Error;

    /// Reads PEFTK_ARCH.
    fn from_str(text: &str) -> Result<Self> {
        match text.trim_start_matches("sm_") {
            "80" => Ok(Self::Sm80),
            "90a" => Ok(Self::Sm90a),
            _ => Err(Error::input(format!("PEFTK_ARCH: expected 80 or 90a, found '{text}'"))),
        }
    }
}

/// The kernel files that a device holds. No [`Module`]s: they hold the device, and a circle would never be freed.
#[derive(Debug, Default)]
pub(super) struct Modules {
    pub(super) files: HashMap<&'static str, Arc<CudaModule>>,
    /// What loading them and finding their entries took.
    pub(super) time: Duration,
}

/// One kernel file's PTX, loaded on a device.
#[derive(Debug)]
pub struct Module {
    name: &'static str,
    /// None on a dry device.
    module: Option<Arc<CudaModule>>,
    /// The entries that wait for what was queued before them.
    waiting: Vec<&'static str>,
    device: Device,
}

impl Module {
    /// Loads a kernel file's PTX; the driver compiles it for the device, or takes it from its cache. `waiting` names the entries that wait
    /// by themselves for what was queued before them, ahead of their first access to global memory: they are launched early.
    ///
    /// # Errors
    /// [`Error::Input`] when the driver is too old for the PTX.
    pub fn load(device: &Device, name: &'static str, ptx: &str, waiting: Vec<&'static str>) -> Result<Self> {
        let load = |real: &super::context::Real| {
            real.context.load_module(Ptx::from_src(ptx)).map_err(|e| match e.0 {
                CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION => Error::input(format!(
                    "kernel {name}: the driver is older than its PTX; install NVIDIA's driver 580 or later, or use --device cpu"
                )),
                _ => error::device(format_args!("load kernel {name} for {}", device.arch()), e),
            })
        };
        let module = device.0.real.as_ref().map(load).transpose()?;
        Ok(Self { name, module, waiting, device: device.clone() })
    }

    /// As [`Module::load`], but the file stays with the device and is not loaded again for its next entry: `name` has to stand for one PTX.
    /// `machine` is that PTX compiled for this GPU, which saves the driver doing so; what the driver does not take of it, it compiles.
    pub(crate) fn load_once(
        device: &Device,
        name: &'static str,
        ptx: &str,
        machine: Option<&[u8]>,
        waiting: Vec<&'static str>,
    ) -> Result<Self> {
        let mut modules = device.0.modules.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(module) = modules.files.get(name) {
            return Ok(Self { name, module: Some(module.clone()), waiting, device: device.clone() });
        }
        let ready = device.0.real.as_ref().filter(|real| !real.compiles).zip(machine).and_then(|(real, machine)| {
            // Its error is of no interest: PTX is what counts.
            real.context.load_module(Ptx::from_binary(machine.to_vec())).ok()
        });
        let loaded = match ready {
            Some(module) => Self { name, module: Some(module), waiting, device: device.clone() },
            None => Self::load(device, name, ptx, waiting)?,
        };
        modules.files.extend(loaded.module.clone().map(|module| (name, module)));
        Ok(loaded)
    }

    /// One of its entries, by the name that the kernel file gives it.
    ///
    /// # Errors
    /// [`Error::Internal`] when it has no such entry.
    pub fn function(&self, entry: &'static str) -> Result<Function> {
        let (Some(module), Some(real)) = (&self.module, &self.device.0.real) else {
            return Ok(Function { entry, real: None });
        };
        let function = module
            .load_function(entry)
            .map_err(|e| error::device(format_args!("find entry {entry} in kernel {}", self.name), e))?;
        let shared_limit = Arc::new(AtomicU32::new(0));
        let early = real.launches_early && self.waiting.contains(&entry);
        Ok(Function { entry, real: Some(Loaded { function, stream: real.stream.clone(), shared_limit, early }) })
    }
}

/// The size of a launch: blocks along x, y and z, threads a block (x), and dynamic shared memory in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    /// Blocks along x, y and z.
    pub blocks: (u32, u32, u32),
    /// Threads a block.
    pub threads: u32,
    /// Dynamic shared memory a block, in bytes.
    pub shared_bytes: u32,
}

/// A kernel's entry, ready to launch.
#[derive(Debug, Clone)]
pub struct Function {
    entry: &'static str,
    /// None on a dry device: launches do nothing.
    real: Option<Loaded>,
}

// No Device: the device keeps its functions, and a circle would never be freed.
#[derive(Debug, Clone)]
struct Loaded {
    function: CudaFunction,
    stream: Arc<CudaStream>,
    /// The most dynamic shared memory that was asked for so far. It is asked for from the first byte on: up to 48 KiB, less what the entry
    /// has of its own, would do without.
    shared_limit: Arc<AtomicU32>,
    /// Whether its blocks may come in before the launch before it is done: it waits for that by itself.
    early: bool,
}

impl Function {
    /// The entry's name.
    pub fn entry(&self) -> &'static str {
        self.entry
    }

    /// Queues one launch on the device's stream and returns at once; `params` is copied.
    ///
    /// # Errors
    /// A launch the driver refuses. What goes wrong on the device shows at the next call that waits for it.
    ///
    /// # Safety
    /// `P` must be the struct that the entry takes as its only argument. Every address in it must be device memory of this
    /// device, of the type and at least of the extent that the entry reads and writes for these sizes; it must stay allocated
    /// until the launch is queued (memory is freed in stream order), and nothing it writes may be read by the same launch, but
    /// where the entry says so. `grid` must be one that the entry was written for. An entry that was named as waiting to
    /// [`Module::load`] must do so.
    pub unsafe fn launch<P: Pod>(&self, grid: Grid, params: &P) -> Result<()> {
        let Some(real) = &self.real else { return Ok(()) };
        let failed = |e| error::device(format_args!("launch {} with {grid:?}", self.entry), e);
        if grid.shared_bytes > real.shared_limit.load(Ordering::Relaxed) {
            let attribute = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            real.function.set_attribute(attribute, grid.shared_bytes.cast_signed()).map_err(failed)?;
            real.shared_limit.store(grid.shared_bytes, Ordering::Relaxed);
        }
        // Every launch binds: the last one may have been on another thread.
        real.stream.context().bind_to_thread().map_err(failed)?;
        let mut early = sys::CUlaunchAttribute {
            id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
            pad: [0; 4],
            value: sys::CUlaunchAttributeValue { pad: [0; 64] },
        };
        early.value.programmaticStreamSerializationAllowed = 1;
        let config = sys::CUlaunchConfig {
            gridDimX: grid.blocks.0,
            gridDimY: grid.blocks.1,
            gridDimZ: grid.blocks.2,
            blockDimX: grid.threads,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: grid.shared_bytes,
            hStream: real.stream.cu_stream(),
            attrs: &raw mut early,
            numAttrs: u32::from(real.early),
        };
        let mut arguments = [std::ptr::from_ref(params).cast_mut().cast()];
        // SAFETY: function and stream live as long as `real`; the driver copies the attribute and the parameters, which it only reads,
        // before it returns. An early launch is of an entry that waits for all that was queued before it. The rest is the caller's promise.
        let launched = unsafe {
            sys::cuLaunchKernelEx(&config, real.function.cu_function(), arguments.as_mut_ptr(), std::ptr::null_mut())
        };
        launched.result().map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_build_follows_the_capability() {
        assert_eq!(Arch::for_capability((7, 5)), None);
        assert_eq!(Arch::for_capability((8, 0)), Some(Arch::Sm80));
        assert_eq!(Arch::for_capability((8, 9)), Some(Arch::Sm80));
        assert_eq!(Arch::for_capability((9, 0)), Some(Arch::Sm90a));
        assert_eq!(Arch::for_capability((10, 0)), Some(Arch::Sm80), "sm_90a is Hopper's alone");
        assert_eq!(Arch::for_capability((12, 0)), Some(Arch::Sm80));
    }

    #[test]
    fn peftk_arch_is_read_or_refused() {
        assert_eq!("80".parse::<Arch>().unwrap(), Arch::Sm80);
        assert_eq!("sm_90a".parse::<Arch>().unwrap(), Arch::Sm90a);
        let message = "90".parse::<Arch>().unwrap_err().to_string();
        assert_eq!(message, "PEFTK_ARCH: expected 80 or 90a, found '90'");
    }
}
