//! Collects records into a history of each connection, and counts and times of each transition. Records come from a recording or
//! from a live tracer.

mod lifespan;
mod memory_limit;
mod times;

use memory_limit::MemoryLimit;
use std::{collections::BTreeMap, rc::Rc};

use rustc_hash::FxHashMap;

pub use times::Times;

use crate::model::{
    Cause, ConnId, Connection, InState, LostPlace, Record, Resync, Role, Snapshot, State, Stuck, Subject,
    Traffic, Transition, Tuple,
};

/// A pair of state names: before and after a transition.
pub type StatePair = (&'static str, &'static str);

/// One step of a connection.
#[derive(Clone, Debug)]
pub struct Step {
    /// Wall clock, ns since the epoch.
    pub time_ns: i64,
    /// State before.
    pub from: State,
    /// State after.
    pub to: State,
    /// Time in `from`; `None` if it is not known.
    pub in_state: Option<InState>,
    pub cause: Option<Cause>,
    pub subject: Rc<Subject>,
    /// The step is from a `resync` record.
    pub corrected: bool,
}

/// The history of one connection or listener.
#[derive(Clone, Debug)]
pub struct ConnHistory {
    pub conn: ConnId,
    /// The current state.
    pub state: State,
    /// Wall clock, ns since the epoch, when the state began.
    pub since_ns: i64,
    /// The state may have begun earlier.
    pub at_least: bool,
    /// The first known state and its beginning; `None` for a connection that was seen from its beginning.
    pub found: Option<(State, i64)>,
    pub steps: Vec<Step>,
    pub role: Option<Role>,
    pub tuple: Tuple,
    pub subject: Rc<Subject>,
    /// The current socket is a mini-socket.
    pub mini: bool,
    /// The last `stuck` record; `None` if there was none.
    pub stuck: Option<Box<Stuck>>,
    pub is_stuck: bool,
    /// What it has transferred, as far as a record says so: those of its end do.
    pub traffic: Option<Rc<Traffic>>,
}

impl ConnHistory {
    /// Whether the connection has ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.state == State::Close && !self.steps.is_empty()
    }

    /// The first known time, ns since the epoch.
    #[must_use]
    pub fn begin_ns(&self) -> i64 {
        match (self.found, self.steps.first()) {
            (Some((_, since_ns)), _) => since_ns,
            (None, Some(step)) => step.time_ns,
            (None, None) => self.since_ns,
        }
    }

    /// From the first SYN to ESTABLISHED, ns; `None` for a connection that was not established, or whose beginning is not known.
    #[must_use]
    pub fn handshake_ns(&self) -> Option<u64> {
        let at = self.steps.iter().position(|step| step.to == State::Established)?;
        // The first step begins the connection, so there is no time before it.
        let steps = self.steps.get(1..=at).filter(|steps| self.found.is_none() && !steps.is_empty())?;
        let exact = |step: &Step| step.in_state.filter(|time| !time.at_least);
        steps.iter().try_fold(0_u64, |sum, step| Some(sum.saturating_add(exact(step)?.ns)))
    }

    /// The states with their beginnings; the last one is the current state.
    #[must_use]
    pub fn states(&self) -> Vec<(State, i64)> {
        let found = self.found.into_iter();
        found.chain(self.steps.iter().map(|step| (step.to, step.time_ns))).collect()
    }
}

/// Count and times of one kind of transition.
#[derive(Clone, Debug, Default)]
pub struct EdgeStats {
    pub count: u64,
    /// Times in the state before, if they were seen from their beginning.
    pub times: Times,
}

