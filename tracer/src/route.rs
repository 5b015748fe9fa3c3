//! Which transitions go out. What cannot be decided yet waits for the transition that tells.

mod follow;
mod followed;

use std::collections::HashMap;

use follow::Follower;
use followed::Followed;
use ipnet::IpNet;
use rustc_hash::FxBuildHasher;

use crate::model::{
    Address, Cgroup, ConnId, Connection, Examined, Filter, Looked, NamedNetns, Record, Resync, Role,
    Snapshot, SocketInfo, State, Stuck, Subject, Transition, Tuple,
};

/// Transitions of one connection whose ends are not known: the kernel makes one or two, a forged recording any number.
const MOST_OF_ONE: usize = 16;

/// What a filter says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Yes,
    No,
    /// Something it asks for is not known yet.
    Open,
}

impl Verdict {
    fn of(wanted: bool) -> Self {
        if wanted { Self::Yes } else { Self::No }
    }

    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::Yes, Self::Yes) => Self::Yes,
            _ => Self::Open,
        }
    }
}

/// The filter, and what waits for its answer.
pub struct Router {
    filter: Filter,
    /// Only the address and port part can be open.
    asks_ends: bool,
    takes_all: bool,
    /// The filter by process.
    follower: Option<Follower>,
    /// Connections of the namespace that its name led to when they were seen first.
    of_name: Followed,
    waiting: HashMap<ConnId, Vec<Transition>, FxBuildHasher>,
}

impl Router {
    /// A router for `filter`.
    #[must_use]
    pub fn new(filter: Filter) -> Self {
        let asks_ends = filter.ip_version.is_some()
            || !filter.ports.is_empty()
            || !filter.local_ports.is_empty()
            || !filter.remote_ports.is_empty()
            || !filter.local.is_empty()
            || !filter.remote.is_empty();
        let takes_all = filter == Filter::default();
        let follower = Follower::of(&filter);
        Self {
            filter,
            asks_ends,
            takes_all,
            follower,
            of_name: Followed::default(),
            waiting: HashMap::default(),
        }
    }

    /// How many connections have transitions that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether transitions of `conn` wait.
    #[must_use]
    pub fn is_waiting(&self, conn: ConnId) -> bool {
        self.waiting.contains_key(&conn)
    }

