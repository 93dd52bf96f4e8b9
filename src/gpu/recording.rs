//! Work that is recorded once and queued again as a whole: a CUDA graph.
//!
//! A launch costs the host a few microseconds; a training step has hundreds of launches a pass, and on small micro-batches the GPU waits for
//! them. A recording is queued at the price of one. Its launches go to the addresses of the time of recording, so it is replayed only while the
//! arena's free ranges are what they were then: the blocks that the work took for itself are then free again, at the same places. Blocks that
//! it reads or leaves results in must be alive and where they were; that is the caller's to compare.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::Ordering;

use cudarc::driver::{CudaGraph, sys};

use super::context::Memory;
use super::{Device, error};
use crate::{Error, Result};

/// Recorded work of one device.
pub struct Recording {
    graph: CudaGraph,
    /// Free ranges of the arena when the work began, and when it was done.
    free: BTreeMap<u64, u64>,
    /// The arena that it goes to lives at least as long.
    device: Device,
}

impl fmt::Debug for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recording").field("device", &self.device).finish_non_exhaustive()
    }
}

impl Device {
    /// Whether work is to be made ready for [`Device::record`]: in an arena, unless PEFTK_GRAPHS=0 says no. A dry device answers as the real
    /// one would.
    pub fn records(&self) -> bool {
        let refused = std::env::var_os("PEFTK_GRAPHS").is_some_and(|value| value == "0");
        !refused && matches!(*self.memory(), Memory::Arena { .. })
    }

    /// Queues what `work` queues, recorded if that is possible. Nothing is recorded on a dry device, in guard mode, when blocks had to be
    /// allocated outside of the arena, or when `work` kept a block or gave back another's; the work is done all the same.
    ///
    /// # Errors
    /// Those of `work`, also for a copy from the host or a wait within it; a device fault.
    pub fn record(&self, work: impl FnOnce() -> Result<()>) -> Result<Option<Recording>> {
        let records = self.records() && !self.is_guarded();
        let (Some(real), true, Some(free)) = (&self.0.real, records, self.free_ranges()) else {
            return work().map(|()| None);
        };
        let failed = |e| error::device("record work (PEFTK_GRAPHS=0 runs without recordings)", e);
        // Other threads may go on with their own calls: they have nothing to do with this stream.
        real.stream.begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).map_err(failed)?;
        real.recording.store(true, Ordering::Relaxed);
        let done = work();
        real.recording.store(false, Ordering::Relaxed);
        // Ended in any case, or the stream stays unusable.
        let ended = real.stream.end_capture(sys::CUgraphInstantiate_flags(0)).map_err(failed);
        done?;
        let Some(graph) = ended? else { return Err(Error::Internal("work that was recorded queued nothing".into())) };
        graph.launch().map_err(failed)?;
        if self.free_ranges().as_ref() != Some(&free) {
            // Its launches are queued; as they need the graph, it goes when they are done.
            real.wait()?;
            return Ok(None);
        }
        Ok(Some(Recording { graph, free, device: self.clone() }))
    }

    /// Queues recorded work again; false, and nothing is queued, when other ranges of the arena are free than when it was recorded.
    ///
    /// # Errors
    /// A recording of another device; a device fault.
    pub fn replay(&self, recording: &Recording) -> Result<bool> {
        if !self.is_same(&recording.device) {
            return Err(Error::Internal("a recording is replayed on its own device".into()));
        }
        if !matches!(&*self.memory(), Memory::Arena { arena, .. } if arena.free() == &recording.free) {
            return Ok(false);
        }
        recording.graph.launch().map_err(|e| error::device("queue recorded work (PEFTK_GRAPHS=0 runs without)", e))?;
        Ok(true)
    }

    /// The arena's free ranges, if all blocks so far found room in it.
    fn free_ranges(&self) -> Option<BTreeMap<u64, u64>> {
        match &*self.memory() {
            Memory::Arena { arena, outside, .. } if outside.peak == 0 => Some(arena.free().clone()),
            _ => None,
        }
    }
}
