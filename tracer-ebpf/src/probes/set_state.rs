//! `tp_btf/inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)`, since 4.16 (as a
//! BTF-typed raw tracepoint since 5.5). Every state change of a full TCP socket.
//!
//! There are two programs. While the main program runs, an interrupt may process TCP and make a nested transition on this
//! CPU; the kernel's recursion guard then skips the main program. The companion, which runs after the main program, notices
//! that the main program did not finish this transition, and writes it. If the nested transition happens between the two
//! programs, the companion writes a second copy of the outer transition. User space drops that copy, because a socket cannot
//! make the same transition twice in a row.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use sockstate_abi::abi::{AF_INET6, V4, V6, flag, kind, state};

use super::emit::{self, Event};
use crate::{
    filter::{self, Candidate},
    kernel::{self, Direct, IPPROTO_TCP, Ptr},
};

/// Writes every wanted transition.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub(crate) fn set_state(context: BtfTracePointContext) -> i32 {
    let (sk, old, new) = arguments(&context);
    if old != new && kernel::protocol::<Direct>(sk) == IPPROTO_TCP {
        handle(&context, sk, old, new, 0);
        if let Some(cpu) = emit::per_cpu() {
            cpu.last_sk = sk as u64;
            cpu.last_pair = pair(old, new);
        }
    }
    0
}

/// Writes the transitions for which the kernel skipped [`set_state`].
#[btf_tracepoint(function = "inet_sock_set_state")]
pub(crate) fn companion(context: BtfTracePointContext) -> i32 {
    let (sk, old, new) = arguments(&context);
    if old == new || kernel::protocol::<Direct>(sk) != IPPROTO_TCP {
        return 0;
    }
    let Some(cpu) = emit::per_cpu() else { return 0 };
    if cpu.last_sk == sk as u64 && cpu.last_pair == pair(old, new) {
        // Cleared at once: the same socket may make the same transition again (listen, shutdown, listen).
        cpu.last_sk = 0;
        return 0;
    }
    cpu.companion += 1;
    handle(&context, sk, old, new, flag::COMPANION);
    0
}

/// Notes the socket for `probes/mini.rs`: the connect or the clone may end a mini-socket next on this CPU.
#[inline(always)]
fn remember(sk: Ptr, new: u8) {
    if let Some(cpu) = emit::per_cpu() {
        match new {
            state::SYN_SENT => cpu.connecting = sk as u64,
            state::SYN_RECV => cpu.child = sk as u64,
            _ => {}
        }
    }
}

/// Whether `sk` is the last child that was cloned on this CPU and passed the filter. The kernel finishes the handshake in the softirq
/// that clones the child.
#[inline(always)]
fn is_last_child(sk: Ptr) -> bool {
    emit::per_cpu().is_some_and(|cpu| cpu.child == sk as u64)
}

#[inline(always)]
fn arguments(context: &BtfTracePointContext) -> (Ptr, i32, i32) {
    (context.arg(0), context.arg(1), context.arg(2))
}

#[inline(always)]
fn pair(old: i32, new: i32) -> u64 {
    (old as u32 as u64) << 32 | new as u32 as u64
}

#[inline(always)]
fn handle(context: &BtfTracePointContext, sk: Ptr, old: i32, new: i32, flags: u8) {
    // skc_state is an unsigned char, so the casts lose nothing.
    let (old, new) = (old as u8, new as u8);
    if !filter::wants_pair(old, new) || !filter::wants_netns::<Direct>(sk) {
        return;
    }
    if old >= state::COUNT || new >= state::COUNT {
        emit::report_unknown_state(context, old.into(), new.into());
    }
    // Two cases need fields of `tcp_sock`. At CLOSE, skc_num is already 0 for an automatically bound socket, but inet_sport still
    // has the port. A clone still has a pointer to its listener.
    let tcp = if new == state::CLOSE || emit::is_clone(old, new) {
        kernel::tcp_sock(sk)
    } else {
        core::ptr::null()
    };
    let local_port = if new == state::CLOSE && !tcp.is_null() {
        kernel::bound_port::<Direct>(tcp)
    } else {
        kernel::local_port::<Direct>(sk)
    };
    let family = kernel::family::<Direct>(sk);
    let is_second_of_child = old == state::SYN_RECV && is_last_child(sk);
    let candidate = Candidate {
        old,
        new,
        family,
        local_port,
        remote_port: kernel::remote_port::<Direct>(sk),
        is_second_of_child,
    };
    if !filter::wants_ends::<Direct>(sk, &candidate) {
        return;
    }
    let extra = if new == state::CLOSE && !tcp.is_null() { kernel::closed_as::<Direct>(tcp) } else { 0 };
    let extra = if new == state::CLOSE { extra } else { kernel::interface::<Direct>(sk) };
    let event = Event { kind: kind::TRANSITION, flags, ends: candidate, extra };
    if old == state::CLOSE || emit::is_clone(old, new) {
        remember(sk, new);
    }
    if family == AF_INET6 {
        emit::transition::<Direct, V6>(sk, tcp, event, None);
    } else {
        emit::transition::<Direct, V4>(sk, tcp, event, None);
    }
}
