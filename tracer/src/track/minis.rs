//! Mini-sockets: requests before the child, timewait sockets behind the full one.

use super::{
    cause::step,
    conns::Since,
    same::{merge, same_ends},
    table::{Out, Said, Table, Update, key},
    wait::{Ending, Ends, Timewait, take},
};
use crate::model::{
    Cause, Event, Identify, KernelSocket, MiniEnd, MiniEndHow, OwnerKey, OwnerSource, Record, Role, State,
    SubjectKey,
};

impl Table {
    /// A request has begun, or its timer was set again. `again` if its SYN-ACK was sent before.
    pub(super) fn request(
        &mut self,
        event: &Event,
        listener: Option<KernelSocket>,
        again: bool,
        who: &mut dyn Identify,
        out: Out<'_>,
    ) {
        if let Some(at) = self.conns.find(event.sk)
            && self.conns.get(at).state == State::NewSynRecv
            && same_ends(&self.conns.get(at).tuple, &event.tuple)
        {
            self.waiting.endings.take(event.sk);
            return;
        }
        self.connection_comes(listener, event.sk, event.time_ns);
        let ends = Ends::of(event);
        if again && let Some(old) = self.request_of(&ends) {
            return self.migrate(old, event, listener, who, out);
        }
        self.reuse(&ends, out);
        if let Some(old) = self.request_of(&ends)
            && let Some(at) = self.conns.find(old)
        {
            // Two cannot be: the end of the first was lost.
            self.end_mini(at, event.time_ns, None, out);
        }
        self.clear(event.sk, event.time_ns, out);
        let key = self.request_key(event, listener);
        let at = self.add(event, State::Listen, Some(Role::Server), Since::Never, key, who);
        self.conns.get_mut(at).mini = true;
        self.waiting.requests.insert(ends, event.sk);
        self.step(at, State::NewSynRecv, event.time_ns, Said { mini: true, ..Said::EXACT }, out);
    }

    /// The listener has closed, and another one of its SO_REUSEPORT group takes a copy of the request
    /// (net.ipv4.tcp_migrate_req): the connection goes on.
    fn migrate(
        &mut self,
        old: u64,
        event: &Event,
        listener: Option<KernelSocket>,
        who: &mut dyn Identify,
        out: Out<'_>,
    ) {
        let Some(at) = self.take_over(old, event, out) else { return };
        self.waiting.requests.insert(Ends::of(event), event.sk);
        let subject = who.identify(self.request_key(event, listener));
        self.conns.set_subject(at, subject);
        self.watchdog.watch_again(&mut self.conns, at);
    }

    /// The socket of an event takes the place of a request, with its ends.
    fn take_over(&mut self, request: u64, event: &Event, out: Out<'_>) -> Option<usize> {
        self.clear(event.sk, event.time_ns, out);
        self.waiting.endings.take(request);
        self.waiting.requests.remove(&Ends::of(event));
        let at = self.conns.find(request)?;
        self.conns.rename(at, event.sk);
        Some(at)
    }

    /// A request has neither uid nor cgroup; its child will have the listener's.
    fn request_key(&self, event: &Event, listener: Option<KernelSocket>) -> SubjectKey {
        let mut key = key(event, listener.and_then(|it| self.inherited(it)));
        if let Some(parent) = listener.and_then(|it| self.listener(it)) {
            key.uid = parent.subject.owner.as_ref().and_then(|owner| owner.uid);
            key.cgroup = parent.subject.cgroup.as_ref().map(|cgroup| cgroup.id);
        }
        key
    }

    /// `LISTEN -> SYN_RECV` of a full socket: a request's child, or one without a request (SYN cookie, fast open, or
    /// no hook for requests).
    pub(super) fn child(
        &mut self,
        event: &Event,
        listener: Option<KernelSocket>,
        who: &mut dyn Identify,
        out: Out<'_>,
    ) {
        self.connection_comes(listener, event.sk, event.time_ns);
        if !event.tuple.is_complete() {
            let at = self.born(event, State::Listen, Some(Role::Server), None, listener, who, out);
            return self.postpone_birth(at, event, out);
        }
        let ends = Ends::of(event);
        if let Some(request) = self.request_of(&ends) {
            return self.grow_up(request, event, listener, who, out);
        }
        self.note_child(ends);
        self.reuse(&ends, out);
        let cause = self.waiting.take_cookie(&ends).then_some(Cause::Syncookie);
        let at = self.born(event, State::Listen, Some(Role::Server), None, listener, who, out);
        self.step(at, State::SynRecv, event.time_ns, Said { cause, ..Said::EXACT }, out);
    }

