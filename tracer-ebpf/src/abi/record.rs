//! Records: one [`Head`], the addresses ([`V4`] or [`V6`]), then at most one of [`Task`], [`Listener`] and [`Counters`].

/// What a record is ([`Head::kind`]).
pub mod kind {
    /// A full socket went from `old` to `new`.
    pub const TRANSITION: u8 = 1;
    /// A socket in SYN_SENT now has its local port (seen at the first retransmitted SYN).
    pub const PORT: u8 = 2;
    /// A socket that exists, from `iter/tcp`; its state is `new`.
    pub const SOCKET: u8 = 3;
    /// A socket held by a file descriptor, from `iter/task_file`; its state is `new`, `extra` is the descriptor.
    pub const FILE: u8 = 4;
    /// A mini-socket has begun, or its timer was set (again); its state is `new`. The [`Listener`](super::Listener) is the
    /// listener of a request, or the full socket that a timewait socket replaces (0 if the hook does not pass it).
    pub const MINI: u8 = 5;
    /// A mini-socket has ended, or its timer has; `extra` is one of [`end`](super::end).
    pub const MINI_END: u8 = 6;
    /// A reset was received for a socket; its state is `new`.
    pub const RESET_RECEIVED: u8 = 7;
    /// A reset was sent for a socket; its state is `new`, `extra` the kernel's reason (`enum sk_rst_reason`, 6.10) and
    /// bits of [`sent`](super::sent).
    pub const RESET_SENT: u8 = 8;
    /// An ACK has a valid SYN cookie; the connection follows as a child without a request.
    pub const COOKIE: u8 = 9;
    /// A socket was opened. Behind the [`Task`](super::Task) is the process's user stack: a [`Registers`](super::Registers), a
    /// [`PythonStack`](super::PythonStack), then `extra` bytes from the stack pointer up. `new` is one of
    /// [`opened`](super::opened); the addresses are zero.
    pub const OPENED: u8 = 10;
    /// A process that has called listen() runs another program, has another name, or has ended; `new` is one of
    /// [`process`](super::process), and the [`Task`](super::Task) is the process afterwards; the addresses are zero.
    pub const PROCESS: u8 = 11;
    /// A socket that the kernel itself uses, from `iter/tcp`; `extra` is its inode number, the low half.
    pub const OF_KERNEL: u8 = 12;
    /// A segment for which there is no socket was answered by a reset; `extra` is the segment's TCP flags.
    pub const RESET: u8 = 13;
}

/// What happened to a process ([`Head::new`] of [`kind::PROCESS`]).
pub mod process {
    /// It called exec(), or its name was changed.
    pub const RENEWED: u8 = 1;
    /// Its last thread ends.
    pub const ENDED: u8 = 2;
}

/// The system call that opened a socket ([`Head::new`] of [`kind::OPENED`]).
pub mod opened {
    /// connect().
    pub const CONNECT: u8 = 1;
    /// accept().
    pub const ACCEPT: u8 = 2;
}

/// Most bytes of a user stack in a [`kind::OPENED`]; the record always has room for them.
pub const STACK_BYTES: usize = 8192;

/// How a mini-socket ended ([`Head::extra`] of [`kind::MINI_END`]).
pub mod end {
    /// Its timer was stopped. The mini-socket has ended, unless the timer is set again at once.
    pub const STOPPED: u32 = 1;
    /// Its timer ran out. A timewait socket has ended; so has a request, unless its timer is set again at once.
    pub const EXPIRED: u32 = 2;
    /// The mini-socket ended before its timer ran out.
    pub const KILLED: u32 = 3;
    /// Bit: its network namespace was being taken down.
    pub const NETNS_GONE: u32 = 0x100;
    /// Bit: a connect with the same ends replaced the mini-socket.
    pub const REUSED: u32 = 0x200;
    /// Bit: the listener of this request had stopped listening.
    pub const LISTENER_GONE: u32 = 0x400;
}

