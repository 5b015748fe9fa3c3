//! The only place that follows kernel pointers.
//!
//! `Direct` reads compile to plain loads, which the verifier checks against BTF types. They need pointers whose type the verifier
//! knows and that are not null. A load that faults returns zero; but before Linux 6.5 (commit
//! 0108a4e9f358, "bpf: ensure main program has an extable") the kernel may panic instead if the program has subprograms. `Probed` reads go through `bpf_probe_read_kernel` and work on any address.

use core::{ffi::c_void, mem::size_of};

use aya_ebpf::helpers::{bpf_get_current_task, generated};
use sockstate_abi::abi::{ABSENT, AF_INET, AF_INET6, Counters, Ends, Head, Registers, Task, V4, V6, closed};

use crate::maps::frozen;

/// `socket_state` (include/uapi/linux/net.h). connect() sets SS_CONNECTING only after `tcp_v4_connect()` has succeeded, so a socket
/// that goes to CLOSE in this state fails inside connect().
const SS_UNCONNECTED: u32 = 1;

/// A pointer into the kernel, possibly a null pointer.
pub(crate) type Ptr = *const c_void;

/// How kernel memory is read.
pub(crate) trait Read {
    /// The value at `base + offset`; zero where it cannot be read.
    ///
    /// # Safety
    /// `offset` must be that of a `T` in the structure at `base`, as the kernel's BTF says. `Direct` needs a `base` that is
    /// not null.
    unsafe fn read<T: Copy + Default>(base: Ptr, offset: u32) -> T;
}

/// Plain loads through a pointer that the verifier knows.
pub(crate) struct Direct;

impl Read for Direct {
    #[inline(always)]
    unsafe fn read<T: Copy + Default>(base: Ptr, offset: u32) -> T {
        // SAFETY: the caller vouches for the offset, and the verifier checks the load. The module's comment is about faults.
        unsafe { core::ptr::read_volatile(base.cast::<u8>().add(offset as usize).cast::<T>()) }
    }
}

/// Loads through the helper, for pointers whose type the verifier does not know.
pub(crate) struct Probed;

impl Read for Probed {
    #[inline(always)]
    unsafe fn read<T: Copy + Default>(base: Ptr, offset: u32) -> T {
        let mut value = T::default();
        let from = base.cast::<u8>().wrapping_add(offset as usize);
        // The helper clears the value where it cannot read. Its result is ignored: each branch on it would double the number
        // of paths that the verifier walks.
        // SAFETY: the helper checks the address itself, and writes just the value.
        unsafe {
            generated::bpf_probe_read_kernel((&raw mut value).cast(), size_of::<T>() as u32, from.cast());
        }
        value
    }
}

macro_rules! get {
    ($reader:ident, $type:ty, $base:expr, $field:ident) => {{
        let (base, offset) = ($base, frozen!(OFFSETS.$field));
        // SAFETY: the offset is the one that user space resolved for exactly this field.
        unsafe { $reader::read::<$type>(base, offset) }
    }};
}

/// `IPPROTO_TCP` (include/uapi/linux/in.h), a value of `sk_protocol`.
pub(crate) const IPPROTO_TCP: u16 = 6;

/// Whether `sk`, a socket of any family, is a TCP socket.
#[inline(always)]
pub(crate) fn is_tcp<R: Read>(sk: Ptr) -> bool {
    let family = family::<R>(sk);
    (family == AF_INET || family == AF_INET6) && protocol::<R>(sk) == IPPROTO_TCP
}

/// `sk_protocol`.
#[inline(always)]
pub(crate) fn protocol<R: Read>(sk: Ptr) -> u16 {
    get!(R, u16, sk, protocol)
}

/// `skc_state`.
#[inline(always)]
pub(crate) fn state<R: Read>(sk: Ptr) -> u8 {
    get!(R, u8, sk, state)
}

/// `skc_family`.
#[inline(always)]
pub(crate) fn family<R: Read>(sk: Ptr) -> u16 {
    get!(R, u16, sk, family)
}

