//! Records: one [`Head`], the addresses ([`V4`] or [`V6`]), then at most one of [`Task`] and [`Listener`].

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
    /// A mini-socket has begun, or its timer was set (again); its state is `new`. A [`Listener`](super::Listener) says
    /// what it came from: the listener of a request, the full socket of a timewait one (0 where the hook does not tell).
    pub const MINI: u8 = 5;
    /// A mini-socket has ended, or its timer has; `extra` is one of [`end`](super::end).
    pub const MINI_END: u8 = 6;
    /// A reset was received for a socket; its state is `new`.
    pub const RESET_RECEIVED: u8 = 7;
    /// A reset was sent for a socket; its state is `new`, `extra` the kernel's reason (`enum sk_rst_reason`, 6.10) and
    /// bits of [`sent`](super::sent).
    pub const RESET_SENT: u8 = 8;
    /// A SYN cookie came back; the connection that it is of follows as a child without a request.
    pub const COOKIE: u8 = 9;
    /// A socket was opened, by a process whose user stack lies behind the task: a [`Registers`](super::Registers), a
    /// [`PythonStack`](super::PythonStack), then `extra` bytes from the stack pointer up. `new` is one of
    /// [`opened`](super::opened); the addresses are zero.
    pub const OPENED: u8 = 10;
    /// A process that has called listen() is another program now, has another name, or has ended; `new` is one of
    /// [`process`](super::process), the [`Task`](super::Task) is the process from now on; the addresses are zero.
    pub const PROCESS: u8 = 11;
    /// A socket that the kernel itself uses, from `iter/tcp`; `extra` is its inode number, the low half.
    pub const OF_KERNEL: u8 = 12;
}

/// What became of a process ([`Head::new`] of [`kind::PROCESS`]).
pub mod process {
    /// It called exec(), or its name was changed.
    pub const RENEWED: u8 = 1;
    /// Its last thread ends.
    pub const ENDED: u8 = 2;
}

/// By which call a socket was opened ([`Head::new`] of [`kind::OPENED`]).
pub mod opened {
    /// connect().
    pub const CONNECT: u8 = 1;
    /// accept().
    pub const ACCEPT: u8 = 2;
}

/// Most bytes of a user stack in a [`kind::OPENED`]; room for them is taken in any case.
pub const STACK_BYTES: usize = 8192;

/// How a mini-socket ended ([`Head::extra`] of [`kind::MINI_END`]).
pub mod end {
    /// Its timer was stopped: the end, unless it is set again at once.
    pub const STOPPED: u32 = 1;
    /// Its timer ran out: the end of a timewait socket; that of a request, unless its timer is set again at once.
    pub const EXPIRED: u32 = 2;
    /// It ended before its time.
    pub const KILLED: u32 = 3;
    /// Bit: its network namespace was being taken down.
    pub const NETNS_GONE: u32 = 0x100;
    /// Bit: a connect took its place.
    pub const REUSED: u32 = 0x200;
    /// Bit: the listener of this request had stopped listening.
    pub const LISTENER_GONE: u32 = 0x400;
}

/// Bits of [`Head::extra`] in a [`kind::TRANSITION`] to CLOSE: what the socket was then.
pub mod closed {
    /// `SOCK_DEAD`: nobody holds it any more.
    pub const ORPHAN: u32 = 1;
    /// `SOCK_DONE`: the peer's FIN has come.
    pub const FIN_RECEIVED: u32 = 2;
    /// `TCP_LINGER2` is negative: no FIN_WAIT2 after close().
    pub const NO_LINGER2: u32 = 4;
    /// Something was being retransmitted (`icsk_retransmits`).
    pub const RETRANSMITTED: u32 = 8;
    /// What comes in is not taken any more (`RCV_SHUTDOWN`).
    pub const RECEIVE_SHUT: u32 = 0x10;
    /// Nothing more is sent (`SEND_SHUTDOWN`).
    pub const SEND_SHUT: u32 = 0x20;
    /// Something that was sent is not acknowledged (`snd_una` is not `snd_nxt`).
    pub const UNACKED: u32 = 0x40;
    /// Something is not sent yet (`snd_nxt` is not `write_seq`).
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
    /// The reason's bits.
    pub const REASON: u32 = 0xffff;
    /// There is a reason.
    pub const HAS_REASON: u32 = 0x1_0000;
    /// `SO_LINGER` with a time of 0, and both directions shut down, as close() does first.
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
    /// Written by the companion program: perhaps a second copy, see `probes/set_state.rs`.
    pub const COMPANION: u8 = 8;
    /// The record is of a mini-socket (`request_sock`, `inet_timewait_sock`).
    pub const MINI: u8 = 16;
    /// `netns`, `cgroup`, `uid` and `error` could not be read and are meaningless.
    pub const BARE: u8 = 32;
    /// The SYN-ACK of this request was sent before, by itself or by the one that it is a copy of.
    pub const AGAIN: u8 = 64;
}

