//! `-> CLOSE` of a full socket: the end, with what explains it, or a mini-socket in its place.

use std::rc::Rc;

use super::{
    cause::{Why, can_end_by_own_reset, likely_mini, reset_why, step, why},
    conns::{Conn, Since},
    resets::{Resets, Sent},
    table::{Out, Said, Table, Update},
    wait::{Closing, Ends},
};
use crate::model::{Cause, ClosedAs, Event, Record, State, Transition};

/// How long an estimated mini-socket is believed in: TCP_TIMEWAIT_LEN, and net.ipv4.tcp_fin_timeout's default.
const ESTIMATE_NS: u64 = 60_000_000_000;

impl Table {
    /// `-> CLOSE`: the end, or the hand-over to a mini-socket.
    pub(super) fn closed(
        &mut self,
        at: usize,
        event: &Event,
        from: State,
        closed_as: Option<ClosedAs>,
        out: Out<'_>,
    ) {
        if !self.waiting.timewaits.is_empty() {
            let ends = Ends::new(event.netns, self.conns.get(at).tuple);
            if let Some(timewait) = self.waiting.take_timewait(event.sk, &ends) {
                return self.hand_over(at, event, from, timewait, out);
            }
        }
        let resets = self.waiting.resets.take(event.sk, from, event.time_ns);
        let why = self.weigh(why(from, event.error, resets, closed_as));
        let hidden = !self.sight.minis && why.errno == 0 && matches!(from, State::FinWait2 | State::Closing);
        let likely = if hidden && self.sight.estimates {
            closed_as.and_then(|it| likely_mini(from, why.errno, it))
        } else {
            None
        };
        // Behind what is hidden the connection may live on.
        let cause = why.cause.filter(|_| !hidden);
        let said = Said { from: Some(from), cause, errno: why.errno, exact: !hidden, mini: false };
        let mut transition = self.make(at, State::Close, event.time_ns, said);
        self.remove(at);
        self.remember_death(event.sk, from);
        let closed = closed_as.unwrap_or_default();
        if let Some(sent) = resets.sent.filter(|_| why.cause == Some(Cause::ResetSent)) {
            transition.reset_why = reset_why(from, false, true, sent, closed, &self.sight.reset_reasons);
        }
        let closing = Closing {
            sk: event.sk,
            at_ns: event.time_ns,
            transition,
            closed,
            received: resets.received,
            likely,
        };
        if why.may_be_reset {
            self.waiting.closings.push(closing);
        } else {
            self.finish_closing(closing, None, out);
        }
    }

    /// The peer's reset, in the moment before the end that it causes. `tcp_reset()` in CLOSE does nothing.
    pub(super) fn reset_received(&mut self, event: &Event, state: State) {
        if state != State::Close {
            self.waiting.resets.note(event, state, Resets { received: true, sent: None });
        }
    }

    /// A reset from here: behind the end that it explains, or before it.
    pub(super) fn reset_sent(&mut self, event: &Event, state: State, sent: Sent, out: Out<'_>) {
        if let Some(at) = self.waiting.closings.iter().position(|it| it.sk == event.sk) {
            let closing = self.waiting.closings.swap_remove(at);
            self.finish_closing(closing, Some(sent), out);
        } else if can_end_by_own_reset(state) {
            self.waiting.resets.note(event, state, Resets { received: false, sent: Some(sent) });
        }
    }

    /// Where it cannot be seen whether a reset follows, what only its absence proves is not known.
    fn weigh(&self, why: Why) -> Why {
        match why.cause {
            _ if !why.may_be_reset || self.sight.resets => why,
            Some(Cause::ZeroWindowTimeout) => Why::default(),
            _ => Why { cause: None, may_be_reset: false, ..why },
        }
    }

    pub(super) fn finish_closing(&mut self, closing: Closing, reset: Option<Sent>, out: Out<'_>) {
        let mut transition = closing.transition;
        if let Some(sent) = reset {
            let (from, received) = (transition.from, closing.received);
            transition.cause = Some(Cause::ResetSent);
            transition.reset_why =
                reset_why(from, received, false, sent, closing.closed, &self.sight.reset_reasons);
            if !received {
                // An old error: tcp_disconnect() and close() set none before CLOSE.
                transition.errno = 0;
            }
            transition.exact = true;
        } else if let Some(state) = closing.likely {
            return self.estimate(transition, closing.at_ns, state, out);
        }
        out(Update::Record(Record::Transition(transition)));
    }

    /// The connection most likely lives on in a mini-socket that nobody shows us.
    fn estimate(&mut self, mut transition: Transition, at_ns: u64, state: State, out: Out<'_>) {
        self.next_estimate += 1;
        self.estimates.push_back((at_ns.saturating_add(ESTIMATE_NS), self.next_estimate));
        let conn = &transition.conn;
        let ends = Ends::new(conn.subject.netns, conn.tuple);
        self.waiting.estimated.insert(ends, self.next_estimate);
        self.conns.add(Conn {
            sk: self.next_estimate,
            id: conn.id,
            since_ns: at_ns,
            subject: Rc::clone(&conn.subject),
            tuple: conn.tuple,
            state,
            role: conn.role,
            since: Since::Exact,
            mini: true,
            unborn: false,
            estimated: true,
            stuck: 0,
            remind_ns: 0,
            watched: 0,
        });
        if state != transition.from {
            transition.to = state;
            transition.conn.mini = true;
            transition.cause = step(transition.from, state);
            out(Update::Record(Record::Transition(transition)));
        }
    }
}
