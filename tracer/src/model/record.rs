//! The records of a stream, which formats write and sinks deliver.

use std::{collections::BTreeMap, fmt, rc::Rc, sync::Arc};

use super::{
    Address, ClusterPeer, Container, Diagnosis, Dwell, Lifespan, MissingStack, Nat, Pod, Reset, SocketReport,
    Stack, State, Subject, Traffic, Tuple,
};

/// Identity of one connection (or listener): the instance of sockstate in the upper 24 bits, and a counter in the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(pub u64);

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The process called `connect`.
    Client,
    /// The connection came from a listener.
    Server,
    Listener,
}

impl Role {
    pub const ALL: [Self; 3] = [Self::Client, Self::Server, Self::Listener];

    /// The name in records.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::Listener => "listener",
        }
    }
}

/// Time spent in the state that was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InState {
    pub ns: u64,
    /// `ns` is a lower bound: the socket was already in the state when the tracer started.
    pub at_least: bool,
}

/// Why a state or a connection ended; only where the kernel's own data leaves no doubt (docs/causes.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// An orderly end: the peer's FIN came, or our FIN was acknowledged after it.
    Fin,
    /// The peer sent a reset.
    ResetReceived,
    /// A reset was sent from here.
    ResetSent,
    /// A connect was answered by a reset or by an ICMP port unreachable.
    Refused,
    /// A connect was never answered.
    ConnectTimeout,
    /// A connect failed on this host because no local port was free.
    NoLocalPort,
    /// A connect failed on this host, before a SYN was sent.
    ConnectFailedLocally,
    /// The application closed before the handshake was done.
    GivenUp,
    /// Keepalive probes were not answered.
    KeepaliveTimeout,
    /// Sent data was never acknowledged.
    RetransmissionTimeout,
    /// The peer's window stayed closed for too long.
    ZeroWindowTimeout,
    /// Ended from outside: `ss -K` on a full socket, or a mini-socket ended before its timer expired.
    Killed,
    /// The connection began with a SYN cookie, without a request socket.
    Syncookie,
    /// The timer of a mini-socket expired.
    Expired,
    /// A new connection with the same addresses and ports replaced it.
    Reused,
    /// The kernel removed the network namespace of the socket.
    NetnsGone,
    /// A request ended before its handshake was done: the peer reset it, or the reason is not known.
    Dropped,
    /// A request ended because its listener had closed.
    ListenerClosed,
}

impl Cause {
    pub const ALL: [Self; 18] = [
        Self::Fin,
        Self::ResetReceived,
        Self::ResetSent,
        Self::Refused,
        Self::ConnectTimeout,
        Self::NoLocalPort,
        Self::ConnectFailedLocally,
        Self::GivenUp,
        Self::KeepaliveTimeout,
        Self::RetransmissionTimeout,
        Self::ZeroWindowTimeout,
        Self::Killed,
        Self::Syncookie,
        Self::Expired,
        Self::Reused,
        Self::NetnsGone,
        Self::Dropped,
        Self::ListenerClosed,
    ];

    /// The name in records.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Fin => "fin",
            Self::ResetReceived => "reset_received",
            Self::ResetSent => "reset_sent",
            Self::Refused => "refused",
            Self::ConnectTimeout => "connect_timeout",
            Self::NoLocalPort => "no_local_port",
            Self::ConnectFailedLocally => "connect_failed_locally",
            Self::GivenUp => "given_up",
            Self::KeepaliveTimeout => "keepalive_timeout",
            Self::RetransmissionTimeout => "retransmission_timeout",
            Self::ZeroWindowTimeout => "zero_window_timeout",
            Self::Killed => "killed",
            Self::Syncookie => "syncookie",
            Self::Expired => "expired",
            Self::Reused => "reused",
            Self::NetnsGone => "netns_gone",
            Self::ListenerClosed => "listener_closed",
            Self::Dropped => "dropped",
        }
    }
}

