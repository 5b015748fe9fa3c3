//! The path of each connection, from which the record of the whole connection is made.

use std::collections::HashMap;

use rustc_hash::FxBuildHasher;
use serde::{Deserialize, Serialize};

use super::conns::plain;
use crate::model::{
    ConnId, Connection, InState, Lifespan, PathStep, Record, Resync, Role, State, Transition,
    bounds::MOST_STEPS,
};

/// What is known of a connection that has not ended. Kept small: there may be a million.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Life {
    /// Wall clock, ns since the epoch.
    begin_ns: i64,
    at_least: bool,
    incomplete: bool,
    exact: bool,
    /// The state that the connection is in.
    state: u8,
    /// How many of the steps are used.
    len: u8,
    states: [u8; MOST_STEPS],
    /// `u64::MAX` where the time is not known.
    times: [u64; MOST_STEPS],
    /// An earlier process that was killed may have reported the end.
    #[serde(skip)]
    is_doubtful: bool,
}

impl Life {
    fn beginning(begin_ns: i64, state: State) -> Self {
        Self {
            begin_ns,
            at_least: false,
            incomplete: false,
            exact: true,
            state: plain(state).number(),
            len: 0,
            states: [0; MOST_STEPS],
            times: [0; MOST_STEPS],
            is_doubtful: false,
        }
    }

    /// A connection whose first seen transition is `first`.
    fn before(first: &Transition) -> Self {
        if matches!(first.from, State::Close | State::Listen) {
            return Self::beginning(first.time_ns, first.from);
        }
        let ns = first.in_state.map_or(0, |in_state| i64::try_from(in_state.ns).unwrap_or(0));
        let known = Self::beginning(first.time_ns.saturating_sub(ns), first.from);
        Self { at_least: true, incomplete: first.in_state.is_none(), ..known }
    }

    /// The connection has left `from` for `to`, after `ns` in `from`.
    fn step(&mut self, from: State, to: State, ns: Option<u64>) {
        let from = plain(from);
        self.incomplete |= self.state != from.number();
        self.state = plain(to).number();
        if matches!(from, State::Close | State::Listen) {
            return;
        }
        self.incomplete |= ns.is_none();
        let at = usize::from(self.len);
        match (self.states.get_mut(at), self.times.get_mut(at)) {
            (Some(state), Some(time)) => {
                *state = from.number();
                *time = ns.unwrap_or(u64::MAX);
                self.len += 1;
            }
            _ => self.incomplete = true,
        }
    }

    fn path(&self) -> Vec<PathStep> {
        let steps = self.states.iter().zip(&self.times).take(self.len.into());
        let step = |(state, ns): (&u8, &u64)| PathStep {
            state: State::from_number(*state),
            ns: Some(*ns).filter(|ns| *ns != u64::MAX),
        };
        let goes_on = self.state == State::TimeWait.number();
        steps.map(step).chain(goes_on.then_some(PathStep { state: State::TimeWait, ns: None })).collect()
    }

    /// The record of this life, as it ends at `time_ns`; without the reason and what was transferred.
    fn until(&self, time_ns: i64, conn: Connection) -> Lifespan {
        Lifespan {
            time_ns,
            is_final: true,
            conn: Connection { mini: false, ..conn },
            begin_ns: self.begin_ns,
            at_least: self.at_least,
            duration_ns: self.duration_ns(time_ns),
            path: self.path(),
            cause: None,
            reset_why: None,
            errno: 0,
            exact: self.exact,
            incomplete: self.incomplete,
            traffic: None,
        }
    }

    /// The time since the beginning, by the clock that measured the states where all of them are known.
    fn duration_ns(&self, end_ns: i64) -> u64 {
        let times = self.times.iter().take(self.len.into());
        let is_known = times.clone().all(|ns| *ns != u64::MAX);
        let by_wall = || u64::try_from(end_ns.saturating_sub(self.begin_ns)).unwrap_or(0);
        if is_known { times.fold(0, |sum: u64, ns| sum.saturating_add(*ns)) } else { by_wall() }
    }
}

/// The connections that have not ended.
#[derive(Clone, Debug, Default)]
pub struct Lifespans {
    lives: HashMap<ConnId, Life, FxBuildHasher>,
    /// How many connections have ended of which it is not known whether an earlier process has reported them.
    doubted: u64,
}

