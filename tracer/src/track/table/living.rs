//! Records of whole connections: whether they are wanted, and those of connections that go on.

use super::{Conn, Since, Table};
use crate::{
    model::{ConnId, InState, Lifespan, Role, State},
    track::conns::plain,
};

/// A connection that goes on.
#[derive(Clone, Debug)]
pub struct Living {
    /// Until now.
    pub lifespan: Lifespan,
    /// It has a full socket, which has the counters.
    pub has_socket: bool,
}

impl Table {
    /// Whether connections get a record of their whole lives at their end.
    pub fn report_connections(&mut self, wanted: bool) {
        self.lifespans = wanted.then(|| self.lifespans.take().unwrap_or_default());
    }

    /// The sockets of all connections that go on.
    pub fn living(&self) -> impl Iterator<Item = (u64, ConnId)> + '_ {
        self.conns.iter().filter(|conn| is_living(conn)).map(|conn| (conn.sk, conn.id))
    }

    /// The connection `id`, if it goes on at the kernel's address `sk`, until `now_ns` (`CLOCK_MONOTONIC`).
    #[must_use]
    pub fn so_far(&self, sk: u64, id: ConnId, now_ns: u64) -> Option<Living> {
        let conn = self.conns.get(self.conns.find(sk)?);
        if conn.id != id || !is_living(conn) {
            return None;
        }
        let now_ns = now_ns.max(conn.since_ns);
        let is_known = conn.since != Since::Unknown;
        let in_state =
            is_known.then(|| InState { ns: now_ns - conn.since_ns, at_least: conn.since == Since::AtLeast });
        let state = (plain(conn.state), in_state);
        let lifespan = self.lifespans.as_ref()?.so_far(self.wall(now_ns), conn.connection(), state);
        Some(Living {
            lifespan: Lifespan { traffic: conn.traffic.clone(), ..lifespan },
            has_socket: !conn.mini,
        })
    }
}

/// Whether the connection has begun, and has not ended for both sides.
fn is_living(conn: &Conn) -> bool {
    let has_no_record = matches!(conn.state, State::Listen | State::Close | State::TimeWait);
    !has_no_record && !conn.awaits_endpoints && conn.role != Some(Role::Listener)
}
