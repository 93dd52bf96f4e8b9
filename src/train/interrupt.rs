//! Ctrl-C. While a run trains, the first asks it to save and stop, the second ends the program at once; before and elsewhere
//! there is nothing to save, and the first ends it.

use std::sync::atomic::{AtomicBool, Ordering};

use super::ui;
use crate::{Error, Result};

static REQUESTED: AtomicBool = AtomicBool::new(false);
static DEFERRED: AtomicBool = AtomicBool::new(false);

/// Takes SIGINT and SIGTERM over. Call it once, before work starts; if a handler is already set, it stays.
pub fn install() {
    // A failure leaves the system's own behaviour, which ends the program: no reason to refuse to train.
    let _ = ctrlc::set_handler(|| {
        if REQUESTED.swap(true, Ordering::SeqCst) || !DEFERRED.load(Ordering::SeqCst) {
            ui::line_to_stderr(&format!("error: {}", Error::Interrupted));
            std::process::exit(i32::from(Error::Interrupted.exit_code()));
        }
    });
}

/// From now on the work looks at [`requested`] and stops by itself.
pub(crate) fn defer() {
    DEFERRED.store(true, Ordering::SeqCst);
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
