//! The table against the kernel's own: losses leave connections that have ended, and hide others.

use std::collections::{BTreeSet, HashSet};

use super::{
    conns::{Conn, Since, plain},
    same::{is_same, merge},
    table::{Out, Table, Update},
    wait::{Ends, take},
};
use crate::model::{ConnId, Event, EventKind, Identify, Record, Resync, State, Tuple};

/// What the kernel's tables held, after everything up to then was applied.
#[derive(Debug)]
pub struct Shown<'a> {
    /// `CLOCK_MONOTONIC` ns before the look began.
    pub began_ns: u64,
    /// Network namespaces that were looked into.
    pub namespaces: &'a BTreeSet<u32>,
    /// Their sockets.
    pub sockets: &'a [Event],
    /// Keys of all sockets that processes hold; none if not known.
    pub held: Option<&'a HashSet<u64>>,
}

/// Where the table and the kernel's tables differ. One look is not enough: a socket may go, or change, beside it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Doubt {
    sk: u64,
    /// What the table has: which connection, in which state.
    known: Option<(ConnId, State)>,
    /// What the kernel shows: the state, whether of a mini-socket, and the ends.
    shown: Option<(State, bool, Tuple)>,
}

/// Longer than a mini-socket or an orphan lives, ns: in namespaces that cannot be entered nothing else can be known.
const LONG_NS: u64 = 300_000_000_000;

impl Table {
    /// What the table lacks or has wrong, if the kernel's tables are right.
    #[must_use]
    pub fn doubts(&self, shown: &Shown<'_>) -> HashSet<Doubt> {
        let sockets = shown.sockets.iter();
        let mut doubts: HashSet<Doubt> = sockets.filter_map(|it| self.doubt(it, shown.began_ns)).collect();
        doubts.extend(self.unseen(shown));
        doubts
    }

    /// Corrects what a second look shows in the same way as the one that led to `doubts`.
    pub fn settle(
        &mut self,
        doubts: &HashSet<Doubt>,
        shown: &Shown<'_>,
        who: &mut dyn Identify,
        out: Out<'_>,
    ) {
        for event in shown.sockets {
            if self.doubt(event, shown.began_ns).is_some_and(|it| doubts.contains(&it)) {
                self.settle_one(event, who, out);
            }
        }
        for doubt in self.unseen(shown).iter().filter(|it| doubts.contains(it)) {
            if let Some(at) = self.conns.find(doubt.sk) {
                self.lose(at, shown.began_ns, out);
            }
        }
    }

    fn doubt(&self, event: &Event, began_ns: u64) -> Option<Doubt> {
        let EventKind::Socket { state, mini } = event.kind else { return None };
        if state == State::Close || self.waiting.timewaits.iter().any(|it| it.sk == event.sk) {
            return None;
        }
        let conn = self.conns.find(event.sk).or_else(|| self.find_estimate(event, mini));
        let conn = conn.map(|at| self.conns.get(at));
        let fits = |conn: &Conn| {
            // What happened since the look began is newer than what it shows.
            let is_newer = conn.since_ns >= began_ns;
            !conn.estimated
                && (is_newer || (continues(conn, event, state, mini) && plain(conn.state) == plain(state)))
        };
        if conn.is_some_and(fits) {
            return None;
        }
        let known = conn.map(|conn| (conn.id, conn.state));
        Some(Doubt { sk: event.sk, known, shown: Some((state, mini, event.tuple)) })
    }

    fn settle_one(&mut self, event: &Event, who: &mut dyn Identify, out: Out<'_>) {
        let EventKind::Socket { state, mini } = event.kind else { return };
        let estimate = self.find_estimate(event, mini);
        if let Some(at) = estimate {
            self.waiting.estimated.remove(&Ends::of(event));
            self.conns.rename(at, event.sk);
            self.watchdog.watch_again(&mut self.conns, at);
        }
        if let Some(at) = estimate.or_else(|| self.conns.find(event.sk)) {
            if continues(self.conns.get(at), event, state, mini) {
                let conn = self.conns.get_mut(at);
                let was = conn.state;
                conn.estimated = false;
                conn.tuple = merge(conn.tuple, event.tuple);
                if plain(was) != plain(state) {
                    self.correct(at, Some(was), state, event.time_ns, out);
                }
                return;
            }
            self.lose(at, event.time_ns, out);
        }
        let at = self.add_existing(event, state, mini, None, who);
        self.correct(at, None, state, event.time_ns, out);
    }

    /// The estimated mini-socket with these ends: it has another key there.
    fn find_estimate(&self, event: &Event, mini: bool) -> Option<usize> {
        if !mini || self.conns.find(event.sk).is_some() {
            return None;
        }
        self.conns.find(*self.waiting.estimated.get(&Ends::of(event))?)
    }

    /// The end of this connection was lost.
    pub(super) fn lose(&mut self, at: usize, time_ns: u64, out: Out<'_>) {
        // Another may have its key soon.
        self.waiting.endings.take(self.conns.get(at).sk);
        let was = self.conns.get(at).state;
        self.correct(at, Some(was), State::Close, time_ns, out);
        self.remove(at);
    }

    /// Reports that a connection is in another state than the stream had said.
    pub(super) fn correct(
        &mut self,
        at: usize,
        was: Option<State>,
        state: State,
        time_ns: u64,
        out: Out<'_>,
    ) {
        if self.conns.get(at).unborn {
            // What waits comes first.
            let sk = self.conns.get(at).sk;
            for it in take(&mut self.waiting.births, |it| it.sk == sk) {
                self.finish_birth(it, out);
            }
        }
        let wall_ns = self.wall(time_ns);
        self.watchdog.unwatch(&mut self.conns, at, state, (time_ns, wall_ns));
        let conn = self.conns.get_mut(at);
        conn.state = state;
        conn.since_ns = time_ns;
        conn.since = Since::AtLeast;
        out(Update::Record(Record::Resync(Resync { time_ns: wall_ns, conn: conn.connection(), was, state })));
        self.watchdog.watch(&mut self.conns, at);
    }

    /// Connections that were there before the look and are not in it.
    fn unseen(&self, shown: &Shown<'_>) -> Vec<Doubt> {
        let seen: HashSet<u64> = shown.sockets.iter().map(|event| event.sk).collect();
        let gone = |conn: &&Conn| {
            if conn.since_ns >= shown.began_ns || conn.estimated || seen.contains(&conn.sk) {
                return false;
            }
            let entered = conn.subject.netns.is_some_and(|netns| shown.namespaces.contains(&netns));
            let free = shown.held.is_some_and(|held| !held.contains(&conn.sk));
            let old = shown.began_ns - conn.since_ns > LONG_NS;
            entered || (free && old)
        };
        let doubt = |conn: &Conn| Doubt { sk: conn.sk, known: Some((conn.id, conn.state)), shown: None };
        self.conns.iter().filter(gone).map(doubt).collect()
    }
}

/// Whether what the kernel shows may be `conn`. Mini-sockets and full ones never take each other's memory.
fn continues(conn: &Conn, event: &Event, state: State, mini: bool) -> bool {
    conn.mini == mini && is_same(conn, event, state)
}