/// `skc_num`, which is 0 again once an automatically bound socket is closed; see [`bound_port`].
#[inline(always)]
pub(crate) fn local_port<R: Read>(sk: Ptr) -> u16 {
    get!(R, u16, sk, num)
}

/// `inet_sport`, which keeps the port after the socket is unhashed. `tcp` is a `tcp_sock`.
#[inline(always)]
pub(crate) fn bound_port<R: Read>(tcp: Ptr) -> u16 {
    u16::from_be(get!(R, u16, tcp, sport))
}

/// `skc_dport`.
#[inline(always)]
pub(crate) fn remote_port<R: Read>(sk: Ptr) -> u16 {
    u16::from_be(get!(R, u16, sk, dport))
}

/// The address of the listener that `tcp`, a `tcp_sock` at LISTEN -> SYN_RECV, was cloned from. The listener's empty
/// `tsorted_sent_queue` points to itself, and the clone still has that pointer: `tcp_create_openreq_child` initialises the
/// queue later.
#[inline(always)]
pub(crate) fn cloned_from<R: Read>(tcp: Ptr) -> u64 {
    let next = get!(R, u64, tcp, sent_queue);
    next.wrapping_sub(u64::from(frozen!(OFFSETS.sent_queue)))
}

/// `tw_substate`: FIN_WAIT2 or TIME_WAIT. `tw` is an `inet_timewait_sock`.
#[inline(always)]
pub(crate) fn timewait_substate<R: Read>(tw: Ptr) -> u8 {
    get!(R, u8, tw, tw_substate)
}

/// `rsk_listener` of a `request_sock`.
#[inline(always)]
pub(crate) fn request_listener<R: Read>(req: Ptr) -> u64 {
    get!(R, u64, req, rsk_listener)
}

/// Whether the SYN-ACK of a `request_sock` was sent again.
#[inline(always)]
pub(crate) fn is_request_again<R: Read>(req: Ptr) -> bool {
    get!(R, u8, req, rsk_retransmits) != 0
}

/// The child that a `request_sock` became, 0 before.
#[inline(always)]
pub(crate) fn request_child<R: Read>(req: Ptr) -> u64 {
    get!(R, u64, req, rsk_child)
}

/// Bits of `abi::closed`. `tcp` is a `tcp_sock`.
#[inline(always)]
pub(crate) fn closed_as<R: Read>(tcp: Ptr) -> u32 {
    // SOCK_DEAD and SOCK_DONE are the first two of `enum sock_flags` (include/net/sock.h).
    let flags = (get!(R, u64, tcp, flags) & 3) as u32;
    let (una, next) = (get!(R, u32, tcp, snd_una), get!(R, u32, tcp, snd_nxt));
    // NULL if this is an orphan.
    let socket = get!(R, u64, tcp, sk_socket) as Ptr;
    flags
        | bit(get!(R, u32, tcp, linger2) >> 31, closed::NO_LINGER2)
        | bit(get!(R, u8, tcp, retransmits).into(), closed::RETRANSMITTED)
        // RCV_SHUTDOWN and SEND_SHUTDOWN are 1 and 2.
        | (u32::from(get!(R, u8, tcp, shutdown) & 3) * closed::RECEIVE_SHUT)
        | bit(una ^ next, closed::UNACKED)
        | bit(next ^ get!(R, u32, tcp, write_seq), closed::UNSENT)
        | bit(get!(R, u32, tcp, packets_out), closed::IN_FLIGHT)
        | is_zero(get!(Probed, u32, socket, socket_state) ^ SS_UNCONNECTED, closed::CONNECTING)
        | is_zero(get!(R, u32, tcp, segs_out), closed::NOTHING_SENT)
        | bit(get!(R, u8, tcp, probes_out).into(), closed::PROBED)
        | is_zero(get!(R, u32, tcp, snd_wnd), closed::NO_WINDOW)
}