/// The connection (or listener) that a record is about.
#[derive(Clone, Debug, PartialEq)]
pub struct Connection {
    /// The identity of the connection in this stream.
    pub id: ConnId,
    pub role: Option<Role>,
    pub tuple: Tuple,
    /// The ends beyond the translations of conntrack; `None` where there are none, or where they are not known (yet).
    pub nat: Option<Rc<Nat>>,
    /// What Kubernetes has at the remote address; `None` where it has nothing, or was not asked.
    pub peer: Option<Arc<ClusterPeer>>,
    pub subject: Rc<Subject>,
    /// Whether the socket is a mini-socket; in a transition, whether the socket before or after the transition is one.
    pub mini: bool,
}

#[cfg(test)]
impl Connection {
    /// Any connection, for tests.
    #[must_use]
    pub fn example() -> Self {
        let (container, pod, unit) = (None, None, None);
        let subject = Subject { id: 1, owner: None, netns: None, cgroup: None, container, pod, unit };
        let (id, subject) = (ConnId(1), Rc::new(subject));
        Self { id, role: None, tuple: Tuple::example(), nat: None, peer: None, subject, mini: false }
    }
}

/// One change of state of one socket.
#[derive(Clone, Debug, PartialEq)]
pub struct Transition {
    /// Wall clock, ns since the epoch.
    pub time_ns: i64,
    pub conn: Connection,
    /// State before.
    pub from: State,
    /// State after.
    pub to: State,
    /// Time in `from`; `None` where it is not known.
    pub in_state: Option<InState>,
    /// False for an estimate, and where the connection may go on in a mini-socket that is not seen.
    pub exact: bool,
    /// This transition is not in sockstate's table of legal TCP transitions (`knowledge::is_legal`).
    pub illegal: bool,
    pub cause: Option<Cause>,
    /// Why a reset was sent; `None` where it is not known.
    pub reset_why: Option<&'static str>,
    /// Errno on the socket, 0 for none.
    pub errno: u16,
    /// What the connection has transferred, where this transition ends it or begins its TIME_WAIT.
    pub traffic: Option<Rc<Traffic>>,
}

#[cfg(test)]
impl Transition {
    /// Any connection's, of 1 ns in `from`, for tests.
    #[must_use]
    pub fn example(from: State, to: State) -> Self {
        Self {
            time_ns: 0,
            conn: Connection::example(),
            from,
            to,
            in_state: Some(InState { ns: 1, at_least: false }),
            exact: true,
            illegal: false,
            cause: None,
            reset_why: None,
            errno: 0,
            traffic: None,
        }
    }
}

/// One socket that existed when the tracer started.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// Wall clock, ns since the epoch, when the state began (not when the record was written); may be long before `start`.
    pub time_ns: i64,
    pub conn: Connection,
    pub state: State,
}

/// A correction: the kernel's tables disagree with what the stream has reported of a connection.
#[derive(Clone, Debug, PartialEq)]
pub struct Resync {
    /// Wall clock, ns since the epoch, when the kernel's tables were read.
    pub time_ns: i64,
    pub conn: Connection,
    /// The state that the stream has reported last; `None` for a connection that it has not reported.
    pub was: Option<State>,
    /// The true state; CLOSE for a connection that no longer exists.
    pub state: State,
}

/// A connection that has been in a state for longer than its threshold.
#[derive(Clone, Debug, PartialEq)]
pub struct Stuck {
    /// Wall clock, ns since the epoch, when it was noticed.
    pub time_ns: i64,
    pub conn: Connection,
    /// The state that it is stuck in.
    pub state: State,
    /// For how long.
    pub age: InState,
    /// How many `stuck` records this connection has had in this state, with this one.
    pub times: u8,
    /// The connection was stuck before the trace began. The JSON does not have this: it is false in what was read.
    pub before_trace: bool,
    /// The result of a look at the socket; `None` where the look did not find it.
    pub found: Option<Box<(SocketReport, Diagnosis)>>,
    /// The call path that opened the connection, or why it is not known; `None` outside of a hunt.
    pub opened: Option<Result<Arc<Stack>, MissingStack>>,
}

