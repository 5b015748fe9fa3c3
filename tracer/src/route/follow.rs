//! The filter by process. It takes whole connections. The process that accepted a connection may be known only when it closes
//! the connection: until then the connection's transitions are held back.

use std::collections::{HashMap, VecDeque};

use rustc_hash::FxBuildHasher;

use super::followed::Followed;
use crate::{
    filter::Processes,
    model::{ConnId, Connection, Record, State, Transition},
};

/// Most connections whose transitions are held back. Beyond that the oldest connection loses its held transitions; its later
/// ones are still shown.
const MOST_HELD: usize = 8192;
/// Most transitions of one connection that are held back: the last ones.
const MOST_OF_ONE: usize = 16;

/// The wanted processes and their connections.
pub(super) struct Follower {
    processes: Processes,
    followed: Followed,
    held: HashMap<ConnId, Vec<Transition>, FxBuildHasher>,
    /// Connections in the order of their first held transition; some have none any more.
    order: VecDeque<ConnId>,
}

impl Follower {
    /// `None` if the filter names no processes.
    pub(super) fn of(processes: &Processes) -> Option<Self> {
        if processes.is_empty() {
            return None;
        }
        Some(Self {
            processes: processes.clone(),
            followed: Followed::default(),
            held: HashMap::default(),
            order: VecDeque::new(),
        })
    }

    /// Whether the filter names this process.
    pub(super) fn names_process(&self, pid: u32, comm: &str) -> bool {
        self.processes.names(pid, comm)
    }

    /// Whether a wanted process owns the connection, or has owned it.
    pub(super) fn wants(&self, conn: &Connection) -> bool {
        self.followed.contains(conn.id)
            || conn.subject.owner.as_ref().is_some_and(|owner| self.names_process(owner.pid(), &owner.comm))
    }

    /// The connection is wanted from now on.
    pub(super) fn follow(&mut self, conn: ConnId) {
        self.followed.add(conn);
    }

    /// A connection has ended; more records of it may follow.
    pub(super) fn ended(&mut self, conn: ConnId) {
        self.forget(conn);
        if self.followed.contains(conn) {
            self.followed.ended(conn);
        }
    }

    /// Calls `emit` for each transition of a wanted connection, held ones first. `record` is a transition.
    pub(super) fn take(&mut self, record: &Record, emit: &mut impl FnMut(&Record)) {
        let Record::Transition(transition) = record else { return };
        let conn = &transition.conn;
        let ends = transition.to == State::Close;
        if self.wants(conn) {
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
