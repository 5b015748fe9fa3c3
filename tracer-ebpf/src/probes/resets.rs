//! Resets, which are evidence for the cause of a connection's end.
//!
//! - `tp_btf/tcp_receive_reset(struct sock *sk)`, since 4.16: before the transition that the reset causes.
//! - `tp_btf/tcp_send_reset(const struct sock *sk, const struct sk_buff *skb[, enum sk_rst_reason reason])`, since
//!   4.16, the reason since 6.10: after `-> CLOSE` if close() or a disconnect sends the reset, before it if a timer does.
//!   `sk` may be a null pointer or a timewait socket.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use sockstate_abi::abi::{V6, flag, kind, sent, state};

use super::emit::{self, Event};
use crate::{
    filter::{self, Candidate},
    kernel::{self, Direct, Ptr},
    maps::frozen,
};

/// The peer has sent a reset.
#[btf_tracepoint(function = "tcp_receive_reset")]
pub(crate) fn reset_received(context: BtfTracePointContext) -> i32 {
    write(context.arg(0), kind::RESET_RECEIVED, 0);
    0
}

/// This host sends a reset.
#[btf_tracepoint(function = "tcp_send_reset")]
pub(crate) fn reset_sent(context: BtfTracePointContext) -> i32 {
    let sk: Ptr = context.arg(0);
    if sk.is_null() {
        return 0;
    }
    let mut extra = 0;
    if frozen!(HOOKS.reset_reason) != 0 {
        let reason: u32 = context.arg(2);
        extra = sent::HAS_REASON | (reason & sent::REASON);
    }
    write(sk, kind::RESET_SENT, extra);
    0
}

#[inline(always)]
fn write(sk: Ptr, kind: u8, extra: u32) {
    let now = kernel::state::<Direct>(sk);
    // A reset from a listener or a request answers a stray packet and ends no connection.
    if now == state::LISTEN || now == state::NEW_SYN_RECV || !filter::wants_netns::<Direct>(sk) {
        return;
    }
    let is_mini = now == state::TIME_WAIT;
    let mut extra = extra;
    if !is_mini && kind == kind::RESET_SENT && kernel::has_linger_0::<Direct>(sk) {
        extra |= sent::LINGER_0;
    }
    let ends = Candidate::of::<Direct>(sk, now);
    let event = Event { kind, flags: if is_mini { flag::MINI } else { 0 }, ends, extra };
    emit::plain::<Direct, V6>(sk, event, Some(kernel::addresses_wide::<Direct>(sk)));
}
