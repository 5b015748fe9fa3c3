//! Connections that were reported: they stay wanted.

use std::collections::{HashSet, VecDeque};

use rustc_hash::FxBuildHasher;

use crate::model::ConnId;

/// Connections that have ended and are still known: more may be reported of them.
const MOST_ENDED: usize = 1024;

/// Connections that are wanted whatever else becomes known of them.
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

    /// A connection has ended: it is forgotten when others have.
    pub(super) fn ended(&mut self, conn: ConnId) {
        if self.ended.len() == MOST_ENDED
            && let Some(oldest) = self.ended.pop_front()
        {
            self.conns.remove(&oldest);
        }
        self.ended.push_back(conn);
    }
}
