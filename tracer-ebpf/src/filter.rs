//! The filter in the kernel: transitions that the user does not want are dropped before they reach the ring. A transition
//! whose ports or addresses are not known yet passes, and user space decides later.

use sockstate_abi::abi::{AF_INET6, PORT_WORDS, PORTS_EITHER, PORTS_LOCAL, PORTS_REMOTE, V6, state};

use crate::{
    kernel::{self, Ptr, Read},
    maps::{self, FILTER, PORTS, frozen},
};

/// The fields of a transition that the filter compares.
#[derive(Clone, Copy)]
pub(crate) struct Candidate {
    pub(crate) old: u8,
    pub(crate) new: u8,
    pub(crate) family: u16,
    pub(crate) local_port: u16,
    pub(crate) remote_port: u16,
    /// This may be the second transition of a listener's child, whose first one passed the filter; see [`Candidate::lacks_tuple`].
    pub(crate) is_second_of_child: bool,
}

impl Candidate {
    /// A socket in the state `now`, without a transition.
    #[inline(always)]
    pub(crate) fn of<R: Read>(sk: Ptr, now: u8) -> Self {
        Self {
            old: now,
            new: now,
            family: kernel::family::<R>(sk),
            local_port: kernel::local_port::<R>(sk),
            remote_port: kernel::remote_port::<R>(sk),
            is_second_of_child: false,
        }
    }

    /// The socket begins or stops to listen. Such a transition passes the filters on ports, addresses and states, because
    /// the children of a listener inherit its owner.
    #[inline(always)]
    fn is_listener(&self) -> bool {
        self.new == state::LISTEN || (self.old == state::LISTEN && self.new == state::CLOSE)
    }

    /// Up to 6.12 a listener's child has neither its remote address and port nor its own local address in its first transition,
    /// which therefore passes. The second transition passes too, because user space waits for it to decide about the first.
    #[inline(always)]
    fn lacks_tuple(&self) -> bool {
        self.is_second_of_child || (self.new == state::SYN_RECV && self.remote_port == 0)
    }

    /// connect() binds the socket after its first transition, which therefore passes. The second transition (out of SYN_SENT)
    /// passes too, because user space waits for its port to decide about the first.
    #[inline(always)]
    fn lacks_local_port(&self) -> bool {
        self.local_port == 0 || self.old == state::SYN_SENT
    }
}

/// Whether the filter wants this pair of states. A state that the filter cannot name passes, and user space reports it.
#[inline(always)]
pub(crate) fn wants_pair(old: u8, new: u8) -> bool {
    if new > 15 {
        return true;
    }
    let row = (&raw const FILTER.pairs).cast::<u16>().wrapping_add(usize::from(old));
    maps::load(row) & (1 << new) != 0
}

/// Whether the filter wants the socket's network namespace.
#[inline(always)]
pub(crate) fn wants_netns<R: Read>(sk: Ptr) -> bool {
    let netns = frozen!(FILTER.netns);
    netns == 0 || kernel::netns::<R>(sk) == netns
}

/// Whether the filter wants the ports and the addresses. The socket's addresses are read only if the filter has some.
#[inline(always)]
pub(crate) fn wants_ends<R: Read>(sk: Ptr, candidate: &Candidate) -> bool {
    wants_ports(candidate)
        && (!has_addresses() || wants_addresses(candidate, &kernel::addresses_wide::<R>(sk)))
}

/// Whether the filter wants the ports.
#[inline(always)]
pub(crate) fn wants_ports(candidate: &Candidate) -> bool {
    let ports = frozen!(FILTER.ports);
    if ports == 0 || candidate.is_listener() {
        return true;
    }
    let local_open = candidate.lacks_local_port();
    let remote_open = candidate.lacks_tuple();
    if ports & (1 << PORTS_LOCAL) != 0 && !local_open && !in_bitmap(PORTS_LOCAL, candidate.local_port) {
        return false;
    }
    if ports & (1 << PORTS_REMOTE) != 0 && !remote_open && !in_bitmap(PORTS_REMOTE, candidate.remote_port) {
        return false;
    }
    ports & (1 << PORTS_EITHER) == 0
        || local_open
        || remote_open
        || in_bitmap(PORTS_EITHER, candidate.local_port)
        || in_bitmap(PORTS_EITHER, candidate.remote_port)
}

#[inline(always)]
fn in_bitmap(which: u32, port: u16) -> bool {
    let word = which * PORT_WORDS + u32::from(port) / 64;
    PORTS.get(word).is_some_and(|bits| bits & (1 << (port & 63)) != 0)
}

/// Whether [`wants_addresses`] has anything to compare.
#[inline(always)]
pub(crate) fn has_addresses() -> bool {
    frozen!(FILTER.ip_version) != 0 || frozen!(FILTER.prefixes) != 0
}

/// Whether the filter wants the IP version and the addresses, which are IPv6 or v4-mapped.
#[inline(always)]
pub(crate) fn wants_addresses(candidate: &Candidate, addresses: &V6) -> bool {
    if candidate.is_listener() || candidate.lacks_tuple() {
        return true;
    }
    let (local, remote) = (words(addresses.local), words(addresses.remote));
    let version = frozen!(FILTER.ip_version);
    if version != 0 {
        let is_v4 = candidate.family != AF_INET6 || is_mapped(&remote) || is_mapped(&local);
        if is_v4 != (version == 4) {
            return false;
        }
    }
    within(&local, frozen!(FILTER.local), frozen!(FILTER.local_mask))
        && within(&remote, frozen!(FILTER.remote), frozen!(FILTER.remote_mask))
}

#[inline(always)]
fn words(bytes: [u8; 16]) -> [u32; 4] {
    // SAFETY: both types have the same size, and any bits are valid. The filter's words have the same byte order in memory.
    unsafe { core::mem::transmute(bytes) }
}

#[inline(always)]
fn is_mapped(words: &[u32; 4]) -> bool {
    words[0] == 0 && words[1] == 0 && words[2] == 0xffff_u32.to_be()
}

#[inline(always)]
fn within(words: &[u32; 4], prefix: [u32; 4], mask: [u32; 4]) -> bool {
    (words[0] & mask[0]) == prefix[0]
        && (words[1] & mask[1]) == prefix[1]
        && (words[2] & mask[2]) == prefix[2]
        && (words[3] & mask[3]) == prefix[3]
}
