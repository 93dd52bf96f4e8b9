//! Ctrl-C: the first asks the run to save and stop, the second ends the program at once.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::{Error, Result};

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Takes SIGINT and SIGTERM over. Call it once, before work starts; if a handler is already set, it stays.
pub fn install() {
    // A failure leaves the system's own behaviour, which ends the program: no reason to refuse to train.
    let _ = ctrlc::set_handler(|| {
        if REQUESTED.swap(true, Ordering::SeqCst) {
            std::process::exit(i32::from(Error::Interrupted.exit_code()));
        }
    });
}

/// Whether Ctrl-C was pressed: save what is needed to resume and return [`Error::Interrupted`].
pub fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}

/// [`Error::Interrupted`] once Ctrl-C was pressed, for work that has nothing to save.
///
/// # Errors
/// [`Error::Interrupted`].
pub fn check() -> Result<()> {
    if requested() { Err(Error::Interrupted) } else { Ok(()) }
}