impl Lifespans {
    /// Takes the next record of a stream. Returns the record of the connection that ends with it.
    pub fn note(&mut self, record: &Record) -> Option<Record> {
        let lifespan = match record {
            Record::Transition(transition) => self.transition(transition),
            Record::Resync(resync) => self.resync(resync),
            _ => None,
        };
        lifespan.map(Box::new).map(Record::Connection)
    }

    fn transition(&mut self, transition: &Transition) -> Option<Lifespan> {
        let Transition { conn, from, to, in_state, .. } = transition;
        let is_listener = *to == State::Listen || (*from, *to) == (State::Listen, State::Close);
        if is_listener || conn.role == Some(Role::Listener) {
            return None;
        }
        if *from == State::TimeWait && !self.lives.contains_key(&conn.id) {
            // The connection had its record when TIME_WAIT began, or ended before the trace.
            return None;
        }
        let life = self.lives.entry(conn.id).or_insert_with(|| Life::before(transition));
        life.step(*from, *to, in_state.map(|in_state| in_state.ns));
        life.is_doubtful = false;
        life.exact &= transition.exact;
        life.incomplete |= transition.illegal;
        if !ends(*to) {
            return None;
        }
        let lifespan = self.end(transition.time_ns, conn)?;
        Some(Lifespan {
            cause: transition.cause,
            reset_why: transition.reset_why,
            errno: transition.errno,
            traffic: transition.traffic.clone(),
            ..lifespan
        })
    }

    fn resync(&mut self, resync: &Resync) -> Option<Lifespan> {
        let Resync { time_ns, conn, was, state } = resync;
        let is_listener = *state == State::Listen || *was == Some(State::Listen);
        if is_listener || conn.role == Some(Role::Listener) {
            return None;
        }
        // Where no hook shows mini-sockets, a reading of the kernel's tables finds those of connections that have had their records.
        let is_rest = conn.mini || was.unwrap_or(*state) == State::TimeWait;
        if is_rest && !self.lives.contains_key(&conn.id) {
            return None;
        }
        let life = self.lives.entry(conn.id).or_insert_with(|| {
            let begun = Life::beginning(*time_ns, was.unwrap_or(*state));
            Life { at_least: true, ..begun }
        });
        life.incomplete = true;
        if let Some(was) = was {
            life.step(*was, *state, None);
        }
        if !ends(*state) {
            life.is_doubtful = false;
            return None;
        }
        if life.is_doubtful {
            self.lives.remove(&conn.id);
            self.doubted += 1;
            return None;
        }
        self.end(*time_ns, conn)
    }

    fn end(&mut self, time_ns: i64, conn: &Connection) -> Option<Lifespan> {
        let life = self.lives.remove(&conn.id)?;
        Some(life.until(time_ns, conn.clone()))
    }

    /// A connection that goes on at `time_ns`: `conn` is in `state`, `in_state` since it came into it.
    pub(super) fn so_far(
        &self,
        time_ns: i64,
        conn: Connection,
        (state, in_state): (State, Option<InState>),
    ) -> Lifespan {
        let life = self.lives.get(&conn.id);
        let in_state_ns = in_state.map(|in_state| in_state.ns);
        let since_ns = time_ns.saturating_sub_unsigned(in_state_ns.unwrap_or(0));
        // A connection that is older than the trace, and has not left its state since.
        let unseen = || Life {
            at_least: in_state.is_none_or(|in_state| in_state.at_least),
            ..Life::beginning(since_ns, state)
        };
        let mut life = life.cloned().unwrap_or_else(unseen);
        life.step(state, state, in_state_ns);
        Lifespan { is_final: false, ..life.until(time_ns, conn) }
    }

    /// An earlier process, which was killed, may have reported the ends of the connections that are known now.
    pub(super) fn doubt_all(&mut self) {
        self.lives.values_mut().for_each(|life| life.is_doubtful = true);
    }

    /// How many more connections are in doubt.
    pub(super) fn take_doubted(&mut self) -> u64 {
        std::mem::take(&mut self.doubted)
    }

    /// Nothing more of this connection is reported.
    pub(super) fn forget(&mut self, conn: ConnId) {
        self.lives.remove(&conn);
    }

    pub(super) fn get(&self, conn: ConnId) -> Option<&Life> {
        self.lives.get(&conn)
    }

    /// Continues what an earlier process knew.
    pub(super) fn put(&mut self, conn: ConnId, life: Life) {
        self.lives.insert(conn, life);
    }
}

/// Whether a connection in this state has ended for both sides.
fn ends(state: State) -> bool {
    matches!(state, State::TimeWait | State::Close)
}

#[cfg(test)]
mod tests;
