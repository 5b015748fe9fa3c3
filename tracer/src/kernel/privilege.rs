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

/// The capabilities that loading programs takes and this process does not have.
pub(super) fn missing() -> Vec<&'static str> {
    let held = caps::read(None, CapSet::Effective).unwrap_or_default();
    // CAP_SYS_ADMIN includes both (capabilities(7)), and kernels before 5.8 have only that.
    let lacks = |capability| !held.contains(&capability) && !held.contains(&Capability::CAP_SYS_ADMIN);
    let all = [("CAP_BPF", Capability::CAP_BPF), ("CAP_PERFMON", Capability::CAP_PERFMON)];
    all.into_iter().filter(|(_, capability)| lacks(*capability)).map(|(name, _)| name).collect()
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