/// What `tcp`, a `tcp_sock`, has transferred.
#[inline(always)]
pub(crate) fn counters<R: Read>(tcp: Ptr) -> Counters {
    let sample = frozen!(OFFSETS.rtt_min) + frozen!(OFFSETS.minmax_value);
    Counters {
        bytes_sent: get!(R, u64, tcp, bytes_sent),
        bytes_retrans: get!(R, u64, tcp, bytes_retrans),
        bytes_received: get!(R, u64, tcp, bytes_received),
        segs_out: get!(R, u32, tcp, segs_out),
        segs_in: get!(R, u32, tcp, segs_in),
        total_retrans: get!(R, u32, tcp, total_retrans),
        srtt_us: get!(R, u32, tcp, srtt_us),
        // SAFETY: the offset is that of the first sample's value.
        rtt_min_us: unsafe { R::read(tcp, sample) },
        unread: get!(R, u32, tcp, rcv_nxt).wrapping_sub(get!(R, u32, tcp, copied_seq)),
    }
}

/// `bit` unless `value` is 0. There is no branch, because each would double the number of paths that the verifier walks.
#[inline(always)]
fn bit(value: u32, bit: u32) -> u32 {
    ((value | value.wrapping_neg()) >> 31) * bit
}

/// `bit` if `value` is 0.
#[inline(always)]
fn is_zero(value: u32, bit: u32) -> u32 {
    bit ^ self::bit(value, bit)
}

/// Whether close() sends a reset because SO_LINGER has a time of 0 (`SOCK_LINGER` is bit 4 of `enum sock_flags`). close()
/// shuts down both directions first; a disconnect does not.
#[inline(always)]
pub(crate) fn has_linger_0<R: Read>(sk: Ptr) -> bool {
    get!(R, u64, sk, flags) & (1 << 4) != 0
        && get!(R, u64, sk, lingertime) == 0
        && get!(R, u8, sk, shutdown) & 3 == 3
}

/// Whether the socket's network namespace is being taken down.
#[inline(always)]
pub(crate) fn is_netns_gone<R: Read>(sk: Ptr) -> bool {
    let net = get!(R, u64, sk, net) as Ptr;
    frozen!(OFFSETS.net_count) != ABSENT && get!(R, u32, net, net_count) == 0
}

/// `function` of a `timer_list`.
#[inline(always)]
pub(crate) fn timer_function<R: Read>(timer: Ptr) -> u64 {
    get!(R, u64, timer, timer_function)
}

/// The `inet_timewait_sock` around its `tw_timer`.
#[inline(always)]
pub(crate) fn timer_timewait(timer: Ptr) -> Ptr {
    timer.cast::<u8>().wrapping_sub(frozen!(OFFSETS.tw_timer) as usize).cast()
}

/// The `request_sock` around its `rsk_timer`.
#[inline(always)]
pub(crate) fn timer_request(timer: Ptr) -> Ptr {
    timer.cast::<u8>().wrapping_sub(frozen!(OFFSETS.rsk_timer) as usize).cast()
}

/// A packet's TCP flags, and its ends as the receiver sees them, with the interface that received the packet. `None` if it is not a
/// TCP packet. The verifier knows the type of `skb`.
#[inline(always)]
pub(crate) fn packet(skb: Ptr) -> Option<(u8, Ends)> {
    let protocol = u16::from_be(get!(Direct, u16, skb, skb_protocol));
    let is_v6 = protocol == 0x86dd;
    if protocol != 0x0800 && !is_v6 {
        return None;
    }
    let head = get!(Direct, u64, skb, skb_head) as Ptr;
    let network = u32::from(get!(Direct, u16, skb, skb_network));
    let transport = u32::from(get!(Direct, u16, skb, skb_transport));
    // RFC 791, 8200 and 9293 define the layouts.
    if header::<u8>(head, network + if is_v6 { 6 } else { 9 }) != IPPROTO_TCP as u8 {
        return None;
    }
    let addresses = if is_v6 {
        V6 { local: words::<Probed>(head, network + 24), remote: words::<Probed>(head, network + 8) }
    } else {
        let word = |at| header::<u32>(head, network + at).to_ne_bytes();
        mapped(V4 { local: word(16), remote: word(12) })
    };
    let port = |at| u16::from_be(header(head, transport + at));
    let dev = get!(Direct, u64, skb, skb_dev) as Ptr;
    let net = get!(Probed, u64, dev, dev_net) as Ptr;
    let netns = get!(Probed, u32, net, net_inum);
    let interface = get!(Probed, u32, dev, dev_index);
    let ends = Ends { addresses, netns, local_port: port(2), remote_port: port(0), interface };
    Some((header(head, transport + 13), ends))
}

