//! `-> CLOSE` of a full socket: the end, with what explains it, or a mini-socket in its place.

use std::rc::Rc;

use super::{
    cause::{cause, likely_mini, may_be_reset_next, reset_why},
    conns::{Conn, Resets, Sent, Since},
    table::{Applied, Out, Said, Table},
    wait::{Closing, Ends},
};
use crate::model::{Cause, ClosedAs, Event, State, Transition};

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
        let errno = event.error;
        let resets = self.conns.get(at).resets;
        let cause = cause(from, State::Close, errno, resets, closed_as);
        let hidden = !self.sight.minis && errno == 0 && matches!(from, State::FinWait2 | State::Closing);
        let likely = if hidden && self.sight.estimates {
            closed_as.and_then(|it| likely_mini(from, errno, it))
        } else {
            None
        };
        let waits = self.sight.resets && may_be_reset_next(from, errno, resets, closed_as);
        let closing = |transition| Closing { sk: event.sk, at_ns: event.time_ns, transition, likely };
        let said = Said { from: Some(from), cause, errno, exact: !hidden, mini: false };
        if likely.is_some() || waits {
            let transition = self.make(at, State::Close, event.time_ns, said);
            let closing = closing(transition);
            self.remove(at);
            self.remember_death(event.sk, from);
            if waits {
                self.waiting.closings.push(closing);
            } else {
                self.finish_closing(closing, None, out);
            }
            return;
        }
        self.step(at, State::Close, event.time_ns, said, out);
        self.remove(at);
        self.remember_death(event.sk, from);
    }

    pub(super) fn reset_sent(&mut self, sk: u64, sent: Sent, out: Out<'_>) {
        if let Some(at) = self.waiting.closings.iter().position(|it| it.sk == sk) {
            let closing = self.waiting.closings.swap_remove(at);
            self.finish_closing(closing, Some(sent), out);
        } else if let Some(at) = self.conns.find(sk) {
            self.conns.get_mut(at).resets.sent = Some(sent);
        }
    }

    pub(super) fn finish_closing(&mut self, closing: Closing, reset: Option<Sent>, out: Out<'_>) {
        let mut transition = closing.transition;
        if let Some(sent) = reset {
            transition.cause = transition.cause.or(Some(Cause::ResetSent));
            transition.reset_why = reset_why(sent, &self.sight.reset_reasons);
            transition.exact = true;
        } else if let Some(state) = closing.likely {
            return self.estimate(transition, closing.at_ns, state, out);
        }
        out(Applied::Transition(transition));
    }

    /// The connection most likely lives on in a mini-socket that nobody shows us.
    fn estimate(&mut self, mut transition: Transition, at_ns: u64, state: State, out: Out<'_>) {
        self.next_estimate += 1;
        self.estimates.push_back((at_ns + ESTIMATE_NS, self.next_estimate));
        let ends = Ends::new(transition.subject.netns, transition.tuple);
        self.waiting.estimated.insert(ends, self.next_estimate);
        self.conns.add(Conn {
            sk: self.next_estimate,
            id: transition.conn,
            since_ns: at_ns,
            subject: Rc::clone(&transition.subject),
            tuple: transition.tuple,
            state,
            role: transition.role,
            since: Since::Exact,
            mini: true,
            unborn: false,
            estimated: true,
            resets: Resets::default(),
            stuck: 0,
            remind_ns: 0,
            watched: 0,
        });
        if state != transition.from {
            transition.to = state;
            transition.mini = true;
            transition.cause = cause(transition.from, state, 0, Resets::default(), None);
            out(Applied::Transition(transition));
        }
    }
}
