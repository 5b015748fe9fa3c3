//! How a socket comes into the table: by its first event, out of a listener, or because it existed before the tracer.

use std::rc::Rc;

use super::{Conn, Endpoints, Since, Table, Update, is_same_process, key, merge};
use crate::model::{Event, Identify, KernelSocket, OwnerKey, OwnerSource, Role, State, Task, Tuple};

impl Table {
    /// A new connection or listener. A previous socket at this address is gone.
    pub(super) fn begin(
        &mut self,
        event: &Event,
        from: State,
        role: Option<Role>,
        task: Option<&Task>,
        listener: Option<KernelSocket>,
        identities: &mut dyn Identify,
    ) -> usize {
        self.clear(event.sk, event.time_ns);
        let own = task.map(|task| OwnerKey {
            task: Rc::new(task.clone()),
            source: if role == Some(Role::Listener) { OwnerSource::Listen } else { OwnerSource::Connect },
        });
        let owner = own.or_else(|| self.inherited(listener?));
        self.add(event, from, role, Since::Unknown, key(event, owner), identities)
    }

    /// connect() has chosen a port.
    pub(super) fn port_known(&mut self, event: &Event) {
        if let Some(at) = self.conns.find(event.sk)
            && self.conns.get(at).state == State::SynSent
        {
            let conn = self.conns.get_mut(at);
            conn.tuple = merge(conn.tuple, event.tuple);
            let completed = Update::Completed(conn.id, conn.tuple);
            self.updates.push(completed);
        }
    }

    /// Forgets a connection that the filter excludes, and whose further events are hidden. Nothing is reported.
    pub fn dismiss(&mut self, sk: u64) {
        self.pending.take_children(sk);
        if let Some(at) = self.conns.find(sk) {
            if let Some(lifespans) = &mut self.lifespans {
                lifespans.forget(self.conns.get(at).id);
            }
            self.remove(at);
        }
    }

    /// Forgets all connections whose addresses and ports are `hidden`.
    pub fn dismiss_all(&mut self, hidden: impl Fn(&Tuple) -> bool) {
        let sockets: Vec<u64> =
            self.conns.iter().filter(|conn| hidden(&conn.tuple)).map(|conn| conn.sk).collect();
        sockets.into_iter().for_each(|sk| self.dismiss(sk));
    }

    /// The walk over the existing sockets begins. Until [`Table::end_walk`], what the ring has shown of a socket counts for more
    /// than what the walk shows of it, which may be older.
    pub fn begin_walk(&mut self) {
        self.walk.begin();
    }

    /// The walk is over, and everything that the kernel wrote before its end was applied.
    pub fn end_walk(&mut self) {
        self.walk.end();
    }

    /// A socket that the walk over the existing ones has shown, and a process that holds it.
    pub(super) fn seen(
        &mut self,
        event: &Event,
        state: State,
        mini: bool,
        task: Option<&Task>,
        identities: &mut dyn Identify,
    ) {
        if state == State::Close {
            return;
        }
        let holder = task.map(|task| OwnerKey { task: Rc::new(task.clone()), source: OwnerSource::Scan });
        if let Some(at) = self.conns.find(event.sk) {
            if let Some(holder) = holder {
                self.also_held(at, event, holder, identities);
            }
            return;
        }
        // The walk had a reference to the socket while it ended, or became a child.
        let is_over = self.walk.has_ended(event.sk)
            || (state == State::NewSynRecv && self.walk.is_child(&Endpoints::of(event)));
        if !is_over && !self.pending.is_timewait(event.sk) {
            self.add_existing(event, state, mini, holder, identities);
        }
    }

    /// Another process holds a socket that is known. Of several holders of a connection it is not known which one accepted it. The
    /// process that called listen() is older than those that got the listener from it.
    fn also_held(&mut self, at: usize, event: &Event, holder: OwnerKey, identities: &mut dyn Identify) {
        let conn = self.conns.get(at);
        let owner = match &conn.subject.owner {
            None if self.walk.is_shared(event.sk) => return,
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
                self.walk.note_shared(event.sk);
                None
            }
        };
        if owner.is_some() || conn.state != State::Listen {
            self.conns.set_subject(at, identities.identify(key(event, owner)));
        }
    }

    /// A socket that the kernel's tables show, and that was not known.
    pub(super) fn add_existing(
        &mut self,
        event: &Event,
        state: State,
        mini: bool,
        owner: Option<OwnerKey>,
        identities: &mut dyn Identify,
    ) -> usize {
        let role = match state {
            State::Listen => Some(Role::Listener),
            State::NewSynRecv => Some(Role::Server),
            _ => None,
        };
        let at = self.add(event, state, role, Since::AtLeast, key(event, owner), identities);
        self.conns.get_mut(at).mini = mini;
        if state == State::NewSynRecv {
            self.mini_sockets.add_request(Endpoints::of(event), event.sk);
        }
        at
    }

    /// The owner that a connection out of `listener` has, if that address is a known listener.
    pub(super) fn inherited(&self, listener: KernelSocket) -> Option<OwnerKey> {
        let owner = self.listener(listener)?.subject.owner.as_ref()?;
        if self.owners.is_without_owner(listener.0) {
            return None;
        }
        Some(OwnerKey { task: Rc::clone(&owner.task), source: OwnerSource::Inherited })
    }

    pub(super) fn listener(&self, listener: KernelSocket) -> Option<&Conn> {
        let found = self.conns.get(self.conns.find(listener.0)?);
        (found.state == State::Listen).then_some(found)
    }
}
