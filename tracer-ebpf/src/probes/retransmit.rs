//! `tp_btf/tcp_retransmit_skb(const struct sock *sk, const struct sk_buff *skb[, int err])`, since 4.16. The
//! first transition of a connect comes before its port is bound, and a connect that gets no answer makes no other one for
//! minutes. So the local port is read at the first retransmitted SYN, a second later.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use sockstate_abi::abi::{AF_INET6, V4, V6, kind, state};

use super::emit::{self, Event};
use crate::{
    filter::{self, Candidate},
    kernel::{self, Direct, Ptr},
};

/// Writes the local port of a socket in SYN_SENT.
#[btf_tracepoint(function = "tcp_retransmit_skb")]
pub(crate) fn syn_retransmitted(context: BtfTracePointContext) -> i32 {
    let sk: Ptr = context.arg(0);
    if kernel::state::<Direct>(sk) != state::SYN_SENT || !filter::wants_netns::<Direct>(sk) {
        return 0;
    }
    let ends = Candidate::of::<Direct>(sk, state::SYN_SENT);
    let event = Event { kind: kind::PORT, flags: 0, ends, extra: kernel::interface::<Direct>(sk) };
    if ends.family == AF_INET6 {
        emit::plain::<Direct, V6>(sk, event, None);
    } else {
        emit::plain::<Direct, V4>(sk, event, None);
    }
    0
}
