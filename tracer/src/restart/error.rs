//! Why a process cannot continue another's work.

use std::{io, path::PathBuf};

use thiserror::Error;

use crate::{
    files::runtime_directory,
    kernel::{KernelError, PinError},
    source::SourceError,
};

/// Why no programs run.
#[derive(Debug, Error)]
pub enum TakeOverError {
    /// The programs cannot be loaded.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The directory cannot be used for pins.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// The ledger cannot be used.
    #[error("cannot use the ledger of {} in {}", directory.display(), runtime_directory().display())]
    Ledger {
        /// The pins' directory.
        directory: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The saved state cannot be written, which an upgrade needs.
    #[error("cannot write the saved state of {} to {}", directory.display(), runtime_directory().display())]
    Write {
        /// The pins' directory.
        directory: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The ring or the counters of earlier programs cannot be used.
    #[error("cannot read from the earlier kernel programs")]
    Earlier(#[from] SourceError),
    /// The saved state of earlier programs cannot be removed.
    #[error("cannot remove the saved state of earlier programs from {}", runtime_directory().display())]
    State(#[source] io::Error),
}
