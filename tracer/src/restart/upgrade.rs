//! An upgrade: this version's programs replace those of another version, and no transition is missed.
//!
//! A process may be killed between any two of these steps. The third column is what the next process finds then, and does.
//!
//! | step | afterwards | a process that starts then |
//! | --- | --- | --- |
//! | attach the new programs | they end with this process | begins again |
//! | pin them beside the earlier ones (`next-NAME`) | both are attached; the saved state does not name the new ones | removes the new pins, and begins again: the earlier ring has every event |
//! | save the state with an [`Upgrade`] | both are attached | continues with the next step |
//! | detach the earlier programs, and wait for the end of their last run | the earlier ring is complete, and the new ring has every event since before the end of the earlier one | continues |
//! | read the earlier ring up to the boundary, then both rings without the doubles (`source/overlap.rs`) | the records are in the streams | continues with what is left in the rings; the ledger counts what was in the memory of this process |
//! | rename the new pins, the ring first | the earlier ring is gone | renames the other pins |
//! | save the state without the [`Upgrade`] | one set of pins, as before | adopts it |

use std::path::Path;

use super::{
    Ledger,
    error::TakeOverError,
    state::{SavedState, Upgrade},
};
use crate::{
    kernel::{
        self, Loaded, Request,
        upgrade::{self, EarlierPrograms},
    },
    source::{EarlierRing, LossCounters, Losses},
};

/// Attaches this version's programs, and detaches those that `state` belongs to. Notes in `state` what the next process needs.
pub(super) fn begin(
    request: &Request,
    directory: &Path,
    state: &mut SavedState,
    ledger: &Ledger,
) -> Result<(Loaded, EarlierRing), TakeOverError> {
    let EarlierPrograms { objects, hook, maps } = EarlierPrograms::open(&state.programs, directory)?;
    let has_this_layout = state.programs.have_this_layout();
    let counters = match has_this_layout {
        true => Some(LossCounters::new(objects.counters, objects.program, hook)?),
        false => None,
    };
    let losses = || counters.as_ref().and_then(|counters| counters.losses().ok());
    let mut earlier = EarlierRing::new(objects.ring, true)?;
    // What the earlier programs lose after this moment, the new ones have.
    let mut lost = None;
    let mut loaded = kernel::load_beside(request, &mut || lost = losses())?;
    // The hooks of other events were attached since then.
    let lost =
        lost.zip(losses()).map(|(lost, now)| Losses { evidence: now.evidence, resets: now.resets, ..lost });
    // The program must not outlive its links.
    drop(counters);
    if let Err(error) = loaded.watch_as(objects.processes) {
        message!("ends of processes are noticed late: {error}");
    }
    let programs = loaded.pin_next(request, directory)?;
    let is_readable = has_this_layout && programs.observe_as(&state.programs);
    earlier.set_readable(is_readable);
    // Without counters, what they have and was not reported is not known.
    state.carried = lost.map_or(ledger.losses(), |lost| state.carried.plus(lost));
    let upgrade = Upgrade { programs, maps, boundary: earlier.boundary(), is_readable };
    state.upgrade = Some(upgrade.clone());
    let written = state.write(directory);
    written.map_err(|source| TakeOverError::Write { directory: directory.to_owned(), source })?;
    detach(directory, &upgrade, &mut loaded)?;
    if !is_readable {
        loaded.degraded.push(format!(
            "the programs kept in {} were another version's, whose records this version cannot continue: they were replaced, and the \
             records that they had collected are counted as lost (place decode)",
            directory.display()
        ));
    }
    if lost.is_none() {
        loaded.degraded.push("how many events the replaced programs have lost is not known".into());
    }
    Ok((loaded, earlier))
}

/// Continues an upgrade that a previous process has begun.
pub(super) fn resume(
    request: &Request,
    directory: &Path,
    upgrade: &Upgrade,
) -> Result<(Loaded, EarlierRing), TakeOverError> {
    let mut loaded = upgrade::adopt_next(request, &upgrade.programs, directory)?;
    let mut earlier = EarlierRing::new(upgrade::earlier_ring(directory)?, upgrade.is_readable)?;
    earlier.set_boundary(upgrade.boundary);
    detach(directory, upgrade, &mut loaded)?;
    if !upgrade.programs.are_asked(request) {
        loaded.degraded.push(
            "the kernel programs are those of an earlier version, whose upgrade was interrupted: the next start replaces them".into(),
        );
    }
    Ok((loaded, earlier))
}

fn detach(directory: &Path, upgrade: &Upgrade, loaded: &mut Loaded) -> Result<(), TakeOverError> {
    upgrade::detach_earlier(directory)?;
    if let Err(reason) = upgrade::await_end(&upgrade.maps) {
        loaded.degraded.push(format!(
            "cannot see whether the programs that were replaced have ended ({reason}): transitions at the moment of the upgrade may be \
             missing, or doubled"
        ));
    }
    message!(
        info: "the kernel programs in {} were another version's: they are replaced by this version's",
        directory.display()
    );
    Ok(())
}
