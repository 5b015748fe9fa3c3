//! Writing a record into the ring.

use core::mem::size_of;

use aya_ebpf::{helpers::bpf_ktime_get_ns, programs::BtfTracePointContext};
use sockstate_abi::abi::{Counters, Head, Listener, PerCpu, Task, V4, V6, flag, kind, state};

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

/// A record that ends with its addresses.
type Nothing = [u8; 0];

// Padding would show old content of the ring: no record has any.
const _: () = assert!(size_of::<Record<V4, Nothing>>() == 56);
const _: () = assert!(size_of::<Record<V6, Nothing>>() == 80);
const _: () = assert!(size_of::<Record<V4, Task>>() == 88);
const _: () = assert!(size_of::<Record<V6, Task>>() == 112);
const _: () = assert!(size_of::<Record<V4, Listener>>() == 64);
const _: () = assert!(size_of::<Record<V6, Listener>>() == 88);
const _: () = assert!(size_of::<Record<V4, Counters>>() == 104);
const _: () = assert!(size_of::<Record<V6, Counters>>() == 128);

/// Addresses of one family.
pub(crate) trait Addresses: Copy + 'static {
    /// The bit of [`Head::flags`] for this family.
    const FLAG: u8;
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

/// The fields of a record that `write` does not read from the socket.
#[derive(Clone, Copy)]
pub(crate) struct Event {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) ends: Candidate,
    /// [`Head::extra`], which depends on the kind.
    pub(crate) extra: u32,
}

/// The transitions that the kernel makes in a system call of the socket's user: connect(), listen(), close(), shutdown().
/// All others may run in a softirq, on top of an unrelated task.
#[inline(always)]
pub(crate) fn in_own_call(old: u8, new: u8) -> bool {
    (old == state::CLOSE && (new == state::SYN_SENT || new == state::LISTEN))
        || new == state::FIN_WAIT1
        || new == state::LAST_ACK
}

/// Whether this is the first transition of a child, which was just cloned from its listener.
#[inline(always)]
pub(crate) fn is_clone(old: u8, new: u8) -> bool {
    old == state::LISTEN && new == state::SYN_RECV
}

/// This CPU's entry of [`PER_CPU`].
#[inline(always)]
pub(crate) fn per_cpu() -> Option<&'static mut PerCpu> {
    // SAFETY: no other CPU uses the value. A nested program may change it between two accesses: that costs one count, or the note
    // of a child or a connect, which only adds a detail to a mini-socket's record.
    PER_CPU.get_ptr_mut(0).and_then(|cpu| unsafe { cpu.as_mut() })
}

/// Writes a transition of `sk`, with the calling process, the listener or the counters where it has them. `tcp` is its
/// `tcp_sock`, or a null pointer where that is not known. `addresses` is `None` if they are to be read from the socket.
#[inline(always)]
pub(crate) fn transition<R: Read, A: Addresses>(sk: Ptr, tcp: Ptr, event: Event, addresses: Option<A>) {
    if in_own_call(event.ends.old, event.ends.new) {
        if event.ends.new == state::LISTEN {
            super::processes::watch();
        }
        write::<R, A, Task>(sk, event, flag::TASK, addresses, || kernel::caller::<R>(sk));
    } else if is_clone(event.ends.old, event.ends.new) {
        let listener = || Listener { sk: if tcp.is_null() { 0 } else { kernel::cloned_from::<R>(tcp) } };
        write::<R, A, Listener>(sk, event, flag::LISTENER, addresses, listener);
    } else if event.ends.new == state::CLOSE && event.ends.old != state::LISTEN && !tcp.is_null() {
        write::<R, A, Counters>(sk, event, flag::COUNTERS, addresses, || kernel::counters::<R>(tcp));
    } else {
        plain::<R, A>(sk, event, addresses);
    }
}

/// Writes a record that ends with its addresses.
#[inline(always)]
pub(crate) fn plain<R: Read, A: Addresses>(sk: Ptr, event: Event, addresses: Option<A>) {
    write::<R, A, Nothing>(sk, event, 0, addresses, || []);
}

/// Writes a record that names another socket, `link`.
#[inline(always)]
pub(crate) fn linked<R: Read, A: Addresses>(sk: Ptr, event: Event, link: u64, addresses: Option<A>) {
    write::<R, A, Listener>(sk, event, flag::LISTENER, addresses, || Listener { sk: link });
}

/// Writes a record directly into the ring; counts it as lost if the ring is full.
#[inline(always)]
fn write<R: Read, A: Addresses, X: 'static>(
    sk: Ptr,
    event: Event,
    extra_flag: u8,
    addresses: Option<A>,
    extra: impl FnOnce() -> X,
) {
    let Some(mut entry) = EVENTS.reserve::<Record<A, X>>(0) else {
        if let Some(cpu) = per_cpu() {
            if event.kind == kind::TRANSITION {
                cpu.lost_ring += 1;
            } else {
                cpu.lost_evidence += 1;
            }
        }
        return;
    };
    let record = entry.as_mut_ptr();
    let Candidate { old, new, family, local_port, remote_port, .. } = event.ends;
    let bare = if frozen!(OFFSETS.valid) == 0 { flag::BARE } else { 0 };
    // SAFETY: the entry has the size of the record and is aligned to 8 bytes; every byte is written before it is submitted.
    unsafe {
        let head = &raw mut (*record).head;
        (*head).sk = sk as u64;
        (*head).kind = event.kind;
        (*head).flags = event.flags | extra_flag | A::FLAG | bare;
        (*head).old = old;
        (*head).new = new;
        (*head).family = family;
        (*head).local_port = local_port;
        (*head).remote_port = remote_port;
        (*head).extra = event.extra;
        if event.flags & flag::MINI != 0 {
            // A mini-socket has only the fields of `struct sock_common`.
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
        // The time at which the record is complete. The order in the ring is that of the reservations.
        (*head).time_ns = bpf_ktime_get_ns();
    }
    // With the default flag the kernel wakes the reader only if the reader has read everything and waits.
    entry.submit(0);
}

/// Logs a state number that is newer than this program.
#[inline(always)]
pub(crate) fn report_unknown_state(context: &BtfTracePointContext, old: i32, new: i32) {
    aya_log_ebpf::warn!(context, "unknown TCP state: {} -> {}", old, new);
}
