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
}

/// The start of every record; 48 bytes.
#[repr(C)]
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
    /// Depends on the kind; 0 where unused.
    pub extra: u32,
}

/// IPv4 addresses, network byte order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct V4 {
    /// Local address.
    pub local: [u8; 4],
    /// Remote address.
    pub remote: [u8; 4],
}

/// IPv6 (or v4-mapped) addresses, network byte order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct V6 {
    /// Local address.
    pub local: [u8; 16],
    /// Remote address.
    pub remote: [u8; 16],
}

/// The process that made the transition; only where the kernel makes it in that process's own call.
#[repr(C)]
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

/// Who the new socket of a passive open was cloned from.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Listener {
    /// Address of the listener's socket, as [`Head::sk`]; 0 where unknown.
    pub sk: u64,
}

/// What each CPU keeps: the companion's memory and the counters.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct PerCpu {
    /// Socket of the transition the main program finished last.
    pub last_sk: u64,
    /// Its states, `old << 8 | new`.
    pub last_pair: u64,
    /// Records that found no room in the ring.
    pub lost_ring: u64,
    /// Transitions the companion took because the main program had not finished them.
    pub companion: u64,
}
