//! Why nothing, or not all, can be loaded: what the user reads of it.

use std::io;

use aya::programs::ProgramError;
use thiserror::Error;

use super::btf;

/// Whatever went wrong while loading; [`chain`] makes a message of it.
pub(super) type LoadError = Box<dyn std::error::Error>;

/// Why nothing can be traced.
#[derive(Debug, Error)]
pub enum KernelError {
    /// The system does not let us.
    #[error(
        "cannot load the kernel programs: {reason}; they need CAP_BPF and CAP_PERFMON: run as root, or see `sockstate doctor`"
    )]
    Privilege {
        /// What was refused.
        reason: String,
    },
    /// The user's BTF does not serve.
    #[error("cannot use the BTF given with --btf: {0}")]
    Btf(#[from] btf::BtfError),
    /// No hook works.
    #[error("cannot trace on this kernel: {reason}; see `sockstate doctor`")]
    Unsupported {
        /// Every attempt and what came of it.
        reason: String,
    },
}

/// Whether the kernel refused because of who asks.
pub(super) fn is_privilege(error: &LoadError) -> bool {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&**error);
    while let Some(error) = source {
        let refused = |error: &io::Error| matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES));
        // The verifier says EACCES too, but then it has written why.
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

/// An error with its reasons, in one line.
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
    // A verifier's log says what is wrong at its end; its last line counts instructions.
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("processed ")).collect();
    match lines[..] {
        [first, .., last] => format!("{first} ... {last}"),
        [line] => line.to_owned(),
        [] => text,
    }
}
