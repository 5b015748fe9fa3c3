//! Takes over the kernel programs that a previous process left, or loads new ones for the next process to take over.

use std::{io, path::Path, sync::Arc};

use super::{
    Ledger,
    error::TakeOverError,
    forget_state, ledger,
    state::{Kept, SavedState},
    upgrade,
};
use crate::{
    files::runtime_directory,
    kernel::{self, KernelError, Loaded, Request},
    source::EarlierRing,
};

/// Programs that run, and what belongs to them.
pub struct TakenOver {
    /// The programs.
    pub loaded: Loaded,
    /// What the previous process has saved, if it left these programs, or those that an upgrade replaces.
    pub saved: Option<SavedState>,
    /// In an upgrade, the ring that is read first.
    pub earlier: Option<EarlierRing>,
    /// What the next process needs, where the programs stay after the end.
    pub kept: Option<Kept>,
}

impl TakenOver {
    fn without_predecessor(loaded: Loaded, kept: Option<Kept>) -> Self {
        Self { loaded, saved: None, earlier: None, kept }
    }
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

/// Loads programs. With `pin`, takes over those that are pinned there, or replaces them by those of this version.
///
/// # Errors
/// No programs run.
pub fn take_over(request: &Request, pin: Option<&Path>) -> Result<TakenOver, TakeOverError> {
    let Some(directory) = pin else {
        return Ok(TakenOver::without_predecessor(kernel::load(request)?, None));
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
    if let Some(state) = SavedState::read(directory, &ledger) {
        match continued(request, directory, state, &ledger) {
            Ok(Some(taken_over)) => return Ok(taken_over),
            Ok(None) => {}
            Err(TakeOverError::Kernel(KernelError::Adopt { reason })) => {
                message!("cannot take over the programs in {}: {reason}", directory.display());
            }
            Err(error) => return Err(error),
        }
    }
    replaced(request, directory, ledger)
}

/// Takes over the programs that `state` belongs to. `None` if they are not for this request.
fn continued(
    request: &Request,
    directory: &Path,
    mut state: SavedState,
    ledger: &Arc<Ledger>,
) -> Result<Option<TakenOver>, TakeOverError> {
    if state.upgrade.is_some() && !kernel::upgrade::is_unfinished(directory)? {
        kernel::upgrade::finish(directory)?;
        state.programs = state.upgrade.take().map_or(state.programs, |upgrade| upgrade.programs);
    }
    let latest = state.upgrade.as_ref().map_or(&state.programs, |upgrade| &upgrade.programs);
    if !latest.have_request(request) {
        return Ok(None);
    }
    let (loaded, earlier) = match state.upgrade.clone() {
        Some(upgrade) if upgrade.programs.have_this_layout() => {
            let (loaded, earlier) = upgrade::resume(request, directory, &upgrade)?;
            (loaded, Some(earlier))
        }
        Some(_) => return Ok(None),
        None => {
            // A process that was killed may have begun an upgrade.
            kernel::upgrade::discard_next(directory)?;
            if state.programs.are_asked(request) {
                (kernel::adopt(request, &state.programs, directory)?, None)
            } else {
                let (loaded, earlier) = upgrade::begin(request, directory, &mut state, ledger)?;
                (loaded, Some(earlier))
            }
        }
    };
    let kept = Kept {
        programs: state.programs.clone(),
        upgrade: state.upgrade.clone(),
        carried: state.carried,
        ledger: Arc::clone(ledger),
    };
    Ok(Some(TakenOver { loaded, saved: Some(state), earlier, kept: Some(kept) }))
}

/// Loads and pins programs after those that are pinned in `directory` were removed.
fn replaced(request: &Request, directory: &Path, ledger: Arc<Ledger>) -> Result<TakenOver, TakeOverError> {
    let replaced = kernel::unpin(directory)?;
    forget_state(directory).map_err(TakeOverError::State)?;
    let mut loaded = kernel::load(request)?;
    let programs = loaded.pin(request, directory)?;
    if replaced {
        loaded.degraded.push(format!(
            "the programs kept in {} had another filter or other settings, or cannot be continued: they were replaced, and what they \
             had collected is lost",
            directory.display()
        ));
    }
    Ok(TakenOver::without_predecessor(loaded, Some(Kept::new(programs, ledger))))
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
        "the programs are not kept in {}: {} cannot be written to ({error}); the events between the end of this process and the next \
         start will be missing",
        directory.display(),
        runtime_directory().display()
    ));
    Ok(TakenOver::without_predecessor(loaded, None))
}
