//! Mini-sockets by the functions that make and end them: each as fentry or fexit (5.5, needs a trampoline), and as a
//! kprobe where that is not available.
//!
//! - `inet_twsk_hashdance_schedule(struct inet_timewait_sock *tw, struct sock *sk, ...)` (6.12), before
//!   `inet_twsk_hashdance(tw, sk, ...)`: a full socket goes, a timewait socket takes its place.
//! - `__inet_twsk_schedule(tw, int timeo, bool rearm)`: perhaps it is in TIME_WAIT now.
//! - `tw_timer_handler(struct timer_list *)`: its time is over.
//! - `inet_twsk_kill(tw)`: it ends.
//! - `inet_csk_reqsk_queue_hash_add(struct sock *sk, struct request_sock *req[, timeout])`, bool since 6.1: a request.
//! - `inet_ehash_insert(struct sock *sk, struct sock *osk, bool *)`: a request's copy takes its place, because its
//!   listener has closed (5.14); connections and children, too.
//! - `reqsk_timer_handler(struct timer_list *)`: its SYN-ACK was not answered in time.
//! - `tcp_v4_reqsk_destructor(req)`, `tcp_v6_reqsk_destructor(req)`: it ends.
//! - `tcp_get_cookie_sock(sk, struct sk_buff *skb, req, ...)`: a SYN cookie came back.

use aya_ebpf::{
    macros::{fentry, fexit, kprobe, kretprobe},
    programs::{FEntryContext, FExitContext, ProbeContext, RetProbeContext},
};
use sockstate_abi::abi::{end, state};

use super::{emit, mini};
use crate::{
    kernel::{self, Probed, Ptr},
    maps::frozen,
};

macro_rules! both {
    ($($(#[$doc:meta])* $fentry:ident, $kprobe:ident, $argument:literal => $work:expr;)*) => {$(
        $(#[$doc])*
        #[fentry]
        pub(crate) fn $fentry(context: FEntryContext) -> i32 {
            let work: fn(Ptr) = $work;
            work(context.arg($argument));
            0
        }

        $(#[$doc])*
        #[kprobe]
        pub(crate) fn $kprobe(context: ProbeContext) -> u32 {
            let work: fn(Ptr) = $work;
            work(context.arg::<u64>($argument).unwrap_or_default() as Ptr);
            0
        }
    )*};
}

both! {
    /// The timewait socket may be in another state.
    tw_again, tw_again_probe, 0 => |tw| mini::timewait(tw, 0);
    /// A timer of a timewait socket runs out.
    tw_expires, tw_expires_probe, 0 => |timer| set_expiring(kernel::timer_timewait(timer));
    /// A timewait socket ends.
    tw_ends, tw_ends_probe, 0 => |tw| mini::timewait_end(tw, how(tw));
    /// A timer of a request runs out.
    req_expires, req_expires_probe, 0 => |timer| set_expiring(kernel::timer_request(timer));
    /// A request is freed.
    req_ends, req_ends_probe, 0 => request_ends;
    /// The same over IPv6.
    req_ends_v6, req_ends_v6_probe, 0 => request_ends;
    /// A SYN cookie was right.
    req_cookie, req_cookie_probe, 2 => mini::cookie;
}

/// A timewait socket takes a full one's place.
#[fentry]
pub(crate) fn tw_begins(context: FEntryContext) -> i32 {
    let full: Ptr = context.arg(1);
    mini::timewait(context.arg(0), full as u64);
    0
}

/// A timewait socket takes a full one's place.
#[kprobe]
pub(crate) fn tw_begins_probe(context: ProbeContext) -> u32 {
    let tw = context.arg::<u64>(0).unwrap_or_default() as Ptr;
    mini::timewait(tw, context.arg::<u64>(1).unwrap_or_default());
    0
}

/// A request was put into the table of connections.
#[fexit]
pub(crate) fn req_begins(context: FExitContext) -> i32 {
    mini::request(context.arg(1));
    0
}

/// The same, unless there was one already: the result lies behind two arguments. A program of its own, because the
/// verifier takes constant places only, and the compiler would make one load of two.
#[fexit]
pub(crate) fn req_begins_result2(context: FExitContext) -> i32 {
    let added: u64 = context.arg(2);
    if added as u8 != 0 {
        mini::request(context.arg(1));
    }
    0
}

/// The same behind three arguments.
#[fexit]
pub(crate) fn req_begins_result3(context: FExitContext) -> i32 {
    let added: u64 = context.arg(3);
    if added as u8 != 0 {
        mini::request(context.arg(1));
    }
    0
}

/// A request is about to be put into the table of connections.
#[kprobe]
pub(crate) fn req_begins_probe(context: ProbeContext) -> u32 {
    set_expiring(context.arg::<u64>(1).unwrap_or_default() as Ptr);
    0
}

/// It was put there, unless there was one already.
#[kretprobe]
pub(crate) fn req_begun_probe(context: RetProbeContext) -> u32 {
    let req = emit::per_cpu().map_or(0, |cpu| core::mem::take(&mut cpu.expiring)) as Ptr;
    let added = frozen!(HOOKS.hash_add_result) == 0 || context.ret::<u64>() as u8 != 0;
    if added && !req.is_null() {
        mini::request(req);
    }
    0
}

/// The request's timer has done its work.
#[fexit]
pub(crate) fn req_expired(_: FExitContext) -> i32 {
    set_expiring(core::ptr::null());
    0
}

/// The request's timer has done its work.
#[kretprobe]
pub(crate) fn req_expired_probe(_: RetProbeContext) -> u32 {
    set_expiring(core::ptr::null());
    0
}

/// A socket is put into the table of connections.
#[fentry]
pub(crate) fn req_moves(context: FEntryContext) -> i32 {
    moved(context.arg(0), context.arg(1));
    0
}

/// A socket is put into the table of connections.
#[kprobe]
pub(crate) fn req_moves_probe(context: ProbeContext) -> u32 {
    moved(context.arg::<u64>(0).unwrap_or_default() as Ptr, context.arg::<u64>(1).unwrap_or_default() as Ptr);
    0
}

/// Only a copy of a request has a request before it.
#[inline(always)]
fn moved(sk: Ptr, before: Ptr) {
    if !before.is_null() && kernel::state::<Probed>(sk) == state::NEW_SYN_RECV {
        mini::request_copy(sk);
    }
}

#[inline(always)]
fn set_expiring(mini: Ptr) {
    if let Some(cpu) = emit::per_cpu() {
        cpu.expiring = mini as u64;
    }
}

#[inline(always)]
fn how(mini: Ptr) -> u32 {
    match emit::per_cpu() {
        Some(cpu) if cpu.expiring == mini as u64 => {
            cpu.expiring = 0;
            end::EXPIRED
        }
        _ => end::KILLED,
    }
}

/// Most requests became a child.
#[inline(always)]
fn request_ends(req: Ptr) {
    if kernel::request_child::<Probed>(req) == 0 {
        mini::request_end(req, how(req));
    }
}
