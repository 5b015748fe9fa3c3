//! The transitions of a connection, from the record of the whole connection.

use crate::model::{Connection, InState, Lifespan, Role, State, Transition};

/// The transitions that the path tells, in their order. A transition after a time that is not known has the time of the
/// connection's end.
pub(super) fn transitions(lifespan: &Lifespan) -> Vec<Transition> {
    let Lifespan { path, conn, begin_ns, at_least, .. } = lifespan;
    let transition = |time_ns: i64, from: State, to: State, in_state: Option<InState>| Transition {
        time_ns,
        conn: Connection { mini: to == State::TimeWait, ..conn.clone() },
        from,
        to,
        in_state,
        exact: lifespan.exact,
        illegal: false,
        cause: None,
        reset_why: None,
        errno: 0,
        traffic: None,
    };
    let mut transitions = Vec::with_capacity(path.len() + 1);
    if let (false, Some(first)) = (at_least, path.first()) {
        let before = if conn.role == Some(Role::Server) { State::Listen } else { State::Close };
        transitions.push(transition(*begin_ns, before, first.state, None));
    }
    let end = Some(lifespan.last_change().1).filter(|end| *end == State::Close);
    let next = path.iter().skip(1).map(|step| step.state).chain(end);
    let mut time_ns = *begin_ns;
    for ((at, step), to) in path.iter().enumerate().zip(next) {
        time_ns = step.ns.map_or(lifespan.time_ns, |ns| time_ns.saturating_add_unsigned(ns));
        let in_state = step.ns.map(|ns| InState { ns, at_least: *at_least && at == 0 });
        transitions.push(transition(time_ns, step.state, to, in_state));
    }
    if let Some(last) = transitions.last_mut() {
        (last.cause, last.reset_why, last.errno) = (lifespan.cause, lifespan.reset_why, lifespan.errno);
        last.traffic.clone_from(&lifespan.traffic);
    }
    transitions
}