/// Bits of [`Head::extra`] in a [`kind::TRANSITION`] to CLOSE: properties of the socket at that moment.
pub mod closed {
    /// `SOCK_DEAD`: no process holds the socket.
    pub const ORPHAN: u32 = 1;
    /// `SOCK_DONE`: the peer's FIN has arrived.
    pub const FIN_RECEIVED: u32 = 2;
    /// `TCP_LINGER2` is negative: no FIN_WAIT2 after close().
    pub const NO_LINGER2: u32 = 4;
    /// A segment was retransmitted and not acknowledged (`icsk_retransmits`).
    pub const RETRANSMITTED: u32 = 8;
    /// The receiving side is shut down (`RCV_SHUTDOWN`).
    pub const RECEIVE_SHUT: u32 = 0x10;
    /// The sending side is shut down (`SEND_SHUTDOWN`).
    pub const SEND_SHUT: u32 = 0x20;
    /// Sent data or a FIN is not acknowledged (`snd_una` is not `snd_nxt`).
    pub const UNACKED: u32 = 0x40;
    /// Data or a FIN is not sent yet (`snd_nxt` is not `write_seq`).
    pub const UNSENT: u32 = 0x80;
    /// `packets_out` is not 0; `tcp_write_queue_purge()` clears it before an error ends a connection.
    pub const IN_FLIGHT: u32 = 0x100;
    /// connect() has not returned yet (`SS_UNCONNECTED`).
    pub const CONNECTING: u32 = 0x200;
    /// No segment was ever sent (`segs_out`).
    pub const NOTHING_SENT: u32 = 0x400;
    /// Keepalive or zero-window probes are not answered (`icsk_probes_out`).
    pub const PROBED: u32 = 0x800;
    /// The peer's window is closed (`snd_wnd` is 0).
    pub const NO_WINDOW: u32 = 0x1000;
}

/// Bits of [`Head::extra`] in a [`kind::RESET_SENT`].
pub mod sent {
    /// Mask of the reason.
    pub const REASON: u32 = 0xffff;
    /// There is a reason.
    pub const HAS_REASON: u32 = 0x1_0000;
    /// `SO_LINGER` has a time of 0, and both directions are shut down, as close() does first.
    pub const LINGER_0: u32 = 0x2_0000;
}

/// Bits of [`Head::flags`].
pub mod flag {
    /// The addresses are a [`V6`](super::V6), else a [`V4`](super::V4).
    pub const V6: u8 = 1;
    /// A [`Task`](super::Task) follows.
    pub const TASK: u8 = 2;
    /// A [`Listener`](super::Listener) follows.
    pub const LISTENER: u8 = 4;
    /// The companion program wrote the record, which may be a second copy; see `probes/set_state.rs`.
    pub const COMPANION: u8 = 8;
    /// The record is of a mini-socket (`request_sock`, `inet_timewait_sock`).
    pub const MINI: u8 = 16;
    /// `netns`, `cgroup`, `uid` and `error` could not be read and are meaningless.
    pub const BARE: u8 = 32;
    /// The SYN-ACK was sent before, by this request or by the request that it is a copy of.
    pub const AGAIN: u8 = 64;
    /// [`Counters`](super::Counters) follow.
    pub const COUNTERS: u8 = 128;
}

