//! Timewait sockets, which continue full ones, and the ends of mini-sockets.

use super::{Details, Endpoints, Since, Table, key};
use crate::{
    model::{Cause, Event, Identify, KernelSocket, MiniEnd, MiniEndHow, State},
    track::{
        cause::step_cause,
        identity::same_endpoints,
        pending::{Ending, Timewait},
    },
};

impl Table {
    /// A timewait socket has begun, or goes on, perhaps in another state.
    pub(super) fn timewait(&mut self, event: &Event, state: State, full: Option<KernelSocket>) {
        let sk = event.sk;
        if let Some(at) = self.conns.find(sk)
            && self.conns.get(at).mini
            && same_endpoints(&self.conns.get(at).tuple, &event.tuple)
        {
            self.pending.take_ending(sk);
            let from = self.conns.get(at).state;
            if from == State::FinWait2 && state == State::TimeWait {
                let details = Details { cause: step_cause(from, state), mini: true, ..Details::EXACT };
                self.change_and_report(at, state, event.time_ns, details);
            }
            return;
        }
        if self.pending.continue_timewait(sk, state) {
            return;
        }
        self.clear(sk, event.time_ns);
        self.pending.add_timewait(Timewait {
            sk,
            full: full.map_or(0, |full| full.0),
            ends: Endpoints::of(event),
            state,
            event: event.clone(),
            ended: None,
        });
    }

    /// The full socket at `at` is gone, and a timewait socket continues its connection.
    pub(super) fn continue_as_timewait(&mut self, at: usize, event: &Event, from: State, timewait: Timewait) {
        if from != timewait.state {
            let cause = step_cause(from, timewait.state);
            let details = Details { from: Some(from), cause, mini: true, ..Details::EXACT };
            self.change_and_report(at, timewait.state, event.time_ns, details);
        } else if self.conns.get(at).since == Since::Unknown {
            // All earlier records of the connection were lost.
            self.correct(at, None, timewait.state, event.time_ns);
        }
        self.closed.note(event.sk, from);
        self.rekey(at, timewait.sk);
        self.conns.get_mut(at).mini = true;
        self.watchdog.watch_again(&mut self.conns, at);
        if let Some(ending) = timewait.ended {
            self.pending.add_ending(ending);
        }
    }

    /// A timewait socket whose full socket was not seen: the connection is new to the stream.
    pub(super) fn begin_with_timewait(&mut self, timewait: Timewait, identities: &mut dyn Identify) {
        let event = &timewait.event;
        self.clear(timewait.sk, event.time_ns);
        let at = self.add(event, timewait.state, None, Since::Unknown, key(event, None), identities);
        self.conns.get_mut(at).mini = true;
        self.correct(at, None, timewait.state, event.time_ns);
        if let Some(ending) = timewait.ended {
            self.pending.add_ending(ending);
        }
    }

    /// A mini-socket ends, or its timer does.
    pub(super) fn mini_ends(&mut self, event: &Event, end: MiniEnd) {
        let found = self.conns.find(event.sk).filter(|&at| self.conns.get(at).mini);
        let is_request = found.is_some_and(|at| self.conns.get(at).state == State::NewSynRecv);
        let cause = match end.how {
            // The request's next timer, or the next packet for it, ends it.
            _ if is_request && end.listener_gone && !end.netns_gone => Some(Cause::ListenerClosed),
            MiniEndHow::Expired => Some(Cause::Expired),
            _ if end.netns_gone => Some(Cause::NetnsGone),
            _ if end.reused => Some(Cause::Reused),
            _ if is_request => Some(Cause::Dropped),
            // `ss -K`, a reset of the peer, or a SYN that is a FIN too: the event is the same for all of them.
            _ => {
                let resets = self.pending.take_resets(event, State::TimeWait);
                resets.sent.map(|_| Cause::ResetSent)
            }
        };
        // The event of an end has no interface, but the connection has one.
        let ends = found
            .map_or_else(|| Endpoints::of(event), |at| Endpoints::new(event.netns, self.conns.get(at).tuple));
        let ending = Ending { sk: event.sk, ends, at_ns: event.time_ns, cause };
        if self.pending.end_timewait(ending) {
            return;
        }
        let Some(at) = found else { return self.walk.note_ended(event.sk) };
        self.pending.take_ending(event.sk);
        let certain = end.netns_gone || end.reused || (end.how == MiniEndHow::Expired && !is_request);
        if certain {
            self.end_mini(at, event.time_ns, cause);
        } else {
            self.pending.add_ending(ending);
        }
    }

    /// Nothing has taken an end back: the mini-socket has ended.
    pub(super) fn finish_ending(&mut self, ending: &Ending, cause: Option<Cause>) {
        if let Some(at) = self.conns.find(ending.sk) {
            self.end_mini(at, ending.at_ns, cause);
        }
    }

    /// A connection with these endpoints begins: a mini-socket that had them has ended to make room for it.
    pub(super) fn end_previous(&mut self, ends: &Endpoints) {
        if let Some(ending) = self.pending.take_ending_of(ends) {
            self.finish_ending(&ending, ending.cause.or(Some(Cause::Reused)));
        }
    }

    /// `-> CLOSE` of the mini-socket at `at`.
    pub(super) fn end_mini(&mut self, at: usize, time_ns: u64, cause: Option<Cause>) {
        self.change_and_report(at, State::Close, time_ns, Details { cause, mini: true, ..Details::EXACT });
        self.remove(at);
    }
}
