//! A socket as the kernel's tables (`sock_diag`, /proc/net/tcp) show it at one moment.

use super::{State, Traffic, Tuple};
use std::sync::Arc;

/// The timer that runs on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TimerKind {
    /// Retransmission of unacknowledged data.
    Retransmit,
    /// Keepalive probes.
    Keepalive,
    /// The end of TIME_WAIT, or of FIN_WAIT2 after close().
    TimeWait,
    /// Zero-window probes.
    Probe,
}

impl TimerKind {
    /// The name in `ss -o`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Retransmit => "on",
            Self::Keepalive => "keepalive",
            Self::TimeWait => "timewait",
            Self::Probe => "persist",
        }
    }
}

/// A timer and the time until it expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timer {
    pub kind: TimerKind,
    pub left_ns: u64,
}

/// The protocol of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    Tcp,
    /// MPTCP, which uses one or more TCP connections (subflows).
    Mptcp,
}

impl Transport {
    /// The name in records.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Mptcp => "mptcp",
        }
    }
}

/// The part of an MPTCP connection that a socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MptcpPart {
    /// The connection, or the listener, itself.
    Whole {
        /// The kernel's key of the connection in this namespace; `None` for a listener, and where the kernel does not show it.
        token: Option<u32>,
        /// How many of its TCP sockets are listed.
        subflows: usize,
    },
    /// A TCP socket of the connection. Its inode is that of the MPTCP socket, which processes hold.
    Subflow {
        /// The token of the MPTCP socket.
        token: Option<u32>,
    },
}

impl MptcpPart {
    /// The token of the MPTCP socket.
    #[must_use]
    pub fn token(self) -> Option<u32> {
        match self {
            Self::Whole { token, .. } | Self::Subflow { token } => token,
        }
    }
}

/// Times, a count and the peer's window from `struct tcp_info`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpTimes {
    /// Nanoseconds since the last acknowledgment came (`tcpi_last_ack_recv`).
    pub since_ack_ns: u64,
    /// Retransmission timeout now, ns (`tcpi_rto`).
    pub rto_ns: u64,
    /// How often the timeout was doubled (`tcpi_backoff`).
    pub backoff: u8,
    /// Nanoseconds since data was last sent, or since the handshake (`tcpi_last_data_sent`).
    pub since_data_sent_ns: u64,
    /// Nanoseconds since data last came, or since the handshake (`tcpi_last_data_recv`).
    pub since_data_received_ns: u64,
    /// Segments with data that were sent (`tcpi_data_segs_out`).
    pub data_segments_sent: u32,
    /// Bytes that the peer's last acknowledgment left room for (`tcpi_snd_wnd`).
    pub peer_window: Option<u32>,
    /// Bytes of the largest segment that is sent (`tcpi_snd_mss`).
    pub segment_bytes: u32,
}

/// The timer of a request, as /proc/net/tcp shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestTimer {
    /// How often the timer has expired (`num_timeout`).
    pub timeouts: u8,
    /// Nanoseconds until the timer expires next.
    pub left_ns: u64,
    /// The listener may have set a shorter maximum for the timeout (TCP_RTO_MAX_MS).
    pub may_be_short: bool,
}

/// One socket of the kernel's tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketInfo {
    /// Network namespace inode.
    pub netns: u32,
    /// For MPTCP the states are TCP's, and the queues count memory instead of bytes.
    pub transport: Transport,
    /// The part of an MPTCP connection that the socket is; `None` for plain TCP.
    pub mptcp: Option<MptcpPart>,
    pub state: State,
    pub mini: bool,
    pub tuple: Tuple,
    /// A listener that accepts no IPv4 connections (IPV6_V6ONLY).
    pub is_v6_only: bool,
    /// IP_TRANSPARENT: such a listener accepts connections to other addresses and ports (TPROXY), which have the option too.
    pub is_transparent: bool,
    /// Name of the interface that the socket is bound to; `None` where there is none, or its name is not known.
    pub interface: Option<Arc<str>>,
    /// Uid of the socket; `None` for mini-sockets.
    pub uid: Option<u32>,
    /// Inode; 0 where the socket has never had a file, or has none any more.
    pub inode: u64,
    /// Cgroup v2 id; `None` where it is not known.
    pub cgroup: Option<u64>,
    /// The tables of its namespace could not be read: the queues, timer, retransmissions and times below are not known.
    pub is_partial: bool,
    /// Unread bytes, the peer's FIN counted as one; for a listener: connections in the accept queue.
    pub receive_queue: u32,
    /// Unacknowledged bytes, our FIN counted as one; for a listener: its backlog.
    pub send_queue: u32,
    pub timer: Option<Timer>,
    /// Retransmissions without an answer; for a request: SYN-ACKs, also in answer to repeated SYNs.
    pub retransmits: u8,
    /// `None` for mini-sockets and listeners.
    pub times: Option<TcpTimes>,
    /// What the connection has transferred so far; `None` for mini-sockets, listeners and MPTCP, and where the kernel does not
    /// show all of it.
    pub traffic: Option<Traffic>,
    /// The timer of a request, where /proc shows it.
    pub request: Option<RequestTimer>,
}

impl SocketInfo {
    /// A TCP socket with these fields alone.
    #[must_use]
    pub fn bare(netns: u32, state: State, tuple: Tuple) -> Self {
        Self {
            netns,
            transport: Transport::Tcp,
            mptcp: None,
            state,
            mini: false,
            tuple,
            is_v6_only: false,
            is_transparent: false,
            interface: None,
            uid: None,
            inode: 0,
            cgroup: None,
            is_partial: false,
            receive_queue: 0,
            send_queue: 0,
            timer: None,
            retransmits: 0,
            times: None,
            traffic: None,
            request: None,
        }
    }

    /// Whether this is a TCP socket of an MPTCP connection that is listed too.
    #[must_use]
    pub fn is_subflow(&self) -> bool {
        matches!(self.mptcp, Some(MptcpPart::Subflow { .. }))
    }

    /// Whether a listener's accept queue is full: it may have one more than the limit (`sk_acceptq_is_full`).
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.state == State::Listen && self.receive_queue > self.send_queue
    }

    /// Unread bytes, without the peer's FIN, which the kernel counts.
    #[must_use]
    pub fn unread_bytes(&self) -> u32 {
        let fin = matches!(self.state, State::CloseWait | State::LastAck | State::Closing);
        if self.state == State::Listen || self.transport == Transport::Mptcp {
            0
        } else {
            self.receive_queue.saturating_sub(fin.into())
        }
    }

    /// Send-Q without our FIN: the bytes that are not acknowledged, sent or not. 0 for listeners and MPTCP.
    #[must_use]
    pub fn unsent_bytes(&self) -> u32 {
        let fin = matches!(self.state, State::FinWait1 | State::LastAck | State::Closing);
        if self.state == State::Listen || self.transport == Transport::Mptcp {
            0
        } else {
            self.send_queue.saturating_sub(fin.into())
        }
    }
}
