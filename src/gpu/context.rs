//! One GPU, its memory, and the stream that all of this crate's work on it goes through.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use cudarc::driver::{CudaContext, CudaStream, result, sys};

use super::arena::Arena;
use super::guard::{self, Guard};
use super::module::{Arch, Function, Modules};
use super::upload::Staged;
use super::{DeviceInfo, error, probe};
use crate::{Error, Result};

/// An open GPU: its context, one stream, its memory, and which build of the kernels it runs. A clone is the same device.
///
/// All work is queued on the one stream, so it happens in the order of the calls; images come in on another, for which that one waits
/// (`upload.rs`). A dry device ([`Device::dry`]) has no GPU behind it:
/// it counts memory and launches nothing, which is how a run's memory is planned.
#[derive(Debug, Clone)]
pub struct Device(pub(super) Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) info: DeviceInfo,
    pub(super) arch: Arch,
    pub(super) multiprocessors: u32,
    pub(super) real: Option<Real>,
    pub(super) memory: Mutex<Memory>,
    /// In guard mode alone.
    pub(super) guard: OnceLock<Guard>,
    pub(super) functions: Mutex<HashMap<(&'static str, &'static str), Function>>,
    pub(super) modules: Mutex<Modules>,
}

/// What a GPU has that a dry device lacks.
#[derive(Debug, Clone)]
pub(super) struct Real {
    pub(super) context: Arc<CudaContext>,
    pub(super) stream: Arc<CudaStream>,
    /// What copies to the device may still be reading.
    staged: Arc<Mutex<Staged>>,
    /// Whether what is queued is being recorded.
    pub(super) recording: Arc<AtomicBool>,
    /// Whether kernels that wait by themselves are launched early: unless PEFTK_PDL=0 says no.
    pub(super) launches_early: bool,
    /// Whether the driver compiles all kernels from PTX, also those whose machine code is there: PEFTK_PTX=1.
    pub(super) compiles: bool,
}

/// Where blocks come from.
#[derive(Debug)]
pub(super) enum Memory {
    /// An allocation a block: nothing is planned, and a sanitizer sees each block's ends.
    Single(Usage),
    /// One allocation, made once. What does not fit it is allocated singly: a plan that is off costs time and shows in the peak, it ends no
    /// run.
    Arena { base: u64, arena: Arena, outside: Usage },
}

impl Memory {
    /// What is used by blocks.
    pub(super) fn usage(&self) -> Usage {
        match self {
            Self::Single(usage) => *usage,
            // Outside, the peak counts the arena's part as it was then.
            Self::Arena { arena, outside, .. } => {
                Usage { in_use: arena.in_use() + outside.in_use, peak: arena.high_water().max(outside.peak) }
            }
        }
    }
}

/// How much device memory was used, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// By blocks that are alive.
    pub in_use: u64,
    /// At most so far; in an arena the end of the highest block, gaps included.
    pub peak: u64,
}

impl Usage {
    pub(super) fn take(&mut self, bytes: u64) {
        self.in_use += bytes;
        self.peak = self.peak.max(self.in_use);
    }
}

impl Device {
    /// Opens device `ordinal` with the kernels that suit it, or with those that PEFTK_ARCH (`80` or `90a`) names.
    ///
    /// # Errors
    /// [`Error::Input`] without a driver, without that device, with a device older than compute capability 8.0, or when
    /// PEFTK_ARCH names kernels that the device does not run.
    pub fn open(ordinal: usize) -> Result<Self> {
        let forced = std::env::var("PEFTK_ARCH").ok().filter(|value| !value.is_empty());
        let arch = forced.map(|value| value.parse()).transpose()?;
        Self::open_with(ordinal, arch)
    }

    /// As [`Device::open`], with the kernels' architecture chosen by the caller where it is given.
    ///
    /// # Errors
    /// As [`Device::open`].
    pub fn open_with(ordinal: usize, arch: Option<Arch>) -> Result<Self> {
        let probe = probe();
        if let Some(problem) = probe.problem {
            return Err(Error::input(problem));
        }
        let count = probe.devices.len();
        let Some(info) = probe.devices.into_iter().nth(ordinal) else {
            return Err(Error::input(format!(
                "--device cuda:{ordinal}: expected a device from 0 to {}, the driver sees {count}; `peftk doctor` lists them",
                count - 1
            )));
        };
        let arch = match arch {
            Some(arch) if arch.runs_on(info.capability) => arch,
            Some(arch) => {
                let (major, minor) = info.capability;
                return Err(Error::input(format!(
                    "kernels for {arch} do not run on device {ordinal} ({}, compute capability {major}.{minor}); unset PEFTK_ARCH",
                    info.name
                )));
            }
            None => Arch::for_capability(info.capability).ok_or_else(|| {
                let (major, minor) = info.capability;
                Error::input(format!(
                    "device {ordinal} ({}) has compute capability {major}.{minor}, the kernels need 8.0 or later; use another \
                     --device",
                    info.name
                ))
            })?,
        };
        let context = CudaContext::new(ordinal).map_err(|e| {
            Error::input(format!(
                "cannot open device {ordinal} ({}): {}; look at nvidia-smi",
                info.name,
                error::describe(e)
            ))
        })?;
        // SAFETY: with one stream the order of the calls is the order of the work, so nothing is left for events to keep apart;
        // left on, they would cost two event objects an allocation. It must be off before the first allocation.
        unsafe { context.disable_event_tracking() };
        let stream = context.new_stream().map_err(|e| error::device("make a stream", e))?;
        keep_freed_memory(&context)?;
        Self::assemble(info, arch, context, stream)
    }

