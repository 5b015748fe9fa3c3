//! Converts events to transitions. A connection has one identity from its first SYN to the end of its TIME_WAIT, through all
//! kernel objects that represent it: a request socket, its child, the full socket, a timewait socket.

mod beginning;
mod closing;
mod corrections;
mod living;
mod requests;
mod timewaits;

use std::{
    collections::{HashMap, HashSet},
    rc::Rc,
};

pub use living::Living;

use super::{
    cause,
    closed::Closed,
    conns::{Conn, Conns, Since},
    identity::{Endpoints, complete, is_same, merge},
    kernel_tables::{Difference, KernelTables},
    lifespans::Lifespans,
    mini_sockets::MiniSockets,
    owners::{self, FoundOwner, Owners, is_same_process, is_up_to_date},
    pending::Pending,
    resets::{PATIENCE_NS, Sent},
    saved::SavedTable,
    totals,
    walk::WalkNotes,
    watchdog::Watchdog,
};
use crate::{
    knowledge,
    model::{
        Cause, ConnId, Connection, Event, EventKind, Identify, MetricLabels, OwnerKey, OwnerSource, Record,
        Resync, Role, Snapshot, SocketInfo, SocketTotals, State, SubjectKey, Task, Thresholds, Transition,
        Tuple,
    },
};

/// A result of an event.
#[derive(Clone, Debug, PartialEq)]
pub enum Update {
    /// A transition, a correction, the end of a connection, or the beginning or end of being stuck.
    Record(Record),
    /// All addresses and ports of a connection are known now.
    Completed(ConnId, Tuple),
}

/// What the hooks can show.
#[derive(Clone, Debug, Default)]
pub struct Visibility {
    /// Mini-sockets are shown as they are.
    pub minis: bool,
    /// If mini-sockets are not shown, the table reports their probable transitions (the tier `estimate`).
    pub estimates: bool,
    /// Resets that are sent are shown.
    pub resets: bool,
    /// The running kernel's names of `enum sk_rst_reason`, without their prefix.
    pub reset_reasons: Vec<&'static str>,
}

/// The connection table. Each event goes to the method for its kind; the objects below keep what is known.
pub struct Table {
    conns: Conns,
    mini_sockets: MiniSockets,
    pending: Pending,
    walk: WalkNotes,
    owners: Owners,
    watchdog: Watchdog,
    /// `None` unless a stream has records of whole connections.
    lifespans: Option<Lifespans>,
    visibility: Visibility,
    closed: Closed,
    last_id: u64,
    offset_ns: i64,
    illegal: u64,
    /// The results of the last event.
    updates: Vec<Update>,
}

/// Receives the results.
type Out<'a> = &'a mut dyn FnMut(Update);

impl Table {
    /// An empty table, whose ids begin with `instance`. `offset_ns` is the wall clock minus `CLOCK_MONOTONIC`.
    #[must_use]
    pub fn new(instance: u32, offset_ns: i64, visibility: Visibility) -> Self {
        Self {
            conns: Conns::default(),
            mini_sockets: MiniSockets::default(),
            pending: Pending::default(),
            walk: WalkNotes::default(),
            owners: Owners::default(),
            watchdog: Watchdog::new(None),
            lifespans: None,
            visibility,
            closed: Closed::default(),
            last_id: u64::from(instance) << 40,
            offset_ns,
            illegal: 0,
            updates: Vec::new(),
        }
    }

    /// Reports from now on which connections stay in a state for longer than this.
    pub fn set_thresholds(&mut self, thresholds: Thresholds) {
        self.watchdog = Watchdog::new(Some(thresholds));
    }

    /// When [`Table::tick`] has to report what is stuck, `CLOCK_MONOTONIC` ns.
    #[must_use]
    pub fn next_due_ns(&self) -> Option<u64> {
        self.watchdog.next_due_ns()
    }

    /// Whether some connections that were stuck at the beginning may not have been reported yet.
    #[must_use]
    pub fn is_beginning(&self) -> bool {
        self.watchdog.is_beginning()
    }