/// Part of a packet's header.
#[inline(always)]
fn header<T: Copy + Default>(head: Ptr, at: u32) -> T {
    // SAFETY: the kernel has set the headers' offsets; a probed read of a wrong one returns zero.
    unsafe { Probed::read(head, at) }
}

/// Both ends of a socket.
#[inline(always)]
pub(crate) fn ends<R: Read>(sk: Ptr) -> Ends {
    Ends {
        addresses: addresses_wide::<R>(sk),
        netns: netns::<R>(sk),
        local_port: local_port::<R>(sk),
        remote_port: remote_port::<R>(sk),
        interface: interface::<R>(sk),
    }
}

/// Index of the interface that the socket is bound to (`skc_bound_dev_if`), 0 for none. The kernel also binds sockets with
/// link-local addresses, and connections that came in through a VRF (`net.ipv4.tcp_l3mdev_accept`).
#[inline(always)]
pub(crate) fn interface<R: Read>(sk: Ptr) -> u32 {
    if frozen!(OFFSETS.valid) == 0 { 0 } else { get!(R, u32, sk, bound_dev) }
}

/// The `struct sock` of a `struct socket`.
#[inline(always)]
pub(crate) fn socket_sk<R: Read>(socket: Ptr) -> Ptr {
    get!(R, u64, socket, socket_sk) as Ptr
}

/// The inode number of a socket that the kernel itself uses, 0 for every other socket. The kernel's sockets have a `struct socket`
/// without a file. Other sockets differ: connections in the accept queue and orphans have no `struct socket`; socket() and
/// accept() make the file before the socket is in the kernel's tables; the subflows of an MPTCP or SMC socket have no file, but
/// their ULP shows MPTCP (user space looks for SMC, which leaves no mark on the subflow). `tcp` is a `tcp_sock`.
#[inline(always)]
pub(crate) fn inode_of_kernels<R: Read>(tcp: Ptr) -> u64 {
    let (in_alloc, inode) = (frozen!(OFFSETS.socket_in_alloc), frozen!(OFFSETS.inode_in_alloc));
    if in_alloc == ABSENT || inode == ABSENT || frozen!(OFFSETS.ulp_ops) == ABSENT {
        return 0;
    }
    let socket = get!(R, u64, tcp, sk_socket) as Ptr;
    if socket.is_null() || get!(Probed, u64, socket, socket_file) != 0 {
        return 0;
    }
    let is_below_another = get!(R, u64, tcp, ulp_ops) != 0
        || (frozen!(OFFSETS.is_mptcp) != ABSENT && get!(R, u8, tcp, is_mptcp) != 0);
    if is_below_another {
        return 0;
    }
    let alloc: Ptr = socket.cast::<u8>().wrapping_sub(in_alloc as usize).cast();
    // SAFETY: every `struct socket` is a part of a `socket_alloc` (`sock_alloc`); a probed read of a wrong address returns zero.
    unsafe { Probed::read(alloc, inode) }
}

