//! A socket as the kernel's tables show it at one moment.

use super::{State, Tuple};
use std::sync::Arc;

/// The timer that runs on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TimerKind {
    /// What was sent is sent again.
    Retransmit,
    /// The peer is asked whether it lives.
    Keepalive,
    /// The end of TIME_WAIT, or of FIN_WAIT2 without a process.
    TimeWait,
    /// The peer's closed window is asked for.
    Probe,
}

impl TimerKind {
    /// As `ss -o` shows it.
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

/// A timer and the time that it still has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timer {
    /// Which.
    pub kind: TimerKind,
    /// Nanoseconds until it runs out.
    pub left_ns: u64,
}

/// What carries a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// TCP itself.
    Tcp,
    /// MPTCP above one or more TCP connections, its subflows.
    Mptcp,
}

impl Transport {
    /// As records show it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Mptcp => "mptcp",
        }
    }
}

/// What a socket is to an MPTCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MptcpPart {
    /// The connection, or the listener, itself.
    Whole {
        /// The kernel's name for it in this namespace; `None` for a listener, and where it does not show.
        token: Option<u32>,
        /// How many TCP sockets below it are listed.
        subflows: usize,
    },
    /// A TCP socket below it; its inode is that of the MPTCP socket, which is what processes have open.
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
    /// How often it was doubled (`tcpi_backoff`).
    pub backoff: u8,
    /// Nanoseconds since data was last sent, or else since the handshake (`tcpi_last_data_sent`).
    pub since_data_sent_ns: u64,
    /// Nanoseconds since data last came, or else since the handshake (`tcpi_last_data_recv`).
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
    /// How often it has run out (`num_timeout`).
    pub timeouts: u8,
    /// Nanoseconds until it does so next.
    pub left_ns: u64,
    /// The listener may have made its runs shorter than they are by themselves (TCP_RTO_MAX_MS).
    pub may_be_short: bool,
}

/// One socket of the kernel's tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketInfo {
    /// Network namespace inode.
    pub netns: u32,
    /// Whether it is an MPTCP socket: the states are TCP's, the queues count memory instead of bytes.
    pub transport: Transport,
    /// The MPTCP connection that it is, or is a subflow of.
    pub mptcp: Option<MptcpPart>,
    /// Its state.
    pub state: State,
    /// It is a mini-socket.
    pub mini: bool,
    /// Both ends.
    pub tuple: Tuple,
    /// A listener that takes no IPv4 connections (IPV6_V6ONLY).
    pub is_v6_only: bool,
    /// IP_TRANSPARENT: such a listener takes connections to other addresses and ports (TPROXY), and these have the option too.
    pub is_transparent: bool,
    /// Name of the interface that it is bound to, `None` where there is none, or where its name is not known.
    pub interface: Option<Arc<str>>,
    /// Uid of the socket; `None` for mini-sockets.
    pub uid: Option<u32>,
    /// Inode; 0 where no file was ever made for it, or none is left.
    pub inode: u64,
    /// Cgroup v2 id, `None` where not known.
    pub cgroup: Option<u64>,
    /// Its namespace's tables could not be read: queues, timer, retransmissions and times below are not known.
    pub is_partial: bool,
    /// Bytes that nobody has read, the peer's FIN counted as one; of a listener: connections that nobody has accepted.
    pub receive_queue: u32,
    /// Bytes that are not acknowledged, our FIN counted as one; of a listener: its backlog.
    pub send_queue: u32,
    /// The timer that runs.
    pub timer: Option<Timer>,
    /// How often something was sent again without an answer; of a request: SYN-ACKs, also in answer to repeated SYNs.
    pub retransmits: u8,
    /// Times, `None` for mini-sockets and listeners.
    pub times: Option<TcpTimes>,
    /// The timer of a half-open connection, where /proc shows it.
    pub request: Option<RequestTimer>,
}

impl SocketInfo {
    /// A TCP socket of which nothing else is known.
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
            request: None,
        }
    }

    /// Whether it is a TCP socket below an MPTCP socket that is listed too.
    #[must_use]
    pub fn is_subflow(&self) -> bool {
        matches!(self.mptcp, Some(MptcpPart::Subflow { .. }))
    }

    /// Whether a listener's accept queue is full: the kernel takes one more than the limit (`sk_acceptq_is_full`).
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.state == State::Listen && self.receive_queue > self.send_queue
    }

    /// Bytes that nobody has read; the peer's FIN, which the kernel counts, is none.
    #[must_use]
    pub fn unread_bytes(&self) -> u32 {
        let fin = matches!(self.state, State::CloseWait | State::LastAck | State::Closing);
        if self.state == State::Listen || self.transport == Transport::Mptcp {
            0
        } else {
            self.receive_queue.saturating_sub(fin.into())
        }
    }

    /// Bytes that are not acknowledged; our FIN is none.
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
