//! The classic tracepoint `sock:inet_sock_set_state`, since 4.16, for kernels without BTF or tp_btf. The
//! offsets of its fields come from its `format` file. With BTF the other fields are read by probing; without BTF these fields
//! of the record stay unknown. There is no companion: all perf-attached programs share one recursion guard.

use aya_ebpf::{macros::tracepoint, programs::TracePointContext};
use sockstate_abi::abi::{AF_INET6, V4, V6, kind, state};

use super::emit::{self, Event};
use crate::{
    filter::{self, Candidate},
    kernel::{self, IPPROTO_TCP, Probed, Ptr},
    maps::frozen,
};

macro_rules! field {
    ($context:expr, $type:ty, $field:ident) => {{
        let offset = frozen!(FORMAT.$field) as usize;
        // SAFETY: the tracepoint's own format gives this offset for this field.
        unsafe { $context.read_at::<$type>(offset) }.unwrap_or_default()
    }};
}

/// Writes every wanted transition.
#[tracepoint(category = "sock", name = "inet_sock_set_state")]
pub(crate) fn set_state_classic(context: TracePointContext) -> u32 {
    let protocol = if frozen!(FORMAT.protocol_size) == 1 {
        u16::from(field!(context, u8, protocol))
    } else {
        field!(context, u16, protocol)
    };
    let (old, new) = (field!(context, i32, oldstate), field!(context, i32, newstate));
    if protocol == IPPROTO_TCP && old != new {
        handle(&context, old as u8, new as u8);
    }
    0
}

#[inline(always)]
fn handle(context: &TracePointContext, old: u8, new: u8) {
    let sk = field!(context, u64, skaddr) as Ptr;
    let known = frozen!(OFFSETS.valid) != 0;
    if !filter::wants_pair(old, new) || (known && !filter::wants_netns::<Probed>(sk)) {
        return;
    }
    let family = field!(context, u16, family);
    let candidate = Candidate {
        old,
        new,
        family,
        local_port: local_port(context, sk, known, old, new),
        remote_port: field!(context, u16, dport),
        // This program keeps no state of previous transitions.
        is_second_of_child: old == state::SYN_RECV,
    };
    if !filter::wants_ports(&candidate) {
        return;
    }
    let extra = match (known, new == state::CLOSE) {
        (false, _) => 0,
        (true, true) => kernel::closed_as::<Probed>(sk),
        (true, false) => kernel::interface::<Probed>(sk),
    };
    let event = Event { kind: kind::TRANSITION, flags: 0, ends: candidate, extra };
    if family == AF_INET6 {
        let addresses =
            V6 { local: field!(context, [u8; 16], saddr_v6), remote: field!(context, [u8; 16], daddr_v6) };
        if !filter::has_addresses() || filter::wants_addresses(&candidate, &addresses) {
            emit(sk, known, event, addresses);
        }
    } else {
        let addresses =
            V4 { local: field!(context, [u8; 4], saddr), remote: field!(context, [u8; 4], daddr) };
        if !filter::has_addresses() || filter::wants_addresses(&candidate, &kernel::mapped(addresses)) {
            emit(sk, known, event, addresses);
        }
    }
}

/// The local port. A socket that connects again still has its old port in `sport`, and binds another one later.
#[inline(always)]
fn local_port(context: &TracePointContext, sk: Ptr, known: bool, old: u8, new: u8) -> u16 {
    match (old == state::CLOSE && new == state::SYN_SENT, known) {
        (true, true) => kernel::local_port::<Probed>(sk),
        (true, false) => 0,
        (false, _) => field!(context, u16, sport),
    }
}

/// Without BTF the listener is not known either.
#[inline(always)]
fn emit<A: emit::Addresses>(sk: Ptr, known: bool, event: Event, addresses: A) {
    let tcp = if known { sk } else { core::ptr::null() };
    emit::transition::<Probed, A>(sk, tcp, event, Some(addresses));
}
