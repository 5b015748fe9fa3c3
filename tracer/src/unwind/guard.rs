//! Catches panics of libraries that parse files of other users: such a panic costs only a name. Every other panic ends the process,
//! as with `panic = "abort"`.

use std::{
    cell::Cell,
    panic::{self, AssertUnwindSafe},
    process,
};

thread_local! {
        /// Whether this thread is parsing a foreign file.
    static IS_GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`; `None` if it panics.
pub(super) fn guarded<T>(work: impl FnOnce() -> T) -> Option<T> {
    IS_GUARDED.set(true);
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    IS_GUARDED.set(false);
    result.ok()
}

/// Makes every panic end the process, except for those that [`guarded`] catches.
pub fn abort_on_panic() {
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        if !IS_GUARDED.get() {
            report(panic);
            process::abort();
        }
    }));
}
