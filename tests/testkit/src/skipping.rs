//! Tests that cannot run on this machine, and say why.

use std::{
    io::{Write as _, stderr},
    sync::Mutex,
};

/// Why the live test that runs cannot run here.
static REASON: Mutex<Option<String>> = Mutex::new(None);

/// The live test that runs counts as ignored for this reason, unless it fails.
///
/// # Panics
/// A test has panicked while it held the lock.
pub fn skip(reason: &str) {
    *REASON.lock().expect("lock") = Some(format!("SKIPPED: {reason}"));
}

/// The reason that the test which has just run gave to [`skip`].
///
/// # Panics
/// As [`skip`].
pub fn take_reason() -> Option<String> {
    REASON.lock().expect("lock").take()
}

/// Prints the reason for tests of libtest, which cannot be ignored at run time, and whose output is hidden if they pass.
pub fn print_skipped(reason: &str) {
    let _ = writeln!(stderr().lock(), "SKIPPED: {reason}");
}