/// The start of every record; 48 bytes.
#[repr(C)]
#[cfg_attr(not(target_arch = "bpf"), derive(zerocopy::FromBytes, zerocopy::IntoBytes))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Head {
    /// `CLOCK_MONOTONIC` in ns, when the program ran.
    pub time_ns: u64,
    /// Address of the kernel's socket: the key of the connection table. No output shows it.
    pub sk: u64,
    /// The socket's own cgroup v2 id (`sk_cgrp_data`), 0 where unknown.
    pub cgroup: u64,
    /// Inode number of the network namespace, 0 where unknown.
    pub netns: u32,
    /// The socket's uid (`sk_uid`).
    pub uid: u32,
    /// One of [`kind`].
    pub kind: u8,
    /// Bits of [`flag`].
    pub flags: u8,
    /// State number before.
    pub old: u8,
    /// State number after.
    pub new: u8,
    /// `AF_INET` or `AF_INET6`.
    pub family: u16,
    /// `sk_err`, an errno, 0 for none.
    pub error: u16,
    /// Local port, 0 while it is not bound.
    pub local_port: u16,
    /// Remote port, 0 where there is none.
    pub remote_port: u16,
    /// Depends on the kind. In [`kind::TRANSITION`] (except to CLOSE), [`kind::PORT`], [`kind::SOCKET`], [`kind::MINI`] and
    /// [`kind::COOKIE`] it is the index of the interface that the socket is bound to, 0 for none.
    pub extra: u32,
}

/// IPv4 addresses, network byte order.
#[repr(C)]
#[cfg_attr(not(target_arch = "bpf"), derive(zerocopy::FromBytes, zerocopy::IntoBytes))]
#[derive(Clone, Copy, Debug, Default)]
pub struct V4 {
    /// Local address.
    pub local: [u8; 4],
    /// Remote address.
    pub remote: [u8; 4],
}

/// IPv6 (or v4-mapped) addresses, network byte order.
#[repr(C)]
#[cfg_attr(not(target_arch = "bpf"), derive(zerocopy::FromBytes, zerocopy::IntoBytes))]
#[derive(Clone, Copy, Debug, Default)]
pub struct V6 {
    /// Local address.
    pub local: [u8; 16],
    /// Remote address.
    pub remote: [u8; 16],
}

/// The process whose system call made the transition. All zero if a softirq or a kernel thread made it.
#[repr(C)]
#[cfg_attr(not(target_arch = "bpf"), derive(zerocopy::FromBytes, zerocopy::IntoBytes))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Task {
    /// Process id (tgid) in the initial pid namespace.
    pub pid: u32,
    /// Low half of `self_exec_id`, which every exec increments. 0 where unknown.
    pub exec_id: u32,
    /// Start of the process in ns since boot (`group_leader->start_boottime`), 0 where unknown.
    pub start_ns: u64,
    /// Name of the process, NUL padded, any bytes.
    pub comm: [u8; 16],
}

/// The socket before this one: the listener of a request or child, the full socket of a timewait socket.
#[repr(C)]
#[cfg_attr(not(target_arch = "bpf"), derive(zerocopy::FromBytes, zerocopy::IntoBytes))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Listener {
    /// Its address, as [`Head::sk`]; 0 where unknown.
    pub sk: u64,
}

/// What a full socket (`tcp_sock`) had transferred when it went to CLOSE.
#[repr(C)]
#[cfg_attr(not(target_arch = "bpf"), derive(zerocopy::FromBytes, zerocopy::IntoBytes))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Bytes of data that were sent, those that were sent again included.
    pub bytes_sent: u64,
    /// Bytes of data that were sent again.
    pub bytes_retrans: u64,
    /// Bytes that were received in order; a FIN counts as one.
    pub bytes_received: u64,
    /// Segments that were sent.
    pub segs_out: u32,
    /// Segments that were received.
    pub segs_in: u32,
    /// Segments that were sent again, SYNs and FINs included.
    pub total_retrans: u32,
    /// The smoothed round-trip time in eighths of a microsecond, 0 without a sample.
    pub srtt_us: u32,
    /// The smallest round-trip time of the last minutes in microseconds, `u32::MAX` without a sample.
    pub rtt_min_us: u32,
    /// `rcv_nxt` minus `copied_seq`: bytes that the application has not read; a FIN counts as one.
    pub unread: u32,
}

/// The ends of a connection, by which a packet leads to a mini-socket. The addresses are IPv6 or v4-mapped.
#[repr(C)]
#[cfg_attr(not(target_arch = "bpf"), derive(zerocopy::FromBytes, zerocopy::IntoBytes))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Ends {
    /// The addresses.
    pub addresses: V6,
    /// Network namespace.
    pub netns: u32,
    /// Local port, host order.
    pub local_port: u16,
    /// Remote port, host order.
    pub remote_port: u16,
    /// Index of the interface that the socket is bound to, 0 for none: equal addresses may exist on several.
    pub interface: u32,
}

