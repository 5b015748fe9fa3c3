//! `tp_btf/tcp_retransmit_skb(const struct sock *sk, const struct sk_buff *skb[, int err])`, since 4.16. A connect
//! that gets no answer makes no further transition for minutes, and its first one came before its port was bound:
//! the first retransmitted SYN, a second later, tells the port.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use sockstate_abi::abi::{AF_INET6, Head, kind, state};

use super::emit::{self, Addresses};
use crate::{
    filter,
    kernel::{self, Direct, Ptr},
};

/// Writes the local port of a socket in SYN_SENT.
#[btf_tracepoint(function = "tcp_retransmit_skb")]
pub(crate) fn syn_retransmitted(context: BtfTracePointContext) -> i32 {
    let sk: Ptr = context.arg(0);
    if kernel::state::<Direct>(sk) != state::SYN_SENT || !filter::wants_place::<Direct>(sk) {
        return 0;
    }
    let family = kernel::family::<Direct>(sk);
    let mut head = Head {
        kind: kind::PORT,
        flags: kernel::family_flag(family),
        old: state::SYN_SENT,
        new: state::SYN_SENT,
        family,
        local_port: kernel::local_port::<Direct>(sk),
        remote_port: kernel::remote_port::<Direct>(sk),
        ..Head::default()
    };
    kernel::describe::<Direct>(&mut head, sk);
    let addresses = if family == AF_INET6 {
        Addresses::V6(kernel::addresses_v6::<Direct>(sk))
    } else {
        Addresses::V4(kernel::addresses_v4::<Direct>(sk))
    };
    emit::plain(head, addresses);
    0
}
