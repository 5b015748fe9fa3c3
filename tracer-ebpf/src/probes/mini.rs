//! Mini-sockets (`request_sock` in NEW_SYN_RECV, `inet_timewait_sock` in FIN_WAIT2 and TIME_WAIT), whatever hook shows
//! them. All reads are probes: most hooks give these pointers as mere numbers.

use sockstate_abi::abi::{AF_INET6, V6, end, flag, kind, state};

use super::emit::{self, Said};
use crate::{
    filter::{self, Candidate},
    kernel::{self, Probed, Ptr},
};

/// What [`emit`] takes: the kind, and above it a bit of the flags; a function has five arguments at most.
const MINI: u16 = kind::MINI as u16;
const AGAIN: u16 = (flag::AGAIN as u16) << 8;

/// A timewait socket in the state that it is in now. `full` is the socket that it takes the place of, 0 where the hook
/// does not tell.
#[inline(always)]
pub(crate) fn timewait(tw: Ptr, full: u64) {
    emit(tw, MINI, kernel::timewait_substate::<Probed>(tw), kernel::interface::<Probed>(tw), full);
}

/// A request socket that waits for the last ACK of its handshake.
#[inline(always)]
pub(crate) fn request(req: Ptr) {
    let listener = kernel::request_listener::<Probed>(req);
    let again = if kernel::is_request_again::<Probed>(req) { AGAIN } else { 0 };
    emit(req, MINI | again, state::NEW_SYN_RECV, kernel::interface::<Probed>(req), listener);
}

/// A request's copy that takes its place.
#[inline(always)]
pub(crate) fn request_copy(req: Ptr) {
    let listener = kernel::request_listener::<Probed>(req);
    emit(req, MINI | AGAIN, state::NEW_SYN_RECV, kernel::interface::<Probed>(req), listener);
}

/// A SYN cookie of this request was right.
#[inline(always)]
pub(crate) fn cookie(req: Ptr) {
    emit(req, kind::COOKIE.into(), state::NEW_SYN_RECV, kernel::interface::<Probed>(req), 0);
}

/// The end of a timewait socket, or of its timer; `how` is one of `abi::end`.
#[inline(always)]
pub(crate) fn timewait_end(tw: Ptr, how: u32) {
    let mut how = how;
    if how != end::EXPIRED {
        if kernel::is_netns_gone::<Probed>(tw) {
            how |= end::NETNS_GONE;
        } else if is_taken_over(tw) {
            how |= end::REUSED;
        }
    }
    emit(tw, kind::MINI_END.into(), kernel::timewait_substate::<Probed>(tw), how, 0);
}

/// The end of a request, or of its timer, unless it has become a child just now.
#[inline(always)]
pub(crate) fn request_end(req: Ptr, how: u32) {
    let mut how = how;
    // The request holds its listener, so the pointer is good.
    let listener = kernel::request_listener::<Probed>(req) as Ptr;
    if !listener.is_null() && kernel::state::<Probed>(listener) != state::LISTEN {
        how |= end::LISTENER_GONE;
    }
    emit(req, kind::MINI_END.into(), state::NEW_SYN_RECV, how, 0);
}

/// Whether the child that was cloned last on this CPU is this request's: the kernel clones, then takes the request
/// away, in one softirq.
#[inline(always)]
pub(crate) fn has_just_become_child(req: Ptr) -> bool {
    emit::per_cpu().is_some_and(|cpu| cpu.child != 0 && is_same(cpu.child as Ptr, req))
}

/// Whether the connect that began last on this CPU has this socket's ends: `__inet_check_established` hashes it, then
/// ends the timewait socket, in the connecting process.
#[inline(always)]
fn is_taken_over(tw: Ptr) -> bool {
    emit::per_cpu().is_some_and(|cpu| {
        let sk = cpu.connecting as Ptr;
        let interface = kernel::interface::<Probed>(tw);
        !sk.is_null()
            && kernel::state::<Probed>(sk) == state::SYN_SENT
            && is_same(sk, tw)
            // As `inet_match` has it: one that is bound to no interface stands in the way of all.
            && (interface == 0 || interface == kernel::interface::<Probed>(sk))
    })
}

/// Both ends are the same. Addresses as far as IPv4 goes, which every socket of either family has.
#[inline(always)]
fn is_same(a: Ptr, b: Ptr) -> bool {
    kernel::local_port::<Probed>(a) == kernel::local_port::<Probed>(b)
        && kernel::remote_port::<Probed>(a) == kernel::remote_port::<Probed>(b)
        && kernel::netns::<Probed>(a) == kernel::netns::<Probed>(b)
        && kernel::family::<Probed>(a) == kernel::family::<Probed>(b)
        && is_same_remote(a, b)
}

#[inline(always)]
fn is_same_remote(a: Ptr, b: Ptr) -> bool {
    if kernel::family::<Probed>(a) == AF_INET6 {
        let (a, b) = (kernel::addresses_v6::<Probed>(a), kernel::addresses_v6::<Probed>(b));
        return u128::from_ne_bytes(a.remote) == u128::from_ne_bytes(b.remote);
    }
    let (a, b) = (kernel::addresses_v4::<Probed>(a), kernel::addresses_v4::<Probed>(b));
    u32::from_ne_bytes(a.remote) == u32::from_ne_bytes(b.remote)
}

/// Not inlined: some twenty programs call it.
#[inline(never)]
fn emit(mini: Ptr, kind: u16, state: u8, extra: u32, link: u64) {
    if !filter::wants_netns::<Probed>(mini) {
        return;
    }
    let ends = Candidate::of::<Probed>(mini, state);
    if !filter::wants_ends::<Probed>(mini, &ends) {
        return;
    }
    // One form of record for both families: these programs are many, and each holds this code.
    let said = Said { kind: kind as u8, flags: flag::MINI | (kind >> 8) as u8, ends, extra };
    emit::linked::<Probed, V6>(mini, said, link, Some(kernel::addresses_wide::<Probed>(mini)));
}
