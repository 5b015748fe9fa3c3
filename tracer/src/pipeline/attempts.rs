//! Connections that were never established: requests that expire, refused and unanswered connects. Others can cause any number of
//! them without effort, so only the first of each second have records, and the others are counted.

use super::aggregate::Windows;
use crate::model::{Aggregate, Lifespan};

const SECOND_NS: u64 = 1_000_000_000;
/// How many of a second have records.
const MOST: u32 = 100;
/// How many combinations of service, peer and cause are counted separately in a second, and how many services without their peers.
const MOST_ROWS: usize = 10;

/// The current second of one stream.
pub(super) struct Attempts {
    second: u64,
    /// How many have had a record.
    written: u32,
    windows: Windows,
}

impl Default for Attempts {
    fn default() -> Self {
        Self { second: 0, written: 0, windows: Windows::of_connections(SECOND_NS as i64, MOST_ROWS) }
    }
}

impl Attempts {
    /// Whether this connection has no record, but is counted.
    pub(super) fn counts(&mut self, lifespan: &Lifespan, wall_ns: i64, monotonic_ns: u64) -> bool {
        if !lifespan.was_never_established() {
            return false;
        }
        let second = monotonic_ns / SECOND_NS;
        if second != self.second {
            (self.second, self.written) = (second, 0);
        }
        if self.written < MOST {
            self.written += 1;
            return false;
        }
        self.windows.add_connection(lifespan, wall_ns, monotonic_ns);
        true
    }

    /// How many are counted, and not reported yet.
    pub(super) fn count(&self) -> u64 {
        self.windows.count()
    }

    /// When the open window ends, `CLOCK_MONOTONIC` ns.
    pub(super) fn end_ns(&self) -> Option<u64> {
        self.windows.end_ns()
    }

    /// Ends the window, and returns its rows.
    pub(super) fn close(&mut self) -> Vec<Aggregate> {
        self.windows.close()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Address, Cause, Connection, PathStep, Role, State, Tuple};

    fn attempt(peer: u32, state: State) -> Lifespan {
        let remote = Address::from_v4(peer.to_be_bytes());
        let tuple = Tuple { remote, local_port: 443, remote_port: 40_000, ..Tuple::example() };
        Lifespan {
            time_ns: 0,
            is_final: true,
            conn: Connection { role: Some(Role::Server), tuple, ..Connection::example() },
            begin_ns: 0,
            at_least: false,
            duration_ns: 1,
            path: vec![PathStep { state, ns: Some(1) }],
            cause: Some(Cause::Expired),
            reset_why: None,
            errno: 0,
            exact: true,
            incomplete: false,
            traffic: None,
        }
    }

    /// A flood from random addresses. Each connection has a record or is in a count, and there are few of both.
    #[test]
    fn a_flood_is_counted() {
        const FLOOD: u32 = 50_000;
        let mut attempts = Attempts::default();
        let mut written = 0;
        for at in 0..FLOOD {
            let now_ns = 7 * SECOND_NS + u64::from(at);
            written += u64::from(!attempts.counts(&attempt(at, State::SynRecv), 0, now_ns));
            assert!(!attempts.counts(&attempt(at, State::Established), 0, now_ns), "it was established");
        }
        assert_eq!((written, attempts.count()), (u64::from(MOST), u64::from(FLOOD - MOST)));
        let rows = attempts.close();
        assert!(rows.len() <= 2 * MOST_ROWS + 1, "{}", rows.len());
        assert_eq!(rows.iter().map(|row| row.count).sum::<u64>(), u64::from(FLOOD - MOST));
        for row in &rows {
            assert_eq!((row.of_connections, row.cause), (true, Some(Cause::Expired)));
            assert_eq!((row.from, row.to, row.role), (State::SynRecv, State::Close, Some(Role::Server)));
        }
        assert_eq!(attempts.count(), 0);
        assert!(
            !attempts.counts(&attempt(1, State::SynRecv), 0, 8 * SECOND_NS),
            "the next second has records again"
        );
    }
}
