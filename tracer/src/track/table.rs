//! Sockets that live, keyed by the kernel's address, which is only valid between a birth and a death.

use std::{
    collections::VecDeque,
    hash::{BuildHasher, BuildHasherDefault},
    rc::Rc,
};

use hashbrown::HashTable;
use rustc_hash::FxHasher;

use super::cause::{cause, is_exact};
use crate::model::{
    ConnId, Event, EventKind, Identify, InState, KernelListener, OwnerKey, OwnerSource, Role, Snapshot,
    State, Subject, SubjectKey, Task, Transition, Tuple,
};

/// What came of an event.
#[derive(Debug, PartialEq)]
pub enum Applied {
    /// A transition to report.
    Transition(Transition),
    /// A connection whose tuple is complete now.
    Completed(ConnId, Tuple),
    /// Nothing to report.
    Nothing,
}

/// One socket. Kept small: there may be a million.
struct Conn {
    sk: u64,
    id: ConnId,
    /// `CLOCK_MONOTONIC` ns of the entry into `state`, or of the first sight of it.
    since_ns: u64,
    subject: Rc<Subject>,
    tuple: Tuple,
    state: State,
    role: Option<Role>,
    /// How far `since_ns` can be trusted.
    since: Since,
}

#[derive(Clone, Copy, PartialEq)]
enum Since {
    /// Seen when it happened.
    Exact,
    /// It was in the state earlier already.
    AtLeast,
    /// Nobody knows.
    Never,
}

/// How many deaths are remembered, to recognise second copies of them.
const DEATHS: usize = 64;

/// The table.
pub struct Table {
    conns: Vec<Conn>,
    index: HashTable<u32>,
    hasher: BuildHasherDefault<FxHasher>,
    deaths: VecDeque<(u64, State)>,
    next: u64,
    offset_ns: i64,
}

impl Table {
    /// An empty one, whose ids begin with `instance`. `offset_ns` is the wall clock minus `CLOCK_MONOTONIC`.
    #[must_use]
    pub fn new(instance: u32, offset_ns: i64) -> Self {
        Self {
            conns: Vec::new(),
            index: HashTable::new(),
            hasher: BuildHasherDefault::default(),
            deaths: VecDeque::with_capacity(DEATHS),
            next: u64::from(instance) << 40,
            offset_ns,
        }
    }

    /// The wall clock was set, or slewed.
    pub fn set_offset(&mut self, offset_ns: i64) {
        self.offset_ns = offset_ns;
    }

