//! Decoded events of the kernel programs.

use std::rc::Rc;

use super::{Opening, State, Tuple};

/// The process that acted, as the kernel knew it at that moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Task {
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// A number that changes at every exec; 0 where it is not known.
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

/// The key (kernel address) of another socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelSocket(pub u64);

/// Flags of a socket at the moment when it went to CLOSE. The tracker infers the cause from them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClosedAs {
    /// No process holds the socket (`SOCK_DEAD`).
    pub orphan: bool,
    /// The peer's FIN has come (`SOCK_DONE`).
    pub fin_received: bool,
    /// `TCP_LINGER2` is negative: no FIN_WAIT2 after close().
    pub no_linger2: bool,
    /// Something was being retransmitted.
    pub retransmitted: bool,
    /// The receiving side is shut down (`RCV_SHUTDOWN`).
    pub receive_shut: bool,
    /// Some sent data is not acknowledged.
    pub unacked: bool,
    /// Some written data is not sent yet.
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
    /// The sending side is shut down (`SEND_SHUTDOWN`).
    pub send_shut: bool,
    /// The socket has never had a local port.
    pub no_local_port: bool,
}

impl ClosedAs {
    /// Whether everything that was written, and the FIN, is sent and acknowledged.
    #[must_use]
    pub fn is_done(self) -> bool {
        !self.unacked && !self.unsent
    }
}

/// What a connection has transferred until its end, by the kernel's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Traffic {
    /// Bytes of data that were sent, without those that were sent again.
    pub bytes_sent: u64,
    /// Bytes of data that were received in order.
    pub bytes_received: u64,
    /// Received bytes that the application has not read.
    pub unread_bytes: u64,
    pub segments_sent: u32,
    pub segments_received: u32,
    /// Segments that were sent again, SYNs and FINs included.
    pub retransmits: u32,
    /// The smoothed round-trip time; `None` without a sample.
    pub rtt_smoothed_ns: Option<u64>,
    /// The smallest round-trip time of the last minutes (`net.ipv4.tcp_min_rtt_wlen`); `None` without a sample.
    pub rtt_min_ns: Option<u64>,
}

/// How a mini-socket ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MiniEnd {
    pub how: MiniEndHow,
    /// The kernel was removing the network namespace of the socket.
    pub netns_gone: bool,
    /// A connect reused its ends.
    pub reused: bool,
    /// The listener of this request had stopped listening.
    pub listener_gone: bool,
}

/// What ended a mini-socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MiniEndHow {
    /// The timer was stopped. If the timer is set again at once, the mini-socket continues.
    Stopped,
    /// The timer expired. If the timer of a request is set again at once, the request continues.
    Expired,
    /// The kernel ended it before its timer expired.
    Killed,
}

/// What happened to a socket or a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A socket went from one state to another.
    Transition {
        /// State before.
        from: State,
        /// State after.
        to: State,
        /// The process that acted; only where the kernel acted in that process's own call.
        task: Option<Task>,
        /// The listener of a passive open.
        listener: Option<KernelSocket>,
        /// The companion program wrote this event, so it may be a second copy.
        maybe_copy: bool,
        /// Flags of the socket, for a transition to CLOSE; `None` where they could not be read.
        closed_as: Option<ClosedAs>,
        /// What the socket has transferred, for a transition to CLOSE; `None` where that is not known.
        traffic: Option<Rc<Traffic>>,
    },
    /// A mini-socket was created, or its timer was set again, perhaps in another state.
    Mini {
        state: State,
        /// The listener of a request, or the full socket that a timewait socket replaces.
        from: Option<KernelSocket>,
        /// The SYN-ACK of the request was sent before, or the request is a copy for another listener.
        again: bool,
    },
    /// A mini-socket has ended.
    MiniEnd(MiniEnd),
    /// The peer answered a SYN cookie of this connection.
    Cookie,
    /// The peer has reset the connection, in this state.
    ResetReceived(State),
    /// This host has reset the connection.
    ResetSent {
        state: State,
        /// The kernel's reason (`enum sk_rst_reason`).
        reason: Option<u16>,
        /// close() with `SO_LINGER` and a time of 0.
        linger_0: bool,
    },
    /// This host has answered a segment with these TCP flags by a reset, because there is no socket for it.
    Reset { flags: u8 },
    /// The kernel has bound the local port of a connect.
    PortKnown,
    /// The iterator lists a socket that exists.
    Socket { state: State, mini: bool },
    /// The iterator lists a socket that a process holds.
    Held {
        state: State,
        task: Task,
        /// The holder's file descriptor.
        fd: u32,
    },
    /// A socket that the kernel itself uses: it has a `struct socket`, and no file.
    OfKernel {
        /// The low half of its inode number, as `sock_diag` shows it.
        inode: u64,
    },
    /// A process that has called listen() is another program now, has another name, or has ended.
    Process {
        /// The process from now on.
        task: Task,
        ended: bool,
    },
    /// A process has opened the socket; with the stack of the call.
    Opened(Box<Opening>),
}

/// One decoded record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// `CLOCK_MONOTONIC`, ns.
    pub time_ns: u64,
    /// The kernel address of the socket: its key while it exists. Never shown to users.
    pub sk: u64,
    /// Cgroup v2 id of the socket.
    pub cgroup: Option<u64>,
    /// Network namespace inode.
    pub netns: Option<u32>,
    /// Uid of the socket.
    pub uid: Option<u32>,
    /// Errno on the socket (`sk_err`), 0 for none.
    pub error: u16,
    pub tuple: Tuple,
    pub kind: EventKind,
}
