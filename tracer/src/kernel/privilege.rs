//! Drops capabilities that are not needed any more.

use caps::{CapSet, Capability, CapsHashSet};

/// Capabilities that a running tracer needs: for map lookups, other users' processes, and cgroups by handle.
const KEPT: [Capability; 3] =
    [Capability::CAP_BPF, Capability::CAP_SYS_PTRACE, Capability::CAP_DAC_READ_SEARCH];

/// Whether this process has a capability that allows loading programs.
#[must_use]
pub fn may_trace() -> bool {
    [Capability::CAP_BPF, Capability::CAP_SYS_ADMIN]
        .into_iter()
        .any(|capability| caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false))
}

/// Drops all other capabilities of this thread, irrevocably.
///
/// # Errors
/// The kernel refuses.
pub fn drop_privileges() -> Result<(), caps::errors::CapsError> {
    let held = caps::read(None, CapSet::Permitted)?;
    // Kernels before 5.8 have no CAP_BPF and check CAP_SYS_ADMIN instead.
    let mut keep: CapsHashSet = KEPT.into_iter().filter(|cap| held.contains(cap)).collect();
    if !held.contains(&Capability::CAP_BPF) && held.contains(&Capability::CAP_SYS_ADMIN) {
        keep.insert(Capability::CAP_SYS_ADMIN);
    }
    for set in [CapSet::Effective, CapSet::Permitted] {
        caps::set(None, set, &keep)?;
    }
    caps::clear(None, CapSet::Inheritable)
}
