//! Copies from the host that nobody waits for.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use cudarc::driver::{CudaContext, CudaEvent, CudaStream, result, sys};

use super::context::Real;
use super::error;
use crate::{Error, Result};

/// A copy to the device of more bytes than this passes through pinned memory; the bytes of a smaller one are kept until the next wait.
const LARGE_COPY: usize = 1 << 20;
/// Bytes of a piece of pinned memory: so much of a large copy is under way at once. Each piece is read by the GPU while the host fills the next.
const PIECE: usize = 2 << 20;
/// Pieces. Together they hold a micro-batch's images, so that the host can be one ahead.
const PIECES: usize = 8;

/// What copies to the device may still be reading.
#[derive(Debug, Default)]
pub(super) struct Staged {
    small: Vec<Vec<u8>>,
    pieces: Vec<Piece>,
    next: usize,
}

/// Pinned host memory: the GPU reads it by itself, at the bus's full rate.
#[derive(Debug)]
struct Piece {
    first: *mut u8,
    /// The last copy from it is done.
    done: CudaEvent,
    context: Arc<CudaContext>,
}

// SAFETY: the memory is this piece's own; nothing about it belongs to a thread.
unsafe impl Send for Piece {}

impl Piece {
    fn new(stream: &CudaStream) -> Result<Self> {
        let failed = |e| error::device(format_args!("get {PIECE} bytes of pinned host memory"), e);
        let context = stream.context();
        context.bind_to_thread().map_err(failed)?;
        // Only ever written on this side, one byte after the other: write-combined memory is the faster for it.
        // SAFETY: the context is current.
        let first = unsafe { result::malloc_host(PIECE, sys::CU_MEMHOSTALLOC_WRITECOMBINED) }.map_err(failed)?;
        let done = match context.new_event(None) {
            Ok(done) => done,
            Err(e) => {
                // SAFETY: it was made just now, and nothing reads it.
                let _ = unsafe { result::free_host(first) };
                return Err(failed(e));
            }
        };
        Ok(Self { first: first.cast(), done, context: context.clone() })
    }

    /// Queues a copy of bytes through it, at most [`PIECE`], as soon as the copy before is done.
    fn send(
        &mut self,
        address: u64,
        bytes: &[u8],
        stream: &CudaStream,
    ) -> std::result::Result<(), cudarc::driver::DriverError> {
        self.done.synchronize()?;
        // SAFETY: the piece holds PIECE bytes and nothing reads them now; the caller says where on the device they fit.
        unsafe {
            let piece = std::slice::from_raw_parts_mut(self.first, bytes.len());
            piece.copy_from_slice(bytes);
            result::memcpy_htod_async(address, piece, stream.cu_stream())?;
        }
        self.done.record(stream)
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        // SAFETY: it came from malloc_host, and the last copy from it is waited for. An error has no one left to hear it.
        if self.context.bind_to_thread().is_ok() && self.done.synchronize().is_ok() {
            let _ = unsafe { result::free_host(self.first.cast()) };
        }
    }
}

impl Staged {
    /// All queued copies are done.
    pub(super) fn forget(&mut self) {
        self.small.clear();
    }
}

impl Real {
    /// Queues a copy to the device and returns when `bytes` may change, which is before it is done. A driver may read pageable memory after the
    /// call has returned, so a small copy's bytes are kept, and a large one's pass through pinned memory.
    pub(super) fn copy_in(&self, address: u64, bytes: &[u8]) -> Result<()> {
        if self.recording.load(Ordering::Relaxed) {
            // A replay would read whatever lies there then.
            return Err(Error::Internal(format!("a copy of {} bytes from the host in recorded work", bytes.len())));
        }
        self.bind()?;
        let failed = |e| error::device(format_args!("copy {} bytes to the device", bytes.len()), e);
        let mut staged = self.staged();
        if bytes.len() > LARGE_COPY {
            for (number, part) in bytes.chunks(PIECE).enumerate() {
                let next = staged.next;
                if staged.pieces.len() <= next {
                    staged.pieces.push(Piece::new(&self.stream)?);
                }
                staged.next = (next + 1) % PIECES;
                staged.pieces[next].send(address + (number * PIECE) as u64, part, &self.stream).map_err(failed)?;
            }
            return Ok(());
        }
        staged.small.push(bytes.to_vec());
        let kept = staged.small.last().map_or(&[][..], |kept| kept);
        // SAFETY: the caller says where the bytes fit; the copy of them stays where it is until the next wait.
        unsafe { result::memcpy_htod_async(address, kept, self.stream.cu_stream()) }.map_err(failed)
    }
}
