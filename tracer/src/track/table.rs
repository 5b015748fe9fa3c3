//! Events -> transitions. A connection is one from its first SYN to the end of its TIME_WAIT, whatever the kernel
//! keeps it in: a request, its child, the full socket, a mini-socket in that one's place.

use std::{collections::VecDeque, rc::Rc};

use super::{
    cause,
    conns::{Conn, Conns, Since},
    listeners::{Listeners, is_same_process, is_up_to_date},
    resets::{PATIENCE_NS, Sent},
    same::{is_same, merge},
    wait::{Ends, Waiting, take},
    watchdog::Watchdog,
};
use crate::{
    knowledge,
    model::{
        Cause, ConnId, Connection, Event, EventKind, Identify, OwnerKey, OwnerSource, Record, Role,
        SocketInfo, State, SubjectKey, Task, Thresholds, Transition, Tuple,
    },
};

/// What came of an event.
#[derive(Debug, PartialEq)]
pub enum Update {
    /// Something to report: a transition, a correction, a connection that is stuck or no longer is.
    Record(Record),
    /// A connection whose tuple is complete now.
    Completed(ConnId, Tuple),
}

/// What the hooks let us see.
#[derive(Clone, Debug, Default)]
pub struct Sight {
    /// Mini-sockets, as they are.
    pub minis: bool,
    /// Where not, those that are likely are to be said.
    pub estimates: bool,
    /// Resets that are sent.
    pub resets: bool,
    /// The running kernel's names of `enum sk_rst_reason`, without their prefix.
    pub reset_reasons: Vec<&'static str>,
}

/// How many deaths are remembered, to recognise second copies of them.
const DEATHS: usize = 64;

/// The table.
pub struct Table {
    pub(super) conns: Conns,
    pub(super) waiting: Waiting,
    pub(super) sight: Sight,
    deaths: VecDeque<(u64, State)>,
    /// Estimated mini-sockets, in the order of their ends.
    pub(super) estimates: VecDeque<(u64, u64)>,
    next: u64,
    /// Keys of estimated mini-sockets; no kernel address is that low.
    pub(super) next_estimate: u64,
    offset_ns: i64,
    illegal: u64,
    pub(super) watchdog: Watchdog,
    pub(super) listeners: Listeners,
}

/// Where results go.
pub(super) type Out<'a> = &'a mut dyn FnMut(Update);

impl Table {
    /// An empty one, whose ids begin with `instance`. `offset_ns` is the wall clock minus `CLOCK_MONOTONIC`.
    #[must_use]
    pub fn new(instance: u32, offset_ns: i64, sight: Sight) -> Self {
        Self {
            conns: Conns::default(),
            waiting: Waiting::default(),
            sight,
            deaths: VecDeque::with_capacity(DEATHS),
            estimates: VecDeque::new(),
            next: u64::from(instance) << 40,
            next_estimate: 0,
            offset_ns,
            illegal: 0,
            watchdog: Watchdog::new(None),
            listeners: Listeners::default(),
        }
    }

    /// Says from now on which connections stay in a state for longer than this.
    pub fn set_thresholds(&mut self, thresholds: Thresholds) {
        self.watchdog = Watchdog::new(Some(thresholds));
    }

    /// When [`Table::tick`] has to report what is stuck, `CLOCK_MONOTONIC` ns.
    #[must_use]
    pub fn next_due_ns(&self) -> Option<u64> {
        self.watchdog.next_due_ns()
    }