/// A stuck connection has left its state.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    /// Wall clock, ns since the epoch, when it left the state.
    pub time_ns: i64,
    pub conn: Connection,
    /// The state that it was stuck in.
    pub state: State,
    pub to: State,
    /// How long the connection was in `state`.
    pub age: InState,
    /// What the connection has transferred, where it ended, or TIME_WAIT began.
    pub traffic: Option<Rc<Traffic>>,
}

/// A count of the transitions between two states, for one service and one peer, in a window of time; or of the connections that
/// ended with such a transition and have no record of their own.
#[derive(Clone, Debug, PartialEq)]
pub struct Aggregate {
    /// The window's end: wall clock, ns since the epoch.
    pub time_ns: i64,
    /// The window's length, ns.
    pub window_ns: u64,
    /// Name of the process; `None` where it is not known.
    pub comm: Option<String>,
    pub unit: Option<String>,
    pub container: Option<Container>,
    pub pod: Option<Pod>,
    pub role: Option<Role>,
    /// The service's port: the local port, or the remote port of a client; 0 where all peers are counted together.
    pub port: u16,
    /// The peer's address; `None` where there are too many peers, which are then counted together.
    pub peer: Option<Address>,
    /// State before.
    pub from: State,
    /// State after.
    pub to: State,
    /// The record counts connections that were never established, instead of transitions.
    pub of_connections: bool,
    /// Why these connections ended; `None` where it is not known.
    pub cause: Option<Cause>,
    /// This record counts all services that exceed the limit of separate ones.
    pub other: bool,
    pub count: u64,
    /// The times in `from`.
    pub dwell: Dwell,
    /// The sums of the connections that ended so; `None` if the counters of none of them are known.
    pub transferred: Option<Transferred>,
}

impl Aggregate {
    /// The times of the handshakes that ended so; `None` if these are no handshakes.
    #[must_use]
    pub fn handshakes(&self) -> Option<&Dwell> {
        let is_handshake = matches!(self.from, State::SynSent | State::SynRecv | State::NewSynRecv);
        Some(&self.dwell).filter(|_| is_handshake && self.to == State::Established)
    }
}

/// What several connections have transferred together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transferred {
    pub bytes_sent: u64,
    pub bytes_received: u64,
    /// Segments that were sent again.
    pub retransmits: u64,
}

impl Transferred {
    pub fn add(&mut self, traffic: &Traffic) {
        self.bytes_sent = self.bytes_sent.saturating_add(traffic.bytes_sent);
        self.bytes_received = self.bytes_received.saturating_add(traffic.bytes_received);
        self.retransmits = self.retransmits.saturating_add(traffic.retransmits.into());
    }
}

/// Where records were lost (`lost.place`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LostPlace {
    /// The ring was full.
    Ring,
    /// Events that only explain a transition, or show one of a mini-socket (resets, mini-sockets), were lost because the ring was
    /// full: a transition may be missing, or its cause.
    Evidence,
    /// The kernel's recursion guard skipped the kernel programs.
    Recursion,
    /// A record that this version cannot read.
    Decode,
    /// The output did not take the record before sockstate ended.
    Output,
    /// The stack of an opening was not copied, or its call path could not be found.
    Stack,
    /// A sink's queue and spool were full, or its collector refused the record for good.
    Sink,
    /// The record was in the memory of a sockstate process that was killed.
    Crash,
}

impl LostPlace {
    pub const ALL: [Self; 8] = [
        Self::Ring,
        Self::Evidence,
        Self::Recursion,
        Self::Decode,
        Self::Output,
        Self::Stack,
        Self::Sink,
        Self::Crash,
    ];

