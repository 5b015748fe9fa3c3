//! How a socket comes into the table: by its first event, out of a listener, or because it was there before the tracer.

use std::{collections::HashSet, rc::Rc};

use super::{
    conns::{Conn, Since},
    listeners::is_same_process,
    same::merge,
    table::{Out, Said, Table, Update, key},
    wait::{Birth, Ends},
};
use crate::model::{Event, Identify, KernelSocket, OwnerKey, OwnerSource, Record, Role, State, Task, Tuple};

impl Table {
    /// A new connection or listener; whatever had this key before is gone.
    #[expect(clippy::too_many_arguments, reason = "all of them are what a birth is made of")]
    pub(super) fn born(
        &mut self,
        event: &Event,
        from: State,
        role: Option<Role>,
        task: Option<&Task>,
        listener: Option<KernelSocket>,
        who: &mut dyn Identify,
        out: Out<'_>,
    ) -> usize {
        self.clear(event.sk, event.time_ns, out);
        let own = task.map(|task| OwnerKey {
            task: Rc::new(task.clone()),
            source: if role == Some(Role::Listener) { OwnerSource::Listen } else { OwnerSource::Connect },
        });
        let owner = own.or_else(|| self.inherited(listener?));
        self.add(event, from, role, Since::Never, key(event, owner), who)
    }

    /// A child's first transition where it comes without its ends: the next one tells.
    pub(super) fn postpone_birth(&mut self, at: usize, event: &Event, out: Out<'_>) {
        let transition =
            self.make(at, State::SynRecv, event.time_ns, Said { from: Some(State::Listen), ..Said::EXACT });
        if self.sight.minis {
            self.conns.get_mut(at).unborn = true;
            self.waiting.births.push(Birth { sk: event.sk, at_ns: event.time_ns, transition });
        } else {
            out(Update::Record(Record::Transition(transition)));
        }
    }

    pub(super) fn finish_birth(&mut self, birth: Birth, out: Out<'_>) {
        if let Some(at) = self.conns.find(birth.sk) {
            self.conns.get_mut(at).unborn = false;
        }
        out(Update::Record(Record::Transition(birth.transition)));
    }

    pub(super) fn port_known(&mut self, event: &Event, out: Out<'_>) {
        if let Some(at) = self.conns.find(event.sk)
            && self.conns.get(at).state == State::SynSent
        {
            let conn = self.conns.get_mut(at);
            conn.tuple = merge(conn.tuple, event.tuple);
            out(Update::Completed(conn.id, conn.tuple));
        }
    }

    /// Nobody wants to hear of a connection, and what it does is hidden: it is forgotten without a word.
    pub fn dismiss(&mut self, sk: u64) {
        self.waiting.births.retain(|birth| birth.sk != sk);
        if let Some(at) = self.conns.find(sk) {
            self.remove(at);
        }
    }

    /// Forgets all whose ends are `hidden`.
    pub fn dismiss_all(&mut self, hidden: impl Fn(&Tuple) -> bool) {
        let sockets: Vec<u64> =
            self.conns.iter().filter(|conn| hidden(&conn.tuple)).map(|conn| conn.sk).collect();
        sockets.into_iter().for_each(|sk| self.dismiss(sk));
    }

    /// The walk over the existing sockets begins: until [`Table::started`], what the ring has shown of a socket counts for
    /// more than a sight of it, which may be older.
    pub fn starts(&mut self) {
        self.conns.remember_ended(true);
    }

    /// The walk is over, and everything that the kernel wrote before its end was applied.
    pub fn started(&mut self) {
        self.conns.remember_ended(false);
        self.waiting.children = HashSet::default();
        self.waiting.shared = HashSet::default();
    }

    /// A child without a known request. No event of its own ends a request that becomes a child.
    pub(super) fn note_child(&mut self, ends: Ends) {
        if self.conns.remembers_ended() {
            self.waiting.children.insert(ends);
        }
    }

    /// A socket that the walk over the existing ones has shown.
    pub(super) fn seen(
        &mut self,
        event: &Event,
        state: State,
        mini: bool,
        task: Option<&Task>,
        who: &mut dyn Identify,
    ) {
        if state == State::Close {
            return;
        }
        let owner = task.map(|task| OwnerKey { task: Rc::new(task.clone()), source: OwnerSource::Scan });
        if let Some(at) = self.conns.find(event.sk) {
            if let Some(holder) = owner {
                self.also_held(at, event, holder, who);
            }
            return;
        }
        // The walk has held it while it ended, or became a child.
        let is_over = self.conns.has_ended(event.sk)
            || (state == State::NewSynRecv && self.waiting.children.contains(&Ends::of(event)));
        // A timewait socket whose full one has not gone yet.
        let waits = self.waiting.timewaits.iter().any(|timewait| timewait.sk == event.sk);
        if !waits && !is_over {
            self.add_existing(event, state, mini, owner, who);
        }
    }

    /// A process holds a socket that is known. Which of several has accepted a connection is not known; what has called listen() is
    /// older than those that have got the listener from it.
    fn also_held(&mut self, at: usize, event: &Event, holder: OwnerKey, who: &mut dyn Identify) {
        let conn = self.conns.get(at);
        let owner = match &conn.subject.owner {
            None if self.waiting.shared.contains(&event.sk) => return,
            None => Some(holder),
            Some(known)
                if known.source != OwnerSource::Scan || is_same_process(&known.task, &holder.task) =>
            {
                return;
            }
            Some(known) if conn.state == State::Listen => {
                Some(holder).filter(|holder| holder.task.start_ns < known.task.start_ns)
            }
            Some(_) => {
                self.waiting.shared.insert(event.sk);
                None
            }
        };
        if owner.is_some() || conn.state != State::Listen {
            self.conns.set_subject(at, who.identify(key(event, owner)));
        }
    }

    /// A socket that the kernel's tables show, and that was not known.
    pub(super) fn add_existing(
        &mut self,
        event: &Event,
        state: State,
        mini: bool,
        owner: Option<OwnerKey>,
        who: &mut dyn Identify,
    ) -> usize {
        let role = match state {
            State::Listen => Some(Role::Listener),
            State::NewSynRecv => Some(Role::Server),
            _ => None,
        };
        let at = self.add(event, state, role, Since::AtLeast, key(event, owner), who);
        self.conns.get_mut(at).mini = mini;
        if state == State::NewSynRecv {
            self.waiting.requests.insert(Ends::of(event), event.sk);
        }
        at
    }

    /// The listener's owner, if that address is a listener that we know.
    pub(super) fn inherited(&self, listener: KernelSocket) -> Option<OwnerKey> {
        let owner = self.listener(listener)?.subject.owner.as_ref()?;
        if self.listeners.is_without_owner(listener.0) {
            return None;
        }
        Some(OwnerKey { task: Rc::clone(&owner.task), source: OwnerSource::Inherited })
    }

    pub(super) fn listener(&self, listener: KernelSocket) -> Option<&Conn> {
        let found = self.conns.get(self.conns.find(listener.0)?);
        (found.state == State::Listen).then_some(found)
    }
}
