//! `-> CLOSE` of a full socket: the end of the connection, with its cause, or a mini-socket that continues it.

use std::rc::Rc;

use super::{Conn, Details, Endpoints, Since, Table};
use crate::{
    model::{Cause, ClosedAs, Event, Record, State, Transition},
    track::{
        cause::{CloseCause, can_end_by_own_reset, close_cause, likely_mini, reset_why, step_cause},
        pending::Closing,
        resets::{Resets, Sent},
    },
};

impl Table {
    /// `-> CLOSE`: the end of the connection, or a timewait socket continues it.
    pub(super) fn closed(&mut self, at: usize, event: &Event, from: State, closed_as: Option<ClosedAs>) {
        if self.pending.has_timewaits() {
            let ends = Endpoints::new(event.netns, self.conns.get(at).tuple);
            if let Some(timewait) = self.pending.take_timewait(event.sk, &ends) {
                return self.continue_as_timewait(at, event, from, timewait);
            }
        }
        let resets = self.pending.take_resets(event, from);
        let why = self.only_provable(close_cause(from, event.error, resets, closed_as));
        let hidden =
            !self.visibility.minis && why.errno == 0 && matches!(from, State::FinWait2 | State::Closing);
        let likely = if hidden && self.visibility.estimates {
            closed_as.and_then(|closed_as| likely_mini(from, why.errno, closed_as))
        } else {
            None
        };
        // A mini-socket that no hook shows may continue the connection.
        let cause = why.cause.filter(|_| !hidden);
        let details = Details { from: Some(from), cause, errno: why.errno, exact: !hidden, mini: false };
        let mut transition = self.change_state(at, State::Close, event.time_ns, details);
        self.remove(at);
        self.closed.note(event.sk, from);
        let closed = closed_as.unwrap_or_default();
        if let Some(sent) = resets.sent.filter(|_| why.cause == Some(Cause::ResetSent)) {
            transition.reset_why = reset_why(from, false, true, sent, closed, &self.visibility.reset_reasons);
        }
        let closing = Closing {
            sk: event.sk,
            at_ns: event.time_ns,
            transition,
            closed,
            by_tcp_reset: resets.received,
            likely,
        };
        if why.may_be_reset {
            self.pending.add_closing(closing);
        } else {
            self.finish_closing(closing, None);
        }
    }

    /// The peer's reset, just before the end that it causes. `tcp_reset()` in CLOSE does nothing.
    pub(super) fn reset_received(&mut self, event: &Event, state: State) {
        if state != State::Close {
            self.pending.note_reset(event, state, Resets { received: true, sent: None });
        }
    }

    /// A reset that this host sent: after the end that it explains, or before it.
    pub(super) fn reset_sent(&mut self, event: &Event, state: State, sent: Sent) {
        if let Some(closing) = self.pending.take_closing(event.sk) {
            self.finish_closing(closing, Some(sent));
        } else if can_end_by_own_reset(state) {
            self.pending.note_reset(event, state, Resets { received: false, sent: Some(sent) });
        }
    }

    /// Where no hook shows resets that are sent, a cause that only their absence proves is not known.
    fn only_provable(&self, why: CloseCause) -> CloseCause {
        match why.cause {
            _ if !why.may_be_reset || self.visibility.resets => why,
            Some(Cause::ZeroWindowTimeout) => CloseCause::default(),
            _ => CloseCause { cause: None, may_be_reset: false, ..why },
        }
    }

    /// Reports an end. `reset` is the reset that this host sent, if one explains it.
    pub(super) fn finish_closing(&mut self, closing: Closing, reset: Option<Sent>) {
        let mut transition = closing.transition;
        if let Some(sent) = reset {
            let (from, received) = (transition.from, closing.by_tcp_reset);
            transition.cause = Some(Cause::ResetSent);
            transition.reset_why =
                reset_why(from, received, false, sent, closing.closed, &self.visibility.reset_reasons);
            if !received {
                // An earlier error: tcp_disconnect() and close() set none before CLOSE.
                transition.errno = 0;
            }
            transition.exact = true;
        } else if let Some(state) = closing.likely {
            return self.estimate(transition, closing.at_ns, state);
        }
        self.report(Record::Transition(transition));
    }

    /// Most likely a mini-socket in `state`, which no hook shows, continues the connection.
    fn estimate(&mut self, mut transition: Transition, at_ns: u64, state: State) {
        // The record of TIME_WAIT or of the end has it.
        let traffic = if state == State::TimeWait { None } else { transition.traffic.take() };
        let conn = &transition.conn;
        let key = self.mini_sockets.add_estimate(Endpoints::new(conn.subject.netns, conn.tuple), at_ns);
        self.conns.add(Conn {
            since_ns: at_ns,
            role: conn.role,
            since: Since::Exact,
            mini: true,
            estimated: true,
            traffic,
            nat: conn.nat.clone(),
            peer: conn.peer.clone(),
            ..Conn::new(key, conn.id, Rc::clone(&conn.subject), conn.tuple, state)
        });
        if state != transition.from {
            transition.to = state;
            transition.conn.mini = true;
            transition.cause = step_cause(transition.from, state);
            self.report(Record::Transition(transition));
        }
    }
}