    /// The name in records.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ring => "ring",
            Self::Evidence => "evidence",
            Self::Recursion => "recursion",
            Self::Decode => "decode",
            Self::Output => "output",
            Self::Stack => "stack",
            Self::Sink => "sink",
            Self::Crash => "crash",
        }
    }
}

/// How many connections exist, by the names of their states.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SocketCounts {
    /// All connections.
    pub sockets: BTreeMap<&'static str, i64>,
    /// Stuck connections.
    pub stuck: BTreeMap<&'static str, i64>,
}

/// Records or events that were lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Wall clock, ns since the epoch, when the loss was noticed.
    pub time_ns: i64,
    /// No missing record has an earlier time; `None` where this bound is not known.
    pub since_ns: Option<i64>,
    /// How many records since the last `lost` record of this place.
    pub count: u64,
    /// Records that the sink's collector may have, and that are not sent again.
    pub in_doubt: u64,
    pub place: LostPlace,
}

/// The first record of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// Wall clock, ns since the epoch.
    pub time_ns: i64,
    /// Version of sockstate.
    pub version: &'static str,
    /// Host name.
    pub host: String,
    /// Kernel release.
    pub kernel: String,
    /// The hook that sees the transitions.
    pub hook: &'static str,
    /// The tier: the hooks that see the mini-sockets.
    pub tier: &'static str,
    /// Upper bits of this stream's connection ids.
    pub instance: u32,
    /// What this trace cannot do here, and why.
    pub degraded: Vec<String>,
    /// The instance whose pinned programs and connections this process has adopted.
    pub adopted: Option<u32>,
}

/// The last record of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    /// Wall clock, ns since the epoch.
    pub time_ns: i64,
    /// Why the stream ended: `signal`, `duration` or `count`.
    pub reason: &'static str,
    /// Transition records in this stream.
    pub transitions: u64,
    /// Losses by place; places without a loss are left out.
    pub lost: Vec<(LostPlace, u64)>,
    /// Transitions that are not in sockstate's table of legal TCP transitions.
    pub illegal: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    Start(Start),
    Snapshot(Snapshot),
    Transition(Transition),
    Connection(Box<Lifespan>),
    Aggregate(Box<Aggregate>),
    Resync(Resync),
    Stuck(Stuck),
    Resolved(Resolved),
    Reset(Reset),
    Lost(Lost),
    Stop(Stop),
}

impl Record {
    /// Wall clock, ns since the epoch.
    #[must_use]
    pub fn time_ns(&self) -> i64 {
        match self {
            Self::Start(start) => start.time_ns,
            Self::Snapshot(snapshot) => snapshot.time_ns,
            Self::Transition(transition) => transition.time_ns,
            Self::Connection(lifespan) => lifespan.time_ns,
            Self::Aggregate(aggregate) => aggregate.time_ns,
            Self::Resync(resync) => resync.time_ns,
            Self::Stuck(stuck) => stuck.time_ns,
            Self::Resolved(resolved) => resolved.time_ns,
            Self::Reset(reset) => reset.time_ns,
            Self::Lost(lost) => lost.time_ns,
            Self::Stop(stop) => stop.time_ns,
        }
    }

    /// The connection that the record is about; `None` for records of the whole stream.
    #[must_use]
    pub fn conn(&self) -> Option<&Connection> {
        match self {
            Self::Snapshot(snapshot) => Some(&snapshot.conn),
            Self::Transition(transition) => Some(&transition.conn),
            Self::Connection(lifespan) => Some(&lifespan.conn),
            Self::Resync(resync) => Some(&resync.conn),
            Self::Stuck(stuck) => Some(&stuck.conn),
            Self::Resolved(resolved) => Some(&resolved.conn),
            Self::Start(_) | Self::Aggregate(_) | Self::Reset(_) | Self::Lost(_) | Self::Stop(_) => None,
        }
    }
}