    /// Number of sockets in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.conns.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.conns.is_empty()
    }

    /// Takes in one event.
    pub fn apply(&mut self, event: &Event, who: &mut dyn Identify) -> Applied {
        match &event.kind {
            EventKind::Transition { from, to, maybe_copy, .. } => {
                if *maybe_copy && self.is_copy(event.sk, *from, *to) {
                    return Applied::Nothing;
                }
                self.transition(event, who)
            }
            EventKind::PortKnown => self.port_known(event),
            EventKind::Socket { state, mini } => {
                if !*mini {
                    self.seen(event, *state, None, who);
                }
                Applied::Nothing
            }
            EventKind::Held { state, task, .. } => {
                self.seen(event, *state, Some(task), who);
                Applied::Nothing
            }
        }
    }

    /// All sockets in it, as records of a snapshot.
    pub fn snapshot(&self) -> impl Iterator<Item = Snapshot> + '_ {
        self.conns.iter().map(|conn| Snapshot {
            time_ns: wall(conn.since_ns, self.offset_ns),
            conn: Some(conn.id),
            state: conn.state,
            role: conn.role,
            tuple: conn.tuple,
            subject: Rc::clone(&conn.subject),
            mini: false,
        })
    }

    /// A mini-socket, which the table does not keep, as a record of a snapshot.
    pub fn mini_snapshot(&self, event: &Event, state: State, who: &mut dyn Identify) -> Snapshot {
        Snapshot {
            time_ns: wall(event.time_ns, self.offset_ns),
            conn: None,
            state,
            role: (state == State::NewSynRecv).then_some(Role::Server),
            tuple: event.tuple,
            subject: who.identify(key(event, None)),
            mini: true,
        }
    }

    fn hash(&self, sk: u64) -> u64 {
        self.hasher.hash_one(sk)
    }

    fn find(&self, sk: u64) -> Option<usize> {
        let conns = &self.conns;
        self.index.find(self.hash(sk), |&at| conns[at as usize].sk == sk).map(|&at| at as usize)
    }

    /// A socket that was not known.
    fn add(
        &mut self,
        event: &Event,
        state: State,
        role: Option<Role>,
        since: Since,
        subject: Rc<Subject>,
    ) -> usize {
        self.next += 1;
        let (sk, id, since_ns) = (event.sk, ConnId(self.next), event.time_ns);
        let conn = Conn { sk, id, since_ns, subject, tuple: event.tuple, state, role, since };
        let hash = self.hash(sk);
        let at = self.conns.len();
        let (conns, hasher) = (&self.conns, &self.hasher);
        // A host has fewer sockets than u32 counts.
        self.index.insert_unique(hash, at as u32, |&at| hasher.hash_one(conns[at as usize].sk));
        self.conns.push(conn);
        at
    }

    fn remove(&mut self, at: usize) {
        let unlink = |table: &mut Self, sk: u64, at: usize| {
            let hash = table.hash(sk);
            if let Ok(entry) = table.index.find_entry(hash, |&slot| slot as usize == at) {
                entry.remove();
            }
        };
        unlink(self, self.conns[at].sk, at);
        let last = self.conns.len() - 1;
        if at != last {
            // The last one moves into the gap.
            let hash = self.hash(self.conns[last].sk);
            if let Some(slot) = self.index.find_mut(hash, |&slot| slot as usize == last) {
                *slot = at as u32;
            }
        }
        self.conns.swap_remove(at);
    }

    /// The companion's record of a transition that was already applied: a socket never makes the same one twice.
    fn is_copy(&self, sk: u64, from: State, to: State) -> bool {
        match self.find(sk) {
            Some(at) => self.conns[at].state == to && to != State::Close,
            None => to == State::Close && self.deaths.contains(&(sk, from)),
        }
    }

    fn transition(&mut self, event: &Event, who: &mut dyn Identify) -> Applied {
        let EventKind::Transition { from, to, ref task, listener, .. } = event.kind else {
            return Applied::Nothing;
        };
        let birth = from == State::Close || (from == State::Listen && to == State::SynRecv);
        let at = if birth {
            self.born(event, from, to, task.as_ref(), listener, who)
        } else {
            self.known(event, from, who)
        };
        let conn = &mut self.conns[at];
        conn.tuple = merge(conn.tuple, event.tuple);
        if !birth
            && let Some(task) = task
            && conn.subject.owner.as_ref().is_none_or(|owner| owner.pid() != task.pid)
        {
            let owner = OwnerKey { task: Rc::new(task.clone()), source: OwnerSource::Close };
            conn.subject = who.identify(key(event, Some(owner)));
        }
        let in_state = (!birth).then(|| in_state(conn, from, event.time_ns)).flatten();
        let transition = Transition {
            time_ns: wall(event.time_ns, self.offset_ns),
            conn: conn.id,
            from,
            to,
            in_state,
            role: conn.role,
            tuple: conn.tuple,
            subject: Rc::clone(&conn.subject),
            exact: is_exact(from, to, event.error),
            mini: false,
            cause: cause(from, to, event.error),
            errno: event.error,
        };
        conn.state = to;
        conn.since_ns = event.time_ns;
        conn.since = Since::Exact;
        if to == State::Close {
            self.remove(at);
            if self.deaths.len() == DEATHS {
                self.deaths.pop_front();
            }
            self.deaths.push_back((event.sk, from));
        }
        Applied::Transition(transition)
    }

    /// A new connection or listener; whatever had this key before is gone.
    fn born(
        &mut self,
        event: &Event,
        from: State,
        to: State,
        task: Option<&Task>,
        listener: Option<KernelListener>,
        who: &mut dyn Identify,
    ) -> usize {
        if let Some(at) = self.find(event.sk) {
            self.remove(at);
        }
        self.deaths.retain(|&(sk, _)| sk != event.sk);
        let role = match (from, to) {
            (_, State::SynSent) => Some(Role::Client),
            (_, State::Listen) => Some(Role::Listener),
            (State::Listen, _) => Some(Role::Server),
            _ => None,
        };
        let own = task.map(|task| OwnerKey {
            task: Rc::new(task.clone()),
            source: if to == State::Listen { OwnerSource::Listen } else { OwnerSource::Connect },
        });
        let owner = own.or_else(|| self.inherited(listener?));
        let subject = who.identify(key(event, owner));
        self.add(event, from, role, Since::Never, subject)
    }

    /// The listener's owner, if that address is a listener that we know.
    fn inherited(&self, listener: KernelListener) -> Option<OwnerKey> {
        let parent = &self.conns[self.find(listener.0)?];
        let owner = parent.subject.owner.as_ref()?;
        (parent.state == State::Listen)
            .then(|| OwnerKey { task: Rc::clone(&owner.task), source: OwnerSource::Inherited })
    }

    /// The connection of an event that is not its first; a new one where we have missed the beginning.
    fn known(&mut self, event: &Event, from: State, who: &mut dyn Identify) -> usize {
        if let Some(at) = self.find(event.sk) {
            if same_ends(&self.conns[at].tuple, &event.tuple) {
                return at;
            }
            // Its death and another's birth were lost.
            self.remove(at);
        }
        let role = (from == State::Listen).then_some(Role::Listener);
        self.add(event, from, role, Since::Never, who.identify(key(event, None)))
    }

    fn port_known(&mut self, event: &Event) -> Applied {
        match self.find(event.sk) {
            Some(at) if self.conns[at].state == State::SynSent => {
                let conn = &mut self.conns[at];
                conn.tuple = merge(conn.tuple, event.tuple);
                Applied::Completed(conn.id, conn.tuple)
            }
            _ => Applied::Nothing,
        }
    }

    /// A socket that is older than the tracer.
    fn seen(&mut self, event: &Event, state: State, task: Option<&Task>, who: &mut dyn Identify) {
        if state == State::Close {
            return;
        }
        let owner = task.map(|task| OwnerKey { task: Rc::new(task.clone()), source: OwnerSource::Scan });
        if let Some(at) = self.find(event.sk) {
            let conn = &mut self.conns[at];
            if owner.is_some() && conn.subject.owner.is_none() {
                conn.subject = who.identify(key(event, owner));
            }
            return;
        }
        let role = (state == State::Listen).then_some(Role::Listener);
        self.add(event, state, role, Since::AtLeast, who.identify(key(event, owner)));
    }
}