    /// Hands to `emit` what is known to be wanted now, oldest first. Records of no connection are wanted.
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
        if !self.asks_ends {
            return self.pass(record, emit);
        }
        match self.ends(&conn.tuple, conn.role, transition.from, transition.to) {
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

    /// The tuple of a connection is complete: what waited for it can be decided.
    pub fn completed(&mut self, conn: ConnId, tuple: &Tuple, mut emit: impl FnMut(&Record)) {
        if !self.waiting.contains_key(&conn) {
            return;
        }
        if self.ends(tuple, Some(Role::Client), State::SynSent, State::SynSent) == Verdict::Yes {
            self.release(conn, tuple, &mut emit);
        } else {
            self.waiting.remove(&conn);
        }
    }

    /// Whether the kernel hides what a connection with these ends does from now on.
    #[must_use]
    pub fn hides(&self, tuple: &Tuple) -> bool {
        self.asks_ends && self.filter.hides(tuple)
    }

    /// Whether a record of a connection that is no transition is wanted, or one of no connection.
    #[must_use]
    pub fn wants(&mut self, record: &Record) -> bool {
        let Some(conn) = record.conn() else { return true };
        let ends = matches!(record, Record::Resync(Resync { state: State::Close, .. }));
        if ends {
            self.waiting.remove(&conn.id);
        }
        let wanted = self.wants_state(record)
            && (self.wants_process(conn) || matches!(record, Record::Stuck(stuck) if self.is_held(stuck)));
        if let Some(follower) = &mut self.follower {
            if wanted {
                follower.follow(conn.id);
            }
            if ends {
                follower.ended(conn.id);
            }
        }
        if wanted && self.filter.named_netns.is_some() {
            self.of_name.add(conn.id);
            if ends {
                self.of_name.ended(conn.id);
            }
        }
        wanted
    }

    /// Whether a socket of the snapshot is wanted.
    #[must_use]
    pub fn wants_snapshot(&self, snapshot: &Snapshot) -> bool {
        let Snapshot { time_ns, conn, state } = snapshot;
        self.wants_process(conn) && self.wants_at(conn, *time_ns, (Some(*state), *state))
    }

    /// Whether a socket of a look may be wanted, by its ends.
    #[must_use]
    pub fn wants_socket(&self, it: &SocketInfo) -> bool {
        self.ends(&it.tuple, None, it.state, it.state) != Verdict::No
    }

    /// Whether a socket of a look is wanted, by its ends and by those who have it open.
    #[must_use]
    pub fn wants_examined(&self, it: &Examined) -> bool {
        let filter = &self.filter;
        let holders = || it.holders.iter().map(|holder| &holder.process);
        self.wants_socket(&it.socket)
            && (filter.pids.is_empty() || holders().any(|process| filter.pids.contains(&process.pid)))
            && (filter.comms.is_empty() || holders().any(|process| filter.comms.contains(&process.comm)))
    }

    /// Whether it is wanted to know why this is stuck: one of those who have it open may be a wanted process.
    #[must_use]
    pub fn may_want_stuck(&self, stuck: &Stuck) -> bool {
        self.wants_at(&stuck.conn, stuck.time_ns, (Some(stuck.state), stuck.state))
    }

    /// Whether a process that is followed has it open.
    fn is_held(&self, stuck: &Stuck) -> bool {
        let Some(follower) = &self.follower else { return false };
        let mut holders = stuck.found.iter().flat_map(|found| &found.0.holders);
        holders.any(|holder| follower.is_meant(holder.process.pid, &holder.process.comm))
    }

    /// By place, ends and states. Filters on `from` and `to` both mean the state of a socket; of a correction `from` means what the
    /// stream had said, `to` what it is.
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
            Record::Transition(_)
            | Record::Start(_)
            | Record::Aggregate(_)
            | Record::Lost(_)
            | Record::Stop(_) => true,
        }
    }

    fn wants_at(&self, conn: &Connection, time_ns: i64, (was, state): (Option<State>, State)) -> bool {
        let filter = &self.filter;
        (filter.from.is_empty() || was.is_some_and(|was| filter.from.contains(was)))
            && (filter.to.is_empty() || filter.to.contains(state))
            && self.wants_place(conn, time_ns)
            // Of a connect whose port is not known the kernel may hide what follows: nothing is reported of how it stands.
            && self.ends(&conn.tuple, conn.role, state, state) == Verdict::Yes
    }

    fn release(&mut self, conn: ConnId, tuple: &Tuple, emit: &mut impl FnMut(&Record)) {
        for mut transition in self.waiting.remove(&conn).into_iter().flatten() {
            transition.conn.tuple = *tuple;
            self.pass(&Record::Transition(transition), emit);
        }
    }

    /// Behind the question of its ends: by place, process and states.
    fn pass(&mut self, record: &Record, emit: &mut impl FnMut(&Record)) {
        let Record::Transition(transition) = record else { return };
        if !self.wants_place(&transition.conn, transition.time_ns) {
            return;
        }
        let filter = &self.filter;
        let mut emit = |record: &Record| {
            let Record::Transition(Transition { from, to, .. }) = record else { return };
            if (filter.from.is_empty() || filter.from.contains(*from))
                && (filter.to.is_empty() || filter.to.contains(*to))
            {
                emit(record);
            }
        };
        match &mut self.follower {
            Some(follower) => follower.take(record, &mut emit),
            None => emit(record),
        }
    }

    /// Whether it runs in a wanted cgroup, by the path, which stays when the cgroup is made again.
    #[must_use]
    pub fn wants_cgroup(&self, whose: &Subject) -> bool {
        let Some(tree) = &self.filter.cgroup else { return true };
        // A cgroup without a path is gone, or nobody may ask for its path.
        let is_in = |it: &Cgroup| {
            it.path.as_deref().map_or(tree.id != 0 && it.id == tree.id, |path| tree.contains(path))
        };
        whose.cgroup.as_ref().is_some_and(is_in)
    }

    /// Whether a socket of a look was made in a wanted cgroup, or somebody in one has it open.
    #[must_use]
    pub fn wants_looked(&self, looked: &Looked) -> bool {
        let Some(tree) = &self.filter.cgroup else { return true };
        let mut paths = looked.it.holders.iter().filter_map(|holder| holder.process.cgroup.as_deref());
        self.wants_cgroup(&looked.subject) || paths.any(|path| tree.contains(path))
    }

    /// The path of the namespace that is followed.
    #[must_use]
    pub fn named_netns(&self) -> Option<&NamedNetns> {
        self.filter.named_netns.as_deref()
    }

    fn wants_place(&self, conn: &Connection, time_ns: i64) -> bool {
        let whose = &conn.subject;
        let of_name = |name: &NamedNetns| {
            self.of_name.contains(conn.id) || whose.netns.is_some_and(|inode| name.is(inode, time_ns))
        };
        (self.filter.netns.is_none() || self.filter.netns == whose.netns)
            && self.named_netns().is_none_or(of_name)
            && self.wants_cgroup(whose)
    }

    /// Keeps a connection by the namespace that it was seen in first: that may be gone before the connection is.
    fn follow_name(&mut self, transition: &Transition) {
        let Some(name) = &self.filter.named_netns else { return };
        let conn = &transition.conn;
        if conn.subject.netns.is_some_and(|inode| name.is(inode, transition.time_ns)) {
            self.of_name.add(conn.id);
        }
        if transition.to == State::Close && self.of_name.contains(conn.id) {
            self.of_name.ended(conn.id);
        }
    }

    /// Whether a connection is of a wanted process.
    fn wants_process(&self, conn: &Connection) -> bool {
        self.follower.as_ref().is_none_or(|follower| follower.is_theirs(conn))
    }

    /// Addresses and ports.
    fn ends(&self, tuple: &Tuple, role: Option<Role>, from: State, to: State) -> Verdict {
        let filter = &self.filter;
        // The first transition of a connect comes before its port is bound, and up to about 6.12 an accepted
        // connection's before its tuple is filled in.
        let local_open = tuple.local_port == 0 && to != State::Close;
        let all_open = role == Some(Role::Server) && from == State::Listen && tuple.remote_port == 0;
        if all_open {
            return if self.asks_ends { Verdict::Open } else { Verdict::Yes };
        }
        let local_port = |wanted: bool| if local_open { Verdict::Open } else { Verdict::of(wanted) };
        let mut verdict = Verdict::of(
            filter.ip_version.is_none_or(|version| (version == 4) == tuple.is_v4())
                && in_any(&filter.local, tuple.local)
                && in_any(&filter.remote, tuple.remote)
                && (filter.remote_ports.is_empty() || filter.remote_ports.contains(tuple.remote_port)),
        );
        if !filter.local_ports.is_empty() {
            verdict = verdict.and(local_port(filter.local_ports.contains(tuple.local_port)));
        }
        if !filter.ports.is_empty() && !filter.ports.contains(tuple.remote_port) {
            verdict = verdict.and(local_port(filter.ports.contains(tuple.local_port)));
        }
        verdict
    }
}

fn in_any(nets: &[IpNet], address: Address) -> bool {
    nets.is_empty() || nets.iter().any(|net| net.contains(&address.canonical()))
}
