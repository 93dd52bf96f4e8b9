//! What a profiler is told: named ranges of work for NVTX, and which part of a run to record.
//!
//! The ranges need the feature `nvtx`; without it they are nothing at all. tools/profile.sh shows both in use.

use cudarc::driver::{profiler_start, profiler_stop};

use super::{Device, error};
use crate::Result;

/// A range of work that lasts until this is dropped, on the thread that opened it.
#[must_use = "the range ends when this is dropped"]
#[derive(Debug)]
pub struct Range {
    #[cfg(feature = "nvtx")]
    _range: nvtx::LocalRange,
}

/// Opens a range.
#[inline]
pub fn range(name: &'static str) -> Range {
    #[cfg(not(feature = "nvtx"))]
    let _ = name;
    Range {
        #[cfg(feature = "nvtx")]
        _range: nvtx::LocalRange::new(nvtx::Str::from_str_lossy(name)),
    }
}

/// Opens a range named `name` and a number.
#[inline]
pub fn numbered_range(name: &'static str, number: usize) -> Range {
    #[cfg(not(feature = "nvtx"))]
    let _ = (name, number);
    Range {
        #[cfg(feature = "nvtx")]
        _range: nvtx::LocalRange::new(nvtx::Str::from_str_lossy(&format!("{name} {number}"))),
    }
}

impl Device {
    /// Runs `work` as the part that a profiler records when it waits to be told (`ncu --profile-from-start off`, `nsys profile
    /// --capture-range=cudaProfilerApi`), and waits for what it queued. Without a profiler, and on a dry device, it only runs it.
    ///
    /// # Errors
    /// Those of `work`, and a device fault.
    pub fn profiled<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let Some(real) = &self.0.real else { return work() };
        real.bind()?;
        self.synchronize()?;
        profiler_start().map_err(|e| error::device("start the profiler", e))?;
        let result = work();
        let waited = self.synchronize();
        profiler_stop().map_err(|e| error::device("stop the profiler", e))?;
        waited.and(result)
    }
}
