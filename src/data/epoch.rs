//! An epoch's batches as the background thread makes them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::Batch;
use crate::{Error, Result};

/// Finished batches that wait for the training step; one more is in the making.
const PREFETCH: usize = 2;

/// An epoch's batches. Dropping it early stops the background thread after the images it is on.
pub struct Epoch {
    receiver: Option<Receiver<Result<Batch>>>,
    thread: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    left: usize,
}

impl Epoch {
    /// `count` batches that `make` sends from a thread of its own; it ends early when told to stop.
    pub(super) fn new(
        count: usize,
        make: impl FnOnce(&SyncSender<Result<Batch>>, &AtomicBool) + Send + 'static,
    ) -> Self {
        let (sender, receiver) = sync_channel(PREFETCH);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || make(&sender, &stopped));
        Self { receiver: Some(receiver), thread: Some(thread), stop, left: count }
    }
}

impl Iterator for Epoch {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let batch = match self.receiver.as_ref().map(Receiver::recv) {
            Some(Ok(batch)) => batch,
            // The thread ends before the last batch only after an error it has sent, or by a panic.
            _ => Err(Error::Internal("the thread that prepares batches has died".into())),
        };
        if batch.is_err() {
            self.left = 0;
        }
        Some(batch)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.left))
    }
}

impl Drop for Epoch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Without a receiver a thread that waits to send wakes and ends.
        self.receiver = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by `next`.
            let _ = thread.join();
        }
    }
}
