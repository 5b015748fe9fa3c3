//! What records add up to: the life of each connection, and how often and how fast each way was gone. Fed record by record, from a
//! recording or live.

mod room;
mod times;

use room::Room;
use std::{collections::BTreeMap, rc::Rc};

use rustc_hash::FxHashMap;

pub use times::Times;

use crate::model::{
    Cause, ConnId, Connection, InState, LostPlace, Record, Resync, Role, Snapshot, State, Stuck, Subject,
    Transition, Tuple,
};

/// One way that was gone, by the names of its states.
pub type Way = (&'static str, &'static str);

/// One step of a connection.
#[derive(Clone, Debug)]
pub struct Step {
    /// Wall clock, ns since the epoch.
    pub time_ns: i64,
    /// State before.
    pub from: State,
    /// State after.
    pub to: State,
    /// Time in `from`, `None` where not known.
    pub in_state: Option<InState>,
    /// Why, `None` where not known.
    pub cause: Option<Cause>,
    /// Whose it was.
    pub subject: Rc<Subject>,
    /// A correction, not seen when it happened.
    pub corrected: bool,
}

/// One connection, or listener.
#[derive(Clone, Debug)]
pub struct Life {
    /// Its identity.
    pub conn: ConnId,
    /// Its state now.
    pub state: State,
    /// Since when, by the wall clock, ns since the epoch.
    pub since_ns: i64,
    /// It may have been in the state before that.
    pub at_least: bool,
    /// The state that it was found in, and since when; `None` for one that was seen from its beginning.
    pub found: Option<(State, i64)>,
    /// What happened, in order.
    pub steps: Vec<Step>,
    /// Its part, `None` where not known.
    pub role: Option<Role>,
    /// Both ends.
    pub tuple: Tuple,
    /// Whose it is.
    pub subject: Rc<Subject>,
    /// It is a mini-socket now.
    pub mini: bool,
    /// Why it is or was stuck, as it was said last; `None` where it never was.
    pub stuck: Option<Box<Stuck>>,
    /// It is stuck now.
    pub is_stuck: bool,
}

impl Life {
    /// It is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.state == State::Close && !self.steps.is_empty()
    }

    /// From when on anything is known, ns since the epoch.
    #[must_use]
    pub fn begin_ns(&self) -> i64 {
        match (self.found, self.steps.first()) {
            (Some((_, since_ns)), _) => since_ns,
            (None, Some(step)) => step.time_ns,
            (None, None) => self.since_ns,
        }
    }

    /// The states it was in, with their beginnings; the last one lasts.
    #[must_use]
    pub fn states(&self) -> Vec<(State, i64)> {
        let found = self.found.into_iter();
        found.chain(self.steps.iter().map(|step| (step.to, step.time_ns))).collect()
    }
}

/// One way: how often, and how long in the state before it.
#[derive(Clone, Debug, Default)]
pub struct Gone {
    /// How often.
    pub count: u64,
    /// Times in the state that was left, where they were seen from their beginning.
    pub times: Times,
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct Story {
    /// The host, and its kernel.
    pub host: Option<(String, String)>,
    /// The first record's time, ns since the epoch.
    pub begin_ns: i64,
    /// The last one's.
    pub end_ns: i64,
    /// The connections, by their identity.
    pub lives: FxHashMap<ConnId, Life>,
    /// The ways.
    pub ways: BTreeMap<Way, Gone>,
    /// Why connections and states ended.
    pub causes: BTreeMap<&'static str, u64>,
    /// Losses.
    pub lost: BTreeMap<LostPlace, u64>,
    /// Transitions.
    pub transitions: u64,
    /// Connections that are over are forgotten, and the others' steps but the last few: for those who only watch.
    forgetful: bool,
    /// Connections that had ended and were forgotten because there was no room for all.
    pub left_out: u64,
    /// Steps that were forgotten, of connections with more than [`MAX_STEPS`].
    pub left_out_steps: u64,
    room: Room,
}

/// Steps that are kept of a connection, the last ones. TCP makes about ten, a forged recording any number.
pub const MAX_STEPS: usize = 4096;
/// Steps that a forgetful story keeps of a connection.
const LAST_STEPS: usize = 16;

impl Story {
    /// One that keeps what is there now, for those who only watch.
    #[must_use]
    pub fn forgetful() -> Self {
        Self { forgetful: true, ..Self::default() }
    }

