//! Connections that come in: request sockets, and the children that continue them.

use super::{Details, Endpoints, Since, Table, complete, key};
use crate::{
    model::{
        Cause, Event, Identify, KernelSocket, OwnerKey, OwnerSource, Record, Role, State, SubjectKey,
        Transition,
    },
    track::{identity::same_endpoints, pending::Child},
};

impl Table {
    /// A request has begun, or its timer was set again. `is_repeat`: its SYN-ACK was sent before, or it is a copy of a request for
    /// another listener.
    pub(super) fn request(
        &mut self,
        event: &Event,
        listener: Option<KernelSocket>,
        is_repeat: bool,
        identities: &mut dyn Identify,
    ) {
        if let Some(at) = self.conns.find(event.sk)
            && self.conns.get(at).state == State::NewSynRecv
            && same_endpoints(&self.conns.get(at).tuple, &event.tuple)
        {
            self.pending.take_ending(event.sk);
            return;
        }
        self.owners.connection_comes(listener, event.sk, event.time_ns);
        let ends = Endpoints::of(event);
        if is_repeat && let Some(old) = self.request_of(&ends) {
            return self.migrate(old, event, listener, identities);
        }
        self.end_previous(&ends);
        if let Some(old) = self.request_of(&ends)
            && let Some(at) = self.conns.find(old)
        {
            // Two requests cannot have the same endpoints: the end of the first one was lost.
            self.end_mini(at, event.time_ns, None);
        }
        self.clear(event.sk, event.time_ns);
        let key = self.request_key(event, listener);
        let at = self.add(event, State::Listen, Some(Role::Server), Since::Unknown, key, identities);
        self.conns.get_mut(at).mini = true;
        self.mini_sockets.add_request(ends, event.sk);
        self.change_and_report(
            at,
            State::NewSynRecv,
            event.time_ns,
            Details { mini: true, ..Details::EXACT },
        );
    }

    /// The listener has closed, and another listener of its SO_REUSEPORT group takes a copy of the request
    /// (net.ipv4.tcp_migrate_req): the connection goes on.
    fn migrate(
        &mut self,
        old: u64,
        event: &Event,
        listener: Option<KernelSocket>,
        identities: &mut dyn Identify,
    ) {
        let Some(at) = self.replace_request(old, event) else { return };
        self.mini_sockets.add_request(Endpoints::of(event), event.sk);
        let subject = identities.identify(self.request_key(event, listener));
        self.conns.set_subject(at, subject);
        self.watchdog.watch_again(&mut self.conns, at);
    }

