//! Drops capabilities that are not needed any more.

use caps::{CapSet, Capability, CapsHashSet, errors::CapsError};

/// Capabilities that a running tracer needs: for map lookups, other users' processes, and cgroups by handle.
const KEPT: [Capability; 3] =
    [Capability::CAP_BPF, Capability::CAP_SYS_PTRACE, Capability::CAP_DAC_READ_SEARCH];

/// What the threads need in addition that look at sockets: for iterators, other network namespaces, and `sock_diag`.
const LOOK: [Capability; 3] = [Capability::CAP_PERFMON, Capability::CAP_SYS_ADMIN, Capability::CAP_NET_ADMIN];

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

/// Drops the capabilities of this thread that a running tracer does not need, irrevocably.
///
/// # Errors
/// The kernel refuses.
pub fn drop_privileges() -> Result<(), CapsError> {
    let held = caps::read(None, CapSet::Permitted)?;
    // Kernels before 5.8 have no CAP_BPF and check CAP_SYS_ADMIN instead.
    let instead = (!held.contains(&Capability::CAP_BPF)).then_some(Capability::CAP_SYS_ADMIN);
    keep_of(&held, KEPT.into_iter().chain(instead))
}

/// Drops the capabilities of this thread that neither a running tracer nor a look at sockets needs, irrevocably.
///
/// # Errors
/// The kernel refuses.
pub fn keep_privileges_to_look() -> Result<(), CapsError> {
    keep_of(&caps::read(None, CapSet::Permitted)?, KEPT.into_iter().chain(LOOK))
}

/// Keeps those of the capabilities in `held` that are `needed`.
fn keep_of(held: &CapsHashSet, needed: impl Iterator<Item = Capability>) -> Result<(), CapsError> {
    let keep: CapsHashSet = needed.filter(|capability| held.contains(capability)).collect();
    for set in [CapSet::Effective, CapSet::Permitted] {
        caps::set(None, set, &keep)?;
    }
    caps::clear(None, CapSet::Inheritable)
}
