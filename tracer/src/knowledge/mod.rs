//! TCP's state machine as data: RFC 9293 section 3.3.2 (figure 5) and 3.10, and what Linux adds to it. The one source
//! for what is legal, and why; what there is to know of each state; and whole connections from end to end. The words for all of it
//! are in `texts/`.

mod states;
mod walks;

pub use states::{Facts, STATES, Setting, facts};
pub use walks::{CLOSE, EndEvent, Moment, OPEN, RESET, SIMULTANEOUS_CLOSE, Segment, WALKS, Walk};

use crate::model::State;

/// Who can end a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mover {
    /// The process that holds the socket.
    Application,
    /// The other end.
    Peer,
    /// A timer, or the host's administrator.
    Kernel,
}

/// A transition that TCP makes.
#[derive(Clone, Copy, Debug)]
pub struct Edge {
    /// State before.
    pub from: State,
    /// State after.
    pub to: State,
    /// Who causes the transition.
    pub by: Mover,
    /// The sections of the RFC and the kernel functions that describe it.
    pub source: &'static str,
}

const fn edge(from: State, to: State, by: Mover, source: &'static str) -> Edge {
    Edge { from, to, by, source }
}

use Mover::{Application, Kernel, Peer};
use State::{
    Close, CloseWait, Closing, Established, FinWait1, FinWait2, LastAck, Listen, NewSynRecv, SynRecv,
    SynSent, TimeWait,
};

/// Every transition that Linux makes, as `inet_sk_set_state` and the mini-sockets show it. Any state but CLOSE may also end at
/// once, see [`is_legal`].
pub const EDGES: &[Edge] = &[
    edge(Close, SynSent, Application, "RFC 9293 3.10.1; tcp_v4_connect()"),
    edge(Close, Listen, Application, "RFC 9293 3.10.1; inet_csk_listen_start()"),
    edge(Listen, NewSynRecv, Peer, "RFC 9293 3.10.7.2; tcp_conn_request()"),
    edge(Listen, SynRecv, Peer, "inet_csk_clone_lock()"),
    edge(NewSynRecv, Established, Peer, "RFC 9293 3.10.7.4; tcp_check_req()"),
    edge(SynSent, Established, Peer, "RFC 9293 3.10.7.3; tcp_finish_connect()"),
    edge(SynSent, SynRecv, Peer, "RFC 9293 3.5, figure 7; tcp_rcv_synsent_state_process()"),
    edge(SynRecv, Established, Peer, "RFC 9293 3.10.7.4; tcp_rcv_state_process()"),
    edge(SynRecv, FinWait1, Application, "RFC 9293 3.10.4; tcp_close_state()"),
    edge(SynRecv, CloseWait, Peer, "RFC 9293 3.10.7.4; tcp_fin()"),
    edge(Established, FinWait1, Application, "RFC 9293 3.10.4; tcp_close_state()"),
    edge(Established, CloseWait, Peer, "RFC 9293 3.10.7.4; tcp_fin()"),
    edge(FinWait1, FinWait2, Peer, "RFC 9293 3.10.7.4; tcp_rcv_state_process()"),
    edge(FinWait1, Closing, Peer, "RFC 9293 3.6, figure 13; tcp_fin()"),
    edge(FinWait1, TimeWait, Peer, "RFC 9293 3.10.7.4; tcp_fin()"),
    edge(FinWait2, TimeWait, Peer, "RFC 9293 3.10.7.4; tcp_fin(), tcp_timewait_state_process()"),
    edge(Closing, TimeWait, Peer, "RFC 9293 3.10.7.4; tcp_rcv_state_process()"),
    edge(CloseWait, LastAck, Application, "RFC 9293 3.10.4; tcp_close_state()"),
    edge(LastAck, Close, Peer, "RFC 9293 3.10.7.4; tcp_rcv_state_process()"),
    edge(TimeWait, Close, Kernel, "RFC 9293 3.10.8; tw_timer_handler()"),
    edge(FinWait2, Close, Kernel, "tw_timer_handler(), tcp_keepalive_timer()"),
];

/// The edges between states with these names. A request and its child have the same name.
pub fn named(from: State, to: State) -> impl Iterator<Item = &'static Edge> {
    EDGES.iter().filter(move |edge| edge.from.name() == from.name() && edge.to.name() == to.name())
}

/// Whether TCP makes the transition from `from` to `to`: by one of [`EDGES`], or directly to CLOSE (reset, abort, timeout).
/// Transitions of unknown states count as legal.
#[must_use]
pub fn is_legal(from: State, to: State) -> bool {
    let unknown = |state| matches!(state, State::Unknown(_));
    unknown(from)
        || unknown(to)
        || (to == Close && from != Close)
        || LEGAL.get(usize::from(from.number())).is_some_and(|row| row & 1 << to.number() != 0)
}

/// [`EDGES`] as bits by state number, because every transition is checked.
const LEGAL: [u16; 13] = {
    let mut rows = [0; 13];
    let mut at = 0;
    while at < EDGES.len() {
        rows[EDGES[at].from.number() as usize] |= 1 << EDGES[at].to.number();
        at += 1;
    }
    rows
};

#[cfg(test)]
mod tests {
    use super::*;

    /// Figure 5 of RFC 9293, with Linux's request sockets left out.
    #[test]
    fn every_arrow_of_the_rfc_is_there() {
        for (from, to) in [
            (Close, Listen),
            (Close, SynSent),
            (Listen, SynRecv),
            (SynSent, SynRecv),
            (SynSent, Established),
            (SynRecv, Established),
            (SynRecv, FinWait1),
            (Established, FinWait1),
            (Established, CloseWait),
            (FinWait1, FinWait2),
            (FinWait1, Closing),
            (FinWait2, TimeWait),
            (Closing, TimeWait),
            (CloseWait, LastAck),
            (LastAck, Close),
            (TimeWait, Close),
        ] {
            assert!(is_legal(from, to), "{from} {to}");
        }
    }

    #[test]
    fn what_tcp_does_not_do_is_illegal() {
        for (from, to) in [
            (Close, Close),
            (Close, Established),
            (Listen, Established),
            (Established, TimeWait),
            (Established, LastAck),
            (CloseWait, TimeWait),
            (CloseWait, Established),
            (FinWait2, Established),
            (TimeWait, Established),
            (LastAck, TimeWait),
        ] {
            assert!(!is_legal(from, to), "{from} {to}");
        }
        assert!(is_legal(State::Unknown(13), Established));
    }

    #[test]
    fn no_edge_is_there_twice_and_each_has_its_source() {
        for (at, edge) in EDGES.iter().enumerate() {
            assert!(edge.source.contains("()"), "{edge:?}");
            assert!(!EDGES[..at].iter().any(|other| (other.from, other.to) == (edge.from, edge.to)));
        }
    }
}
