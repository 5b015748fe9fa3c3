//! Applies the filter to records. A transition that the filter cannot decide yet waits for one that has the missing port or
//! address.

mod follow;
mod followed;

use std::collections::HashMap;

use follow::Follower;
use followed::Followed;
use rustc_hash::FxBuildHasher;

use crate::{
    filter::{Filter, Verdict},
    model::{
        ConnId, Connection, Lifespan, NamedNetns, Record, Reset, Resync, Role, Snapshot, SocketEntry,
        SocketInfo, SocketReport, State, Stuck, Subject, Transition, Tuple,
    },
};

/// Most transitions of one connection that wait for its ends. The kernel makes one or two, but a forged recording may have any
/// number.
const MOST_OF_ONE: usize = 16;

/// The filter, and the transitions that wait for its decision.
pub struct Router {
    filter: Filter,
    /// One of this many connections is wanted.
    sample: u64,
    /// The filter compares addresses or ports, which are the only values that may not be known yet.
    asks_ends: bool,
    takes_all: bool,
    /// The filter by process.
    follower: Option<Follower>,
    /// Connections in the namespace with the filter's name, as of their first record.
    named: Followed,
    waiting: HashMap<ConnId, Vec<Transition>, FxBuildHasher>,
}

impl Router {
    #[must_use]
    pub fn new(filter: Filter) -> Self {
        let asks_ends = !filter.ends.is_empty();
        let takes_all = filter == Filter::default();
        let follower = Follower::of(&filter.processes);
        Self {
            filter,
            sample: 1,
            asks_ends,
            takes_all,
            follower,
            named: Followed::default(),
            waiting: HashMap::default(),
        }
    }

    /// Of transitions and connections, takes those of one of `sample` connections.
    #[must_use]
    pub fn sampled(self, sample: u64) -> Self {
        Self { sample, takes_all: self.takes_all && sample <= 1, ..self }
    }

    /// Number of connections with waiting transitions.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether transitions of `conn` wait.
    #[must_use]
    pub fn is_waiting(&self, conn: ConnId) -> bool {
        self.waiting.contains_key(&conn)
    }

    /// Calls `emit` for each record that is wanted, waiting transitions of the connection first. Records without a connection are
    /// always wanted.
    pub fn route(&mut self, record: &Record, mut emit: impl FnMut(&Record)) {
        match record {
            _ if self.takes_all => emit(record),
            Record::Transition(_) => self.transition(record, &mut emit),
            _ if self.wants(record) => emit(record),
            _ => {}
        }
    }

    fn transition(&mut self, record: &Record, emit: &mut impl FnMut(&Record)) {
        let Record::Transition(transition) = record else { return };
        let conn = &transition.conn;
        self.follow_name(transition);
        if !self.asks_ends && self.sample <= 1 {
            return self.pass(record, emit);
        }
        match self.sampled_ends(&conn.tuple, conn.role, transition.from, transition.to) {
            Verdict::Open => {
                if self.wants_place(conn, transition.time_ns) {
                    let list = self.waiting.entry(conn.id).or_default();
                    if list.len() < MOST_OF_ONE {
                        list.push(transition.clone());
                    }
                }
            }
            Verdict::No => {
                self.waiting.remove(&conn.id);
                if let Some(follower) = &mut self.follower {
                    follower.forget(conn.id);
                }
            }
            Verdict::Yes => {
                self.release(conn.id, &conn.tuple, emit);
                self.pass(record, emit);
            }
        }
    }

    /// The tuple of a connection is complete: decides its waiting transitions.
    pub fn completed(&mut self, conn: ConnId, tuple: &Tuple, mut emit: impl FnMut(&Record)) {
        if !self.waiting.contains_key(&conn) {
            return;
        }
        if self.sampled_ends(tuple, Some(Role::Client), State::SynSent, State::SynSent) == Verdict::Yes {
            self.release(conn, tuple, &mut emit);
        } else {
            self.waiting.remove(&conn);
        }
    }

    /// Whether the filter in the kernel hides all further transitions of a connection with these ends.
    #[must_use]
    pub fn hides(&self, tuple: &Tuple) -> bool {
        self.asks_ends && self.filter.hides(tuple)
    }

