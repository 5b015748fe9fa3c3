//! Resets that this host sends without a socket. Attached only if records of resets are wanted.
//!
//! - `tp_btf/kfree_skb(struct sk_buff *skb, void *location, enum skb_drop_reason reason[, struct sock *rx_sk])`, the reason since
//!   5.17 (for IPv6 since 5.18): `tcp_v4_rcv` and `tcp_v6_rcv` have found no socket for a segment, have answered it by a reset
//!   unless it is a reset itself, and free it.

use aya_ebpf::{helpers::bpf_ktime_get_ns, macros::btf_tracepoint, programs::BtfTracePointContext};
use sockstate_abi::abi::{AF_INET6, Ends, Head, PerCpu, V6, flag, kind, state};

use super::emit;
use crate::{
    filter::{self, Candidate},
    kernel::{self, Ptr},
    maps::{EVENTS, frozen},
};

const SECOND_NS: u64 = 1_000_000_000;
/// Most records of one CPU in a second: a peer can cause any number of resets. The others are counted. User space has the same
/// limit for all CPUs together.
const MOST: u64 = 100;
/// The RST flag of a TCP header.
const RST: u8 = 4;

#[repr(C)]
struct Record {
    head: Head,
    addresses: V6,
}

/// A segment without a socket is dropped.
#[btf_tracepoint(function = "kfree_skb")]
pub(crate) fn no_socket(context: BtfTracePointContext) -> i32 {
    let reason: u32 = context.arg(2);
    if reason != frozen!(HOOKS.no_socket) {
        return 0;
    }
    let skb: Ptr = context.arg(0);
    let Some((flags, ends)) = kernel::packet(skb) else { return 0 };
    if flags & RST != 0 || !is_wanted(&ends) {
        return 0;
    }
    if let Some(cpu) = emit::per_cpu()
        && !(is_allowed(cpu) && write(flags, &ends))
    {
        cpu.resets += 1;
    }
    0
}

#[inline(always)]
fn is_wanted(ends: &Ends) -> bool {
    let netns = frozen!(FILTER.netns);
    let candidate = Candidate {
        old: state::CLOSE,
        new: state::CLOSE,
        family: AF_INET6,
        local_port: ends.local_port,
        remote_port: ends.remote_port,
        is_second_of_child: false,
    };
    (netns == 0 || netns == ends.netns)
        && filter::wants_ports(&candidate)
        && (!filter::has_addresses() || filter::wants_addresses(&candidate, &ends.addresses))
}

/// Whether this CPU has room for another record in this second.
#[inline(always)]
fn is_allowed(cpu: &mut PerCpu) -> bool {
    // SAFETY: takes nothing.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    if now_ns.wrapping_sub(cpu.resets_began_ns) >= SECOND_NS {
        (cpu.resets_began_ns, cpu.resets_written) = (now_ns, 0);
    }
    cpu.resets_written += 1;
    cpu.resets_written <= MOST
}

/// Writes the record; false if the ring is full.
#[inline(always)]
fn write(flags: u8, ends: &Ends) -> bool {
    let Some(mut entry) = EVENTS.reserve::<Record>(0) else { return false };
    let record = entry.as_mut_ptr();
    // SAFETY: the entry has the size of the record and is aligned to 8 bytes; every byte is written.
    unsafe {
        (&raw mut (*record).addresses).write(ends.addresses);
        (&raw mut (*record).head).write(Head {
            time_ns: bpf_ktime_get_ns(),
            netns: ends.netns,
            kind: kind::RESET,
            flags: flag::V6 | flag::MINI,
            family: AF_INET6,
            local_port: ends.local_port,
            remote_port: ends.remote_port,
            extra: flags.into(),
            ..Head::default()
        });
    }
    entry.submit(0);
    true
}
