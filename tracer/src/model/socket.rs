//! A socket as the kernel's tables show it at one moment, and who has it open.

use std::{rc::Rc, sync::Arc};

use super::{InState, State, Subject, Tuple};

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

/// What `struct tcp_info` tells of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpTimes {
    /// Nanoseconds since the last acknowledgment came (`tcpi_last_ack_recv`).
    pub since_ack_ns: u64,
    /// Retransmission timeout now, ns (`tcpi_rto`).
    pub rto_ns: u64,
    /// How often it was doubled (`tcpi_backoff`).
    pub backoff: u8,
}

/// One socket of the kernel's tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketInfo {
    /// Network namespace inode.
    pub netns: u32,
    /// Its state.
    pub state: State,
    /// It is a mini-socket.
    pub mini: bool,
    /// Both ends.
    pub tuple: Tuple,
    /// Uid of the socket; null for mini-sockets.
    pub uid: Option<u32>,
    /// Inode; 0 where no file was ever made for it, or none is left.
    pub inode: u64,
    /// Cgroup v2 id, null where not known.
    pub cgroup: Option<u64>,
    /// Bytes that nobody has read, the peer's FIN counted as one; of a listener: connections that nobody has accepted.
    pub receive_queue: u32,
    /// Bytes that are not acknowledged, our FIN counted as one; of a listener: its backlog.
    pub send_queue: u32,
    /// The timer that runs.
    pub timer: Option<Timer>,
    /// How often something was sent again without an answer.
    pub retransmits: u8,
    /// Times, null for mini-sockets and listeners.
    pub times: Option<TcpTimes>,
}

impl SocketInfo {
    /// Bytes that nobody has read; the peer's FIN, which the kernel counts, is none.
    #[must_use]
    pub fn unread_bytes(&self) -> u32 {
        let fin = matches!(self.state, State::CloseWait | State::LastAck | State::Closing);
        if self.state == State::Listen { 0 } else { self.receive_queue.saturating_sub(fin.into()) }
    }

    /// Bytes that are not acknowledged; our FIN is none.
    #[must_use]
    pub fn unsent_bytes(&self) -> u32 {
        let fin = matches!(self.state, State::FinWait1 | State::LastAck | State::Closing);
        if self.state == State::Listen { 0 } else { self.send_queue.saturating_sub(fin.into()) }
    }
}

/// A process, by what /proc says of it now.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// Name.
    pub comm: String,
    /// Executable, null where it cannot be read.
    pub exe: Option<String>,
    /// Its parent.
    pub parent: u32,
}

/// What waits for events of a descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Watch {
    /// An epoll instance of the process has it, for these events (`EPOLLIN`, ...).
    Epoll(Vec<&'static str>),
    /// No epoll instance of the process has it.
    NoEpoll,
}

/// A process that has a socket open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Which.
    pub process: Arc<Process>,
    /// Its descriptor.
    pub fd: u32,
    /// Null where it cannot be read.
    pub watch: Option<Watch>,
}

/// A socket with everything that a look can find out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Examined {
    /// The socket.
    pub socket: SocketInfo,
    /// Time in its state, null where nothing tells.
    pub age: Option<InState>,
    /// Every process that has it open.
    pub holders: Vec<Holder>,
    /// Some processes' descriptors could not be read: there may be more holders.
    pub hidden_holders: bool,
    /// The listener that it came out of, if that still listens.
    pub listener: Option<Listener>,
    /// How long what was sent has not been answered, at least, ns.
    pub unanswered_ns: Option<u64>,
}

impl Examined {
    /// Who accepted it, where that is somebody else than who has it open now: the listener's process.
    #[must_use]
    pub fn creator(&self) -> Option<&Process> {
        let creator = &**self.listener.as_ref()?.holders.first()?;
        let holds = self.holders.iter().any(|holder| holder.process.pid == creator.pid);
        (!holds).then_some(creator)
    }

    /// For how long it has not moved on, ns, as far as anything tells.
    #[must_use]
    pub fn idle_ns(&self) -> Option<u64> {
        self.age.map(|age| age.ns).max(self.unanswered_ns)
    }
}

/// A socket of a look, and where it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Looked {
    /// The socket.
    pub it: Examined,
    /// Where it runs; the owner is the first holder.
    pub subject: Rc<Subject>,
}

/// A listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Connections that nobody has accepted.
    pub queued: u32,
    /// The most of them.
    pub backlog: u32,
    /// Who listens.
    pub holders: Vec<Arc<Process>>,
}

/// Why a socket is stuck.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// It waits in the listener's accept queue.
    NeverAccepted,
    /// The application has not read the end of file.
    EofUnread,
    /// The application does not read.
    UnreadData,
    /// The application has read everything and does not close.
    NotClosed,
    /// Only a child of the process that should have it has it open.
    HeldByChild,
    /// On its way in a message of a unix socket.
    InFlight,
    /// Who has it open cannot be seen.
    HolderHidden,
    /// Closed here; the peer's FIN has not come.
    OrphanWaitsForFin,
    /// Shut down here for sending; the peer keeps its side open.
    PeerKeepsOpen,
    /// The peer does not acknowledge.
    PeerNotAnswering,
    /// The peer's window is closed.
    PeerTakesNothing,
    /// The handshake is not finished.
    HandshakeUnfinished,
    /// Nothing tells.
    Unknown,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::NeverAccepted,
        Self::EofUnread,
        Self::UnreadData,
        Self::NotClosed,
        Self::HeldByChild,
        Self::InFlight,
        Self::HolderHidden,
        Self::OrphanWaitsForFin,
        Self::PeerKeepsOpen,
        Self::PeerNotAnswering,
        Self::PeerTakesNothing,
        Self::HandshakeUnfinished,
        Self::Unknown,
    ];

    /// As records show it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NeverAccepted => "never_accepted",
            Self::EofUnread => "eof_unread",
            Self::UnreadData => "unread_data",
            Self::NotClosed => "not_closed",
            Self::HeldByChild => "held_by_child",
            Self::InFlight => "in_flight",
            Self::HolderHidden => "holder_hidden",
            Self::OrphanWaitsForFin => "orphan_waits_for_fin",
            Self::PeerKeepsOpen => "peer_keeps_open",
            Self::PeerNotAnswering => "peer_not_answering",
            Self::PeerTakesNothing => "peer_takes_nothing",
            Self::HandshakeUnfinished => "handshake_unfinished",
            Self::Unknown => "unknown",
        }
    }
}

/// What is wrong, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnosis {
    /// Why.
    pub reason: Reason,
    /// The same as a sentence.
    pub why: String,
    /// What to do, in a sentence.
    pub advice: String,
    /// Commands for whoever wants to look closer, or to end it; never run by us.
    pub commands: Vec<String>,
}