/// The histories and counts of a recording or a live trace.
#[derive(Clone, Debug, Default)]
pub struct Story {
    /// The host name and the kernel release.
    pub host: Option<(String, String)>,
    /// The first record's time, ns since the epoch.
    pub begin_ns: i64,
    /// The last record's time.
    pub end_ns: i64,
    pub histories: FxHashMap<ConnId, ConnHistory>,
    /// Counts and times of each transition between two states.
    pub edges: BTreeMap<StatePair, EdgeStats>,
    /// Counts of causes.
    pub causes: BTreeMap<&'static str, u64>,
    /// Losses.
    pub lost: BTreeMap<LostPlace, u64>,
    /// Transitions.
    pub transitions: u64,
    /// For live viewers: drop ended connections, and all but the last few steps.
    forgetful: bool,
    /// The records have transitions: records of whole connections say the same again.
    has_transitions: bool,
    /// How many ended connections were dropped because of the memory limit.
    pub left_out: u64,
    /// How many steps were dropped, from connections with more than [`MAX_STEPS`].
    pub left_out_steps: u64,
    memory: MemoryLimit,
}

/// How many last steps are kept for a connection. TCP makes about ten; a forged recording may have any number.
pub const MAX_STEPS: usize = 4096;
/// How many last steps a forgetful story keeps for a connection.
const LAST_STEPS: usize = 16;

impl Story {
    /// A story for live viewers, which keeps only existing connections.
    #[must_use]
    pub fn forgetful() -> Self {
        Self { forgetful: true, ..Self::default() }
    }

    /// A story with a memory limit, approximately.
    #[must_use]
    pub fn within(bytes: usize) -> Self {
        let mut story = Self::default();
        story.bound(bytes);
        story
    }

    /// Sets the memory limit, approximately.
    pub fn bound(&mut self, bytes: usize) {
        self.memory = MemoryLimit::of(bytes);
    }

    /// Adds a record.
    pub fn record(&mut self, record: &Record) {
        if self.is_full() {
            return;
        }
        match record {
            Record::Transition(transition) => {
                self.has_transitions = true;
                self.transition(transition);
            }
            // The last record of a connection has the whole path.
            Record::Connection(lifespan) if lifespan.is_final && !self.has_transitions => {
                for transition in lifespan::transitions(lifespan) {
                    self.at(transition.time_ns);
                    self.transition(&transition);
                }
            }
            Record::Snapshot(snapshot) => self.snapshot(snapshot),
            Record::Resync(resync) => self.resync(resync),
            Record::Stuck(stuck) => {
                if let Some(history) = self.histories.get_mut(&stuck.conn.id) {
                    history.is_stuck = true;
                    history.subject = Rc::clone(&stuck.conn.subject);
                    self.memory.replace(history.stuck.as_deref(), stuck);
                    history.stuck = Some(Box::new(stuck.clone()));
                }
            }
            Record::Resolved(resolved) => {
                if let Some(history) = self.histories.get_mut(&resolved.conn.id) {
                    history.is_stuck = false;
                }
            }
            Record::Lost(lost) => *self.lost.entry(lost.place).or_default() += lost.count,
            Record::Start(start) => self.host = Some((start.host.clone(), start.kernel.clone())),
            Record::Connection(_) | Record::Aggregate(_) | Record::Reset(_) | Record::Stop(_) => {}
        }
        // A snapshot's time is when the state began, perhaps long ago.
        if !matches!(record, Record::Snapshot(_)) {
            self.at(record.time_ns());
        }
        self.drop_ended();
    }

    fn transition(&mut self, transition: &Transition) {
        self.transitions += 1;
        let stats = self.edges.entry((transition.from.name(), transition.to.name())).or_default();
        stats.count += 1;
        if let Some(time) = transition.in_state.filter(|time| !time.at_least) {
            stats.times.add(time.ns);
        }
        if let Some(cause) = transition.cause {
            *self.causes.entry(cause.name()).or_default() += 1;
        }
        let conn = &transition.conn;
        let history = self.histories.entry(conn.id).or_insert_with(|| ConnHistory {
            at_least: false,
            // The connection is older than the recording and not in its snapshot.
            found: transition
                .in_state
                .map(|time| (transition.from, transition.time_ns - i64::try_from(time.ns).unwrap_or(0))),
            ..ConnHistory::new(conn, transition.from, transition.time_ns)
        });
        let step = Step {
            time_ns: transition.time_ns,
            from: transition.from,
            to: transition.to,
            in_state: transition.in_state,
            cause: transition.cause,
            subject: Rc::clone(&conn.subject),
            corrected: false,
        };
        self.memory.add(&conn.subject);
        self.left_out_steps += history.step(step, conn);
        if transition.traffic.is_some() {
            history.traffic.clone_from(&transition.traffic);
        }
        self.forget(conn.id);
    }