fn wall(monotonic_ns: u64, offset_ns: i64) -> i64 {
    i64::try_from(monotonic_ns).unwrap_or(i64::MAX).saturating_add(offset_ns)
}

fn key(event: &Event, owner: Option<OwnerKey>) -> SubjectKey {
    SubjectKey { owner, uid: event.uid, netns: event.netns, cgroup: event.cgroup }
}

fn in_state(conn: &Conn, from: State, now_ns: u64) -> Option<InState> {
    if conn.state != from || conn.since == Since::Never {
        return None;
    }
    // Two CPUs' clocks may differ by less than a transition takes.
    let ns = now_ns.saturating_sub(conn.since_ns);
    Some(InState { ns, at_least: conn.since == Since::AtLeast })
}

/// What is known of both ends: the newer word, but nothing that was known is forgotten.
fn merge(old: Tuple, new: Tuple) -> Tuple {
    let mut merged = new;
    if new.local_port == 0 {
        merged.local_port = old.local_port;
    }
    if new.remote_port == 0 {
        merged.remote = old.remote;
        merged.remote_port = old.remote_port;
    }
    if new.local.is_unspecified() {
        merged.local = old.local;
    }
    merged
}

/// Whether both can be the same connection, as far as they are known.
fn same_ends(old: &Tuple, new: &Tuple) -> bool {
    let agree = |a: u16, b: u16| a == 0 || b == 0 || a == b;
    agree(old.local_port, new.local_port) && agree(old.remote_port, new.remote_port)
}
