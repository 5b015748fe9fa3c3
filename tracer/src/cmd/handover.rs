//! From one sockstate to the next: programs that go on, and what is known of them.

use std::{io, path::Path, sync::Arc};

use anyhow::{Context, Result};

use super::Failure;
use crate::{
    kernel::{self, Loaded, Pinned, Request},
    pipeline::{self, Estate},
    sinks::Ledger,
};

/// Programs that run, and where they come from.
pub(super) struct Handover {
    pub(super) loaded: Loaded,
    /// What the one before has left.
    pub(super) estate: Option<Estate>,
    /// What the next one needs, where there is to be one.
    pub(super) kept: Option<Kept>,
}

/// What goes on.
pub(super) struct Kept {
    pub(super) pinned: Pinned,
    pub(super) ledger: Arc<Ledger>,
}

/// What a sink must know of it.
#[derive(Clone)]
pub(super) struct Ground {
    pub(super) ledger: Arc<Ledger>,
    /// The one before has ended as it should.
    pub(super) is_complete: bool,
    /// Transitions that it had read and not numbered, at most.
    pub(super) waiting: u64,
}

/// Loads programs; with `pin`, goes on with those that run already.
pub(super) fn take_over(request: &Request, pin: Option<&Path>) -> Result<Handover> {
    let Some(directory) = pin else {
        let loaded = kernel::load(request).map_err(Failure::from)?;
        return Ok(Handover { loaded, estate: None, kept: None });
    };
    // Before anything else: the directory may be another program's.
    kernel::verify_pins(directory)?;
    let ledger = match pipeline::ledger(directory) {
        Ok(ledger) => ledger,
        Err(error) if error.kind() == io::ErrorKind::StorageFull => {
            return without_keeping(request, directory, &error);
        }
        Err(error) => {
            return Err(error)
                .with_context(|| format!("cannot go on with {} by /run/sockstate", directory.display()));
        }
    };
    let found =
        pipeline::estate(directory, &ledger).filter(|estate| estate.pinned.asked == kernel::asked(request));
    if let Some(estate) = found {
        match kernel::adopt(request, &estate.pinned, directory) {
            Ok(loaded) => {
                let kept = Some(Kept { pinned: estate.pinned.clone(), ledger });
                return Ok(Handover { loaded, estate: Some(estate), kept });
            }
            Err(error) => message!("cannot go on with {}: {error}", directory.display()),
        }
    }
    let replaced = kernel::unpin(directory)?;
    pipeline::forget_estate(directory)
        .context("cannot remove what is known of earlier programs from /run/sockstate")?;
    let mut loaded = kernel::load(request).map_err(Failure::from)?;
    let pinned = loaded.pin(request, directory)?;
    if replaced {
        loaded.degraded.push(format!(
            "the programs kept in {} were another version's, or had another filter: they were replaced, and what they had collected is lost",
            directory.display()
        ));
    }
    Ok(Handover { loaded, estate: None, kept: Some(Kept { pinned, ledger }) })
}

/// There is no room for what the next sockstate needs: this one traces all the same, and the next start has a gap.
fn without_keeping(request: &Request, directory: &Path, error: &io::Error) -> Result<Handover> {
    kernel::unpin(directory)?;
    let mut loaded = kernel::load(request).map_err(Failure::from)?;
    loaded.degraded.push(format!(
        "the programs are not kept in {}: /run/sockstate cannot be written to ({error}); the next start has a gap",
        directory.display()
    ));
    Ok(Handover { loaded, estate: None, kept: None })
}