    /// The request that has these ends now.
    fn request_of(&self, ends: &Ends) -> Option<u64> {
        let sk = self.waiting.requests.get(ends).copied()?;
        let is_request = |at: usize| self.conns.get(at).state == State::NewSynRecv;
        self.conns.find(sk).is_some_and(is_request).then_some(sk)
    }

    /// A request becomes its child; its state stays.
    fn grow_up(
        &mut self,
        request: u64,
        event: &Event,
        listener: Option<KernelSocket>,
        who: &mut dyn Identify,
        out: Out<'_>,
    ) {
        let Some(at) = self.take_over(request, event, out) else { return };
        let known = self.conns.get(at).subject.owner.as_ref();
        let known = known.map(|owner| OwnerKey { task: owner.task.clone(), source: OwnerSource::Inherited });
        let owner = listener.and_then(|listener| self.inherited(listener)).or(known);
        self.conns.set_subject(at, who.identify(key(event, owner)));
        let conn = self.conns.get_mut(at);
        conn.tuple = merge(conn.tuple, event.tuple);
        conn.state = State::SynRecv;
        conn.mini = false;
        self.watchdog.watch_again(&mut self.conns, at);
    }

    /// The ends of a child are known at last: it is a request's, or was born without.
    pub(super) fn bear(&mut self, at: usize, event: &Event, who: &mut dyn Identify, out: Out<'_>) -> usize {
        let (sk, tuple) = (event.sk, self.conns.get(at).tuple);
        self.conns.get_mut(at).unborn = false;
        let Some(birth) = take(&mut self.waiting.births, |it| it.sk == sk).pop() else { return at };
        let ends = Ends::new(event.netns, tuple);
        match self.request_of(&ends) {
            Some(request) => {
                let task = self.conns.get(at).subject.owner.as_ref().map(|owner| owner.task.clone());
                self.conns.remove(at);
                self.grow_up(request, event, None, who, out);
                let at = self.conns.find(sk);
                let at = at.unwrap_or_else(|| {
                    self.add(event, State::SynRecv, Some(Role::Server), Since::Never, key(event, None), who)
                });
                if let Some(task) = task {
                    let owner = OwnerKey { task, source: OwnerSource::Inherited };
                    self.conns.set_subject(at, who.identify(key(event, Some(owner))));
                }
                at
            }
            None => {
                self.note_child(ends);
                self.reuse(&ends, out);
                let mut transition = birth.transition;
                transition.conn.tuple = tuple;
                transition.cause = self.waiting.take_cookie(&ends).then_some(Cause::Syncookie);
                out(Update::Record(Record::Transition(transition)));
                self.conns.find(sk).unwrap_or(at)
            }
        }
    }

    /// A timewait socket has begun, or goes on, perhaps in another state.
    pub(super) fn timewait(&mut self, event: &Event, state: State, full: Option<KernelSocket>, out: Out<'_>) {
        let sk = event.sk;
        if let Some(at) = self.conns.find(sk)
            && self.conns.get(at).mini
            && same_ends(&self.conns.get(at).tuple, &event.tuple)
        {
            self.waiting.endings.take(sk);
            let from = self.conns.get(at).state;
            if from == State::FinWait2 && state == State::TimeWait {
                let said = Said { cause: step(from, state), mini: true, ..Said::EXACT };
                self.step(at, state, event.time_ns, said, out);
            }
            return;
        }
        if let Some(known) = self.waiting.timewaits.iter_mut().find(|it| it.sk == sk) {
            known.state = state;
            known.ended = None;
            return;
        }
        self.clear(sk, event.time_ns, out);
        self.waiting.timewaits.push(Timewait {
            sk,
            full: full.map_or(0, |full| full.0),
            ends: Ends::of(event),
            state,
            event: event.clone(),
            ended: None,
        });
    }