    /// Whether `record`, which is not a transition, is wanted.
    #[must_use]
    pub fn wants(&mut self, record: &Record) -> bool {
        if let Record::Reset(reset) = record {
            return self.wants_reset(reset);
        }
        let Some(conn) = record.conn() else { return true };
        let ends = matches!(record, Record::Resync(Resync { state: State::Close, .. }));
        // The record of a connection comes after the record of its end.
        let follows = !matches!(record, Record::Connection(_));
        if ends {
            self.waiting.remove(&conn.id);
        }
        let wanted = self.wants_state(record)
            && (self.wants_process(conn) || matches!(record, Record::Stuck(stuck) if self.is_held(stuck)));
        if let Some(follower) = &mut self.follower {
            if wanted && follows {
                follower.follow(conn.id);
            }
            if ends {
                follower.ended(conn.id);
            }
        }
        if wanted && follows && self.filter.place.named_netns.is_some() {
            self.named.add(conn.id);
            if ends {
                self.named.ended(conn.id);
            }
        }
        wanted
    }

    /// Whether the ends and the namespace of a reset are wanted. It has no process and no state. A number of resets has no ends.
    fn wants_reset(&self, reset: &Reset) -> bool {
        let Some(answered) = &reset.answered else { return true };
        let (owner, cgroup, container, pod, unit) = (None, None, None, None, None);
        let subject = Subject { id: 0, owner, netns: answered.netns, cgroup, container, pod, unit };
        self.filter.states.is_empty()
            && self.filter.processes.is_empty()
            && self.filter.place.wants(&subject, reset.time_ns, false)
            && self.filter.workloads.wants(&subject)
            && self.ends(&answered.tuple, None, State::Close, State::Close) == Verdict::Yes
    }

    /// Whether a socket of the snapshot is wanted.
    #[must_use]
    pub fn wants_snapshot(&self, snapshot: &Snapshot) -> bool {
        let Snapshot { time_ns, conn, state } = snapshot;
        self.wants_process(conn) && self.wants_at(conn, *time_ns, (Some(*state), *state))
    }

    /// Whether the ends of a socket in a look are wanted, or may be.
    #[must_use]
    pub fn wants_socket(&self, socket: &SocketInfo) -> bool {
        self.ends(&socket.tuple, None, socket.state, socket.state) != Verdict::No
    }

    /// Whether a socket in a look is wanted, by its ends and its holders.
    #[must_use]
    pub fn wants_report(&self, report: &SocketReport) -> bool {
        let holders =
            || report.holders.iter().map(|holder| (holder.process.pid, holder.process.comm.as_str()));
        self.wants_socket(&report.socket) && self.filter.processes.are_met_by(holders)
    }

    /// Whether the reason of this stuck connection is to be found: the filter takes its state and ends, and a wanted process may
    /// hold it.
    #[must_use]
    pub fn may_want_stuck(&self, stuck: &Stuck) -> bool {
        self.wants_at(&stuck.conn, stuck.time_ns, (Some(stuck.state), stuck.state))
    }

    /// Whether a process that the filter names holds the connection.
    fn is_held(&self, stuck: &Stuck) -> bool {
        let Some(follower) = &self.follower else { return false };
        let mut holders = stuck.found.iter().flat_map(|found| &found.0.holders);
        holders.any(|holder| follower.names_process(holder.process.pid, &holder.process.comm))
    }

    /// Compares place, ends and states. For a record of one state, `from` and `to` both mean that state; for a correction, `from`
    /// means the state in the stream, and `to` the real state.
    fn wants_state(&self, record: &Record) -> bool {
        match record {
            Record::Snapshot(Snapshot { time_ns, conn, state }) => {
                self.wants_at(conn, *time_ns, (Some(*state), *state))
            }
            Record::Stuck(stuck) => self.may_want_stuck(stuck),
            Record::Resolved(resolved) => {
                self.wants_at(&resolved.conn, resolved.time_ns, (Some(resolved.state), resolved.state))
            }
            Record::Resync(resync) => self.wants_at(&resync.conn, resync.time_ns, (resync.was, resync.state)),
            Record::Connection(lifespan) => self.wants_lifespan(lifespan),
            Record::Transition(_)
            | Record::Start(_)
            | Record::Aggregate(_)
            | Record::Reset(_)
            | Record::Lost(_)
            | Record::Stop(_) => true,
        }
    }

