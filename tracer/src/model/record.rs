//! Finished records: what formats and sinks see.

use std::{collections::BTreeMap, fmt, rc::Rc, sync::Arc};

use super::{Address, Diagnosis, Dwell, Examined, Stack, State, Subject, Tuple, Unseen};

/// Identity of one connection (or listener) of this tracer: the instance in the upper 24 bits, a counter below.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(pub u64);

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Which part a socket plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// It called `connect`.
    Client,
    /// It came out of a listener.
    Server,
    /// It listens.
    Listener,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Client, Self::Server, Self::Listener];

    /// As records show it.
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
    /// Nanoseconds.
    pub ns: u64,
    /// It was longer: the socket was already in the state when the tracer started.
    pub at_least: bool,
}

/// Why a state or a connection ended; only where the kernel's own word leaves no doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// An orderly end: the peer's FIN came, or ours was acknowledged after it.
    Fin,
    /// The peer sent a reset.
    ResetReceived,
    /// A reset was sent from here.
    ResetSent,
    /// A connect was answered by a reset or by an ICMP port unreachable.
    Refused,
    /// A connect was never answered.
    ConnectTimeout,
    /// A connect failed on this host, before a SYN was sent.
    ConnectFailedLocally,
    /// The application closed before the handshake was done.
    GivenUp,
    /// Keepalive probes were not answered.
    KeepaliveTimeout,
    /// What was sent was never acknowledged.
    RetransmissionTimeout,
    /// The peer's window stayed closed for too long.
    ZeroWindowTimeout,
    /// Ended from outside: `ss -K` on a full socket; a mini-socket before its time.
    Killed,
    /// It began with a SYN cookie, without a request socket.
    Syncookie,
    /// Its time was over.
    Expired,
    /// A new connection with the same ends took its place.
    Reused,
    /// Its network namespace was taken down.
    NetnsGone,
    /// A request ended before its handshake was done: reset by the peer, or not known why.
    Dropped,
    /// A request ended because its listener had closed.
    ListenerClosed,
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::Fin,
        Self::ResetReceived,
        Self::ResetSent,
        Self::Refused,
        Self::ConnectTimeout,
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

    /// As records show it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Fin => "fin",
            Self::ResetReceived => "reset_received",
            Self::ResetSent => "reset_sent",
            Self::Refused => "refused",
            Self::ConnectTimeout => "connect_timeout",
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
    /// Its identity in this stream.
    pub id: ConnId,
    /// The socket's part, `None` where not known.
    pub role: Option<Role>,
    /// Both ends.
    pub tuple: Tuple,
    /// Whose it is.
    pub subject: Rc<Subject>,
    /// Its socket is a mini-socket; of a transition: the socket before or after it is one.
    pub mini: bool,
}

#[cfg(test)]
impl Connection {
    /// Any connection, for tests.
    #[must_use]
    pub fn example() -> Self {
        let (container, pod_uid, unit) = (None, None, None);
        let subject = Subject { id: 1, owner: None, netns: None, cgroup: None, container, pod_uid, unit };
        Self { id: ConnId(1), role: None, tuple: Tuple::example(), subject: Rc::new(subject), mini: false }
    }
}

/// One change of state of one socket.
#[derive(Clone, Debug, PartialEq)]
pub struct Transition {
    /// Wall clock, ns since the epoch.
    pub time_ns: i64,
    /// Which connection.
    pub conn: Connection,
    /// State before.
    pub from: State,
    /// State after.
    pub to: State,
    /// Time in `from`, `None` where not known.
    pub in_state: Option<InState>,
    /// False where it is an estimate, or the connection may live on unseen in a mini-socket.
    pub exact: bool,
    /// TCP, as this version knows it, does not make it.
    pub illegal: bool,
    /// Why, `None` where not known.
    pub cause: Option<Cause>,
    /// Why a reset was sent, `None` where not known.
    pub reset_why: Option<&'static str>,
    /// Errno on the socket, 0 for none.
    pub errno: u16,
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
        }
    }
}

/// One socket that existed when the tracer started.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// Wall clock, ns since the epoch.
    pub time_ns: i64,
    /// Its identity from now on, and what is known of it.
    pub conn: Connection,
    /// Its state.
    pub state: State,
}

/// A correction: what the stream said of a connection is not what the kernel's tables show.
#[derive(Clone, Debug, PartialEq)]
pub struct Resync {
    /// Wall clock, ns since the epoch, of the look at the kernel.
    pub time_ns: i64,
    /// Which connection.
    pub conn: Connection,
    /// The state that the stream had reported last; `None` for a connection that it had not reported.
    pub was: Option<State>,
    /// What it is; CLOSE where it is gone.
    pub state: State,
}

/// A connection that has been in a state for longer than it should.
#[derive(Clone, Debug, PartialEq)]
pub struct Stuck {
    /// Wall clock, ns since the epoch, when it was noticed.
    pub time_ns: i64,
    /// Which connection.
    pub conn: Connection,
    /// The state that it is stuck in.
    pub state: State,
    /// For how long.
    pub age: InState,
    /// How often this was said of it, with this time.
    pub times: u8,
    /// What a look at it found; `None` where it could not be found.
    pub found: Option<Box<(Examined, Diagnosis)>>,
    /// Where in its code its process opened it, or why that is not known; `None` outside of a hunt.
    pub opened: Option<Result<Arc<Stack>, Unseen>>,
}