/// The `struct sock` behind a descriptor of `task` that is known to be a socket.
#[inline(always)]
pub(crate) fn descriptor_sk(task: Ptr, fd: u32) -> Ptr {
    let files = get!(Probed, u64, task, task_files) as Ptr;
    let table = get!(Probed, u64, files, files_fdt) as Ptr;
    let array = get!(Probed, u64, table, fdt_fd) as Ptr;
    // SAFETY: the array has a pointer for each descriptor; a probed read of a wrong address returns zero.
    let file: u64 = unsafe { Probed::read(array, fd.wrapping_mul(8)) };
    let socket = get!(Probed, u64, file as Ptr, file_private) as Ptr;
    socket_sk::<Probed>(socket)
}

/// Inode number of the socket's network namespace.
#[inline(always)]
pub(crate) fn netns<R: Read>(sk: Ptr) -> u32 {
    let net = get!(R, u64, sk, net) as Ptr;
    get!(R, u32, net, net_inum)
}

/// The socket's own cgroup (v2), or null.
#[inline(always)]
fn cgroup<R: Read>(sk: Ptr) -> Ptr {
    if frozen!(OFFSETS.cgroup) != ABSENT {
        return get!(R, u64, sk, cgroup) as Ptr;
    }
    if frozen!(OFFSETS.cgroup_val) == ABSENT {
        return core::ptr::null();
    }
    // Up to 5.14 one word holds either a pointer or, with bit 0 set, net_cls data.
    let word = get!(R, u64, sk, cgroup_val);
    if word & 1 == 0 { word as Ptr } else { core::ptr::null() }
}

/// Id of the socket's cgroup, 0 where unknown.
#[inline(always)]
pub(crate) fn cgroup_id<R: Read>(sk: Ptr) -> u64 {
    if frozen!(OFFSETS.cgroup) != ABSENT {
        let cgroup = cgroup::<R>(sk);
        if cgroup.is_null() {
            return 0;
        }
        let node = get!(R, u64, cgroup, cgroup_kn) as Ptr;
        return get!(R, u64, node, kn_id);
    }
    let cgroup = cgroup::<R>(sk);
    if cgroup.is_null() {
        return 0;
    }
    let node = get!(Probed, u64, cgroup, cgroup_kn) as Ptr;
    get!(Probed, u64, node, kn_id)
}

/// `sk_uid`.
#[inline(always)]
pub(crate) fn uid<R: Read>(sk: Ptr) -> u32 {
    get!(R, u32, sk, uid)
}

/// `sk_err`; errnos fit in 16 bits.
#[inline(always)]
pub(crate) fn error<R: Read>(sk: Ptr) -> u16 {
    get!(R, u32, sk, err) as u16
}

/// Fills the fields of [`Head`] that come from the socket, except the ports.
#[inline(always)]
pub(crate) fn describe<R: Read>(head: &mut Head, sk: Ptr) {
    head.sk = sk as u64;
    head.cgroup = cgroup_id::<R>(sk);
    head.netns = netns::<R>(sk);
    head.uid = uid::<R>(sk);
    head.error = error::<R>(sk);
}

/// The IPv4 addresses.
#[inline(always)]
pub(crate) fn addresses_v4<R: Read>(sk: Ptr) -> V4 {
    V4 { local: get!(R, u32, sk, rcv_saddr).to_ne_bytes(), remote: get!(R, u32, sk, daddr).to_ne_bytes() }
}

/// The IPv6 addresses.
#[inline(always)]
pub(crate) fn addresses_v6<R: Read>(sk: Ptr) -> V6 {
    V6 {
        local: words::<R>(sk, frozen!(OFFSETS.v6_rcv_saddr)),
        remote: words::<R>(sk, frozen!(OFFSETS.v6_daddr)),
    }
}

/// 16 bytes as four loads of a word, the only width that the verifier allows in `in6_addr`.
#[inline(always)]
fn words<R: Read>(base: Ptr, offset: u32) -> [u8; 16] {
    // SAFETY: `offset` is that of an in6_addr, or the caller is not on a kernel with IPv6.
    let words: [u32; 4] = unsafe {
        [
            R::read(base, offset),
            R::read(base, offset + 4),
            R::read(base, offset + 8),
            R::read(base, offset + 12),
        ]
    };
    // SAFETY: same size, no padding, any bits are valid.
    unsafe { core::mem::transmute(words) }
}