    /// Whether a wanted change of state is in the path of a connection that has ended.
    fn wants_lifespan(&self, lifespan: &Lifespan) -> bool {
        let Lifespan { conn, time_ns, .. } = lifespan;
        let states = self.filter.states;
        (states.is_empty() || lifespan.changes().any(|(from, to)| states.wants(from, to)))
            && self.wants_place(conn, *time_ns)
            && self.sampled_ends(&conn.tuple, conn.role, State::Close, State::Close) == Verdict::Yes
    }

    fn wants_at(&self, conn: &Connection, time_ns: i64, (was, state): (Option<State>, State)) -> bool {
        self.filter.states.wants(was, state)
            && self.wants_place(conn, time_ns)
            // The kernel may hide the later transitions of a connect whose port is not known, so its state is not reported.
            && self.ends(&conn.tuple, conn.role, state, state) == Verdict::Yes
    }

    fn release(&mut self, conn: ConnId, tuple: &Tuple, emit: &mut impl FnMut(&Record)) {
        for mut transition in self.waiting.remove(&conn).into_iter().flatten() {
            transition.conn.tuple = *tuple;
            self.pass(&Record::Transition(transition), emit);
        }
    }

    /// Compares place, process and states of a transition whose ends are wanted.
    fn pass(&mut self, record: &Record, emit: &mut impl FnMut(&Record)) {
        let Record::Transition(transition) = record else { return };
        if !self.wants_place(&transition.conn, transition.time_ns) {
            return;
        }
        let states = self.filter.states;
        let mut emit = |record: &Record| {
            let Record::Transition(Transition { from, to, .. }) = record else { return };
            if states.wants(Some(*from), *to) {
                emit(record);
            }
        };
        match &mut self.follower {
            Some(follower) => follower.take(record, &mut emit),
            None => emit(record),
        }
    }

    /// Whether a socket in a look was made in a wanted cgroup, pod and container, or a process in them holds it.
    #[must_use]
    pub fn wants_entry(&self, entry: &SocketEntry) -> bool {
        self.filter.place.wants_entry(entry) && self.filter.workloads.wants_entry(entry)
    }

    /// The namespace that the filter names by its path.
    #[must_use]
    pub fn named_netns(&self) -> Option<&NamedNetns> {
        self.filter.place.named_netns.as_deref()
    }

    fn wants_place(&self, conn: &Connection, time_ns: i64) -> bool {
        let is_in_place = self.filter.place.wants(&conn.subject, time_ns, self.named.contains(conn.id));
        is_in_place && self.filter.workloads.wants(&conn.subject)
    }

    /// Remembers the connections of the named namespace, which may be gone before a connection ends.
    fn follow_name(&mut self, transition: &Transition) {
        let conn = &transition.conn;
        if self.filter.place.is_named(&conn.subject, transition.time_ns) {
            self.named.add(conn.id);
        }
        if transition.to == State::Close && self.named.contains(conn.id) {
            self.named.ended(conn.id);
        }
    }

    /// Whether a connection belongs to a wanted process.
    fn wants_process(&self, conn: &Connection) -> bool {
        self.follower.as_ref().is_none_or(|follower| follower.wants(conn))
    }

    /// Compares addresses and ports.
    fn ends(&self, tuple: &Tuple, role: Option<Role>, from: State, to: State) -> Verdict {
        let (all_open, local_open) = open_ends(tuple, role, from, to);
        if all_open {
            return if self.asks_ends { Verdict::Open } else { Verdict::Yes };
        }
        self.filter.ends.verdict(tuple, local_open)
    }

    /// The same, of a connection that also has to be in the sample.
    fn sampled_ends(&self, tuple: &Tuple, role: Option<Role>, from: State, to: State) -> Verdict {
        match self.ends(tuple, role, from, to) {
            Verdict::Yes if self.sample > 1 => {
                let (all_open, local_open) = open_ends(tuple, role, from, to);
                if all_open || local_open {
                    Verdict::Open
                } else if tuple.is_in_sample(self.sample) {
                    Verdict::Yes
                } else {
                    Verdict::No
                }
            }
            verdict => verdict,
        }
    }
}

/// Whether the ends are not known yet: all, and the local port. The first transition of a connect comes before its port is bound,
/// and up to 6.12 an accepted connection's before its tuple is filled in.
fn open_ends(tuple: &Tuple, role: Option<Role>, from: State, to: State) -> (bool, bool) {
    let all_open = role == Some(Role::Server) && from == State::Listen && tuple.remote_port == 0;
    (all_open, tuple.local_port == 0 && to != State::Close)
}
