//! Writing a record into the ring.

use core::mem::size_of;

use aya_ebpf::{helpers::bpf_ktime_get_ns, programs::BtfTracePointContext};
use sockstate_abi::abi::{Head, Listener, PerCpu, Task, V4, V6, flag, kind, state};

use crate::{
    filter::Candidate,
    kernel::{self, Ptr, Read},
    maps::{EVENTS, PER_CPU, frozen},
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

/// Addresses that can be read from a socket, or were found elsewhere.
pub(crate) trait Addresses: Copy + 'static {
    /// The bit of the head that announces them.
    const FLAG: u8;
    /// Reads them.
    fn read<R: Read>(sk: Ptr) -> Self;
}

impl Addresses for V4 {
    const FLAG: u8 = 0;
    #[inline(always)]
    fn read<R: Read>(sk: Ptr) -> Self {
        kernel::addresses_v4::<R>(sk)
    }
}

impl Addresses for V6 {
    const FLAG: u8 = flag::V6;
    #[inline(always)]
    fn read<R: Read>(sk: Ptr) -> Self {
        kernel::addresses_v6::<R>(sk)
    }
}

/// What a record says apart from what is read from the socket itself.
#[derive(Clone, Copy)]
pub(crate) struct Said {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) ends: Candidate,
    pub(crate) extra: u32,
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

/// Writes a transition of `sk` with what belongs to it. `addresses` where they need not be read from the socket.
#[inline(always)]
pub(crate) fn transition<R: Read, A: Addresses>(sk: Ptr, tcp: Ptr, said: Said, addresses: Option<A>) {
    if in_own_call(said.ends.old, said.ends.new) {
        if said.ends.new == state::LISTEN {
            super::processes::watch();
        }
        write::<R, A, Task>(sk, said, flag::TASK, addresses, || kernel::caller::<R>(sk));
    } else if is_clone(said.ends.old, said.ends.new) {
        let listener = || Listener { sk: if tcp.is_null() { 0 } else { kernel::cloned_from::<R>(tcp) } };
        write::<R, A, Listener>(sk, said, flag::LISTENER, addresses, listener);
    } else {
        plain::<R, A>(sk, said, addresses);
    }
}

/// Writes a record with nothing behind the addresses.
#[inline(always)]
pub(crate) fn plain<R: Read, A: Addresses>(sk: Ptr, said: Said, addresses: Option<A>) {
    write::<R, A, Nothing>(sk, said, 0, addresses, || []);
}

/// Writes a record with a link to another socket.
#[inline(always)]
pub(crate) fn linked<R: Read, A: Addresses>(sk: Ptr, said: Said, link: u64, addresses: Option<A>) {
    write::<R, A, Listener>(sk, said, flag::LISTENER, addresses, || Listener { sk: link });
}

/// Fills a record in its place in the ring; counts it as lost where there is none.
#[inline(always)]
fn write<R: Read, A: Addresses, X: 'static>(
    sk: Ptr,
    said: Said,
    extra_flag: u8,
    addresses: Option<A>,
    extra: impl FnOnce() -> X,
) {
    let Some(mut entry) = EVENTS.reserve::<Record<A, X>>(0) else {
        if let Some(cpu) = per_cpu() {
            if said.kind == kind::TRANSITION {
                cpu.lost_ring += 1;
            } else {
                cpu.lost_evidence += 1;
            }
        }
        return;
    };
    let record = entry.as_mut_ptr();
    let Candidate { old, new, family, local_port, remote_port, .. } = said.ends;
    let bare = if frozen!(OFFSETS.valid) == 0 { flag::BARE } else { 0 };
    // SAFETY: reserved for a record of just this size and aligned to 8; every byte is written before it is submitted.
    unsafe {
        let head = &raw mut (*record).head;
        (*head).sk = sk as u64;
        (*head).kind = said.kind;
        (*head).flags = said.flags | extra_flag | A::FLAG | bare;
        (*head).old = old;
        (*head).new = new;
        (*head).family = family;
        (*head).local_port = local_port;
        (*head).remote_port = remote_port;
        (*head).extra = said.extra;
        if said.flags & flag::MINI != 0 {
            // A mini-socket has only what every socket has in front.
            (*head).cgroup = 0;
            (*head).netns = kernel::netns::<R>(sk);
            (*head).uid = 0;
            (*head).error = 0;
        } else if bare == 0 {
            (*head).cgroup = kernel::cgroup_id::<R>(sk);
            (*head).netns = kernel::netns::<R>(sk);
            (*head).uid = kernel::uid::<R>(sk);
            (*head).error = kernel::error::<R>(sk);
        } else {
            (*head).cgroup = 0;
            (*head).netns = 0;
            (*head).uid = 0;
            (*head).error = 0;
        }
        (*record).addresses = match addresses {
            Some(addresses) => addresses,
            None => A::read::<R>(sk),
        };
        (*record).extra = extra();
        // Taken last, so that the ring's order and the times agree as closely as they can.
        (*head).time_ns = bpf_ktime_get_ns();
    }
    // The default flag: the kernel wakes the reader only when it has caught up and waits.
    entry.submit(0);
}

/// A state number that no kernel known to us has.
#[inline(always)]
pub(crate) fn report_unknown_state(context: &BtfTracePointContext, old: i32, new: i32) {
    aya_log_ebpf::warn!(context, "unknown TCP state: {} -> {}", old, new);
}
