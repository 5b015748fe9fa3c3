//! Connections that stay wanted because a record of them was reported.

use std::collections::{HashSet, VecDeque};

use rustc_hash::FxBuildHasher;

use crate::model::ConnId;

/// Most ended connections that are kept, because more records of them may follow.
const MOST_ENDED: usize = 1024;

/// Connections that are wanted, whatever later records show.
#[derive(Default)]
pub(super) struct Followed {
    conns: HashSet<ConnId, FxBuildHasher>,
    ended: VecDeque<ConnId>,
}

impl Followed {
    pub(super) fn contains(&self, conn: ConnId) -> bool {
        self.conns.contains(&conn)
    }

    pub(super) fn add(&mut self, conn: ConnId) {
        self.conns.insert(conn);
    }

    /// A connection has ended: it is forgotten when [`MOST_ENDED`] others have ended after it.
    pub(super) fn ended(&mut self, conn: ConnId) {
        if self.ended.len() == MOST_ENDED
            && let Some(oldest) = self.ended.pop_front()
        {
            self.conns.remove(&oldest);
        }
        self.ended.push_back(conn);
    }
}
