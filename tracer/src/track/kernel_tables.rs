//! Where the connection table and the kernel's own tables differ. If events were lost, the connection table may still have connections
//! that have ended, and may lack others.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::{
    conns::{Conn, Conns, plain},
    identity::{Endpoints, is_same},
    mini_sockets::MiniSockets,
    pending::Pending,
};
use crate::model::{ConnId, Event, EventKind, State, Tuple};

/// One reading of the kernel's tables. All events before it have been applied.
#[derive(Debug)]
pub struct KernelTables<'a> {
    /// `CLOCK_MONOTONIC` ns before they were read.
    pub began_ns: u64,
    /// Network namespaces whose tables were read.
    pub namespaces: &'a BTreeSet<u32>,
    /// Their sockets.
    pub sockets: &'a [Event],
    /// Other network namespaces: the endpoints of all their sockets, of any interface.
    pub endpoints: &'a BTreeMap<u32, HashSet<Tuple>>,
    /// All sockets that processes have descriptors of: their states by their addresses; `None` if not known.
    pub held: Option<&'a HashMap<u64, State>>,
}

/// One difference. It is believed when a second reading shows the same: a socket may change while the kernel's tables are read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Difference {
    pub(super) sk: u64,
    /// The connection table has this connection, in this state.
    known: Option<(ConnId, State)>,
    /// The kernel has this state, whether of a mini-socket, and these ends.
    shown: Option<(State, bool, Tuple)>,
}

/// In a namespace whose sockets cannot be listed: how long a socket without a descriptor stays at most in a state that the kernel's
/// timers end, ns. With the kernel's default limits no mini-socket or orphan stays that long: a request 63 s (`tcp_synack_retries`),
/// FIN_WAIT2 and TIME_WAIT 60 s, an orphan that retransmits about 100 s (`tcp_orphan_retries`). One that does is reported as closed
/// too early.
const GONE_AFTER_NS: u64 = 300_000_000_000;
/// In such a namespace: after this time in another state, the table forgets a socket without a descriptor, ns. Nothing shows
/// whether the socket still exists.
const FORGOTTEN_AFTER_NS: u64 = 24 * 3600 * 1_000_000_000;

