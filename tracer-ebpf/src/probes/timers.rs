//! Mini-sockets by their timers, where functions cannot be hooked. A request and a timewait socket each own a
//! `timer_list` that is set when they begin and stopped when they end.
//!
//! - `tp_btf/timer_start(struct timer_list *timer, ...)`, since 2.6.31 (typed since 5.5): the mini-socket begins, or its
//!   timer is set again.
//! - `tp_btf/timer_cancel(struct timer_list *timer)`: the mini-socket ends, unless its timer is set again at once.
//! - `tp_btf/timer_expire_entry(struct timer_list *timer, ...)`: the timer runs out.
//! - `tp_btf/kfree_skb(struct sk_buff *skb, void *location, ...)`: `mod_timer` traces nothing if the new time falls into the
//!   old bucket, as it usually does when the peer's FIN moves a mini-socket from FIN_WAIT2 to TIME_WAIT. `tcp_v4_rcv` and
//!   `tcp_v6_rcv` free that FIN right afterwards.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use sockstate_abi::abi::{Ends, end, state};

use super::mini;
use crate::{
    kernel::{self, Direct, Probed, Ptr},
    maps::{ORPHANS, frozen},
};

const FIN: u8 = 1;

/// A timer is set.
#[btf_tracepoint(function = "timer_start")]
pub(crate) fn timer_start(context: BtfTracePointContext) -> i32 {
    let timer: Ptr = context.arg(0);
    let function = kernel::timer_function::<Direct>(timer);
    if function == frozen!(HOOKS.tw_timer) {
        let tw = kernel::timer_timewait(timer);
        remember_orphan(tw);
        mini::timewait(tw, 0);
    } else if function == frozen!(HOOKS.req_timer) {
        mini::request(kernel::timer_request(timer));
    }
    0
}

/// A timer is stopped by its owner, or runs out now.
#[btf_tracepoint(function = "timer_cancel")]
pub(crate) fn timer_cancel(context: BtfTracePointContext) -> i32 {
    let timer: Ptr = context.arg(0);
    let function = kernel::timer_function::<Direct>(timer);
    if function == frozen!(HOOKS.tw_timer) {
        let tw = kernel::timer_timewait(timer);
        forget_orphan(tw);
        mini::timewait_end(tw, end::STOPPED);
    } else if function == frozen!(HOOKS.req_timer) {
        let req = kernel::timer_request(timer);
        if !mini::has_just_become_child(req) {
            mini::request_end(req, end::STOPPED);
        }
    }
    0
}

/// A timer runs out.
#[btf_tracepoint(function = "timer_expire_entry")]
pub(crate) fn timer_expire(context: BtfTracePointContext) -> i32 {
    let timer: Ptr = context.arg(0);
    let function = kernel::timer_function::<Direct>(timer);
    if function == frozen!(HOOKS.tw_timer) {
        mini::timewait_end(kernel::timer_timewait(timer), end::EXPIRED);
    } else if function == frozen!(HOOKS.req_timer) {
        mini::request_end(kernel::timer_request(timer), end::EXPIRED);
    }
    0
}

/// A packet is freed.
#[btf_tracepoint(function = "kfree_skb")]
pub(crate) fn packet_freed(context: BtfTracePointContext) -> i32 {
    let tw = closed_orphan(context.arg(0)) as Ptr;
    if !tw.is_null() {
        mini::timewait(tw, 0);
    }
    0
}

// These functions are not inlined, so that their stack is not added to that of the functions that write records.

/// Remembers an orphan in FIN_WAIT2 by its ends.
#[inline(never)]
fn remember_orphan(tw: Ptr) {
    if kernel::timewait_substate::<Probed>(tw) == state::FIN_WAIT2 {
        // If the map is full, this orphan's TIME_WAIT is only seen when it ends.
        let _ = ORPHANS.insert(kernel::ends::<Probed>(tw), tw as u64, 0);
    }
}

#[inline(never)]
fn forget_orphan(tw: Ptr) {
    let _ = ORPHANS.remove(kernel::ends::<Probed>(tw));
}

/// The orphan that this FIN has moved to TIME_WAIT; 0 if none.
#[inline(never)]
fn closed_orphan(skb: Ptr) -> u64 {
    let Some((flags, mut ends)) = kernel::packet(skb) else { return 0 };
    if flags & FIN == 0 {
        return 0;
    }
    // An orphan that is bound to the packet's interface comes before one that is bound to none.
    let mut tw = orphan(&ends);
    if tw == 0 {
        ends.interface = 0;
        tw = orphan(&ends);
    }
    if tw == 0 {
        return 0;
    }
    if kernel::timewait_substate::<Probed>(tw as Ptr) != state::TIME_WAIT {
        return 0;
    }
    let _ = ORPHANS.remove(ends);
    tw
}

#[inline(always)]
fn orphan(ends: &Ends) -> u64 {
    // SAFETY: the value is copied at once.
    unsafe { ORPHANS.get(ends) }.copied().unwrap_or(0)
}