    /// A program's own context and stream: launches are queued there, behind and before its own work. Blocks are allocated from the stream's
    /// pool, and [`super::Buf::borrowed`] wraps the program's memory.
    ///
    /// # Errors
    /// As [`Device::open`].
    pub fn on_stream(stream: &Arc<CudaStream>) -> Result<Self> {
        let context = stream.context();
        let failed = |e| error::device("ask the device for its capability", e);
        let (major, minor) = context.compute_capability().map_err(failed)?;
        let info = DeviceInfo {
            name: context.name().map_err(failed)?,
            capability: (major.unsigned_abs(), minor.unsigned_abs()),
            memory_bytes: context.total_mem().map_err(failed)? as u64,
        };
        let arch = Arch::for_capability(info.capability).ok_or_else(|| {
            Error::input(format!("{} has compute capability {major}.{minor}, the kernels need 8.0 or later", info.name))
        })?;
        Self::assemble(info, arch, context.clone(), stream.clone())
    }

    fn assemble(info: DeviceInfo, arch: Arch, context: Arc<CudaContext>, stream: Arc<CudaStream>) -> Result<Self> {
        let multiprocessors = context
            .attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)
            .map_err(|e| error::device("count the multiprocessors", e))?
            .unsigned_abs();
        let launches_early = std::env::var_os("PEFTK_PDL").is_none_or(|value| value != "0");
        Ok(Self(Arc::new(Inner {
            info,
            arch,
            multiprocessors,
            real: Some(Real {
                context,
                stream,
                staged: Arc::default(),
                recording: Arc::default(),
                launches_early,
                compiles: std::env::var_os("PEFTK_PTX").is_some_and(|value| value == "1"),
            }),
            memory: Mutex::new(Memory::Single(Usage::default())),
            guard: guard::from_environment(),
            functions: Mutex::default(),
            modules: Mutex::default(),
        })))
    }

    /// From here on all blocks lie in one allocation of `bytes`. No block may be alive.
    ///
    /// # Errors
    /// [`Error::Input`] when the GPU has not that much memory left.
    pub fn reserve(&self, bytes: u64) -> Result<()> {
        let Some(real) = &self.0.real else { return Ok(()) };
        let mut memory = self.memory();
        let Memory::Single(Usage { in_use: 0, .. }) = *memory else {
            return Err(Error::Internal("the arena is made before the first block".into()));
        };
        real.bind()?;
        let bytes = bytes.max(1 << 20);
        // SAFETY: the context is current.
        let base = unsafe { result::malloc_sync(bytes as usize) }.map_err(|e| {
            let free = result::mem_get_info().map_or(0, |(free, _)| free);
            error::device(format_args!("reserve {} MiB ({} MiB are free)", bytes >> 20, free >> 20), e)
        })?;
        *memory = Memory::Arena { base, arena: Arena::new(bytes), outside: Usage::default() };
        Ok(())
    }

    /// What is used of the device's memory by blocks.
    pub fn usage(&self) -> Usage {
        self.memory().usage()
    }

    /// From here on the peak counts anew, from the blocks that there are.
    pub fn forget_peak(&self) {
        match &mut *self.memory() {
            Memory::Single(usage) => usage.peak = usage.in_use,
            Memory::Arena { arena, outside, .. } => {
                arena.forget_high_water();
                outside.peak = outside.in_use;
            }
        }
    }

    /// (free, total) bytes of the GPU, as the driver says; nothing on a dry device.
    ///
    /// # Errors
    /// A device fault.
    pub fn driver_memory(&self) -> Result<Option<(u64, u64)>> {
        let Some(real) = &self.0.real else { return Ok(None) };
        real.bind()?;
        let (free, total) = result::mem_get_info().map_err(|e| error::device("ask for the free memory", e))?;
        Ok(Some((free as u64, total as u64)))
    }

    /// What the driver says of this device.
    pub fn info(&self) -> &DeviceInfo {
        &self.0.info
    }

    /// Its place on the PCI bus, as NVIDIA's tools write it; none of a dry device.
    pub fn pci_bus_id(&self) -> Option<String> {
        use sys::CUdevice_attribute as Attribute;
        let context = &self.0.real.as_ref()?.context;
        let [domain, bus, device] = [
            Attribute::CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID,
            Attribute::CU_DEVICE_ATTRIBUTE_PCI_BUS_ID,
            Attribute::CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID,
        ]
        .map(|name| context.attribute(name).ok());
        Some(format!("{:08X}:{:02X}:{:02X}.0", domain?, bus?, device?))
    }

    /// The build of the kernels that this device was opened for.
    pub fn arch(&self) -> Arch {
        self.0.arch
    }

    /// How many multiprocessors it has.
    pub fn multiprocessors(&self) -> u32 {
        self.0.multiprocessors
    }

    /// Whether there is no GPU behind it.
    pub fn is_dry(&self) -> bool {
        self.0.real.is_none()
    }

    /// Whether both are one open device: opened twice, a GPU has two streams, and nothing orders one after the other.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Waits until all queued work is done.
    ///
    /// # Errors
    /// What went wrong in that work: a launch reports nothing by itself. In guard mode also bands that blocks given back had broken.
    pub fn synchronize(&self) -> Result<()> {
        if let Some(real) = &self.0.real {
            real.wait()?;
        }
        self.broken_guards()
    }

    /// Runs `work` and returns the microseconds that the GPU spent on what it queued, after waiting for it.
    ///
    /// # Errors
    /// Those of `work`, and a device fault.
    pub fn time(&self, work: impl FnOnce() -> Result<()>) -> Result<f32> {
        let Some(real) = &self.0.real else { return work().map(|()| 0.0) };
        let failed = |e| error::device("time the queued work", e);
        let mark = || real.stream.record_event(Some(sys::CUevent_flags::CU_EVENT_DEFAULT)).map_err(failed);
        let start = mark()?;
        work()?;
        let end = mark()?;
        let micros = start.elapsed_ms(&end).map_err(failed)? * 1000.0;
        self.broken_guards()?;
        Ok(micros)
    }

    pub(super) fn memory(&self) -> MutexGuard<'_, Memory> {
        // A panic elsewhere cannot leave the bookkeeping half done.
        self.0.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many kernel files were loaded so far, and how long that took.
    pub fn loaded_kernels(&self) -> (usize, Duration) {
        let modules = self.0.modules.lock().unwrap_or_else(PoisonError::into_inner);
        (modules.files.len(), modules.time)
    }

    /// The entry of that name, loaded by `load` when it is asked for the first time.
    pub(crate) fn cached_function(
        &self,
        key: (&'static str, &'static str),
        load: impl FnOnce() -> Result<Function>,
    ) -> Result<Function> {
        let mut functions = self.0.functions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(function) = functions.get(&key) {
            return Ok(function.clone());
        }
        let start = Instant::now();
        let function = load()?;
        self.0.modules.lock().unwrap_or_else(PoisonError::into_inner).time += start.elapsed();
        functions.insert(key, function.clone());
        Ok(function)
    }
}