impl KernelTables<'_> {
    /// All differences.
    pub(super) fn differences(
        &self,
        conns: &Conns,
        mini_sockets: &MiniSockets,
        pending: &Pending,
    ) -> HashSet<Difference> {
        let sockets = self.sockets.iter();
        let mut differences: HashSet<Difference> =
            sockets.filter_map(|event| self.difference(event, conns, mini_sockets, pending)).collect();
        differences.extend(self.gone(conns));
        differences
    }

    /// How the connection table differs from the kernel's socket in `event`, if it does.
    pub(super) fn difference(
        &self,
        event: &Event,
        conns: &Conns,
        mini_sockets: &MiniSockets,
        pending: &Pending,
    ) -> Option<Difference> {
        let EventKind::Socket { state, mini } = event.kind else { return None };
        if state == State::Close || pending.is_timewait(event.sk) {
            return None;
        }
        let conn = conns.find(event.sk).or_else(|| find_estimate(event, mini, conns, mini_sockets));
        let conn = conn.map(|at| conns.get(at));
        let agrees = |conn: &Conn| {
            // What happened since the reading began is newer than what the reading shows.
            let is_newer = conn.since_ns >= self.began_ns;
            !conn.estimated
                && (is_newer || (continues(conn, event, state, mini) && plain(conn.state) == plain(state)))
        };
        if conn.is_some_and(agrees) {
            return None;
        }
        let known = conn.map(|conn| (conn.id, conn.state));
        Some(Difference { sk: event.sk, known, shown: Some((state, mini, event.tuple)) })
    }

    /// Connections that existed before the reading and that the kernel does not have.
    pub(super) fn gone(&self, conns: &Conns) -> Vec<Difference> {
        let shown: HashSet<u64> = self.sockets.iter().map(|event| event.sk).collect();
        let is_gone = |conn: &&Conn| {
            let may_be_gone = conn.since_ns < self.began_ns && !conn.estimated && !shown.contains(&conn.sk);
            may_be_gone && self.is_gone(conn)
        };
        let difference =
            |conn: &Conn| Difference { sk: conn.sk, known: Some((conn.id, conn.state)), shown: None };
        conns.iter().filter(is_gone).map(difference).collect()
    }

    /// Whether the reading shows that the kernel does not have the socket of `conn`, which is not among `sockets`. That no process has
    /// a descriptor is no evidence against an open connection: it may wait in an accept queue or in a message of a unix socket, or
    /// io_uring or the kernel itself may hold it.
    fn is_gone(&self, conn: &Conn) -> bool {
        let netns = conn.subject.netns;
        if netns.is_some_and(|netns| self.namespaces.contains(&netns)) {
            return true;
        }
        if let Some(state) = self.held.and_then(|held| held.get(&conn.sk)) {
            return *state == State::Close;
        }
        match self.endpoints_beside(conn) {
            Some(endpoints) => !endpoints.contains(&conn.tuple.of_any_interface()),
            None => self.held.is_some() && ends_by_timer(conn.state) && self.is_older(conn, GONE_AFTER_NS),
        }
    }

    /// Sockets of which nothing has shown for a long time whether they still exist.
    pub(super) fn unknown(&self, conns: &Conns) -> Vec<u64> {
        let Some(held) = self.held else { return Vec::new() };
        let listeners =
            conns.iter().filter(|conn| conn.state == State::Listen && held.contains_key(&conn.sk));
        let place = |conn: &Conn| (conn.subject.netns, conn.tuple.local_port);
        let listeners: HashSet<_> = listeners.map(place).collect();
        let is_unknown = |conn: &&Conn| {
            let was_read = conn.subject.netns.is_some_and(|netns| self.namespaces.contains(&netns));
            let has_evidence =
                was_read || held.contains_key(&conn.sk) || self.endpoints_beside(conn).is_some();
            // A connection may wait for any time in the accept queue of a listener that a process has open.
            !has_evidence && self.is_older(conn, FORGOTTEN_AFTER_NS) && !listeners.contains(&place(conn))
        };
        conns.iter().filter(is_unknown).map(|conn| conn.sk).collect()
    }

    /// The endpoints of all sockets in the namespace of `conn`, if they are listed and those of `conn` are known.
    fn endpoints_beside(&self, conn: &Conn) -> Option<&HashSet<Tuple>> {
        let has_remote = conn.tuple.remote_port != 0 || conn.state == State::Listen;
        let listed = self.endpoints.get(&conn.subject.netns?)?;
        (conn.tuple.local_port != 0 && has_remote).then_some(listed)
    }

    fn is_older(&self, conn: &Conn, than_ns: u64) -> bool {
        self.began_ns.saturating_sub(conn.since_ns) > than_ns
    }
}

/// Whether the kernel's timers end this state of a socket that no process has open.
fn ends_by_timer(state: State) -> bool {
    use State::{Closing, FinWait1, FinWait2, LastAck, NewSynRecv, SynRecv, SynSent, TimeWait};
    matches!(state, SynSent | NewSynRecv | SynRecv | FinWait1 | FinWait2 | Closing | LastAck | TimeWait)
}

/// The estimated mini-socket with the ends of `event`: the kernel's own has another address.
pub(super) fn find_estimate(
    event: &Event,
    mini: bool,
    conns: &Conns,
    mini_sockets: &MiniSockets,
) -> Option<usize> {
    if !mini || conns.find(event.sk).is_some() {
        return None;
    }
    conns.find(mini_sockets.estimate(&Endpoints::of(event))?)
}

/// Whether what the kernel shows can be `conn`. Mini-sockets and full sockets never use each other's memory.
pub(super) fn continues(conn: &Conn, event: &Event, state: State, mini: bool) -> bool {
    conn.mini == mini && is_same(conn, event, state)
}
