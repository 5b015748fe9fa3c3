//! Records of mini-sockets: `request_sock` in NEW_SYN_RECV, `inet_timewait_sock` in FIN_WAIT2 and TIME_WAIT. All reads are
//! probed, because most hooks pass these pointers as plain numbers.

use sockstate_abi::abi::{AF_INET6, V6, end, flag, kind, state};

use super::emit::{self, Event};
use crate::{
    filter::{self, Candidate},
    kernel::{self, Probed, Ptr},
};

/// The `kind` argument of [`emit`] holds the record's kind and, shifted by 8 bits, its flags: a BPF function has at most five
/// arguments.
const MINI: u16 = kind::MINI as u16;
const AGAIN: u16 = (flag::AGAIN as u16) << 8;

/// A timewait socket in its present state. `full` is the full socket that it replaces, 0 if the hook does not pass it.
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

/// A copy that replaces a request.
#[inline(always)]
pub(crate) fn request_copy(req: Ptr) {
    let listener = kernel::request_listener::<Probed>(req);
    emit(req, MINI | AGAIN, state::NEW_SYN_RECV, kernel::interface::<Probed>(req), listener);
}

/// An ACK has a valid SYN cookie; `req` is the request that the kernel makes for it.
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

/// The end of a request, or of its timer. The caller checks that the request has not become a child.
#[inline(always)]
pub(crate) fn request_end(req: Ptr, how: u32) {
    let mut how = how;
    // The request holds a reference to its listener, so the pointer is valid.
    let listener = kernel::request_listener::<Probed>(req) as Ptr;
    if !listener.is_null() && kernel::state::<Probed>(listener) != state::LISTEN {
        how |= end::LISTENER_GONE;
    }
    emit(req, kind::MINI_END.into(), state::NEW_SYN_RECV, how, 0);
}

/// Whether the last child that was cloned on this CPU came out of this request: the kernel clones the child and removes the
/// request in one softirq.
#[inline(always)]
pub(crate) fn has_just_become_child(req: Ptr) -> bool {
    emit::per_cpu().is_some_and(|cpu| cpu.child != 0 && has_same_ports_and_peer(cpu.child as Ptr, req))
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
            && has_same_ports_and_peer(sk, tw)
            // As in `inet_match`: a socket that is bound to no interface conflicts with all interfaces.
            && (interface == 0 || interface == kernel::interface::<Probed>(sk))
    })
}

/// Whether both sockets have the same ports, remote address, family and namespace. The local address is left out, because a
/// fresh child may still have its listener's.
#[inline(always)]
fn has_same_ports_and_peer(a: Ptr, b: Ptr) -> bool {
    kernel::local_port::<Probed>(a) == kernel::local_port::<Probed>(b)
        && kernel::remote_port::<Probed>(a) == kernel::remote_port::<Probed>(b)
        && kernel::netns::<Probed>(a) == kernel::netns::<Probed>(b)
        && kernel::family::<Probed>(a) == kernel::family::<Probed>(b)
        && has_same_remote_address(a, b)
}

#[inline(always)]
fn has_same_remote_address(a: Ptr, b: Ptr) -> bool {
    if kernel::family::<Probed>(a) == AF_INET6 {
        let (a, b) = (kernel::addresses_v6::<Probed>(a), kernel::addresses_v6::<Probed>(b));
        return u128::from_ne_bytes(a.remote) == u128::from_ne_bytes(b.remote);
    }
    let (a, b) = (kernel::addresses_v4::<Probed>(a), kernel::addresses_v4::<Probed>(b));
    u32::from_ne_bytes(a.remote) == u32::from_ne_bytes(b.remote)
}

/// Not inlined, because about twenty programs call this function.
#[inline(never)]
fn emit(mini: Ptr, kind: u16, state: u8, extra: u32, link: u64) {
    if !filter::wants_netns::<Probed>(mini) {
        return;
    }
    let ends = Candidate::of::<Probed>(mini, state);
    if !filter::wants_ends::<Probed>(mini, &ends) {
        return;
    }
    // IPv4 addresses are mapped: one form of record keeps the code of these programs small.
    let event = Event { kind: kind as u8, flags: flag::MINI | (kind >> 8) as u8, ends, extra };
    emit::linked::<Probed, V6>(mini, event, link, Some(kernel::addresses_wide::<Probed>(mini)));
}
