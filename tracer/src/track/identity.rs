//! Which kernel object is which connection. The kernel gives the memory of one socket to the next, so an address alone does
//! not identify a socket.

use super::conns::{Conn, plain};
use crate::model::{Event, Identify, State, Tuple};

/// The addresses and ports of both ends, and the network namespace: no two connections have the same ones at the same time.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Endpoints {
    netns: Option<u32>,
    tuple: Tuple,
}

impl Endpoints {
    pub(super) fn of(event: &Event) -> Self {
        Self::new(event.netns, event.tuple)
    }

    pub(super) fn new(netns: Option<u32>, tuple: Tuple) -> Self {
        Self { netns, tuple: tuple.of_any_socket() }
    }

    pub(super) fn of_conn(conn: &Conn) -> Self {
        Self::new(conn.subject.netns, conn.tuple)
    }
}

/// Adds the addresses and ports of `tuple` that were not known.
pub(super) fn complete(conn: &mut Conn, tuple: Tuple, identities: &dyn Identify) {
    let was_complete = conn.tuple.is_complete();
    conn.tuple = merge(conn.tuple, tuple);
    if !was_complete && conn.peer.is_none() {
        conn.peer = identities.peer(conn.tuple.remote);
    }
}

/// The known parts of both tuples: the value of `new`, or that of `old` if `new` has none.
pub(super) fn merge(old: Tuple, new: Tuple) -> Tuple {
    let mut merged = new;
    if new.local_port == 0 {
        merged.local_port = old.local_port;
    }
    if new.remote_port == 0 {
        merged.remote = old.remote;
        merged.remote_port = old.remote_port;
    }
    if new.local.is_unspecified() {
        merged.local = old.local;
    }
    // Not every record has the interface.
    if new.interface == 0 {
        merged.interface = old.interface;
    }
    merged
}

/// Whether both can be the same connection, as far as they are known.
pub(super) fn same_endpoints(old: &Tuple, new: &Tuple) -> bool {
    let agree = |a: u16, b: u16| a == 0 || b == 0 || a == b;
    let is_known = |tuple: &Tuple| tuple.remote_port != 0 && !tuple.remote.is_unspecified();
    agree(old.local_port, new.local_port)
        && agree(old.remote_port, new.remote_port)
        && (!is_known(old) || !is_known(new) || old.remote == new.remote)
}

/// Whether the socket that was in `state` can still be `conn`. If not, the end of `conn` and the beginning of the next socket
/// in the same memory were lost.
pub(super) fn is_same(conn: &Conn, event: &Event, state: State) -> bool {
    let listens = |state| state == State::Listen;
    // A socket without a known port is the same one only if the event continues from its state.
    let is_next = plain(conn.state) == plain(state);
    same_endpoints(&conn.tuple, &event.tuple)
        && listens(conn.state) == listens(state)
        && (conn.tuple.local_port != 0 || is_next)
}
