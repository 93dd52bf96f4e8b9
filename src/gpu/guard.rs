//! Guard mode: a band around each block that shows writes past its ends, and NaN in memory that nothing was written to.
//!
//! In an arena all blocks are one allocation to compute-sanitizer: it sees neither a write from one block into the next nor a read of
//! what was given back. With PEFTK_GUARD=1, or [`Device::guard`], each block lies between two bands of a fixed pattern, which are
//! compared when it is given back and by [`Device::check_guards`]. Dropping a block cannot fail, so a broken band is recorded, and the next
//! call that waits returns it. The pattern is NaN in f32 and bf16, and so is what a block holds when it is made and after it was given
//! back: a read past an end, before the first write or after the last use shows in the results.
//!
//! Giving a block back waits for the GPU, so this is slow. All of a block counts as written, so initcheck has nothing to find.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use cudarc::driver::{result, sys};

use super::arena::{self, ALIGN};
use super::context::{Memory, Real};
use super::{Buf, DType, Device, error};
use crate::{Error, Result};

/// Bytes of the band before a block, and the least after it. One alignment, so that blocks are aligned as without.
const BAND: u64 = ALIGN;

/// What bands are filled with, two bytes at a time: a NaN in bf16 and, twice, in f32, but not the one that blocks are filled with.
const PATTERN: u16 = 0x7FC5;

/// What blocks are filled with: a NaN in f32 and bf16.
const UNWRITTEN: u8 = 0xFF;

/// So many broken bands are told in words; the rest is a number.
const SHOWN: usize = 4;

/// The memory that a block takes: its own, and in guard mode its bands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    /// Bytes before the block.
    pub(super) before: u64,
    /// All bytes.
    pub(super) bytes: u64,
}

impl Room {
    /// For a block of `bytes`. The band after it begins at its last byte, aligned or not: an overrun of one element is within.
    pub(super) fn of(bytes: u64, guarded: bool) -> Self {
        if guarded {
            Self { before: BAND, bytes: BAND + arena::rounded(bytes) + BAND }
        } else {
            Self { before: 0, bytes }
        }
    }
}

/// A device's guarded blocks, and what was found broken and not returned yet.
#[derive(Debug, Default)]
pub(super) struct Guard {
    /// By address.
    live: Mutex<BTreeMap<u64, Block>>,
    broken: Mutex<Vec<String>>,
}

/// What a message says of a block.
#[derive(Debug)]
struct Block {
    dtype: DType,
    len: usize,
    address: u64,
    /// Its first byte in the arena; none for an allocation of its own.
    place: Option<u64>,
}

/// A guard where PEFTK_GUARD=1 asks for one.
pub(super) fn from_environment() -> OnceLock<Guard> {
    asked(std::env::var_os("PEFTK_GUARD").is_some_and(|value| value == "1"))
}

/// A guard where the caller asks for one.
pub(super) fn asked(guarded: bool) -> OnceLock<Guard> {
    if guarded { OnceLock::from(Guard::default()) } else { OnceLock::new() }
}

/// Fills a block that was just made and its bands. Nothing outside guard mode.
pub(super) fn made(buf: &Buf) -> Result<()> {
    let device = buf.device();
    let Some(guard) = device.0.guard.get() else { return Ok(()) };
    let block = Block::of(buf);
    if let Some(real) = &device.0.real {
        block.fill_all(real)?;
    }
    guard.live().insert(block.address, block);
    Ok(())
}

/// Checks the bands of a block that is about to be given back and makes its content NaN. Nothing outside guard mode.
///
/// It comes before the block can be handed out again: what is queued here then runs before the next owner's work, on any thread.
pub(super) fn given_back(buf: &Buf) {
    let device = buf.device();
    let Some(guard) = device.0.guard.get() else { return };
    // A block that could not be filled was never entered.
    let Some(block) = guard.live().remove(&buf.address()) else { return };
    let Some(real) = &device.0.real else { return };
    let checked = block.damage(real).and_then(|damage| block.fill(real).map(|()| damage));
    guard.record(checked.unwrap_or_else(|e| vec![format!("{block}: not checked: {e}")]));
}

impl Device {
    /// From here on every block lies between two bands that are checked, and is NaN until it is written: see `gpu/guard.rs`. PEFTK_GUARD=1
    /// asks for the same when a device is made. No block may be alive; the arena, if there is to be one, may be there or not. A dry device
    /// counts the bands.
    ///
    /// # Errors
    /// [`Error::Internal`] when a block is alive.
    pub fn guard(&self) -> Result<()> {
        // Held to the end: no block is made in between.
        let memory = self.memory();
        if !self.is_guarded() && memory.usage().in_use > 0 {
            return Err(Error::Internal("guards are asked for before the first block".into()));
        }
        self.0.guard.get_or_init(Guard::default);
        Ok(())
    }

    /// Whether blocks are guarded.
    pub fn is_guarded(&self) -> bool {
        self.0.guard.get().is_some()
    }

    /// Waits for all queued work and compares the bands of all live blocks. A band that is broken is told once, then made whole. Nothing
    /// outside guard mode.
    ///
    /// # Errors
    /// [`Error::Internal`] for bands that are broken, of these blocks or of those given back since the last call that waited; a device fault.
    pub fn check_guards(&self) -> Result<()> {
        let Some(guard) = self.0.guard.get() else { return Ok(()) };
        if let Some(real) = &self.0.real {
            for block in guard.live().values() {
                guard.record(block.damage(real)?);
            }
        }
        guard.report()
    }