/// A connection that was stuck has moved on.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    /// Wall clock, ns since the epoch, when it did.
    pub time_ns: i64,
    /// Which connection.
    pub conn: Connection,
    /// The state that it was stuck in.
    pub state: State,
    /// The state after.
    pub to: State,
    /// For how long it had been in `state`.
    pub age: InState,
}

/// Transitions of one kind, of one service with one peer, counted together.
#[derive(Clone, Debug, PartialEq)]
pub struct Aggregate {
    /// The window's end: wall clock, ns since the epoch.
    pub time_ns: i64,
    /// Its length, ns.
    pub window_ns: u64,
    /// Name of the process, `None` where not known.
    pub comm: Option<String>,
    /// Its systemd unit.
    pub unit: Option<String>,
    /// Its container's id.
    pub container: Option<String>,
    /// The sockets' part, `None` where not known.
    pub role: Option<Role>,
    /// The service's port: the local one, a client's remote one; 0 where peers are not told apart.
    pub port: u16,
    /// The other side; `None` where there were too many to tell apart.
    pub peer: Option<Address>,
    /// State before.
    pub from: State,
    /// State after.
    pub to: State,
    /// It counts all services that were too many to tell apart.
    pub other: bool,
    /// How many.
    pub count: u64,
    /// The times in `from`.
    pub dwell: Dwell,
}

/// Where something was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LostPlace {
    /// The ring was full.
    Ring,
    /// The ring was full for an event of a mini-socket or a reset: a transition may be missing, or its cause.
    Evidence,
    /// The kernel's recursion guard skipped the programs.
    Recursion,
    /// A record that this version cannot read.
    Decode,
    /// The output did not take it before the end.
    Output,
    /// The call path of a connection's opening was not taken, or could not be found.
    Stack,
    /// A sink's queue and spool were full, or its collector refused the record for good.
    Sink,
    /// In the memory of a sockstate that was killed.
    Crash,
}

impl LostPlace {
    /// All of them.
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

    /// As records show it.
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

/// How many connections there are, by their states' names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// All of them.
    pub sockets: BTreeMap<&'static str, i64>,
    /// Those that are stuck.
    pub stuck: BTreeMap<&'static str, i64>,
}

/// Transitions that happened and were not delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Wall clock, ns since the epoch, when the loss was noticed.
    pub time_ns: i64,
    /// No missing record has an earlier time; `None` where that is not known.
    pub since_ns: Option<i64>,
    /// How many since the last such record of this place.
    pub count: u64,
    /// Records of a sink that its collector may have, and that are not sent again.
    pub in_doubt: u64,
    /// Where.
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
    /// Which hook sees the transitions.
    pub hook: &'static str,
    /// Which hooks see the mini-sockets.
    pub tier: &'static str,
    /// Upper bits of this stream's connection ids.
    pub instance: u32,
    /// What works less than it could, and why.
    pub degraded: Vec<String>,
    /// The instance whose programs and connections it goes on with.
    pub adopted: Option<u32>,
}

/// The last record of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    /// Wall clock, ns since the epoch.
    pub time_ns: i64,
    /// Why: `signal`, `duration` or `count`.
    pub reason: &'static str,
    /// Transition records in this stream.
    pub transitions: u64,
    /// Losses by place, zeros left out.
    pub lost: Vec<(LostPlace, u64)>,
    /// Transitions that TCP, as this version knows it, does not make.
    pub illegal: u64,
}

/// What a stream is made of.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// The beginning.
    Start(Start),
    /// A socket that was there first.
    Snapshot(Snapshot),
    /// A change of state.
    Transition(Transition),
    /// Transitions, counted.
    Aggregate(Aggregate),
    /// A correction.
    Resync(Resync),
    /// A connection that is stuck.
    Stuck(Stuck),
    /// A connection that no longer is.
    Resolved(Resolved),
    /// A loss.
    Lost(Lost),
    /// The end.
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
            Self::Aggregate(aggregate) => aggregate.time_ns,
            Self::Resync(resync) => resync.time_ns,
            Self::Stuck(stuck) => stuck.time_ns,
            Self::Resolved(resolved) => resolved.time_ns,
            Self::Lost(lost) => lost.time_ns,
            Self::Stop(stop) => stop.time_ns,
        }
    }

    /// The connection that it is about; `None` for records of the whole stream.
    #[must_use]
    pub fn conn(&self) -> Option<&Connection> {
        match self {
            Self::Snapshot(snapshot) => Some(&snapshot.conn),
            Self::Transition(transition) => Some(&transition.conn),
            Self::Resync(resync) => Some(&resync.conn),
            Self::Stuck(stuck) => Some(&stuck.conn),
            Self::Resolved(resolved) => Some(&resolved.conn),
            Self::Start(_) | Self::Aggregate(_) | Self::Lost(_) | Self::Stop(_) => None,
        }
    }
}
