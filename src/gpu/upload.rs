//! Copies from the host that nobody waits for, and copies back that are waited for later.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytemuck::Pod;
use cudarc::driver::{CudaContext, CudaEvent, CudaStream, result, sys};

use super::context::Real;
use super::{Buf, Device, error};
use crate::{Error, Result};

/// A copy to the device of more bytes than this passes through pinned memory; the bytes of a smaller one are kept until something
/// behind it was waited for.
const LARGE_COPY: usize = 64 << 10;
/// Bytes of a piece of pinned memory: so much of a large copy is under way at once. Each piece is read by the GPU while the host fills the next.
const PIECE: usize = 2 << 20;
/// Pieces. Together they hold two micro-batches of 64 images of 224 pixels, so that the host can be one ahead.
const PIECES: usize = 12;
/// Bytes of a result that is read later, at most.
const RESULT: usize = 64;

/// What copies to the device may still be reading.
#[derive(Debug, Default)]
pub(super) struct Staged {
    small: VecDeque<Vec<u8>>,
    /// Small copies that are done.
    forgotten: u64,
    /// Pinned memory for results that nobody waits for.
    results: Vec<Piece>,
    pieces: Vec<Piece>,
    next: usize,
    beside: Option<Beside>,
}

/// A second stream, for copies that need not wait for the work queued before them.
#[derive(Debug)]
struct Beside {
    stream: Arc<CudaStream>,
    /// What arrived last was taken.
    taken: CudaEvent,
    /// The copies so far are there.
    there: CudaEvent,
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
    fn new(stream: &CudaStream, bytes: usize, flags: u32) -> Result<Self> {
        let failed = |e| error::device(format_args!("get {bytes} bytes of pinned host memory"), e);
        let context = stream.context();
        context.bind_to_thread().map_err(failed)?;
        // SAFETY: the context is current.
        let first = unsafe { result::malloc_host(bytes, flags) }.map_err(failed)?;
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
        // Without its event, what is under way is waited for here.
        self.done.record(stream).or_else(|e| stream.synchronize().and(Err(e)))
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        if self.context.bind_to_thread().is_ok() && self.done.synchronize().is_ok() {
            // SAFETY: it came from malloc_host, and the last copy from it is waited for. An error has no one left to hear it.
            let _ = unsafe { result::free_host(self.first.cast()) };
        }
    }
}

impl Staged {
    /// Queues copies through pinned memory, each as soon as the piece is free.
    fn send(&mut self, address: u64, bytes: &[u8], stream: &CudaStream) -> Result<()> {
        for (number, part) in bytes.chunks(PIECE).enumerate() {
            let next = self.next;
            if self.pieces.len() <= next {
                // Only ever written on this side, one byte after the other: write-combined memory is the faster for it.
                self.pieces.push(Piece::new(stream, PIECE, sys::CU_MEMHOSTALLOC_WRITECOMBINED)?);
            }
            self.next = (next + 1) % PIECES;
            let sent = self.pieces[next].send(address + (number * PIECE) as u64, part, stream);
            sent.map_err(|e| error::device(format_args!("copy {} bytes to the device", bytes.len()), e))?;
        }
        Ok(())
    }

    /// All queued copies are done.
    pub(super) fn forget(&mut self) {
        self.forget_until(u64::MAX);
    }

    /// The first of all small copies are done.
    fn forget_until(&mut self, number: u64) {
        while self.forgotten < number && self.small.pop_front().is_some() {
            self.forgotten += 1;
        }
    }
}

/// A few bytes of device memory as they were when this was queued.
#[derive(Debug)]
pub struct Later {
    bytes: usize,
    device: Device,
    /// None on a dry device: where they arrive, and how many small copies were queued before.
    queued: Option<(Piece, u64)>,
}

impl Later {
    /// Of a block.
    pub(super) fn of(buf: &Buf) -> Result<Self> {
        let (bytes, device) = (buf.bytes(), buf.device().clone());
        if bytes > RESULT {
            return Err(Error::shape("result that is read later (bytes)", RESULT, bytes));
        }
        let queued = device.0.real.as_ref().map(|real| real.copy_out_later(buf.address(), bytes)).transpose()?;
        Ok(Self { bytes, device, queued })
    }