/// Addresses of either family as IPv6 addresses; IPv4 becomes v4-mapped.
#[inline(always)]
pub(crate) fn addresses_wide<R: Read>(sk: Ptr) -> V6 {
    if family::<R>(sk) == AF_INET6 { addresses_v6::<R>(sk) } else { mapped(addresses_v4::<R>(sk)) }
}

/// `::ffff:a.b.c.d` of both addresses.
#[inline(always)]
pub(crate) fn mapped(v4: V4) -> V6 {
    let [a, b, c, d] = v4.local;
    let [e, f, g, h] = v4.remote;
    V6 {
        local: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d],
        remote: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, e, f, g, h],
    }
}

/// The process whose system call acts on `sk`. All zero in a softirq, which runs on top of an unrelated task, and in a kernel
/// thread. connect(), listen(), shutdown() and close() lock the socket (`lock_sock` sets `sk_lock.owned`), while a softirq
/// only holds its spinlock. Without BTF the lock cannot be read, and the current task is returned.
#[inline(always)]
pub(crate) fn caller<R: Read>(sk: Ptr) -> Task {
    if frozen!(OFFSETS.valid) != 0 && (get!(R, u32, sk, lock_owned) == 0 || is_kernel_thread()) {
        return Task { pid: 0, exec_id: 0, start_ns: 0, comm: [0; 16] };
    }
    current()
}

/// Whether the current task is a kernel thread. The worker of an io_uring is a thread of its process, and no kernel thread.
#[inline(always)]
fn is_kernel_thread() -> bool {
    /// `PF_KTHREAD` (include/linux/sched.h).
    const KERNEL_THREAD: u32 = 0x0020_0000;
    let flags = if frozen!(OFFSETS.task_btf) != 0 {
        // SAFETY: the helper takes nothing and returns a pointer that the verifier knows.
        let task = unsafe { generated::bpf_get_current_task_btf() } as Ptr;
        get!(Direct, u32, task, task_flags)
    } else {
        // SAFETY: takes nothing, returns the address as a number.
        let task = unsafe { bpf_get_current_task() } as Ptr;
        get!(Probed, u32, task, task_flags)
    };
    flags & KERNEL_THREAD != 0
}

/// Whether `task` is the last thread of its process to end. The verifier knows the type of `task`.
#[inline(always)]
pub(crate) fn is_last_thread(task: Ptr) -> bool {
    let signal = get!(Direct, u64, task, task_signal) as Ptr;
    get!(Direct, u32, signal, signal_live) == 0
}

/// Whether `task` is the first thread of its process, which gives the process its name. The verifier knows the type of `task`.
#[inline(always)]
pub(crate) fn is_leader(task: Ptr) -> bool {
    get!(Direct, u64, task, group_leader) == task as u64
}

/// Id of the process that `task` is a thread of. The verifier knows the type of `task`.
#[inline(always)]
pub(crate) fn process_id(task: Ptr) -> u32 {
    get!(Direct, u32, task, tgid)
}

/// The current process. Call this only where the kernel runs a system call of that process.
#[inline(always)]
pub(crate) fn current() -> Task {
    if frozen!(OFFSETS.valid) == 0 {
        return current_by_helpers();
    }
    if frozen!(OFFSETS.task_btf) != 0 {
        // SAFETY: the helper takes nothing and returns a pointer that the verifier knows.
        let task = unsafe { generated::bpf_get_current_task_btf() } as Ptr;
        return task_of::<Direct>(task);
    }
    // SAFETY: takes nothing, returns the address as a number.
    task_of::<Probed>(unsafe { bpf_get_current_task() } as Ptr)
}

