//! The record of a whole connection, which replaces its transitions for readers that want one record a connection.

use std::rc::Rc;

use super::{Cause, Connection, State, Traffic};

/// The side that sent the first FIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClosedFirst {
    Local,
    Remote,
    /// Each side sent its FIN before it got the other's.
    Both,
}

impl ClosedFirst {
    pub const ALL: [Self; 3] = [Self::Local, Self::Remote, Self::Both];

    /// The name in records.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Remote => "remote",
            Self::Both => "both",
        }
    }

    /// What a path shows; `None` if neither side has closed the connection in order, or if the path does not show which one.
    #[must_use]
    pub fn of(path: &[PathStep]) -> Option<Self> {
        let has = |states: &[State]| path.iter().any(|step| states.contains(&step.state));
        if has(&[State::Closing]) {
            Some(Self::Both)
        } else if has(&[State::FinWait1, State::FinWait2]) {
            Some(Self::Local)
        } else if has(&[State::CloseWait, State::LastAck]) {
            Some(Self::Remote)
        } else {
            None
        }
    }
}

/// A state that a connection was in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathStep {
    pub state: State,
    /// The time in the state, ns; `None` where it is not known, and for TIME_WAIT, which goes on.
    pub ns: Option<u64>,
}

/// A connection from its beginning to its end, or until a moment of its life.
#[derive(Clone, Debug, PartialEq)]
pub struct Lifespan {
    /// Wall clock, ns since the epoch, when the connection ended for both sides: when TIME_WAIT began, otherwise `-> CLOSE`.
    pub time_ns: i64,
    /// False for a connection that goes on: the end is the time of the record, and `path` has the state that it is in.
    pub is_final: bool,
    /// Owner and ends as of the end.
    pub conn: Connection,
    /// Wall clock, ns since the epoch, of the first SYN.
    pub begin_ns: i64,
    /// The connection is older than the trace: `begin_ns` is the latest time at which it can have begun, `duration_ns` a lower bound,
    /// and `path` may lack earlier states.
    pub at_least: bool,
    pub duration_ns: u64,
    /// The states in their order, without CLOSE; TIME_WAIT only as the last one.
    pub path: Vec<PathStep>,
    pub cause: Option<Cause>,
    /// Why a reset was sent; `None` where it is not known.
    pub reset_why: Option<&'static str>,
    /// Errno on the socket, 0 for none.
    pub errno: u16,
    /// False if a part of the path is an estimate, or if the connection may go on in a mini-socket that is not seen.
    pub exact: bool,
    /// Something of the connection was lost: `path` may lack states, and `time_ns` may be later than the end.
    pub incomplete: bool,
    pub traffic: Option<Rc<Traffic>>,
}

impl Lifespan {
    /// From the first SYN to ESTABLISHED, ns; `None` for a connection that was not established, or whose beginning is not known.
    #[must_use]
    pub fn handshake_ns(&self) -> Option<u64> {
        if self.at_least || self.incomplete {
            return None;
        }
        let steps = self.path.iter().position(|step| step.state == State::Established)?;
        // A forged recording may have any times.
        self.path.get(..steps)?.iter().try_fold(0_u64, |sum, step| Some(sum.saturating_add(step.ns?)))
    }

    /// Whether the connection has ended without ever being established. A connection whose path may lack states counts as established.
    #[must_use]
    pub fn was_never_established(&self) -> bool {
        let is_whole = self.is_final && !self.at_least && !self.incomplete;
        is_whole && self.path.iter().all(|step| matches!(step.state, State::SynSent | State::SynRecv))
    }

    #[must_use]
    pub fn closed_first(&self) -> Option<ClosedFirst> {
        ClosedFirst::of(&self.path)
    }

    /// The state before the end, and the state of the end; for a connection that goes on, its state and the one before.
    #[must_use]
    pub fn last_change(&self) -> (Option<State>, State) {
        let mut states = self.path.iter().rev().map(|step| step.state);
        match states.next() {
            Some(last) if last == State::TimeWait || !self.is_final => (states.next(), last),
            last => (last, State::Close),
        }
    }

    /// The changes of state so far, from the first one to that of the end. The first state has `None` before it.
    pub fn changes(&self) -> impl Iterator<Item = (Option<State>, State)> + '_ {
        let states = || self.path.iter().map(|step| step.state);
        let end = Some(State::Close).filter(|_| self.is_final && self.last_change().1 == State::Close);
        std::iter::once(None).chain(states().map(Some)).zip(states().chain(end))
    }
}
