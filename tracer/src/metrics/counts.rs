//! Counts of written transitions, and of the connections that begin and end with them.

use std::collections::BTreeMap;

use crate::model::{Cause, Dwell, InState, Lifespan, Role, State, Transition};

/// The value of a label where the record has none.
const UNKNOWN: &str = "unknown";

/// What was written so far.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Wall clock, ns since the epoch, when counting began.
    pub(super) since_ns: i64,
    /// By state names; some states share a name.
    pub(super) transitions: BTreeMap<(&'static str, &'static str), u64>,
    pub(super) durations: BTreeMap<&'static str, Dwell>,
    /// Connections that became ESTABLISHED, by the side that this host is.
    pub(super) opened: BTreeMap<&'static str, u64>,
    /// Connections that ended, or were not established, by side and cause.
    pub(super) closed: BTreeMap<(&'static str, &'static str), u64>,
    /// The time in the state before ESTABLISHED, by side.
    pub(super) handshakes: BTreeMap<&'static str, Dwell>,
    /// Of the connections that ended, by side.
    pub(super) retransmits: BTreeMap<&'static str, Retransmits>,
    /// From the first SYN to the end, by side.
    pub(super) lives: BTreeMap<&'static str, Dwell>,
}

/// How many segments each connection sent again.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Retransmits {
    pub(super) sum: u64,
    /// The number of connections in each bucket of [`Retransmits::ENDS`]; not cumulative.
    pub(super) counts: [u64; Self::ENDS.len()],
}

impl Retransmits {
    /// Upper bounds of the buckets.
    pub(super) const ENDS: [f64; 8] = [0.0, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, f64::INFINITY];

    fn add(&mut self, segments: u32) {
        self.sum = self.sum.saturating_add(segments.into());
        let bucket = Self::ENDS.partition_point(|end| *end < f64::from(segments));
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
    }
}

impl Counts {
    /// Empty counts.
    #[must_use]
    pub fn since(since_ns: i64) -> Self {
        Self { since_ns, ..Self::default() }
    }

    /// Counts a transition.
    pub fn transition(&mut self, transition: &Transition) {
        let (from, to) = (transition.from.name(), transition.to.name());
        *self.transitions.entry((from, to)).or_default() += 1;
        // A lower bound is not counted, and creates no series.
        let in_state = transition.in_state.filter(|in_state| !in_state.at_least);
        if let Some(in_state) = in_state {
            self.durations.entry(from).or_default().add(in_state);
        }
        let side = side(transition.conn.role);
        if transition.to == State::Established {
            *self.opened.entry(side).or_default() += 1;
            if let Some(in_state) = in_state {
                self.handshakes.entry(side).or_default().add(in_state);
            }
        } else if ends(transition.from, transition.to) {
            let cause = transition.cause.map_or(UNKNOWN, Cause::name);
            *self.closed.entry((side, cause)).or_default() += 1;
            if let Some(traffic) = &transition.traffic {
                self.retransmits.entry(side).or_default().add(traffic.retransmits);
            }
        }
    }

    /// Counts the record of a whole connection.
    pub fn connection(&mut self, lifespan: &Lifespan) {
        let Lifespan { conn, duration_ns: ns, at_least, .. } = lifespan;
        if !at_least {
            let lives = self.lives.entry(side(conn.role)).or_default();
            lives.add(InState { ns: *ns, at_least: false });
        }
    }
}

fn side(role: Option<Role>) -> &'static str {
    role.map_or(UNKNOWN, Role::name)
}

/// Whether a connection ends with this transition: TIME_WAIT is behind its end.
fn ends(from: State, to: State) -> bool {
    let is_connection = !matches!(from, State::Listen | State::Close | State::TimeWait);
    is_connection && matches!(to, State::TimeWait | State::Close)
}
