//! Giving away what is not needed any more.

use caps::{CapSet, Capability, CapsHashSet};

/// What a running tracer still needs: map look-ups, and reading other users' processes and cgroups by handle.
const KEPT: [Capability; 3] =
    [Capability::CAP_BPF, Capability::CAP_SYS_PTRACE, Capability::CAP_DAC_READ_SEARCH];

/// Whether this process has what loading the programs takes most of all.
#[must_use]
pub fn may_trace() -> bool {
    [Capability::CAP_BPF, Capability::CAP_SYS_ADMIN]
        .into_iter()
        .any(|capability| caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false))
}

/// Drops every other capability of this thread for good.
///
/// # Errors
/// The kernel refuses.
pub fn drop_privileges() -> Result<(), caps::errors::CapsError> {
    let held = caps::read(None, CapSet::Permitted)?;
    // Kernels before 5.8 do not know CAP_BPF; there CAP_SYS_ADMIN stands for it.
    let mut keep: CapsHashSet = KEPT.into_iter().filter(|cap| held.contains(cap)).collect();
    if !held.contains(&Capability::CAP_BPF) && held.contains(&Capability::CAP_SYS_ADMIN) {
        keep.insert(Capability::CAP_SYS_ADMIN);
    }
    for set in [CapSet::Effective, CapSet::Permitted] {
        caps::set(None, set, &keep)?;
    }
    caps::clear(None, CapSet::Inheritable)
}
