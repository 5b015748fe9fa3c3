//! Takes over the kernel programs that a previous process left, or loads new ones for the next process to take over.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use thiserror::Error;

use super::{Ledger, SavedState, forget_state, ledger};
use crate::kernel::{self, KernelError, Loaded, PinError, PinnedPrograms, Request};

/// Programs that run, and what belongs to them.
pub struct TakenOver {
    /// The programs.
    pub loaded: Loaded,
    /// What the previous process has saved, if it left these programs.
    pub saved: Option<SavedState>,
    /// What the next process needs, where the programs stay after the end.
    pub kept: Option<(PinnedPrograms, Arc<Ledger>)>,
}

/// What sinks need to continue.
#[derive(Clone)]
pub struct Resume {
    /// How far each sink has come.
    pub ledger: Arc<Ledger>,
    /// The previous process has ended in order.
    pub is_complete: bool,
    /// Transitions that the previous process had read and not numbered, at most.
    pub waiting: u64,
}

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
    #[error("cannot use the ledger of {} in /run/sockstate", directory.display())]
    Ledger {
        /// The pins' directory.
        directory: PathBuf,
        source: io::Error,
    },
    /// The saved state of earlier programs cannot be removed.
    #[error("cannot remove the saved state of earlier programs from /run/sockstate")]
    State(#[source] io::Error),
}

/// Loads programs. With `pin`, takes over those that are pinned there.
///
/// # Errors
/// No programs run.
pub fn take_over(request: &Request, pin: Option<&Path>) -> Result<TakenOver, TakeOverError> {
    let Some(directory) = pin else {
        return Ok(TakenOver { loaded: kernel::load(request)?, saved: None, kept: None });
    };
    // Nothing is changed before this: the directory may be another program's.
    kernel::verify_pins(directory)?;
    let ledger = match ledger(directory) {
        Ok(ledger) => ledger,
        Err(error) if error.kind() == io::ErrorKind::StorageFull => {
            return without_keeping(request, directory, &error);
        }
        Err(source) => return Err(TakeOverError::Ledger { directory: directory.to_owned(), source }),
    };
    let found = SavedState::read(directory, &ledger)
        .filter(|state| state.programs.fingerprint == kernel::fingerprint(request));
    if let Some(state) = found {
        match kernel::adopt(request, &state.programs, directory) {
            Ok(loaded) => {
                let kept = Some((state.programs.clone(), ledger));
                return Ok(TakenOver { loaded, saved: Some(state), kept });
            }
            Err(error) => message!("cannot take over the programs in {}: {error}", directory.display()),
        }
    }
    let replaced = kernel::unpin(directory)?;
    forget_state(directory).map_err(TakeOverError::State)?;
    let mut loaded = kernel::load(request)?;
    let programs = loaded.pin(request, directory)?;
    if replaced {
        loaded.degraded.push(format!(
            "the programs kept in {} were another version's, or had another filter: they were replaced, and what they had collected is lost",
            directory.display()
        ));
    }
    Ok(TakenOver { loaded, saved: None, kept: Some((programs, ledger)) })
}

/// There is no room for the state that the next process needs: this process traces without keeping its programs.
fn without_keeping(
    request: &Request,
    directory: &Path,
    error: &io::Error,
) -> Result<TakenOver, TakeOverError> {
    kernel::unpin(directory)?;
    let mut loaded = kernel::load(request)?;
    loaded.degraded.push(format!(
        "the programs are not kept in {}: /run/sockstate cannot be written to ({error}); the events between the end of this process \
         and the next start will be missing",
        directory.display()
    ));
    Ok(TakenOver { loaded, saved: None, kept: None })
}
