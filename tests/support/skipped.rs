//! Tests of libtest, which has no way to say at run time that a test could not run.

use std::io::Write as _;

/// Prints the reason, although libtest keeps to itself what a test that passes prints.
pub(crate) fn skip(reason: &str) {
    let _ = writeln!(std::io::stderr().lock(), "SKIPPED: {reason}");
}
