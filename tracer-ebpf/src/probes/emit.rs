//! Writing a record into the ring.

use core::mem::size_of;

use aya_ebpf::{helpers::bpf_ktime_get_ns, programs::BtfTracePointContext};
use sockstate_abi::abi::{Head, Listener, PerCpu, Task, V4, V6, flag, state};

use crate::{
    kernel,
    maps::{EVENTS, PER_CPU},
};

/// A record as it lies in the ring.
#[repr(C)]
struct Record<A, X> {
    head: Head,
    addresses: A,
    extra: X,
}

/// Nothing behind the addresses.
type Nothing = [u8; 0];

// Nothing may leak from the ring's old content: no record has padding.
const _: () = assert!(size_of::<Record<V4, Nothing>>() == 56);
const _: () = assert!(size_of::<Record<V6, Nothing>>() == 80);
const _: () = assert!(size_of::<Record<V4, Task>>() == 88);
const _: () = assert!(size_of::<Record<V6, Task>>() == 112);
const _: () = assert!(size_of::<Record<V4, Listener>>() == 64);
const _: () = assert!(size_of::<Record<V6, Listener>>() == 88);

/// The addresses of either family.
#[derive(Clone, Copy)]
pub(crate) enum Addresses {
    V4(V4),
    V6(V6),
}

/// The transitions that the kernel makes in the socket user's own call: connect, listen, close, shutdown.
/// Everything else may run in a softirq that borrowed any task.
#[inline(always)]
pub(crate) fn in_own_call(old: u8, new: u8) -> bool {
    (old == state::CLOSE && (new == state::SYN_SENT || new == state::LISTEN))
        || new == state::FIN_WAIT1
        || new == state::LAST_ACK
}

/// A child has just been cloned from its listener.
#[inline(always)]
pub(crate) fn is_clone(old: u8, new: u8) -> bool {
    old == state::LISTEN && new == state::SYN_RECV
}

/// This CPU's counters.
#[inline(always)]
pub(crate) fn per_cpu() -> Option<&'static mut PerCpu> {
    // SAFETY: a per-CPU value, used by one program at a time; an interrupt between two writes costs a count at most.
    PER_CPU.get_ptr_mut(0).and_then(|cpu| unsafe { cpu.as_mut() })
}

/// Writes a transition with what belongs to it; counts it as lost where the ring is full.
#[inline(always)]
pub(crate) fn transition(head: Head, addresses: Addresses, listener: u64) {
    if in_own_call(head.old, head.new) {
        with_addresses(Head { flags: head.flags | flag::TASK, ..head }, addresses, kernel::current());
    } else if is_clone(head.old, head.new) {
        let extra = Listener { sk: listener };
        with_addresses(Head { flags: head.flags | flag::LISTENER, ..head }, addresses, extra);
    } else {
        plain(head, addresses);
    }
}

/// Writes a record with nothing behind the addresses.
#[inline(always)]
pub(crate) fn plain(head: Head, addresses: Addresses) {
    with_addresses(head, addresses, [0_u8; 0]);
}

#[inline(always)]
fn with_addresses<X: Copy + 'static>(head: Head, addresses: Addresses, extra: X) {
    match addresses {
        Addresses::V4(addresses) => write(Record { head, addresses, extra }),
        Addresses::V6(addresses) => write(Record { head, addresses, extra }),
    }
}

#[inline(always)]
fn write<A: Copy + 'static, X: Copy + 'static>(mut record: Record<A, X>) {
    let Some(mut entry) = EVENTS.reserve::<Record<A, X>>(0) else {
        if let Some(cpu) = per_cpu() {
            cpu.lost_ring += 1;
        }
        return;
    };
    // Taken last, so that the ring's order and the times agree as closely as they can.
    // SAFETY: takes nothing.
    record.head.time_ns = unsafe { bpf_ktime_get_ns() };
    entry.write(record);
    // The default flag: the kernel wakes the reader only when it has caught up and waits.
    entry.submit(0);
}

/// A state number that no kernel known to us has.
#[cold]
#[inline(never)]
pub(crate) fn report_unknown_state(context: &BtfTracePointContext, old: i32, new: i32) {
    aya_log_ebpf::warn!(context, "unknown TCP state: {} -> {}", old, new);
}