/// Number of the current thread in its own pid namespace, as gettid() returns it.
#[inline(always)]
pub(crate) fn thread_number() -> u32 {
    if frozen!(OFFSETS.task_thread_pid) == ABSENT
        || frozen!(OFFSETS.pid_level) == ABSENT
        || frozen!(OFFSETS.pid_numbers) == ABSENT
    {
        return aya_ebpf::helpers::bpf_get_current_pid_tgid() as u32;
    }
    /// Bytes of a `struct upid`, which begins with the number.
    const UPID: u32 = 16;
    // SAFETY: takes nothing, returns the address as a number.
    let task = unsafe { bpf_get_current_task() } as Ptr;
    let pid = get!(Probed, u64, task, task_thread_pid) as Ptr;
    let level = get!(Probed, u32, pid, pid_level);
    let own = frozen!(OFFSETS.pid_numbers).wrapping_add(level.wrapping_mul(UPID));
    // SAFETY: there are `level + 1` numbers; a probed read of a wrong address returns zero.
    unsafe { Probed::read(pid, own) }
}

/// The process that `task` is a thread of.
#[inline(always)]
pub(crate) fn task_of<R: Read>(task: Ptr) -> Task {
    let leader = get!(R, u64, task, group_leader) as Ptr;
    let comm = frozen!(OFFSETS.comm);
    // SAFETY: `comm` is char[16] at this offset; the probe reads its words in place.
    let comm: [u64; 2] = unsafe { [Probed::read(leader, comm), Probed::read(leader, comm + 8)] };
    Task {
        pid: get!(R, u32, task, tgid),
        exec_id: get!(R, u32, task, exec_id),
        start_ns: get!(R, u64, leader, start_boottime),
        // SAFETY: same size, no padding, any bits are valid.
        comm: unsafe { core::mem::transmute::<[u64; 2], [u8; 16]>(comm) },
    }
}

/// The registers of the current thread in user space (`struct pt_regs` as ptrace(2) shows it). Needs
/// `bpf_task_pt_regs` (5.15, commit dd6e10fbd9fb).
#[inline(always)]
pub(crate) fn user_registers() -> Registers {
    // SAFETY: the first helper returns the task that the second one takes; the verifier knows the result's type.
    let registers = unsafe { generated::bpf_task_pt_regs(generated::bpf_get_current_task_btf()) } as Ptr;
    // SAFETY: these offsets are user space's ABI (asm/ptrace.h), of this architecture.
    let word = |offset| unsafe { Direct::read::<u64>(registers, offset) };
    Registers {
        pc: word(frozen!(HUNT.pc)),
        sp: word(frozen!(HUNT.sp)),
        fp: word(frozen!(HUNT.fp)),
        lr: if frozen!(HUNT.lr) == ABSENT { 0 } else { word(frozen!(HUNT.lr)) },
    }
}

#[inline(always)]
fn current_by_helpers() -> Task {
    Task {
        pid: (aya_ebpf::helpers::bpf_get_current_pid_tgid() >> 32) as u32,
        exec_id: 0,
        start_ns: 0,
        comm: aya_ebpf::helpers::bpf_get_current_comm().unwrap_or_default(),
    }
}

/// The `tcp_sock` of `sk`; a null pointer if `sk` is a mini-socket or of another protocol.
#[inline(always)]
pub(crate) fn tcp_sock(sk: Ptr) -> Ptr {
    // SAFETY: the verifier only accepts a pointer to a socket here; the helper checks its type.
    unsafe { generated::bpf_skc_to_tcp_sock(sk.cast_mut()) as Ptr }
}

/// Word `N` of a program's context, at a literal offset as the verifier demands.
#[inline(always)]
pub(crate) fn context_word<const N: usize>(context: Ptr) -> u64 {
    // SAFETY: the caller's program type has more than N words of context; the verifier checks it.
    unsafe { core::ptr::read_volatile(context.cast::<u64>().add(N)) }
}
