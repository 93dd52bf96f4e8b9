//! Blocks of f32 that are used again: a fresh block of megabytes costs a page fault every 4 KiB, which for the cheap operations is more
//! than the operation itself.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Shorter blocks go straight to the allocator, which does not unmap them.
const SMALLEST_KEPT: usize = 16 * 1024;

/// Free blocks by length, and how much memory there is in all.
#[derive(Debug, Default)]
struct Shelves {
    free: BTreeMap<usize, Vec<Vec<f32>>>,
    /// Numbers in blocks that are in use, the short ones aside.
    used: usize,
    /// The most that `used` has been: the bound on used and free blocks together, so that keeping blocks never raises the peak.
    most_used: usize,
    /// Numbers in free blocks.
    kept: usize,
}

impl Shelves {
    /// Frees kept blocks, longest first, until the bound holds.
    fn shrink(&mut self) {
        while self.used + self.kept > self.most_used {
            let Some(mut shelf) = self.free.last_entry() else { break };
            self.kept -= shelf.get_mut().pop().map_or(0, |block| block.len());
            if shelf.get().is_empty() {
                shelf.remove();
            }
        }
    }
}

/// Numbers in use, short blocks too: a small model is made of them. Counted without the lock.
#[derive(Debug, Default)]
struct Count {
    live: AtomicUsize,
    peak: AtomicUsize,
}

/// Where blocks come from and go back to; a clone is a handle to the same one.
#[derive(Clone, Debug, Default)]
pub(super) struct Pool(Arc<(Mutex<Shelves>, Count)>);

impl Pool {
    fn shelves(&self) -> MutexGuard<'_, Shelves> {
        // The counters stay right whatever thread dies between two operations on them.
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The most bytes that blocks held at once.
    pub(super) fn peak_bytes(&self) -> u64 {
        (self.0.1.peak.load(Ordering::Relaxed) * size_of::<f32>()) as u64
    }

    /// A block to write all of: what it holds is left over from earlier use.
    pub(super) fn dirty(&self, len: usize) -> Buffer {
        let count = &self.0.1;
        let live = count.live.fetch_add(len, Ordering::Relaxed) + len;
        count.peak.fetch_max(live, Ordering::Relaxed);
        if len < SMALLEST_KEPT {
            return Buffer { data: vec![0.0; len], pool: self.clone() };
        }
        let mut shelves = self.shelves();
        shelves.used += len;
        shelves.most_used = shelves.most_used.max(shelves.used);
        let found = shelves.free.get_mut(&len).and_then(Vec::pop);
        match &found {
            Some(_) => shelves.kept -= len,
            None => shelves.shrink(),
        }
        drop(shelves);
        Buffer { data: found.unwrap_or_else(|| vec![0.0; len]), pool: self.clone() }
    }

    /// A block of zeros.
    pub(super) fn zeros(&self, len: usize) -> Buffer {
        let mut buffer = self.dirty(len);
        buffer.fill(0.0);
        buffer
    }

    /// A block that holds `values`.
    pub(super) fn holding(&self, values: &[f32]) -> Buffer {
        let mut buffer = self.dirty(values.len());
        buffer.copy_from_slice(values);
        buffer
    }
}

/// Numbers of the CPU backend. Dropping it keeps its memory for the next one of its length.
#[derive(Debug)]
pub struct Buffer {
    data: Vec<f32>,
    pool: Pool,
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let len = self.data.len();
        self.pool.0.1.live.fetch_sub(len, Ordering::Relaxed);
        if len < SMALLEST_KEPT {
            return;
        }
        let mut shelves = self.pool.shelves();
        shelves.used -= len;
        shelves.kept += len;
        shelves.free.entry(len).or_default().push(std::mem::take(&mut self.data));
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.data
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.data
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_comes_back_and_never_raises_the_peak() {
        let pool = Pool::default();
        let len = SMALLEST_KEPT;
        let mut first = pool.dirty(len);
        first[3] = 7.0;
        let address = first.as_ptr();
        drop(first);
        let again = pool.dirty(len);
        assert_eq!(again.as_ptr(), address);
        assert_eq!(again[3], 7.0);
        let short = pool.dirty(5);
        assert_eq!(pool.peak_bytes(), 4 * (len as u64 + 5));
        drop((again, short));
        assert!(pool.zeros(len).iter().all(|&v| v == 0.0));
        // A longer block takes the place of the kept one.
        drop(pool.dirty(2 * len));
        let shelves = pool.shelves();
        assert_eq!((shelves.used, shelves.kept, shelves.most_used), (0, 2 * len, 2 * len));
        assert_eq!(shelves.free.keys().copied().collect::<Vec<_>>(), [2 * len]);
    }
}