    /// The bands that were found broken and not returned yet, as an error.
    pub(super) fn broken_guards(&self) -> Result<()> {
        self.0.guard.get().map_or(Ok(()), Guard::report)
    }
}

impl Guard {
    fn live(&self) -> MutexGuard<'_, BTreeMap<u64, Block>> {
        // A panic elsewhere cannot leave it half done.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, damage: Vec<String>) {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).extend(damage);
    }

    fn report(&self) -> Result<()> {
        let broken = std::mem::take(&mut *self.broken.lock().unwrap_or_else(PoisonError::into_inner));
        if broken.is_empty() {
            return Ok(());
        }
        let more = broken.len().saturating_sub(SHOWN);
        let mut words = broken[..broken.len() - more].join("; ");
        if more > 0 {
            words += &format!("; and {more} more");
        }
        Err(Error::Internal(format!("device memory was written outside its block: {words}")))
    }
}

impl Block {
    fn of(buf: &Buf) -> Self {
        let place = match &*buf.device().memory() {
            Memory::Arena { base, arena, .. } => buf.address().checked_sub(*base).filter(|&place| place < arena.size()),
            Memory::Single(_) => None,
        };
        Self { dtype: buf.dtype(), len: buf.len(), address: buf.address(), place }
    }

    fn bytes(&self) -> u64 {
        (self.len * self.dtype.bytes()) as u64
    }

    /// Each band's name, address and bytes.
    fn bands(&self) -> [(&'static str, u64, u64); 2] {
        let (bytes, room) = (self.bytes(), Room::of(self.bytes(), true));
        let after = room.bytes - room.before - bytes;
        [("before", self.address - room.before, room.before), ("after", self.address + bytes, after)]
    }

    /// Queues the pattern over the block and its bands, then NaN over the block.
    fn fill_all(&self, real: &Real) -> Result<()> {
        real.bind()?;
        let room = Room::of(self.bytes(), true);
        // SAFETY: the extent is what was taken for the block, its bytes are even, and it begins at an aligned address.
        let filled = unsafe {
            let pairs = (room.bytes / 2) as usize;
            sys::cuMemsetD16Async(self.address - room.before, PATTERN, pairs, real.stream.cu_stream())
        };
        filled.result().map_err(|e| error::device(format_args!("fill {} bytes", room.bytes), e))?;
        self.fill(real)
    }

    /// Queues NaN over the block.
    fn fill(&self, real: &Real) -> Result<()> {
        real.bind()?;
        let bytes = self.bytes();
        // SAFETY: the extent is the block's, which is not handed out again before this is queued.
        let filled =
            unsafe { result::memset_d8_async(self.address, UNWRITTEN, bytes as usize, real.stream.cu_stream()) };
        filled.map_err(|e| error::device(format_args!("fill {bytes} bytes"), e))
    }

    /// What is wrong with its bands after all queued work, in words. They are made whole again, so that it is told once.
    fn damage(&self, real: &Real) -> Result<Vec<String>> {
        real.bind()?;
        let mut words = Vec::new();
        for (side, address, bytes) in self.bands() {
            let mut found = vec![0_u8; bytes as usize];
            // SAFETY: the extent is the band's, and the stream is waited for before the bytes are read.
            let copied = unsafe { result::memcpy_dtoh_async(&mut found, address, real.stream.cu_stream()) };
            copied.map_err(|e| error::device(format_args!("copy {bytes} bytes from the device"), e))?;
            real.wait()?;
            if let Some((first, last)) = damaged(&found, address) {
                // Counted from the block's start, as the index that went wrong is: negative before it.
                let from_start = |byte: u64| (address + byte).wrapping_sub(self.address).cast_signed();
                let (first, last) = (from_start(first), from_start(last));
                words.push(format!("{self}: the band {side} it is damaged from byte {first} to byte {last}"));
                real.copy_in(address, &whole(address, bytes))?;
            }
        }
        Ok(words)
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "block of {} {:?} ({} bytes) at {:#x}", self.len, self.dtype, self.bytes(), self.address)?;
        self.place.map_or(Ok(()), |place| write!(f, ", byte {place} of the arena"))
    }
}

/// A band of `bytes` from `address` on as it should be. Rooms begin at even addresses; the band after a block may not.
fn whole(address: u64, bytes: u64) -> Vec<u8> {
    let pattern = PATTERN.to_le_bytes();
    (address..address + bytes).map(|byte| pattern[(byte % 2) as usize]).collect()
}

/// The first and last byte of a band from `address` on that are not the pattern's.
fn damaged(found: &[u8], address: u64) -> Option<(u64, u64)> {
    let whole = whole(address, found.len() as u64);
    let mut wrong = (0_u64..).zip(found.iter().zip(&whole)).filter(|(_, (a, b))| a != b).map(|(byte, _)| byte);
    let first = wrong.next()?;
    Some((first, wrong.last().unwrap_or(first)))
}

#[cfg(test)]
#[path = "guard_tests.rs"]
mod tests;