    /// A full socket has gone, a timewait socket is in its place.
    pub(super) fn hand_over(
        &mut self,
        at: usize,
        event: &Event,
        from: State,
        timewait: Timewait,
        out: Out<'_>,
    ) {
        if from != timewait.state {
            let cause = step(from, timewait.state);
            let said = Said { from: Some(from), cause, mini: true, ..Said::EXACT };
            self.step(at, timewait.state, event.time_ns, said, out);
        } else if self.conns.get(at).since == Since::Never {
            // All that went before was lost.
            self.correct(at, None, timewait.state, event.time_ns, out);
        }
        self.remember_death(event.sk, from);
        self.conns.rename(at, timewait.sk);
        let conn = self.conns.get_mut(at);
        conn.mini = true;
        self.watchdog.watch_again(&mut self.conns, at);
        if let Some(ending) = timewait.ended {
            self.waiting.endings.push(ending);
        }
    }

    /// A timewait socket whose full socket we have not seen: new to the stream.
    pub(super) fn adopt_timewait(&mut self, timewait: Timewait, who: &mut dyn Identify, out: Out<'_>) {
        let event = &timewait.event;
        self.clear(timewait.sk, event.time_ns, out);
        let at = self.add(event, timewait.state, None, Since::Never, key(event, None), who);
        self.conns.get_mut(at).mini = true;
        self.correct(at, None, timewait.state, event.time_ns, out);
        if let Some(ending) = timewait.ended {
            self.waiting.endings.push(ending);
        }
    }

    /// A mini-socket ends, or its timer does.
    pub(super) fn mini_ends(&mut self, event: &Event, end: MiniEnd, out: Out<'_>) {
        let found = self.conns.find(event.sk).filter(|&at| self.conns.get(at).mini);
        let is_request = found.is_some_and(|at| self.conns.get(at).state == State::NewSynRecv);
        let cause = match end.how {
            // Its next timer, or the next packet for it, ends it.
            _ if is_request && end.listener_gone && !end.netns_gone => Some(Cause::ListenerClosed),
            MiniEndHow::Expired => Some(Cause::Expired),
            _ if end.netns_gone => Some(Cause::NetnsGone),
            _ if end.reused => Some(Cause::Reused),
            _ if is_request => Some(Cause::Dropped),
            // `ss -K`, a reset of the peer, or a SYN that is a FIN too: nothing tells them apart.
            _ => {
                let resets = self.waiting.resets.take(event.sk, State::TimeWait, event.time_ns);
                resets.sent.map(|_| Cause::ResetSent)
            }
        };
        // The record of an end has no interface, the connection has.
        let ends =
            found.map_or_else(|| Ends::of(event), |at| Ends::new(event.netns, self.conns.get(at).tuple));
        let ending = Ending { sk: event.sk, ends, at_ns: event.time_ns, cause };
        if let Some(known) = self.waiting.timewaits.iter_mut().find(|it| it.sk == event.sk) {
            known.ended = Some(Ending { ends: known.ends, ..ending });
            return;
        }
        let Some(at) = found else { return self.conns.note_ended(event.sk) };
        self.waiting.endings.take(event.sk);
        let certain = end.netns_gone || end.reused || (end.how == MiniEndHow::Expired && !is_request);
        if certain {
            self.end_mini(at, event.time_ns, cause, out);
        } else {
            self.waiting.endings.push(ending);
        }
    }

    pub(super) fn finish_ending(&mut self, ending: &Ending, cause: Option<Cause>, out: Out<'_>) {
        if let Some(at) = self.conns.find(ending.sk) {
            self.end_mini(at, ending.at_ns, cause, out);
        }
    }

    /// A connection with these ends begins: what had them has ended for its sake.
    pub(super) fn reuse(&mut self, ends: &Ends, out: Out<'_>) {
        if self.waiting.endings.is_empty() {
            return;
        }
        if let Some(it) = self.waiting.endings.take_ends(ends) {
            self.finish_ending(&it, it.cause.or(Some(Cause::Reused)), out);
        }
    }

    /// `-> CLOSE` of a mini-socket.
    pub(super) fn end_mini(&mut self, at: usize, time_ns: u64, cause: Option<Cause>, out: Out<'_>) {
        self.step(at, State::Close, time_ns, Said { cause, mini: true, ..Said::EXACT }, out);
        self.remove(at);
    }
}