    /// Sockets that are older than the tracer are as old as the kernel's own clocks say, at `now_ns`; from now on they are
    /// watched too.
    pub fn backdate<'a>(&mut self, now_ns: u64, sockets: impl Iterator<Item = (&'a SocketInfo, u64)>) {
        self.watchdog.backdate(&mut self.conns, now_ns, sockets);
    }

    /// The wall clock was set, or slewed.
    pub fn set_offset(&mut self, offset_ns: i64) {
        self.offset_ns = offset_ns;
    }

    /// Number of sockets in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.conns.len()
    }

    /// Whether there are none.
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
        !self.waiting.is_idle()
    }

    /// How many transitions wait for it, at most.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Takes in one event.
    pub fn apply(&mut self, event: &Event, who: &mut dyn Identify, out: Out<'_>) {
        match &event.kind {
            EventKind::Transition { from, to, maybe_copy, .. } => {
                if !*maybe_copy || !self.is_copy(event.sk, *from, *to) {
                    self.transition(event, who, out);
                }
            }
            EventKind::PortKnown => self.port_known(event, out),
            EventKind::Socket { state, mini } => {
                self.seen(event, *state, *mini, None, who);
            }
            EventKind::Held { state, task, .. } => {
                self.seen(event, *state, false, Some(task), who);
            }
            EventKind::Mini { state: State::NewSynRecv, from, again } => {
                self.request(event, *from, *again, who, out);
            }
            EventKind::Mini { state, from, .. } => self.timewait(event, *state, *from, out),
            EventKind::MiniEnd(end) => self.mini_ends(event, *end, out),
            EventKind::Cookie => self.waiting.cookies.push((Ends::of(event), event.time_ns)),
            EventKind::ResetReceived(state) => self.reset_received(event, *state),
            EventKind::Process { task, ended: true } => self.process_ended(task, event.time_ns),
            EventKind::Process { task, ended: false } => self.process_renewed(task, event.time_ns, who),
            // Only a look asks for these: the table knows neither code nor inodes.
            EventKind::Opened(_) | EventKind::OfKernel { .. } => {}
            EventKind::ResetSent { state, reason, linger_0 } => {
                self.reset_sent(event, *state, Sent { reason: *reason, linger_0: *linger_0 }, out);
            }
        }
    }

    /// Everything up to `now_ns` (`CLOCK_MONOTONIC`) was applied: what has waited long enough is decided.
    pub fn tick(&mut self, now_ns: u64, who: &mut dyn Identify, out: Out<'_>) {
        if !self.waiting.is_idle() {
            let old = |at_ns: u64| at_ns.saturating_add(PATIENCE_NS) <= now_ns;
            for it in take(&mut self.waiting.closings, |it| old(it.at_ns)) {
                self.finish_closing(it, None, out);
            }
            for it in take(&mut self.waiting.timewaits, |it| old(it.event.time_ns)) {
                self.adopt_timewait(it, who, out);
            }
            while let Some(it) = self.waiting.endings.take_old(now_ns.saturating_sub(PATIENCE_NS)) {
                self.finish_ending(&it, it.cause, out);
            }
            for it in take(&mut self.waiting.births, |it| old(it.at_ns)) {
                self.finish_birth(it, out);
            }
            self.waiting.cookies.retain(|(_, at_ns)| !old(*at_ns));
            self.waiting.resets.forget(now_ns.saturating_sub(PATIENCE_NS));
        }
        while let Some(&(until_ns, key)) = self.estimates.front()
            && until_ns <= now_ns
        {
            self.estimates.pop_front();
            if let Some(at) = self.conns.find(key) {
                self.end_mini(at, until_ns, Some(Cause::Expired), out);
            }
        }
        let times = (now_ns, self.wall(now_ns));
        self.watchdog.report_due(&mut self.conns, times, |record| out(Update::Record(record)));
    }

    pub(super) fn wall(&self, monotonic_ns: u64) -> i64 {
        i64::try_from(monotonic_ns).unwrap_or(i64::MAX).saturating_add(self.offset_ns)
    }

    /// A socket that was not known.
    pub(super) fn add(
        &mut self,
        event: &Event,
        state: State,
        role: Option<Role>,
        since: Since,
        key: SubjectKey,
        who: &mut dyn Identify,
    ) -> usize {
        self.next += 1;
        let subject = who.identify(key);
        self.conns.add(Conn {
            sk: event.sk,
            id: ConnId(self.next),
            since_ns: event.time_ns,
            subject,
            tuple: event.tuple,
            state,
            role,
            since,
            mini: false,
            unborn: false,
            estimated: false,
            stuck: 0,
            remind_ns: 0,
            watched: 0,
        })
    }

    /// The last id that was given.
    #[must_use]
    pub fn last_id(&self) -> u64 {
        self.next
    }

    /// Goes on behind it, if it is one of ours.
    pub(super) fn set_last_id(&mut self, id: u64) {
        self.next = id;
    }

    /// The companion's record of a transition that was already applied: a socket never makes the same one twice.
    fn is_copy(&self, sk: u64, from: State, to: State) -> bool {
        match self.conns.find(sk) {
            Some(at) => self.conns.get(at).state == to && to != State::Close,
            None => to == State::Close && self.deaths.contains(&(sk, from)),
        }
    }

    pub(super) fn remember_death(&mut self, sk: u64, from: State) {
        if self.deaths.len() == DEATHS {
            self.deaths.pop_front();
        }
        self.deaths.push_back((sk, from));
    }

    /// Reports that the connection at `at` goes to `to`, and notes it there.
    pub(super) fn step(&mut self, at: usize, to: State, time_ns: u64, said: Said, out: Out<'_>) {
        let transition = self.make(at, to, time_ns, said);
        out(Update::Record(Record::Transition(transition)));
    }

    pub(super) fn make(&mut self, at: usize, to: State, time_ns: u64, said: Said) -> Transition {
        let wall_ns = self.wall(time_ns);
        self.watchdog.unwatch(&mut self.conns, at, to, (time_ns, wall_ns));
        let conn = self.conns.get_mut(at);
        let from = said.from.unwrap_or(conn.state);
        let illegal = !knowledge::is_legal(from, to);
        self.illegal += u64::from(illegal);
        let transition = Transition {
            time_ns: wall_ns,
            conn: Connection { mini: said.mini, ..conn.connection() },
            from,
            to,
            in_state: conn.in_state(from, time_ns),
            exact: said.exact && !conn.estimated,
            illegal,
            cause: said.cause,
            reset_why: None,
            errno: said.errno,
        };
        conn.state = to;
        conn.since_ns = time_ns;
        conn.since = Since::Exact;
        self.watchdog.watch(&mut self.conns, at);
        transition
    }

    fn transition(&mut self, event: &Event, who: &mut dyn Identify, out: Out<'_>) {
        let EventKind::Transition { from, to, ref task, listener, closed_as, .. } = event.kind else {
            return;
        };
        if from == State::Listen && to == State::SynRecv {
            return self.child(event, listener, who, out);
        }
        let birth = from == State::Close;
        if from == State::SynSent && to == State::Established {
            self.reuse(&Ends::of(event), out);
        }
        let at = if birth {
            self.born(event, from, role_of(to), task.as_ref(), listener, who, out)
        } else {
            self.known(event, from, task.as_ref(), who, out)
        };
        if to == State::Close {
            return self.closed(at, event, from, closed_as, out);
        }
        // An error ends connections only; what lies on this one is an old one.
        let said = Said { from: Some(from), cause: cause::step(from, to), ..Said::EXACT };
        self.step(at, to, event.time_ns, said, out);
    }

    /// A key is used again: what waits for the previous socket is decided, and that socket is removed.
    pub(super) fn clear(&mut self, sk: u64, time_ns: u64, out: Out<'_>) {
        if !self.waiting.is_idle() {
            for it in take(&mut self.waiting.closings, |it| it.sk == sk) {
                self.finish_closing(it, None, out);
            }
            if let Some(it) = self.waiting.endings.take(sk) {
                self.finish_ending(&it, it.cause, out);
            }
            for it in take(&mut self.waiting.births, |it| it.sk == sk) {
                self.finish_birth(it, out);
            }
        }
        if let Some(at) = self.conns.find(sk) {
            self.lose(at, time_ns, out);
        }
        self.deaths.retain(|&(dead, _)| dead != sk);
    }

    /// Takes a connection out, and a request's ends with it.
    pub(super) fn remove(&mut self, at: usize) {
        let conn = self.conns.remove(at);
        self.listeners.forget(conn.sk);
        if conn.mini {
            let ends = Ends::new(conn.subject.netns, conn.tuple);
            for index in [&mut self.waiting.requests, &mut self.waiting.estimated] {
                if index.get(&ends) == Some(&conn.sk) {
                    index.remove(&ends);
                }
            }
        }
    }

    /// The connection of an event that is not its first, brought up to date; a new one where we have missed the
    /// beginning.
    fn known(
        &mut self,
        event: &Event,
        from: State,
        task: Option<&Task>,
        who: &mut dyn Identify,
        out: Out<'_>,
    ) -> usize {
        let mut at = match self.conns.find(event.sk) {
            Some(at) if is_same(self.conns.get(at), event, from) => at,
            found => {
                if let Some(at) = found {
                    // Its death and another's birth were lost.
                    self.lose(at, event.time_ns, out);
                }
                let role = (from == State::Listen).then_some(Role::Listener);
                self.add(event, from, role, Since::Never, key(event, None), who)
            }
        };
        let conn = self.conns.get_mut(at);
        conn.tuple = merge(conn.tuple, event.tuple);
        if conn.unborn {
            at = self.bear(at, event, who, out);
        }
        let conn = self.conns.get_mut(at);
        let owner = conn.subject.owner.as_ref();
        if let Some(task) = task
            && owner.is_none_or(|owner| !is_up_to_date(owner, task))
        {
            // It may run another program since.
            let known = owner.filter(|owner| is_same_process(&owner.task, task));
            let source = known.map_or(OwnerSource::Close, |owner| owner.source);
            let other = owner.filter(|owner| known.is_none() && owner.source == OwnerSource::Inherited);
            let (other, port) = (other.map(|owner| Rc::clone(&owner.task)), conn.tuple.local_port);
            let owner = OwnerKey { task: Rc::new(task.clone()), source };
            self.conns.set_subject(at, who.identify(key(event, Some(owner))));
            if let Some(other) = other {
                self.doubt_listener(&other, port, event.time_ns);
            }
        }
        at
    }
}

/// What a record says beside what the connection knows.
#[derive(Clone, Copy)]
pub(super) struct Said {
    /// The state before, where the kernel said it.
    pub(super) from: Option<State>,
    pub(super) cause: Option<Cause>,
    pub(super) errno: u16,
    pub(super) exact: bool,
    pub(super) mini: bool,
}

impl Said {
    pub(super) const EXACT: Self = Self { from: None, cause: None, errno: 0, exact: true, mini: false };
}

fn role_of(first: State) -> Option<Role> {
    match first {
        State::SynSent => Some(Role::Client),
        State::Listen => Some(Role::Listener),
        _ => None,
    }
}

pub(super) fn key(event: &Event, owner: Option<OwnerKey>) -> SubjectKey {
    SubjectKey { owner, uid: event.uid, netns: event.netns, cgroup: event.cgroup }
}
