//! Tests that cannot run on this machine, and the reasons.

use std::{
    env,
    fs::OpenOptions,
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
    let reason = REASON.lock().expect("lock").take();
    if let Some(reason) = &reason {
        count(reason.trim_start_matches("SKIPPED: "));
    }
    reason
}

/// Prints the reason for tests of libtest, which cannot be ignored at run time, and whose output is hidden if they pass.
pub fn print_skipped(reason: &str) {
    let _ = writeln!(stderr().lock(), "SKIPPED: {reason}");
    count(reason);
}

/// Counts a skipped test for the summary of `cargo xtask test`, which sets the variable.
pub fn count(reason: &str) {
    let Some(path) = env::var_os("SOCKSTATE_SKIPPED") else { return };
    // Without the summary, the reason has still been printed.
    if let Ok(mut file) = OpenOptions::new().append(true).create(true).open(path) {
        let _ = file.write_all(format!("{reason}\n").as_bytes());
    }
}