    /// Waits for them, but for nothing that was queued after; zeros from a dry device.
    ///
    /// # Errors
    /// What went wrong in the work before; in guard mode a broken band.
    pub fn get<T: Pod>(self) -> Result<Vec<T>> {
        let (Some((piece, small)), Some(real)) = (self.queued, &self.device.0.real) else {
            return Ok(vec![T::zeroed(); self.bytes / size_of::<T>()]);
        };
        piece.done.synchronize().map_err(|e| error::device("finish the queued work", e))?;
        // SAFETY: the copy is done, it wrote this many bytes of the piece's memory, and nothing writes there now.
        let values = unsafe { std::slice::from_raw_parts(piece.first, self.bytes) };
        let values = bytemuck::pod_collect_to_vec(values);
        let mut staged = real.staged();
        staged.forget_until(small);
        staged.results.push(piece);
        drop(staged);
        self.device.broken_guards()?;
        Ok(values)
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
            return staged.send(address, bytes, &self.stream);
        }
        staged.small.push_back(bytes.to_vec());
        let kept = staged.small.back().map_or(&[][..], |kept| kept);
        // SAFETY: the caller says where the bytes fit; the copy of them stays where it is until something behind it was waited for.
        unsafe { result::memcpy_htod_async(address, kept, self.stream.cu_stream()) }.map_err(failed)
    }

    /// Queues a copy of at most [`RESULT`] bytes to the host.
    fn copy_out_later(&self, address: u64, bytes: usize) -> Result<(Piece, u64)> {
        self.bind()?;
        let failed = |e| error::device(format_args!("copy {bytes} bytes from the device"), e);
        let mut staged = self.staged();
        let piece = match staged.results.pop() {
            Some(piece) => piece,
            None => Piece::new(&self.stream, RESULT, 0)?,
        };
        // SAFETY: the piece holds RESULT bytes, which nothing reads or writes until the copy is done; the caller says what lies at the address.
        unsafe {
            let to = std::slice::from_raw_parts_mut(piece.first, bytes);
            result::memcpy_dtoh_async(to, address, self.stream.cu_stream()).map_err(failed)?;
        }
        piece.done.record(&self.stream).or_else(|e| self.stream.synchronize().and(Err(e))).map_err(failed)?;
        let small = staged.forgotten + staged.small.len() as u64;
        Ok((piece, small))
    }

    /// [`Real::copy_in`], but the bytes travel to `room` beside the work that is queued, and only the way from there to `address` waits for its turn.
    /// `room` is for this alone; where it `is_new`, its last owner's work may still be queued.
    pub(super) fn copy_in_beside(&self, address: u64, room: u64, bytes: &[u8], is_new: bool) -> Result<()> {
        if self.recording.load(Ordering::Relaxed) {
            return Err(Error::Internal(format!("a copy of {} bytes from the host in recorded work", bytes.len())));
        }
        self.bind()?;
        let failed = |e| error::device(format_args!("copy {} bytes to the device", bytes.len()), e);
        let mut staged = self.staged();
        let beside = match staged.beside.take() {
            Some(beside) => beside,
            None => {
                let event = || self.context.new_event(None).map_err(failed);
                let stream = self.context.new_stream().map_err(failed)?;
                Beside { stream, taken: event()?, there: event()? }
            }
        };
        let mut queue = || {
            if is_new {
                // What the room's last owner queued comes first.
                beside.taken.record(&self.stream).map_err(failed)?;
            }
            beside.stream.wait(&beside.taken).map_err(failed)?;
            staged.send(room, bytes, &beside.stream)?;
            beside.there.record(&beside.stream).map_err(failed)?;
            self.stream.wait(&beside.there).map_err(failed)?;
            // SAFETY: the caller says that both hold this many bytes; the copy runs after they are there.
            unsafe { result::memcpy_dtod_async(address, room, bytes.len(), self.stream.cu_stream()) }
                .map_err(failed)?;
            beside.taken.record(&self.stream).map_err(failed)
        };
        let queued = queue();
        if queued.is_err() {
            // Nothing may be under way to memory that this stream gives to others.
            let _ = beside.stream.synchronize();
        }
        staged.beside = Some(beside);
        queued
    }
}
