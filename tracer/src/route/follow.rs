//! A filter by process means whole connections. Which process accepts one may be known only when it closes it: until then
//! its transitions are held back.

use std::collections::{HashMap, VecDeque};

use rustc_hash::FxBuildHasher;

use super::followed::Followed;
use crate::model::{ConnId, Connection, Filter, Record, State, Transition};

/// Connections whose transitions are held back; of more, the oldest are let go, and are shown from then on.
const MOST_HELD: usize = 8192;
/// Transitions of one connection that are held back, the last ones.
const MOST_OF_ONE: usize = 16;

/// The processes, and the connections that are theirs.
pub(super) struct Follower {
    pids: Vec<u32>,
    comms: Vec<String>,
    followed: Followed,
    held: HashMap<ConnId, Vec<Transition>, FxBuildHasher>,
    /// Connections in the order in which they were held back first; some are not any more.
    order: VecDeque<ConnId>,
}

impl Follower {
    /// Follows by `filter`, if that names processes.
    pub(super) fn of(filter: &Filter) -> Option<Self> {
        if filter.pids.is_empty() && filter.comms.is_empty() {
            return None;
        }
        Some(Self {
            pids: filter.pids.clone(),
            comms: filter.comms.clone(),
            followed: Followed::default(),
            held: HashMap::default(),
            order: VecDeque::new(),
        })
    }

    /// Whether a process is one of those.
    pub(super) fn is_meant(&self, pid: u32, comm: &str) -> bool {
        (self.pids.is_empty() || self.pids.contains(&pid))
            && (self.comms.is_empty() || self.comms.iter().any(|it| it == comm))
    }

    /// Whether a connection is theirs, by its owner now or by what was seen of it.
    pub(super) fn is_theirs(&self, conn: &Connection) -> bool {
        self.followed.contains(conn.id)
            || conn.subject.owner.as_ref().is_some_and(|owner| self.is_meant(owner.pid(), &owner.comm))
    }

    /// A connection is theirs from now on.
    pub(super) fn follow(&mut self, conn: ConnId) {
        self.followed.add(conn);
    }

    /// A connection has ended; more may be reported of it.
    pub(super) fn ended(&mut self, conn: ConnId) {
        self.forget(conn);
        if self.followed.contains(conn) {
            self.followed.ended(conn);
        }
    }

    /// Hands to `emit` what is known to be of a connection of theirs, oldest first. `record` is a transition.
    pub(super) fn take(&mut self, record: &Record, emit: &mut impl FnMut(&Record)) {
        let Record::Transition(transition) = record else { return };
        let conn = &transition.conn;
        let ends = transition.to == State::Close;
        if self.is_theirs(conn) {
            for mut held in self.held.remove(&conn.id).into_iter().flatten() {
                held.conn.tuple = conn.tuple;
                emit(&Record::Transition(held));
            }
            emit(record);
            self.follow(conn.id);
            if ends {
                self.followed.ended(conn.id);
            }
        } else if ends {
            self.forget(conn.id);
        } else {
            self.hold(transition);
        }
    }

    /// A connection is not wanted.
    pub(super) fn forget(&mut self, conn: ConnId) {
        self.held.remove(&conn);
    }

    fn hold(&mut self, transition: &Transition) {
        let conn = transition.conn.id;
        if !self.held.contains_key(&conn) {
            while self.held.len() >= MOST_HELD
                && let Some(oldest) = self.order.pop_front()
            {
                self.held.remove(&oldest);
            }
            if self.order.len() >= 2 * MOST_HELD {
                let held = &self.held;
                self.order.retain(|conn| held.contains_key(conn));
            }
            self.order.push_back(conn);
        }
        let list = self.held.entry(conn).or_default();
        if list.len() == MOST_OF_ONE {
            list.remove(0);
        }
        list.push(transition.clone());
    }
}
