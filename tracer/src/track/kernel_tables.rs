//! Where the connection table and the kernel's own tables differ. If events were lost, the connection table may still have connections
//! that have ended, and may lack others.

use std::collections::{BTreeSet, HashSet};

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
    /// Addresses of all sockets that processes hold; `None` if not known.
    pub held: Option<&'a HashSet<u64>>,
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

/// A socket that no process holds, in a namespace that cannot be entered, counts as gone after this time in one state, ns. With the
/// kernel's default limits no mini-socket or orphan stays that long: a request 63 s (`tcp_synack_retries`), FIN_WAIT2 and TIME_WAIT 60 s,
/// an orphan that retransmits about 100 s (`tcp_orphan_retries`). One that does is reported as closed too early.
const GONE_AFTER_NS: u64 = 300_000_000_000;

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
        let is_held = |conn: &Conn| self.held.is_some_and(|held| held.contains(&conn.sk));
        let place = |conn: &Conn| (conn.subject.netns, conn.tuple.local_port);
        let listeners = conns.iter().filter(|conn| conn.state == State::Listen && is_held(conn));
        let listeners: HashSet<_> = listeners.map(place).collect();
        // A connection in the accept queue of a listener that a process holds has no holder of its own, for any time.
        let may_be_queued = |conn: &Conn| {
            matches!(conn.state, State::Established | State::CloseWait) && listeners.contains(&place(conn))
        };
        let is_gone = |conn: &&Conn| {
            if conn.since_ns >= self.began_ns || conn.estimated || shown.contains(&conn.sk) {
                return false;
            }
            let was_read = conn.subject.netns.is_some_and(|netns| self.namespaces.contains(&netns));
            let is_free = self.held.is_some_and(|held| !held.contains(&conn.sk));
            let is_old = self.began_ns - conn.since_ns > GONE_AFTER_NS;
            was_read || (is_free && is_old && !may_be_queued(conn))
        };
        let difference =
            |conn: &Conn| Difference { sk: conn.sk, known: Some((conn.id, conn.state)), shown: None };
        conns.iter().filter(is_gone).map(difference).collect()
    }
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