/// The pool that single blocks come from gives everything back at each wait unless it is told not to.
fn keep_freed_memory(context: &CudaContext) -> Result<()> {
    let failed = |e| error::device("set up the memory pool", e);
    let mut pool = std::ptr::null_mut();
    // SAFETY: the device is the context's; the call writes one handle.
    unsafe { sys::cuDeviceGetDefaultMemPool(&mut pool, context.cu_device()) }.result().map_err(failed)?;
    let mut threshold = u64::MAX;
    let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    // SAFETY: this attribute is a 64-bit number, which the call copies.
    let set = unsafe { sys::cuMemPoolSetAttribute(pool, attribute, (&raw mut threshold).cast()) };
    set.result().map_err(failed)
}

impl Real {
    /// Makes the context current on this thread, as the driver's plain calls ask.
    pub(super) fn bind(&self) -> Result<()> {
        self.context.bind_to_thread().map_err(|e| error::device("use the device on this thread", e))
    }

    pub(super) fn staged(&self) -> MutexGuard<'_, Staged> {
        self.staged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for all queued work.
    pub(super) fn wait(&self) -> Result<()> {
        self.stream.synchronize().map_err(|e| error::device("finish the queued work", e))?;
        self.staged().forget();
        Ok(())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let memory = self.memory.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let (Some(real), Memory::Arena { base, .. }) = (&self.real, memory)
            && real.bind().is_ok()
        {
            // SAFETY: `base` came from malloc_sync, and no block holds this device any more. An error has no one left to hear it.
            let _ = unsafe { result::free_sync(*base) };
        }
    }
}
