//! Why the kernel programs cannot be loaded, as messages for the user.

use std::io;

use aya::{maps::MapError, programs::ProgramError};
use thiserror::Error;

use super::{btf, privilege};

/// Any error of loading or attaching; [`chain`] turns it into a message.
pub(super) type LoadError = Box<dyn std::error::Error>;

/// Why tracing is impossible.
#[derive(Debug, Error)]
pub enum KernelError {
    #[error("cannot load the kernel programs: {reason}; {REMEDY}, or see `sockstate doctor`")]
    Privilege { reason: String },
    #[error(
        "cannot load the kernel programs: {reason}, although this process has CAP_BPF and CAP_PERFMON: lockdown, seccomp, a security \
         module or a user namespace may forbid it; see `sockstate doctor`"
    )]
    Refused { reason: String },
    #[error("cannot use the BTF given with --btf: {0}")]
    Btf(#[from] btf::BtfError),
    /// Pinned programs cannot be used.
    #[error("cannot take over the kernel programs: {reason}")]
    Adopt { reason: String },
    /// No hook works.
    #[error("cannot trace on this kernel: {reason}; see `sockstate doctor`")]
    Unsupported {
        /// Every attempt and its result.
        reason: String,
    },
}

/// What a user can do who lacks capabilities.
const REMEDY: &str = "run as root";

impl KernelError {
    /// What is wrong, without what to do about it.
    #[must_use]
    pub fn reason(&self) -> String {
        match self {
            Self::Privilege { reason }
            | Self::Refused { reason }
            | Self::Adopt { reason }
            | Self::Unsupported { reason } => reason.clone(),
            Self::Btf(error) => error.to_string(),
        }
    }
}

/// The error of a load that has failed, if missing capabilities or a refusal are its reason. A kernel may answer EINVAL to a process
/// without capabilities, and EPERM to one that has them: so the capabilities decide which of the two it is.
pub(super) fn refusal(error: &LoadError) -> Option<KernelError> {
    let missing = privilege::missing();
    if !missing.is_empty() {
        let are = if missing.len() == 1 { "is" } else { "are" };
        return Some(KernelError::Privilege { reason: format!("{} {are} missing", missing.join(" and ")) });
    }
    is_refusal(error).then(|| KernelError::Refused { reason: chain(&**error) })
}

/// Whether the kernel has refused a system call.
fn is_refusal(error: &LoadError) -> bool {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&**error);
    while let Some(error) = source {
        // The verifier returns EACCES too, but then its log is not empty.
        if let Some(ProgramError::LoadError { io_error, verifier_log }) = error.downcast_ref() {
            return is_not_permitted(io_error) && verifier_log.to_string().is_empty();
        }
        if error.downcast_ref::<io::Error>().is_some_and(is_not_permitted) {
            return true;
        }
        source = error.source();
    }
    false
}

/// The error number that the kernel returned, if it is among the causes.
pub(super) fn errno(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return error.raw_os_error();
        }
        cause = error.source();
    }
    None
}

/// An error with its causes, in one line.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = described(error);
    let mut source = error.source();
    while let Some(reason) = source {
        let reason_text = described(reason);
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

/// The text of one error of a chain. aya's own text of a refused load has an empty part where there is no log.
fn described(error: &(dyn std::error::Error + 'static)) -> String {
    match (error.downcast_ref(), error.downcast_ref()) {
        (Some(ProgramError::LoadError { io_error, verifier_log }), _) => {
            format!("the kernel refuses the program: {io_error}\n{verifier_log}").trim_end().to_owned()
        }
        // Maps are created in a random order, so the name of the first one that is refused says nothing.
        (_, Some(MapError::CreateError { io_error, .. })) if is_not_permitted(io_error) => {
            format!("the kernel refuses to create maps: {io_error}")
        }
        _ => error.to_string(),
    }
}

fn is_not_permitted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES))
}
