//! One GPU and the stream all of this crate's work on it goes through.

use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaStream, sys};

use super::module::Arch;
use super::{DeviceInfo, error, probe};
use crate::{Error, Result};

/// An open GPU: its context, one stream, and which build of the kernels it runs.
///
/// All work is queued on the one stream, so it happens in the order of the calls. A clone is the same device.
#[derive(Debug, Clone)]
pub struct Device {
    info: DeviceInfo,
    arch: Arch,
    pub(super) context: Arc<CudaContext>,
    pub(super) stream: Arc<CudaStream>,
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
        Ok(Self { info, arch, context, stream })
    }

    /// What the driver says of this device.
    pub fn info(&self) -> &DeviceInfo {
        &self.info
    }

    /// The build of the kernels that this device was opened for.
    pub fn arch(&self) -> Arch {
        self.arch
    }

    /// Waits until all queued work is done.
    ///
    /// # Errors
    /// What went wrong in that work: a launch reports nothing by itself.
    pub fn synchronize(&self) -> Result<()> {
        self.stream.synchronize().map_err(|e| error::device("finish the queued work", e))
    }

    /// Runs `work` and returns the microseconds that the GPU spent on what it queued, after waiting for it.
    ///
    /// # Errors
    /// Those of `work`, and a device fault.
    pub fn time(&self, work: impl FnOnce() -> Result<()>) -> Result<f32> {
        let failed = |e| error::device("time the queued work", e);
        let mark = || self.stream.record_event(Some(sys::CUevent_flags::CU_EVENT_DEFAULT)).map_err(failed);
        let start = mark()?;
        work()?;
        let end = mark()?;
        Ok(start.elapsed_ms(&end).map_err(failed)? * 1000.0)
    }
}
