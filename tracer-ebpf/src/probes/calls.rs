//! Mini-sockets by the functions that make and end them: each as fentry or fexit (5.5, needs a trampoline), and as a
//! kprobe where that is not available.
//!
//! - `inet_twsk_hashdance_schedule(struct inet_timewait_sock *tw, struct sock *sk, ...)` (6.12), in older kernels
//!   `inet_twsk_hashdance(tw, sk, ...)`: a timewait socket replaces a full socket.
//! - `__inet_twsk_schedule(tw, int timeo, bool rearm)`: the timewait socket may have entered TIME_WAIT.
//! - `tw_timer_handler(struct timer_list *)`: the timer of a timewait socket runs out.
//! - `inet_twsk_kill(tw)`: a timewait socket ends.
//! - `inet_csk_reqsk_queue_hash_add(struct sock *sk, struct request_sock *req[, timeout])`, bool since 6.1: a request begins.
//! - `inet_ehash_insert(struct sock *sk, struct sock *osk, bool *)`: a copy replaces a request whose listener has closed
//!   (5.14). The kernel calls the function for connections and children, too.
//! - `reqsk_timer_handler(struct timer_list *)`: the SYN-ACK of a request was not answered in time.
//! - `tcp_v4_reqsk_destructor(req)`, `tcp_v6_reqsk_destructor(req)`: a request ends.
//! - `tcp_get_cookie_sock(sk, struct sk_buff *skb, req, ...)`: an ACK has a valid SYN cookie.

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
    tw_ends, tw_ends_probe, 0 => |tw| mini::timewait_end(tw, end_of(tw));
    /// A timer of a request runs out.
    req_expires, req_expires_probe, 0 => |timer| set_expiring(kernel::timer_request(timer));
    /// A request is freed.
    req_ends, req_ends_probe, 0 => request_ends;
    /// The same over IPv6.
    req_ends_v6, req_ends_v6_probe, 0 => request_ends;
    /// An ACK has a valid SYN cookie.
    req_cookie, req_cookie_probe, 2 => mini::cookie;
}

/// A timewait socket replaces a full socket.
#[fentry]
pub(crate) fn tw_begins(context: FEntryContext) -> i32 {
    let full: Ptr = context.arg(1);
    mini::timewait(context.arg(0), full as u64);
    0
}

/// A timewait socket replaces a full socket.
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

/// A request was added, unless the result, behind two arguments, is false: there was one already. This is a separate program,
/// because the verifier takes only constant offsets, and the compiler would merge two loads into one with a variable offset.
#[fexit]
pub(crate) fn req_begins_result2(context: FExitContext) -> i32 {
    let added: u64 = context.arg(2);
    if added as u8 != 0 {
        mini::request(context.arg(1));
    }
    0
}

/// The same, with the result behind three arguments.
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

/// A request was added, unless the result is false: there was one already.
#[kretprobe]
pub(crate) fn req_begun_probe(context: RetProbeContext) -> u32 {
    let req = emit::per_cpu().map_or(0, |cpu| core::mem::take(&mut cpu.expiring)) as Ptr;
    let added = frozen!(HOOKS.hash_add_result) == 0 || context.ret::<u64>() as u8 != 0;
    if added && !req.is_null() {
        mini::request(req);
    }
    0
}

/// The handler of a request's timer returns.
#[fexit]
pub(crate) fn req_expired(_: FExitContext) -> i32 {
    set_expiring(core::ptr::null());
    0
}

/// The handler of a request's timer returns.
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

/// How this mini-socket ends: by its timer, if that is running out on this CPU. One of `abi::end`.
#[inline(always)]
fn end_of(mini: Ptr) -> u32 {
    match emit::per_cpu() {
        Some(cpu) if cpu.expiring == mini as u64 => {
            cpu.expiring = 0;
            end::EXPIRED
        }
        _ => end::KILLED,
    }
}

/// A request is freed. If it became a child, the child's transitions show that.
#[inline(always)]
fn request_ends(req: Ptr) {
    if kernel::request_child::<Probed>(req) == 0 {
        mini::request_end(req, end_of(req));
    }
}
