//! What is in the table: every socket, how many in each state, and whose are stuck.

use std::collections::BTreeMap;

use super::{conns::Conn, table::Table};
use crate::model::{Snapshot, SocketCounts, State};

impl Table {
    /// All sockets in it, as records of a snapshot; without those whose first transition is still to be reported.
    pub fn snapshot(&self) -> impl Iterator<Item = Snapshot> + '_ {
        self.conns.iter().filter(|conn| !conn.unborn).map(|conn| self.shown(conn))
    }

    fn shown(&self, conn: &Conn) -> Snapshot {
        Snapshot { time_ns: self.wall(conn.since_ns), conn: conn.connection(), state: conn.state }
    }

    /// How many `wanted` sockets are in each state, and how many of them are stuck there; states without any as 0.
    #[must_use]
    pub fn tally(&self, wanted: impl Fn(&Snapshot) -> bool) -> SocketCounts {
        let mut counts = [(0, 0); 256];
        for conn in self.conns.iter().filter(|conn| wanted(&self.shown(conn))) {
            let (all, stuck) = &mut counts[usize::from(conn.state.number())];
            *all += 1;
            *stuck += i64::from(conn.stuck > 0);
        }
        let mut tally = SocketCounts::default();
        for (number, (all, stuck)) in (0_u8..=255).zip(counts) {
            let state = State::from_number(number);
            if all > 0 || !matches!(state, State::Unknown(_) | State::Close) {
                *tally.sockets.entry(state.name()).or_default() += all;
                *tally.stuck.entry(state.name()).or_default() += stuck;
            }
        }
        tally
    }

    /// The `most` names of processes with the most stuck sockets that are `wanted`, and how many those are.
    #[must_use]
    pub fn leakers(&self, most: usize, wanted: impl Fn(&Snapshot) -> bool) -> Vec<(String, i64)> {
        if most == 0 {
            return Vec::new();
        }
        let mut counts: BTreeMap<&str, i64> = BTreeMap::new();
        for conn in self.conns.iter().filter(|conn| conn.stuck > 0 && wanted(&self.shown(conn))) {
            if let Some(owner) = &conn.subject.owner {
                *counts.entry(&owner.comm).or_default() += 1;
            }
        }
        let mut counts: Vec<(String, i64)> =
            counts.into_iter().map(|(comm, count)| (comm.to_owned(), count)).collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        counts.truncate(most);
        counts
    }
}