    /// Sockets that are older than the tracer get their ages at `now_ns` from the kernel's own clocks, and are watched from now on.
    pub fn backdate<'a>(&mut self, now_ns: u64, sockets: impl Iterator<Item = (&'a SocketInfo, u64)>) {
        self.watchdog.backdate(&mut self.conns, now_ns, sockets);
    }

    /// The wall clock was set, or slewed.
    pub fn set_offset(&mut self, offset_ns: i64) {
        self.offset_ns = offset_ns;
    }

    /// How many sockets the table has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.conns.len()
    }

    /// Whether the table has no sockets.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.conns.len() == 0
    }

    /// How many transitions were seen that TCP does not make.
    #[must_use]
    pub fn illegal(&self) -> u64 {
        self.illegal
    }

    /// The connection that the kernel's socket `sk` is now.
    #[must_use]
    pub fn conn(&self, sk: u64) -> Option<ConnId> {
        self.conns.find(sk).map(|at| self.conns.get(at).id)
    }

    /// Whether something waits for [`Table::tick`].
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.pending.is_idle()
    }

    /// How many transitions wait for [`Table::tick`], at most.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.pending.len()
    }

    /// The last id that a connection was given.
    #[must_use]
    pub fn last_id(&self) -> u64 {
        self.last_id
    }

    /// All sockets, as records of a snapshot; without those whose first transition is still to be reported.
    pub fn snapshot(&self) -> impl Iterator<Item = Snapshot> + '_ {
        self.conns.iter().filter(|conn| !conn.awaits_endpoints).map(|conn| self.snapshot_of(conn))
    }

    /// The totals of the `wanted` sockets for metrics, with at most `leakers` names of processes.
    #[must_use]
    pub fn totals(
        &self,
        labels: &MetricLabels,
        leakers: usize,
        wanted: impl Fn(&Snapshot) -> bool,
    ) -> SocketTotals {
        totals::totals(&self.conns, labels, leakers, |conn| wanted(&self.snapshot_of(conn)))
    }

    fn snapshot_of(&self, conn: &Conn) -> Snapshot {
        Snapshot { time_ns: self.wall(conn.since_ns), conn: conn.connection(), state: conn.state }
    }

    /// The part of the table that the next process needs.
    #[must_use]
    pub fn save(&self) -> SavedTable {
        SavedTable::save(&self.conns, self.lifespans.as_ref(), self.last_id)
    }

    /// Goes on with the connections of `saved`; the table must be empty. Ids go on after those in `saved`, and after `last_id`: some may
    /// have been given since. If the earlier process was killed, `saved` is not complete: the process may have reported the ends of some
    /// connections after it had saved the table.
    pub fn restore(
        &mut self,
        saved: &SavedTable,
        last_id: u64,
        is_complete: bool,
        identities: &mut dyn Identify,
    ) {
        self.last_id = saved.last_id().max(last_id);
        for (conn, life) in saved.restore(identities) {
            if let Some(life) = life {
                self.lifespans.get_or_insert_default().put(conn.id, life);
            }
            if conn.mini && conn.state == State::NewSynRecv {
                self.mini_sockets.add_request(Endpoints::of_conn(&conn), conn.sk);
            }
            self.conns.add(conn);
        }
        if let Some(lifespans) = self.lifespans.as_mut().filter(|_| !is_complete) {
            lifespans.doubt_all();
        }
    }

    /// The owners of all listeners, each once.
    #[must_use]
    pub fn listeners_owners(&self) -> Vec<Rc<Task>> {
        self.owners.of_listeners(&self.conns)
    }

    /// A process has ended. The sockets that it had not closed, and the connections that come out of its listeners from now on, have
    /// another owner.
    pub fn process_ended(&mut self, task: &Task, now_ns: u64) {
        self.owners.process_ended(&self.conns, task, now_ns);
    }

    /// A search through the descriptors of all processes has shown the owners of these connections.
    pub fn set_found_owners(&mut self, found: &HashMap<ConnId, FoundOwner>, now_ns: u64) {
        self.owners.set_found(&mut self.conns, found, now_ns);
    }

    /// Whether this process owns listeners, and none on this port.
    #[must_use]
    pub fn listens_elsewhere(&self, owner: &Task, port: u16) -> bool {
        owners::listens_elsewhere(&self.conns, owner, port)
    }

    /// When the next search for the holders of a socket is due, `CLOCK_MONOTONIC` ns.
    #[must_use]
    pub fn next_search_ns(&self) -> Option<u64> {
        self.owners.next_search_ns()
    }

    /// The sockets whose holders are to be searched for now.
    pub fn due_searches(&mut self, now_ns: u64) -> Vec<u64> {
        self.owners.due_searches(&self.conns, now_ns)
    }

    /// The answer to a search: `holding` are the processes that hold each of `sockets`. Returns the new owners of listeners.
    pub fn found_holders(
        &mut self,
        sockets: &[u64],
        holding: &HashMap<u64, Vec<Task>>,
        now_ns: u64,
        identities: &mut dyn Identify,
    ) -> Vec<Rc<Task>> {
        self.owners.found_holders(&mut self.conns, sockets, holding, now_ns, identities)
    }

    /// The differences between the table and the kernel's tables.
    #[must_use]
    pub fn differences(&self, kernel: &KernelTables<'_>) -> HashSet<Difference> {
        kernel.differences(&self.conns, &self.mini_sockets, &self.pending)
    }

    /// Applies one event. Returns what came of it.
    pub fn apply(&mut self, event: &Event, identities: &mut dyn Identify) -> &[Update] {
        self.updates.clear();
        match &event.kind {
            EventKind::Transition { from, to, maybe_copy, .. } => {
                if !*maybe_copy || !self.is_copy(event.sk, *from, *to) {
                    self.transition(event, identities);
                }
            }
            EventKind::PortKnown => self.port_known(event),
            EventKind::Socket { state, mini } => self.seen(event, *state, *mini, None, identities),
            EventKind::Held { state, task, .. } => self.seen(event, *state, false, Some(task), identities),
            EventKind::Mini { state: State::NewSynRecv, from, again } => {
                self.request(event, *from, *again, identities);
            }
            EventKind::Mini { state, from, .. } => self.timewait(event, *state, *from),
            EventKind::MiniEnd(end) => self.mini_ends(event, *end),
            EventKind::Cookie => self.pending.note_cookie(event),
            EventKind::ResetReceived(state) => self.reset_received(event, *state),
            EventKind::Process { task, ended: true } => self.process_ended(task, event.time_ns),
            EventKind::Process { task, ended: false } => {
                self.owners.process_renewed(&mut self.conns, task, event.time_ns, identities);
            }
            // `Opened` and `Reset` go elsewhere before they get here, and only a look asks for `OfKernel`.
            EventKind::Opened(_) | EventKind::Reset { .. } | EventKind::OfKernel { .. } => {}
            EventKind::ResetSent { state, reason, linger_0 } => {
                self.reset_sent(event, *state, Sent { reason: *reason, linger_0: *linger_0 });
            }
        }
        &self.updates
    }

    /// All events up to `now_ns` (`CLOCK_MONOTONIC`) were applied: what has waited long enough is decided without evidence.
    /// That can be very much at once, so each update goes to `out`, and none is kept.
    pub fn tick(&mut self, now_ns: u64, identities: &mut dyn Identify, out: Out<'_>) {
        self.updates.clear();
        if !self.pending.is_idle() {
            let until_ns = now_ns.saturating_sub(PATIENCE_NS);
            for closing in self.pending.take_old_closings(until_ns) {
                self.finish_closing(closing, None);
                self.hand_out(out);
            }
            for timewait in self.pending.take_old_timewaits(until_ns) {
                self.begin_with_timewait(timewait, identities);
                self.hand_out(out);
            }
            while let Some(ending) = self.pending.take_old_ending(until_ns) {
                self.finish_ending(&ending, ending.cause);
                self.hand_out(out);
            }
            for child in self.pending.take_old_children(until_ns) {
                self.report_delayed_child(child);
                self.hand_out(out);
            }
            self.pending.forget_evidence(until_ns);
        }
        while let Some((until_ns, key)) = self.mini_sockets.take_expired(now_ns) {
            if let Some(at) = self.conns.find(key) {
                self.end_mini(at, until_ns, Some(Cause::Expired));
                self.hand_out(out);
            }
        }
        let times = (now_ns, self.wall(now_ns));
        self.watchdog.report_due(&mut self.conns, times, |record| out(Update::Record(record)));
    }

    fn hand_out(&mut self, out: Out<'_>) {
        self.updates.drain(..).for_each(out);
    }

    fn wall(&self, monotonic_ns: u64) -> i64 {
        i64::try_from(monotonic_ns).unwrap_or(i64::MAX).saturating_add(self.offset_ns)
    }

    /// Adds the socket of an event, which was not known.
    fn add(
        &mut self,
        event: &Event,
        state: State,
        role: Option<Role>,
        since: Since,
        key: SubjectKey,
        identities: &mut dyn Identify,
    ) -> usize {
        self.last_id += 1;
        let conn = Conn::new(event.sk, ConnId(self.last_id), identities.identify(key), event.tuple, state);
        let peer = identities.peer(event.tuple.remote);
        self.conns.add(Conn { since_ns: event.time_ns, role, since, peer, ..conn })
    }

    /// The companion program's record of a transition that was already applied: a socket never makes the same one twice.
    fn is_copy(&self, sk: u64, from: State, to: State) -> bool {
        match self.conns.find(sk) {
            Some(at) => self.conns.get(at).state == to && to != State::Close,
            None => to == State::Close && self.closed.came_from(sk, from),
        }
    }

    fn report(&mut self, record: Record) {
        let ended = self.lifespans.as_mut().and_then(|lifespans| lifespans.note(&record));
        self.updates.push(Update::Record(record));
        self.updates.extend(ended.map(Update::Record));
    }

    /// The connection at `at` goes to `to`, and the transition is reported.
    fn change_and_report(&mut self, at: usize, to: State, time_ns: u64, details: Details) {
        let transition = self.change_state(at, to, time_ns, details);
        self.report(Record::Transition(transition));
    }

    /// The connection at `at` goes to `to`. Returns the record of the transition.
    fn change_state(&mut self, at: usize, to: State, time_ns: u64, details: Details) -> Transition {
        let wall_ns = self.wall(time_ns);
        self.watchdog.note_resolved(&mut self.conns, at, to, (time_ns, wall_ns));
        let conn = self.conns.get_mut(at);
        let from = details.from.unwrap_or(conn.state);
        let illegal = !knowledge::is_legal(from, to);
        self.illegal += u64::from(illegal);
        let transition = Transition {
            time_ns: wall_ns,
            conn: Connection { mini: details.mini, ..conn.connection() },
            from,
            to,
            in_state: conn.in_state(from, time_ns),
            exact: details.exact && !conn.estimated,
            illegal,
            cause: details.cause,
            reset_why: None,
            errno: details.errno,
            traffic: matches!(to, State::Close | State::TimeWait).then(|| conn.traffic.take()).flatten(),
        };
        conn.state = to;
        conn.since_ns = time_ns;
        conn.since = Since::Exact;
        self.watchdog.watch(&mut self.conns, at);
        transition
    }

    fn transition(&mut self, event: &Event, identities: &mut dyn Identify) {
        let EventKind::Transition { from, to, ref task, listener, closed_as, ref traffic, .. } = event.kind
        else {
            return;
        };
        if from == State::Listen && to == State::SynRecv {
            return self.child(event, listener, identities);
        }
        if from == State::SynSent && to == State::Established {
            self.end_previous(&Endpoints::of(event));
        }
        let at = if from == State::Close {
            self.begin(event, from, role_of(to), task.as_ref(), listener, identities)
        } else {
            self.known(event, from, task.as_ref(), identities)
        };
        if to == State::Close {
            self.conns.get_mut(at).traffic.clone_from(traffic);
            return self.closed(at, event, from, closed_as);
        }
        // `errno` stays 0: only `-> CLOSE` is caused by an error. One that the socket has now is left over from earlier.
        let details = Details { from: Some(from), cause: cause::step_cause(from, to), ..Details::EXACT };
        self.change_and_report(at, to, event.time_ns, details);
    }

    /// The address `sk` is used again: what waits for the previous socket is decided, and that socket is removed.
    fn clear(&mut self, sk: u64, time_ns: u64) {
        if !self.pending.is_idle() {
            for closing in self.pending.take_closings(sk) {
                self.finish_closing(closing, None);
            }
            if let Some(ending) = self.pending.take_ending(sk) {
                self.finish_ending(&ending, ending.cause);
            }
            for child in self.pending.take_children(sk) {
                self.report_delayed_child(child);
            }
        }
        if let Some(at) = self.conns.find(sk) {
            self.report_lost_end(at, time_ns);
        }
        self.closed.forget(sk);
    }

    /// Another kernel object, at the address `sk`, continues the connection at `at`.
    fn rekey(&mut self, at: usize, sk: u64) {
        self.walk.note_ended(self.conns.get(at).sk);
        self.conns.rekey(at, sk);
    }

    /// Removes the connection at `at`, with its entries in the indexes.
    fn remove(&mut self, at: usize) {
        let conn = self.conns.remove(at);
        self.walk.note_ended(conn.sk);
        self.owners.forget(conn.sk);
        if conn.mini {
            self.mini_sockets.forget(&Endpoints::of_conn(&conn), conn.sk);
        }
    }

    /// The end of the connection at `at` was lost.
    fn report_lost_end(&mut self, at: usize, time_ns: u64) {
        // Another socket may have its address soon.
        self.pending.take_ending(self.conns.get(at).sk);
        let was = self.conns.get(at).state;
        self.correct(at, Some(was), State::Close, time_ns);
        self.remove(at);
    }

    /// Reports that the connection at `at` is in another state than the stream said.
    fn correct(&mut self, at: usize, was: Option<State>, state: State, time_ns: u64) {
        if self.conns.get(at).awaits_endpoints {
            // The record that waits comes first.
            let sk = self.conns.get(at).sk;
            for child in self.pending.take_children(sk) {
                self.report_delayed_child(child);
            }
        }
        let wall_ns = self.wall(time_ns);
        self.watchdog.note_resolved(&mut self.conns, at, state, (time_ns, wall_ns));
        let conn = self.conns.get_mut(at);
        conn.state = state;
        conn.since_ns = time_ns;
        conn.since = Since::AtLeast;
        let resync = Resync { time_ns: wall_ns, conn: conn.connection(), was, state };
        self.report(Record::Resync(resync));
        self.watchdog.watch(&mut self.conns, at);
    }

    /// The connection of an event that is not its first one, brought up to date. A new one where the beginning was missed.
    fn known(
        &mut self,
        event: &Event,
        from: State,
        task: Option<&Task>,
        identities: &mut dyn Identify,
    ) -> usize {
        let mut at = match self.conns.find(event.sk) {
            Some(at) if is_same(self.conns.get(at), event, from) => at,
            found => {
                if let Some(at) = found {
                    // The end of this connection and the beginning of the next socket at this address were lost.
                    self.report_lost_end(at, event.time_ns);
                }
                let role = (from == State::Listen).then_some(Role::Listener);
                self.add(event, from, role, Since::Unknown, key(event, None), identities)
            }
        };
        let conn = self.conns.get_mut(at);
        complete(conn, event.tuple, identities);
        if conn.awaits_endpoints {
            at = self.resolve_child(at, event, identities);
        }
        if let Some(task) = task {
            self.set_closer(at, event, task, identities);
        }
        at
    }

    /// The process `task` closes the connection at `at`. If that is not its known owner, `task` owns the connection now.
    fn set_closer(&mut self, at: usize, event: &Event, task: &Task, identities: &mut dyn Identify) {
        let conn = self.conns.get(at);
        let owner = conn.subject.owner.as_ref();
        if owner.is_some_and(|owner| is_up_to_date(owner, task)) {
            return;
        }
        // The known owner may run another program since.
        let known = owner.filter(|owner| is_same_process(&owner.task, task));
        let source = known.map_or(OwnerSource::Close, |owner| owner.source);
        let other = owner.filter(|owner| known.is_none() && owner.source == OwnerSource::Inherited);
        let (other, port) = (other.map(|owner| Rc::clone(&owner.task)), conn.tuple.local_port);
        let owner = OwnerKey { task: Rc::new(task.clone()), source };
        self.conns.set_subject(at, identities.identify(key(event, Some(owner))));
        if let Some(other) = other {
            self.owners.question_listeners(&self.conns, &other, port, event.time_ns);
        }
    }
}

/// The values of a transition's record that are not stored with the connection.
#[derive(Clone, Copy)]
struct Details {
    /// The previous state, where the kernel has shown it.
    from: Option<State>,
    cause: Option<Cause>,
    errno: u16,
    exact: bool,
    mini: bool,
}

impl Details {
    const EXACT: Self = Self { from: None, cause: None, errno: 0, exact: true, mini: false };
}

fn role_of(first: State) -> Option<Role> {
    match first {
        State::SynSent => Some(Role::Client),
        State::Listen => Some(Role::Listener),
        _ => None,
    }
}

fn key(event: &Event, owner: Option<OwnerKey>) -> SubjectKey {
    SubjectKey { owner, uid: event.uid, netns: event.netns, cgroup: event.cgroup }
}
