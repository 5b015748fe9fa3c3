//! What the kernel told, decoded.

use super::{Opening, State, Tuple};

/// The process that acted, as the kernel knew it in that moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Task {
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// Changes at every exec; 0 where unknown.
    pub exec_id: u32,
    /// Start of the process in ns since boot, 0 where unknown.
    pub start_ns: u64,
    /// Name, up to 15 bytes that need not be UTF-8, without the padding.
    pub comm: [u8; 16],
}

impl Task {
    /// The name without its padding.
    #[must_use]
    pub fn comm(&self) -> &[u8] {
        let end = self.comm.iter().position(|&byte| byte == 0).unwrap_or(self.comm.len());
        &self.comm[..end]
    }
}

/// Key of another socket of the kernel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelSocket(pub u64);

/// What a socket was when it went to CLOSE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClosedAs {
    /// Nobody holds it any more (`SOCK_DEAD`).
    pub orphan: bool,
    /// The peer's FIN has come (`SOCK_DONE`).
    pub fin_received: bool,
    /// `TCP_LINGER2` is negative: no FIN_WAIT2 after close().
    pub no_linger2: bool,
    /// Something was being retransmitted.
    pub retransmitted: bool,
    /// What comes in is not taken any more.
    pub receive_shut: bool,
    /// Something that was sent is not acknowledged.
    pub unacked: bool,
    /// Something is not sent yet.
    pub unsent: bool,
    /// The kernel still counts packets in flight; it stops that before an error ends a connection.
    pub in_flight: bool,
    /// connect() has not returned yet.
    pub connecting: bool,
    /// No segment was ever sent.
    pub nothing_sent: bool,
    /// Keepalive or zero-window probes are not answered.
    pub probed: bool,
    /// The peer's window is closed.
    pub no_window: bool,
    /// Nothing more is sent.
    pub send_shut: bool,
}

impl ClosedAs {
    /// All that was sent, the FIN included, is acknowledged.
    #[must_use]
    pub fn is_done(self) -> bool {
        !self.unacked && !self.unsent
    }
}

/// How a mini-socket ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MiniEnd {
    /// By what.
    pub how: MiniEndHow,
    /// Its network namespace was being taken down.
    pub netns_gone: bool,
    /// A connect took its place.
    pub reused: bool,
    /// The listener of this request had stopped listening.
    pub listener_gone: bool,
}

/// By what a mini-socket ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MiniEndHow {
    /// Its timer was stopped: not the end if it is set again at once.
    Stopped,
    /// Its timer ran out: not the end of a request whose timer is set again at once.
    Expired,
    /// It was ended before its time.
    Killed,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A socket went from one state to another.
    Transition {
        /// State before.
        from: State,
        /// State after.
        to: State,
        /// Who acted; only where the kernel acted in that process's own call.
        task: Option<Task>,
        /// Where a passive open came from.
        listener: Option<KernelSocket>,
        /// Perhaps a second copy (see the companion program).
        maybe_copy: bool,
        /// What it was, for a transition to CLOSE; `None` where it could not be read.
        closed_as: Option<ClosedAs>,
    },
    /// A mini-socket has begun, or goes on, perhaps in another state.
    Mini {
        /// Its state.
        state: State,
        /// A request's listener, or the full socket that a timewait socket takes the place of.
        from: Option<KernelSocket>,
        /// The SYN-ACK of a request was sent before.
        again: bool,
    },
    /// A mini-socket has ended.
    MiniEnd(MiniEnd),
    /// A SYN cookie of this connection came back.
    Cookie,
    /// The peer has reset it, in this state.
    ResetReceived(State),
    /// It was reset from here.
    ResetSent {
        /// Its state then.
        state: State,
        /// The kernel's reason (`enum sk_rst_reason`).
        reason: Option<u16>,
        /// close() with `SO_LINGER` and a time of 0.
        linger_0: bool,
    },
    /// The local port of a connect is known now.
    PortKnown,
    /// A socket that exists.
    Socket {
        /// Its state.
        state: State,
        /// It is a mini-socket.
        mini: bool,
    },
    /// A socket that a process holds.
    Held {
        /// Its state.
        state: State,
        /// The holder.
        task: Task,
        /// Its file descriptor.
        fd: u32,
    },
    /// A socket that the kernel itself uses: it has a `struct socket`, and no file.
    OfKernel {
        /// The low half of its inode number, as `sock_diag` shows it.
        inode: u64,
    },
    /// A process that has called listen() is another program now, has another name, or has ended.
    Process {
        /// What it is from now on.
        task: Task,
        /// It has ended.
        ended: bool,
    },
    /// A process has opened it, from here.
    Opened(Box<Opening>),
}

/// One decoded record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// `CLOCK_MONOTONIC`, ns.
    pub time_ns: u64,
    /// The socket's key while it lives. Never shown.
    pub sk: u64,
    /// Cgroup v2 id of the socket.
    pub cgroup: Option<u64>,
    /// Network namespace inode.
    pub netns: Option<u32>,
    /// Uid of the socket.
    pub uid: Option<u32>,
    /// Errno on the socket (`sk_err`), 0 for none.
    pub error: u16,
    /// Both ends.
    pub tuple: Tuple,
    /// What happened.
    pub kind: EventKind,
}