    /// The socket of an event, which has the same endpoints as `request`, continues it.
    fn replace_request(&mut self, request: u64, event: &Event) -> Option<usize> {
        self.clear(event.sk, event.time_ns);
        self.pending.take_ending(request);
        self.mini_sockets.remove_request(&Endpoints::of(event));
        let at = self.conns.find(request)?;
        self.rekey(at, event.sk);
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

    /// The request that has these endpoints now.
    fn request_of(&self, ends: &Endpoints) -> Option<u64> {
        let sk = self.mini_sockets.request(ends)?;
        let is_request = |at: usize| self.conns.get(at).state == State::NewSynRecv;
        self.conns.find(sk).is_some_and(is_request).then_some(sk)
    }

    /// `LISTEN -> SYN_RECV` of a full socket: a request's child, or one without a request (SYN cookie, fast open, or
    /// no hook for requests).
    pub(super) fn child(
        &mut self,
        event: &Event,
        listener: Option<KernelSocket>,
        identities: &mut dyn Identify,
    ) {
        self.owners.connection_comes(listener, event.sk, event.time_ns);
        if !event.tuple.is_complete() {
            let at = self.begin(event, State::Listen, Some(Role::Server), None, listener, identities);
            return self.delay_child(at, event);
        }
        let ends = Endpoints::of(event);
        if let Some(request) = self.request_of(&ends) {
            return self.request_becomes_child(request, event, listener, identities);
        }
        self.walk.note_child(ends);
        self.end_previous(&ends);
        let cause = self.pending.take_cookie(&ends).then_some(Cause::Syncookie);
        let at = self.begin(event, State::Listen, Some(Role::Server), None, listener, identities);
        self.change_and_report(at, State::SynRecv, event.time_ns, Details { cause, ..Details::EXACT });
    }

    /// A child whose first event comes without its endpoints: the next event has them. Its first transition waits for them.
    fn delay_child(&mut self, at: usize, event: &Event) {
        let details = Details { from: Some(State::Listen), ..Details::EXACT };
        let transition = self.change_state(at, State::SynRecv, event.time_ns, details);
        if self.visibility.minis {
            self.conns.get_mut(at).awaits_endpoints = true;
            self.pending.add_child(Child { sk: event.sk, at_ns: event.time_ns, transition });
        } else {
            self.report(Record::Transition(transition));
        }
    }

    /// Reports the first transition of a child that has waited for its endpoints, without them.
    pub(super) fn report_delayed_child(&mut self, child: Child) {
        if let Some(at) = self.conns.find(child.sk) {
            self.conns.get_mut(at).awaits_endpoints = false;
        }
        self.report(Record::Transition(child.transition));
    }

    /// The child at `at` has its endpoints now: it continues a request, or came without one.
    pub(super) fn resolve_child(&mut self, at: usize, event: &Event, identities: &mut dyn Identify) -> usize {
        self.conns.get_mut(at).awaits_endpoints = false;
        let Some(child) = self.pending.take_children(event.sk).pop() else { return at };
        let ends = Endpoints::new(event.netns, self.conns.get(at).tuple);
        match self.request_of(&ends) {
            Some(request) => self.merge_child(at, request, event, identities),
            None => self.report_resolved_child(at, ends, event, child.transition),
        }
    }

    /// The child at `at` continues `request`: the child's entry goes, and the request's becomes the child's.
    fn merge_child(
        &mut self,
        at: usize,
        request: u64,
        event: &Event,
        identities: &mut dyn Identify,
    ) -> usize {
        let child = self.conns.remove(at);
        self.walk.note_ended(child.sk);
        self.request_becomes_child(request, event, None, identities);
        let at = self.conns.find(event.sk).unwrap_or_else(|| {
            self.add(event, State::SynRecv, Some(Role::Server), Since::Unknown, key(event, None), identities)
        });
        if let Some(owner) = &child.subject.owner {
            let owner = OwnerKey { task: owner.task.clone(), source: OwnerSource::Inherited };
            self.conns.set_subject(at, identities.identify(key(event, Some(owner))));
        }
        at
    }

    /// The child at `at` came without a request: `first` is its first transition.
    fn report_resolved_child(
        &mut self,
        at: usize,
        ends: Endpoints,
        event: &Event,
        mut first: Transition,
    ) -> usize {
        let tuple = self.conns.get(at).tuple;
        self.walk.note_child(ends);
        self.end_previous(&ends);
        first.conn.tuple = tuple;
        first.cause = self.pending.take_cookie(&ends).then_some(Cause::Syncookie);
        self.report(Record::Transition(first));
        self.conns.find(event.sk).unwrap_or(at)
    }

    /// A request becomes its child; its state has the same name in both.
    fn request_becomes_child(
        &mut self,
        request: u64,
        event: &Event,
        listener: Option<KernelSocket>,
        identities: &mut dyn Identify,
    ) {
        let Some(at) = self.replace_request(request, event) else { return };
        let known = self.conns.get(at).subject.owner.as_ref();
        let known = known.map(|owner| OwnerKey { task: owner.task.clone(), source: OwnerSource::Inherited });
        let owner = listener.and_then(|listener| self.inherited(listener)).or(known);
        self.conns.set_subject(at, identities.identify(key(event, owner)));
        let conn = self.conns.get_mut(at);
        complete(conn, event.tuple, identities);
        conn.state = State::SynRecv;
        conn.mini = false;
        self.watchdog.watch_again(&mut self.conns, at);
    }
}