/// The start of every record; 48 bytes.
#[repr(C)]
#[cfg_attr(not(target_arch = "bpf"), derive(zerocopy::FromBytes, zerocopy::IntoBytes))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Head {
    /// `CLOCK_MONOTONIC` in ns, when the program ran.
    pub time_ns: u64,
    /// Address of the kernel's socket: the key of the connection table. Never shown to anyone.
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
    /// Depends on the kind; [`kind::TRANSITION`] (to CLOSE apart), [`kind::PORT`], [`kind::SOCKET`], [`kind::MINI`] and
    /// [`kind::COOKIE`] have the index of the interface that the socket is bound to here, 0 for none.
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

/// The process that made the transition; only where the kernel makes it in that process's own call. All zero where it
/// did not: in a softirq, or in one of the kernel's own threads.
#[repr(C)]
#[cfg_attr(not(target_arch = "bpf"), derive(zerocopy::FromBytes, zerocopy::IntoBytes))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Task {
    /// Process id (tgid) in the initial pid namespace.
    pub pid: u32,
    /// Low half of `self_exec_id`: grows at every exec. 0 where unknown.
    pub exec_id: u32,
    /// Start of the process in ns since boot (`group_leader->start_boottime`), 0 where unknown.
    pub start_ns: u64,
    /// Name of the process, NUL padded, any bytes.
    pub comm: [u8; 16],
}

/// What a socket came from: the listener of a passive open, the full socket of a timewait one.
#[repr(C)]
#[cfg_attr(not(target_arch = "bpf"), derive(zerocopy::FromBytes, zerocopy::IntoBytes))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Listener {
    /// Its address, as [`Head::sk`]; 0 where unknown.
    pub sk: u64,
}

/// What names a mini-socket to a packet: both ends in the wide form.
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

/// A thread's registers in user space, as far as unwinding needs them.
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
    /// `_PyRuntime` that they were found by; 0 where there are none.
    pub runtime: u64,
    /// The frame of the loop that runs the last of `frames`, where there was no room for it; else 0.
    pub last_loop: u64,
    /// How many of `frames` count.
    pub count: u32,
    /// 1 where there are no more than these.
    pub complete: u32,
    /// The frames.
    pub frames: [PythonFrame; PYTHON_FRAMES],
}

/// One of them, as it was at the moment of the event.
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

/// What one process may ask of those who watch it.
#[repr(C)]
#[cfg_attr(not(target_arch = "bpf"), derive(zerocopy::FromBytes, zerocopy::IntoBytes))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Allowance {
    /// When the second began, `CLOCK_MONOTONIC` ns.
    pub began_ns: u64,
    /// Stacks taken since then.
    pub taken: u64,
}

/// What each CPU keeps: the companion's memory and the counters.
#[repr(C)]
#[cfg_attr(not(target_arch = "bpf"), derive(zerocopy::FromBytes, zerocopy::IntoBytes))]
#[derive(Clone, Copy, Debug, Default)]
pub struct PerCpu {
    /// Socket of the transition the main program finished last.
    pub last_sk: u64,
    /// Its states, `old << 8 | new`.
    pub last_pair: u64,
    /// Transitions that found no room in the ring.
    pub lost_ring: u64,
    /// Other records that found none.
    pub lost_evidence: u64,
    /// Transitions the companion took because the main program had not finished them.
    pub companion: u64,
    /// The socket whose connect began last here.
    pub connecting: u64,
    /// The child that was cloned last here.
    pub child: u64,
    /// The mini-socket whose timer is running out here.
    pub expiring: u64,
    /// Sockets that were opened while no stack was taken: too many in a second, or no room.
    pub lost_stacks: u64,
}
