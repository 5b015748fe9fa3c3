//! Why the kernel programs cannot be loaded, as messages for the user.

use std::io;

use aya::programs::ProgramError;
use thiserror::Error;

use super::btf;

/// Any error of loading or attaching; [`chain`] turns it into a message.
pub(super) type LoadError = Box<dyn std::error::Error>;

/// Why tracing is impossible.
#[derive(Debug, Error)]
pub enum KernelError {
    #[error(
        "cannot load the kernel programs: {reason}; they need CAP_BPF and CAP_PERFMON: run as root, or see `sockstate doctor`"
    )]
    Privilege { reason: String },
    #[error("cannot use the BTF given with --btf: {0}")]
    Btf(#[from] btf::BtfError),
    /// No hook works.
    #[error("cannot trace on this kernel: {reason}; see `sockstate doctor`")]
    Unsupported {
        /// Every attempt and its result.
        reason: String,
    },
}

/// Whether the kernel refused because of missing privileges.
pub(super) fn is_privilege(error: &LoadError) -> bool {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&**error);
    while let Some(error) = source {
        let refused = |error: &io::Error| matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES));
        // The verifier returns EACCES too, but then its log is not empty.
        if let Some(ProgramError::LoadError { io_error, verifier_log }) = error.downcast_ref() {
            return refused(io_error) && verifier_log.to_string().is_empty();
        }
        if error.downcast_ref::<io::Error>().is_some_and(refused) {
            return true;
        }
        source = error.source();
    }
    false
}

pub(super) fn privilege(error: &LoadError) -> KernelError {
    KernelError::Privilege { reason: chain(&**error) }
}

/// An error with its causes, in one line.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(reason) = source {
        let reason_text = reason.to_string();
        if !text.contains(&reason_text) {
            text = format!("{text}: {reason_text}");
        }
        source = reason.source();
    }
    // A verifier's log has the error at its end, before a last line with statistics.
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("processed ")).collect();
    match lines[..] {
        [first, .., last] => format!("{first} ... {last}"),
        [line] => line.to_owned(),
        [] => text,
    }
}
