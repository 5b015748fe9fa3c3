//! Connections that come in: request sockets, and the children that continue them.

use super::{Details, Ends, Since, Table, key, merge};
use crate::{
    model::{
        Cause, Event, Identify, KernelSocket, OwnerKey, OwnerSource, Record, Role, State, SubjectKey,
        Transition,
    },
    track::{identity::same_ends, pending::Child},
};

impl Table {
    /// A request has begun, or its timer was set again. `again` if its SYN-ACK was sent before.
    pub(super) fn request(
        &mut self,
        event: &Event,
        listener: Option<KernelSocket>,
        again: bool,
        who: &mut dyn Identify,
    ) {
        if let Some(at) = self.conns.find(event.sk)
            && self.conns.get(at).state == State::NewSynRecv
            && same_ends(&self.conns.get(at).tuple, &event.tuple)
        {
            self.pending.take_ending(event.sk);
            return;
        }
        self.owners.connection_comes(listener, event.sk, event.time_ns);
        let ends = Ends::of(event);
        if again && let Some(old) = self.request_of(&ends) {
            return self.migrate(old, event, listener, who);
        }
        self.end_previous(&ends);
        if let Some(old) = self.request_of(&ends)
            && let Some(at) = self.conns.find(old)
        {
            // Two requests cannot have the same ends: the end of the first was lost.
            self.end_mini(at, event.time_ns, None);
        }
        self.clear(event.sk, event.time_ns);
        let key = self.request_key(event, listener);
        let at = self.add(event, State::Listen, Some(Role::Server), Since::Never, key, who);
        self.conns.get_mut(at).mini = true;
        self.mini_sockets.add_request(ends, event.sk);
        self.step(at, State::NewSynRecv, event.time_ns, Details { mini: true, ..Details::EXACT });
    }

    /// The listener has closed, and another listener of its SO_REUSEPORT group takes a copy of the request
    /// (net.ipv4.tcp_migrate_req): the connection goes on.
    fn migrate(&mut self, old: u64, event: &Event, listener: Option<KernelSocket>, who: &mut dyn Identify) {
        let Some(at) = self.replace_request(old, event) else { return };
        self.mini_sockets.add_request(Ends::of(event), event.sk);
        let subject = who.identify(self.request_key(event, listener));
        self.conns.set_subject(at, subject);
        self.watchdog.watch_again(&mut self.conns, at);
    }

    /// The socket of an event, which has the same ends as `request`, continues it.
    fn replace_request(&mut self, request: u64, event: &Event) -> Option<usize> {
        self.clear(event.sk, event.time_ns);
        self.pending.take_ending(request);
        self.mini_sockets.remove_request(&Ends::of(event));
        let at = self.conns.find(request)?;
        self.rename(at, event.sk);
        Some(at)
    }

    /// A request has neither uid nor cgroup; its child will have the listener's.
    fn request_key(&self, event: &Event, listener: Option<KernelSocket>) -> SubjectKey {
        let mut key = key(event, listener.and_then(|listener| self.inherited(listener)));
        if let Some(parent) = listener.and_then(|listener| self.listener(listener)) {
            key.uid = parent.subject.owner.as_ref().and_then(|owner| owner.uid);
            key.cgroup = parent.subject.cgroup.as_ref().map(|cgroup| cgroup.id);
        }
        key
    }

    /// The request that has these ends now.
    fn request_of(&self, ends: &Ends) -> Option<u64> {
        let sk = self.mini_sockets.request(ends)?;
        let is_request = |at: usize| self.conns.get(at).state == State::NewSynRecv;
        self.conns.find(sk).is_some_and(is_request).then_some(sk)
    }

    /// `LISTEN -> SYN_RECV` of a full socket: a request's child, or one without a request (SYN cookie, fast open, or
    /// no hook for requests).
    pub(super) fn child(&mut self, event: &Event, listener: Option<KernelSocket>, who: &mut dyn Identify) {
        self.owners.connection_comes(listener, event.sk, event.time_ns);
        if !event.tuple.is_complete() {
            let at = self.begin(event, State::Listen, Some(Role::Server), None, listener, who);
            return self.postpone_child(at, event);
        }
        let ends = Ends::of(event);
        if let Some(request) = self.request_of(&ends) {
            return self.become_child(request, event, listener, who);
        }
        self.walk.note_child(ends);
        self.end_previous(&ends);
        let cause = self.pending.take_cookie(&ends).then_some(Cause::Syncookie);
        let at = self.begin(event, State::Listen, Some(Role::Server), None, listener, who);
        self.step(at, State::SynRecv, event.time_ns, Details { cause, ..Details::EXACT });
    }

    /// A child whose first event comes without its ends: the next event has them.
    fn postpone_child(&mut self, at: usize, event: &Event) {
        let details = Details { from: Some(State::Listen), ..Details::EXACT };
        let transition = self.enter(at, State::SynRecv, event.time_ns, details);
        if self.sight.minis {
            self.conns.get_mut(at).awaits_ends = true;
            self.pending.add_child(Child { sk: event.sk, at_ns: event.time_ns, transition });
        } else {
            self.report(Record::Transition(transition));
        }
    }

    /// Reports a child that has waited for its ends, without them.
    pub(super) fn report_child(&mut self, child: Child) {
        if let Some(at) = self.conns.find(child.sk) {
            self.conns.get_mut(at).awaits_ends = false;
        }
        self.report(Record::Transition(child.transition));
    }

    /// The child at `at` has its ends now: it continues a request, or came without one.
    pub(super) fn child_has_ends(&mut self, at: usize, event: &Event, who: &mut dyn Identify) -> usize {
        self.conns.get_mut(at).awaits_ends = false;
        let Some(child) = self.pending.take_children(event.sk).pop() else { return at };
        let ends = Ends::new(event.netns, self.conns.get(at).tuple);
        match self.request_of(&ends) {
            Some(request) => self.replace_child(at, request, event, who),
            None => self.begin_child(at, ends, event, child.transition),
        }
    }

    /// The child at `at` continues `request`.
    fn replace_child(&mut self, at: usize, request: u64, event: &Event, who: &mut dyn Identify) -> usize {
        let child = self.conns.remove(at);
        self.walk.note_ended(child.sk);
        self.become_child(request, event, None, who);
        let at = self.conns.find(event.sk).unwrap_or_else(|| {
            self.add(event, State::SynRecv, Some(Role::Server), Since::Never, key(event, None), who)
        });
        if let Some(owner) = &child.subject.owner {
            let owner = OwnerKey { task: owner.task.clone(), source: OwnerSource::Inherited };
            self.conns.set_subject(at, who.identify(key(event, Some(owner))));
        }
        at
    }

    /// The child at `at` came without a request: `first` is its first transition.
    fn begin_child(&mut self, at: usize, ends: Ends, event: &Event, mut first: Transition) -> usize {
        let tuple = self.conns.get(at).tuple;
        self.walk.note_child(ends);
        self.end_previous(&ends);
        first.conn.tuple = tuple;
        first.cause = self.pending.take_cookie(&ends).then_some(Cause::Syncookie);
        self.report(Record::Transition(first));
        self.conns.find(event.sk).unwrap_or(at)
    }

    /// A request becomes its child; its state has the same name in both.
    fn become_child(
        &mut self,
        request: u64,
        event: &Event,
        listener: Option<KernelSocket>,
        who: &mut dyn Identify,
    ) {
        let Some(at) = self.replace_request(request, event) else { return };
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
}
