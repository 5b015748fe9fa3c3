//! What nobody wants ends here. A question that cannot be answered yet passes: user space finishes it.

use sockstate_abi::abi::{AF_INET6, PORT_WORDS, PORTS_EITHER, PORTS_LOCAL, PORTS_REMOTE, V6, state};

use crate::{
    kernel::{self, Ptr, Read},
    maps::{self, FILTER, PORTS, frozen},
};

/// A transition, as far as the filter looks at it.
#[derive(Clone, Copy)]
pub(crate) struct Candidate {
    pub(crate) old: u8,
    pub(crate) new: u8,
    pub(crate) family: u16,
    pub(crate) local_port: u16,
    pub(crate) remote_port: u16,
    /// A listener's fresh child whose transition before this one passed without its ends.
    pub(crate) unborn: bool,
}

impl Candidate {
    /// A socket that is in `now`.
    #[inline(always)]
    pub(crate) fn of<R: Read>(sk: Ptr, now: u8) -> Self {
        Self {
            old: now,
            new: now,
            family: kernel::family::<R>(sk),
            local_port: kernel::local_port::<R>(sk),
            remote_port: kernel::remote_port::<R>(sk),
            unborn: false,
        }
    }

    /// A listener is born or dies. Always passes the filters on ports, addresses and states: a connection that comes out
    /// of it inherits its owner.
    #[inline(always)]
    fn is_listener(&self) -> bool {
        self.new == state::LISTEN || (self.old == state::LISTEN && self.new == state::CLOSE)
    }

    /// Before about 6.15 the fresh child of a listener has no remote tuple yet, nor its own local address. The next transition passes
    /// too: without it user space would believe in the first one for ever.
    #[inline(always)]
    fn lacks_tuple(&self) -> bool {
        self.unborn || (self.new == state::SYN_RECV && self.remote_port == 0)
    }

    /// A connect is bound only after its first transition. The next one passes too, and tells the port.
    #[inline(always)]
    fn lacks_local_port(&self) -> bool {
        self.local_port == 0 || self.old == state::SYN_SENT
    }
}

/// By what the tracepoint's arguments already tell.
#[inline(always)]
pub(crate) fn wants_pair(old: u8, new: u8) -> bool {
    if new > 15 {
        return true;
    }
    let row = (&raw const FILTER.pairs).cast::<u16>().wrapping_add(usize::from(old));
    maps::load(row) & (1 << new) != 0
}

/// By namespace.
#[inline(always)]
pub(crate) fn wants_netns<R: Read>(sk: Ptr) -> bool {
    let netns = frozen!(FILTER.netns);
    netns == 0 || kernel::netns::<R>(sk) == netns
}

/// By ports, and by the socket's addresses, which are read only where the filter has some.
#[inline(always)]
pub(crate) fn wants_ends<R: Read>(sk: Ptr, it: &Candidate) -> bool {
    wants_ports(it) && (!has_addresses() || wants_addresses(it, &kernel::addresses_wide::<R>(sk)))
}

/// By ports.
#[inline(always)]
pub(crate) fn wants_ports(it: &Candidate) -> bool {
    let ports = frozen!(FILTER.ports);
    if ports == 0 || it.is_listener() {
        return true;
    }
    let local_open = it.lacks_local_port();
    let remote_open = it.lacks_tuple();
    if ports & (1 << PORTS_LOCAL) != 0 && !local_open && !in_bitmap(PORTS_LOCAL, it.local_port) {
        return false;
    }
    if ports & (1 << PORTS_REMOTE) != 0 && !remote_open && !in_bitmap(PORTS_REMOTE, it.remote_port) {
        return false;
    }
    ports & (1 << PORTS_EITHER) == 0
        || local_open
        || remote_open
        || in_bitmap(PORTS_EITHER, it.local_port)
        || in_bitmap(PORTS_EITHER, it.remote_port)
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

/// By IP version and address prefixes. Addresses in their wide form.
#[inline(always)]
pub(crate) fn wants_addresses(it: &Candidate, addresses: &V6) -> bool {
    if it.is_listener() || it.lacks_tuple() {
        return true;
    }
    let (local, remote) = (words(addresses.local), words(addresses.remote));
    let version = frozen!(FILTER.ip_version);
    if version != 0 {
        let is_v4 = it.family != AF_INET6 || is_mapped(&remote) || is_mapped(&local);
        if is_v4 != (version == 4) {
            return false;
        }
    }
    within(&local, frozen!(FILTER.local), frozen!(FILTER.local_mask))
        && within(&remote, frozen!(FILTER.remote), frozen!(FILTER.remote_mask))
}

#[inline(always)]
fn words(bytes: [u8; 16]) -> [u32; 4] {
    // SAFETY: same size, any bits are valid; both sides are compared as they lie in memory.
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
