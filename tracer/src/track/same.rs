//! Whether a socket is the one that had its key before: the kernel gives the memory of one to the next.

use super::conns::{Conn, plain};
use crate::model::{Event, State, Tuple};

/// What is known of both ends: the newer word, but nothing that was known is forgotten.
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
    // Not every record has it.
    if new.interface == 0 {
        merged.interface = old.interface;
    }
    merged
}

/// Whether both can be the same connection, as far as they are known.
pub(super) fn same_ends(old: &Tuple, new: &Tuple) -> bool {
    let agree = |a: u16, b: u16| a == 0 || b == 0 || a == b;
    let is_known = |tuple: &Tuple| tuple.remote_port != 0 && !tuple.remote.is_unspecified();
    agree(old.local_port, new.local_port)
        && agree(old.remote_port, new.remote_port)
        && (!is_known(old) || !is_known(new) || old.remote == new.remote)
}

/// Whether the socket that was in `state` may be `conn` still: its death and another's birth in its memory may have been lost.
pub(super) fn is_same(conn: &Conn, event: &Event, state: State) -> bool {
    let listens = |state| state == State::Listen;
    // Where the port is not known, only what comes next in its state is believed to be its own.
    let is_next = plain(conn.state) == plain(state);
    same_ends(&conn.tuple, &event.tuple)
        && listens(conn.state) == listens(state)
        && (conn.tuple.local_port != 0 || is_next)
}