/// The registers of a thread in user space that unwinding needs.
#[repr(C)]
#[cfg_attr(not(target_arch = "bpf"), derive(zerocopy::FromBytes, zerocopy::IntoBytes))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Registers {
    /// Program counter.
    pub pc: u64,
    /// Stack pointer.
    pub sp: u64,
    /// Frame pointer, where the program keeps one.
    pub fp: u64,
    /// Link register; 0 on x86_64.
    pub lr: u64,
}

/// Most frames of a [`PythonStack`].
pub const PYTHON_FRAMES: usize = 64;

/// The frames of a thread's CPython, the innermost first.
#[repr(C)]
#[cfg_attr(not(target_arch = "bpf"), derive(zerocopy::FromBytes, zerocopy::IntoBytes))]
#[derive(Clone, Copy, Debug)]
pub struct PythonStack {
    /// Address of the `_PyRuntime` that led to the frames; 0 if there are none.
    pub runtime: u64,
    /// The loop's frame that runs the last of `frames`, if `frames` has no room for it; else 0.
    pub last_loop: u64,
    /// Number of valid `frames`.
    pub count: u32,
    /// 1 if `frames` has all frames of the thread.
    pub complete: u32,
    pub frames: [PythonFrame; PYTHON_FRAMES],
}

/// One frame of CPython, as it was at the moment of the event.
#[repr(C)]
#[cfg_attr(not(target_arch = "bpf"), derive(zerocopy::FromBytes, zerocopy::IntoBytes))]
#[derive(Clone, Copy, Debug, Default)]
pub struct PythonFrame {
    /// The code object; 0 for a frame that belongs to the interpreter's loop and not to the program.
    pub code: u64,
    /// The instruction; of a frame of the loop its own address, which lies on the thread's stack; 0 with a `code` of 0 where the
    /// frames of another interpreter of the thread follow.
    pub instruction: u64,
    /// The code object's `co_qualname`.
    pub qualname: u64,
}

/// The use that one process has made of its rate of stacks.
#[repr(C)]
#[cfg_attr(not(target_arch = "bpf"), derive(zerocopy::FromBytes, zerocopy::IntoBytes))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Allowance {
    /// When the second began, `CLOCK_MONOTONIC` ns.
    pub began_ns: u64,
    /// Stacks taken since then.
    pub taken: u64,
}

/// Counters and the companion program's state, for one CPU.
#[repr(C)]
#[cfg_attr(not(target_arch = "bpf"), derive(zerocopy::FromBytes, zerocopy::IntoBytes))]
#[derive(Clone, Copy, Debug, Default)]
pub struct PerCpu {
    /// Socket of the last transition that the main program finished.
    pub last_sk: u64,
    /// States of that transition, `old << 8 | new`.
    pub last_pair: u64,
    /// Transitions that were lost because the ring was full.
    pub lost_ring: u64,
    /// Other records that were lost because the ring was full.
    pub lost_evidence: u64,
    /// Transitions that the companion wrote because the main program had not finished them.
    pub companion: u64,
    /// The socket whose connect() began last on this CPU.
    pub connecting: u64,
    /// The child that was cloned last on this CPU.
    pub child: u64,
    /// The mini-socket whose timer is running out on this CPU.
    pub expiring: u64,
    /// Opened sockets without a stack: the process had used up its rate, or the ring was full.
    pub lost_stacks: u64,
    /// Resets without a socket that have no record: the second had its records, or the ring was full.
    pub resets: u64,
    /// When the present second of such records began, `CLOCK_MONOTONIC` ns.
    pub resets_began_ns: u64,
    /// Resets in that second, with or without a record.
    pub resets_written: u64,
}