    fn snapshot(&mut self, snapshot: &Snapshot) {
        let Snapshot { time_ns, conn, state } = snapshot;
        self.memory.add(&conn.subject);
        self.histories.insert(conn.id, ConnHistory::new(conn, *state, *time_ns));
    }

    fn resync(&mut self, resync: &Resync) {
        let Resync { time_ns, conn, was, state } = resync;
        let Some(was) = *was else {
            return self.snapshot(&Snapshot { time_ns: *time_ns, conn: conn.clone(), state: *state });
        };
        if let Some(history) = self.histories.get_mut(&conn.id) {
            self.memory.add(&conn.subject);
            let step = Step {
                time_ns: *time_ns,
                from: was,
                to: *state,
                in_state: None,
                cause: None,
                subject: Rc::clone(&conn.subject),
                corrected: true,
            };
            self.left_out_steps += history.step(step, conn);
        }
        self.forget(conn.id);
    }

    fn at(&mut self, time_ns: i64) {
        // The first transitions are a little older than the `start` record.
        if self.begin_ns == 0 || time_ns < self.begin_ns {
            self.begin_ns = time_ns;
        }
        self.end_ns = self.end_ns.max(time_ns);
    }

    fn forget(&mut self, conn: ConnId) {
        if !self.forgetful {
            return;
        }
        if let Some(history) = self.histories.get_mut(&conn) {
            if history.is_over() {
                self.histories.remove(&conn);
            } else if history.steps.len() > LAST_STEPS {
                history.steps.remove(0);
            }
        }
    }

    /// The connections in the order of their beginnings.
    #[must_use]
    pub fn in_order(&self) -> Vec<&ConnHistory> {
        let mut histories: Vec<&ConnHistory> = self.histories.values().collect();
        histories.sort_by_key(|history| (history.begin_ns(), history.conn));
        histories
    }

    /// By state name: how many connections are in the state, and how many of them are stuck.
    #[must_use]
    pub fn tally(&self) -> BTreeMap<&'static str, (u64, u64)> {
        let mut by_number = [(0, 0); 256];
        for history in self.histories.values() {
            let (now, stuck) = &mut by_number[usize::from(history.state.number())];
            *now += 1;
            *stuck += u64::from(history.is_stuck);
        }
        let mut tally: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for (number, (now, stuck)) in (0..=u8::MAX).zip(by_number).filter(|(_, (now, _))| *now > 0) {
            let state = State::from_number(number);
            if state != State::Close {
                let counts = tally.entry(state.name()).or_default();
                counts.0 += now;
                counts.1 += stuck;
            }
        }
        tally
    }
}

impl ConnHistory {
    /// The history of a connection that was found in `state`.
    fn new(conn: &Connection, state: State, since_ns: i64) -> Self {
        Self {
            conn: conn.id,
            state,
            since_ns,
            at_least: true,
            found: Some((state, since_ns)),
            steps: Vec::new(),
            role: conn.role,
            tuple: conn.tuple,
            subject: Rc::clone(&conn.subject),
            mini: conn.mini,
            stuck: None,
            is_stuck: false,
            traffic: None,
        }
    }

    /// Adds a step, and returns how many earlier steps were dropped.
    fn step(&mut self, step: Step, conn: &Connection) -> u64 {
        let before = self.steps.len();
        if before >= MAX_STEPS {
            self.steps.drain(..MAX_STEPS / 2);
        }
        let forgotten = before - self.steps.len();
        self.state = step.to;
        self.is_stuck = false;
        self.since_ns = step.time_ns;
        self.at_least = step.corrected;
        self.subject = Rc::clone(&step.subject);
        self.steps.push(step);
        self.role = conn.role.or(self.role);
        self.tuple = conn.tuple;
        self.mini = conn.mini;
        forgotten as u64
    }
}