    /// One that takes up to about this many bytes of memory.
    #[must_use]
    pub fn within(bytes: usize) -> Self {
        let mut story = Self::default();
        story.bound(bytes);
        story
    }

    /// It takes up to about this many bytes of memory from now on.
    pub fn bound(&mut self, bytes: usize) {
        self.room = Room::of(bytes);
    }

    /// Takes in one record more.
    pub fn record(&mut self, record: &Record) {
        if self.is_full() {
            return;
        }
        match record {
            Record::Transition(transition) => self.transition(transition),
            Record::Snapshot(snapshot) => self.snapshot(snapshot),
            Record::Resync(resync) => self.resync(resync),
            Record::Stuck(stuck) => {
                if let Some(life) = self.lives.get_mut(&stuck.conn.id) {
                    life.is_stuck = true;
                    life.subject = Rc::clone(&stuck.conn.subject);
                    self.room.replace(life.stuck.as_deref(), stuck);
                    life.stuck = Some(Box::new(stuck.clone()));
                }
            }
            Record::Resolved(resolved) => {
                if let Some(life) = self.lives.get_mut(&resolved.conn.id) {
                    life.is_stuck = false;
                }
            }
            Record::Lost(lost) => *self.lost.entry(lost.place).or_default() += lost.count,
            Record::Start(start) => self.host = Some((start.host.clone(), start.kernel.clone())),
            Record::Aggregate(_) | Record::Stop(_) => {}
        }
        // A snapshot's time is when the state began, perhaps long ago.
        if !matches!(record, Record::Snapshot(_)) {
            self.at(record.time_ns());
        }
        self.make_room();
    }

    fn transition(&mut self, transition: &Transition) {
        self.transitions += 1;
        let gone = self.ways.entry((transition.from.name(), transition.to.name())).or_default();
        gone.count += 1;
        if let Some(time) = transition.in_state.filter(|time| !time.at_least) {
            gone.times.add(time.ns);
        }
        if let Some(cause) = transition.cause {
            *self.causes.entry(cause.name()).or_default() += 1;
        }
        let conn = &transition.conn;
        let life = self.lives.entry(conn.id).or_insert_with(|| Life {
            at_least: false,
            // Older than the recording, and not in its snapshot.
            found: transition
                .in_state
                .map(|time| (transition.from, transition.time_ns - i64::try_from(time.ns).unwrap_or(0))),
            ..Life::new(conn, transition.from, transition.time_ns)
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
        self.room.add(&conn.subject);
        self.left_out_steps += life.step(step, conn);
        self.forget(conn.id);
    }

    fn snapshot(&mut self, snapshot: &Snapshot) {
        let Snapshot { time_ns, conn, state } = snapshot;
        self.room.add(&conn.subject);
        self.lives.insert(conn.id, Life::new(conn, *state, *time_ns));
    }

    fn resync(&mut self, resync: &Resync) {
        let Resync { time_ns, conn, was, state } = resync;
        let Some(was) = *was else {
            return self.snapshot(&Snapshot { time_ns: *time_ns, conn: conn.clone(), state: *state });
        };
        if let Some(life) = self.lives.get_mut(&conn.id) {
            self.room.add(&conn.subject);
            let step = Step {
                time_ns: *time_ns,
                from: was,
                to: *state,
                in_state: None,
                cause: None,
                subject: Rc::clone(&conn.subject),
                corrected: true,
            };
            self.left_out_steps += life.step(step, conn);
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
        if let Some(life) = self.lives.get_mut(&conn) {
            if life.is_over() {
                self.lives.remove(&conn);
            } else if life.steps.len() > LAST_STEPS {
                life.steps.remove(0);
            }
        }
    }

    /// The connections in the order of their beginnings.
    #[must_use]
    pub fn in_order(&self) -> Vec<&Life> {
        let mut lives: Vec<&Life> = self.lives.values().collect();
        lives.sort_by_key(|life| (life.begin_ns(), life.conn));
        lives
    }

    /// How many are in each state now, and how many of them are stuck; by the states' names.
    #[must_use]
    pub fn tally(&self) -> BTreeMap<&'static str, (u64, u64)> {
        let mut by_number = [(0, 0); 256];
        for life in self.lives.values() {
            let (now, stuck) = &mut by_number[usize::from(life.state.number())];
            *now += 1;
            *stuck += u64::from(life.is_stuck);
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

impl Life {
    /// Of a connection that was found in `state`.
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
        }
    }

    /// Returns how many earlier steps are forgotten for it.
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
