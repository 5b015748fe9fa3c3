//! Tracks which process owns each listener and each open connection. An incoming connection inherits its listener's owner. A process
//! that ends, or executes another program, may leave its sockets open in other processes, and then no longer owns them: a search
//! through the descriptors of all processes finds the new owner.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    rc::Rc,
};

use rustc_hash::FxBuildHasher;

use super::conns::{Conn, Conns};
use crate::model::{
    ConnId, Identify, KernelSocket, Owner, OwnerKey, OwnerSource, Role, State, Subject, SubjectKey, Task,
};

/// Delay of a search for a socket's holders after its owner has ended or executed another program, and of a second search if the owner
/// is still closing its descriptors. A daemon that listens and goes to the background has started its other processes by then.
const SETTLE_NS: u64 = 100_000_000;
/// How long after one search for holders the next may begin: this many times what the search took. A search takes longer on a
/// host with more descriptors.
const GAP_IN_SEARCHES: u64 = 64;
const GAP_NS: u64 = 1_000_000_000;
const LONGEST_GAP_NS: u64 = 64 * GAP_NS;
/// How many connections that came out of a listener since the last search are remembered, since another process may turn out to be
/// their owner. With more of them the listener counts as having no owner until the next search.
const CHILDREN: usize = 1 << 14;

/// The sockets whose owners are in question.
#[derive(Default)]
pub(super) struct Owners {
    in_question: HashMap<u64, InQuestion, FxBuildHasher>,
}

/// A listener, or a connection that a process has open, whose owner has ended or may have closed it.
struct InQuestion {
    /// The owner in question.
    owner: Rc<Task>,
    state: OwnerState,
    uid: Option<u32>,
    /// The owner in the socket's subject, or that it has none, may be relied on: no search is needed first.
    has_usable_owner: bool,
    /// When the next search for holders is due; `None` if none is.
    search_at_ns: Option<u64>,
    /// When the last search began; before the first one, when that is due.
    asked_ns: u64,
    /// The next search begins no earlier.
    earliest_ns: u64,
    /// Connections that came out of the listener since the last search that has ended.
    children: Vec<u64>,
    /// How many of `children` came before the last search began.
    asked_about: usize,
}

/// The owner that a search has found for a connection.
pub struct FoundOwner {
    /// The subject with the owner as it was when the search began.
    pub before: Rc<Subject>,
    /// The subject with the owner that the search has found.
    pub subject: Rc<Subject>,
}

/// Whether the owner of a socket still has it open.
#[derive(Clone, Copy, PartialEq)]
enum OwnerState {
    /// The owner has ended, or a search has shown that only others have the socket open.
    Closed,
    /// The owner may have closed the socket; the next search decides.
    Uncertain,
    /// The last search has found the owner, or nobody: a holder that a search cannot find may still be the owner.
    Confirmed,
}

impl InQuestion {
    fn new(owner: &Owner, search_at_ns: u64) -> Self {
        Self {
            owner: Rc::clone(&owner.task),
            state: OwnerState::Closed,
            uid: owner.uid,
            has_usable_owner: false,
            search_at_ns: Some(search_at_ns),
            asked_ns: search_at_ns,
            earliest_ns: search_at_ns,
            children: Vec::new(),
            asked_about: 0,
        }
    }

    /// Whether no search is needed any more: the connection `conn` is closed, or has another owner meanwhile.
    fn is_settled(&self, conn: &Conn) -> bool {
        let owner = conn.subject.owner.as_ref();
        !is_held_open(conn.state) || !owner.is_some_and(|owner| is_same_process(&self.owner, &owner.task))
    }

    /// A search has ended.
    fn delay_next_search(&mut self, now_ns: u64) {
        let took_ns = now_ns.saturating_sub(self.asked_ns);
        let gap_ns = took_ns.saturating_mul(GAP_IN_SEARCHES).clamp(GAP_NS, LONGEST_GAP_NS);
        self.earliest_ns = now_ns.saturating_add(gap_ns);
    }

    /// The last search has shown no other owner of the listener.
    fn confirm(&mut self) {
        if self.search_at_ns.is_none() {
            self.state = OwnerState::Confirmed;
            self.has_usable_owner = true;
            self.children.clear();
        }
    }
}

/// Whether a process has a socket in this state open, unless the socket waits in an accept queue. In other states the socket may be an
/// orphan.
#[must_use]
pub fn is_held_open(state: State) -> bool {
    matches!(state, State::Listen | State::SynSent | State::Established | State::CloseWait)
}

/// Whether both are the same process, whichever program it runs.
pub(super) fn is_same_process(one: &Task, other: &Task) -> bool {
    let is_unknown = one.start_ns == 0 || other.start_ns == 0;
    one.pid == other.pid && (is_unknown || one.start_ns == other.start_ns)
}

/// Whether `owner` is the process `task` with the program that it runs now. Without BTF the name is the thread's.
pub(super) fn is_up_to_date(owner: &Owner, task: &Task) -> bool {
    is_same_process(&owner.task, task) && (task.start_ns == 0 || *owner.task == *task)
}

fn key(subject: &Subject, uid: Option<u32>, owner: Option<OwnerKey>) -> SubjectKey {
    let cgroup = subject.cgroup.as_ref().map(|cgroup| cgroup.id);
    SubjectKey { owner, uid, netns: subject.netns, cgroup }
}

impl Owners {
    /// Whether the socket's owner is gone, and no search has found another.
    pub(super) fn is_without_owner(&self, sk: u64) -> bool {
        !self.in_question.is_empty()
            && self.in_question.get(&sk).is_some_and(|socket| !socket.has_usable_owner)
    }

    /// The socket's owner is no longer in question.
    pub(super) fn forget(&mut self, sk: u64) {
        if !self.in_question.is_empty() {
            self.in_question.remove(&sk);
        }
    }

    /// The owners of all listeners, each once.
    pub(super) fn of_listeners(&self, conns: &Conns) -> Vec<Rc<Task>> {
        let mut owners: HashMap<u32, Rc<Task>, FxBuildHasher> = HashMap::default();
        for conn in conns.iter().filter(|conn| conn.role == Some(Role::Listener)) {
            let is_known = !self.is_without_owner(conn.sk);
            if let Some(owner) = conn.subject.owner.as_ref().filter(|_| is_known) {
                owners.entry(owner.pid()).or_insert_with(|| Rc::clone(&owner.task));
            }
        }
        owners.into_values().collect()
    }

    /// A process has ended.
    pub(super) fn process_ended(&mut self, conns: &Conns, task: &Task, now_ns: u64) {
        for (conn, owner) in sockets_of(conns, task) {
            if is_held_open(conn.state) && !conn.mini {
                self.in_question.insert(conn.sk, InQuestion::new(owner, now_ns.saturating_add(SETTLE_NS)));
            }
        }
    }

    /// A process runs another program, or has another name: its sockets are shown with that. An exec may have closed a socket that
    /// others still have open.
    pub(super) fn process_renewed(
        &mut self,
        conns: &mut Conns,
        task: &Task,
        now_ns: u64,
        identities: &mut dyn Identify,
    ) {
        // During an exec the name changes before the new command line can be read: an earlier reading has the old program's.
        identities.forget_process(task);
        let task = Rc::new(task.clone());
        for sk in conns.owned_by(task.pid) {
            let Some(at) = conns.find(sk) else { continue };
            let subject = &conns.get(at).subject;
            let owner = subject.owner.as_ref().filter(|owner| is_same_process(&owner.task, &task));
            if let Some(owner) = owner {
                let owner_key = OwnerKey { task: Rc::clone(&task), source: owner.source };
                let renewed = identities.identify(key(subject, owner.uid, Some(owner_key)));
                // Without BTF the number of an exec is not known, and each new name may be one.
                let is_exec = owner.task.exec_id != task.exec_id || task.start_ns == 0;
                conns.set_subject(at, renewed);
                if is_exec {
                    self.question(conns.get(at), now_ns.saturating_add(SETTLE_NS), 0);
                }
            }
        }
    }

    /// Another process has closed a connection that came out of a listener of `owner` on this port. The owner may no longer have the
    /// listener open.
    pub(super) fn question_listeners(&mut self, conns: &Conns, owner: &Task, port: u16, now_ns: u64) {
        for (conn, _) in sockets_of(conns, owner) {
            if conn.state == State::Listen && conn.tuple.local_port == port {
                self.question(conn, now_ns, LONGEST_GAP_NS);
            }
        }
    }

    /// A search through the descriptors of all processes has shown whose these connections are. Where another process was thought to be
    /// the owner, that process may no longer have the listener open that the connection came out of.
    pub(super) fn set_found(&mut self, conns: &mut Conns, found: &HashMap<ConnId, FoundOwner>, now_ns: u64) {
        let mut questioned = HashSet::new();
        for at in 0..conns.len() {
            let conn = conns.get(at);
            let Some(answer) = found.get(&conn.id) else { continue };
            let (known, before) = (conn.subject.owner.as_ref(), answer.before.owner.as_ref());
            if !is_held_open(conn.state) || known.map(Owner::pid) != before.map(Owner::pid) {
                // A process has closed the connection meanwhile, and is its owner now.
                continue;
            }
            if let Some(owner) = before.filter(|owner| owner.source == OwnerSource::Inherited) {
                questioned.insert((Rc::clone(&owner.task), conn.tuple.local_port));
            }
            self.forget(conn.sk);
            conns.set_subject(at, Rc::clone(&answer.subject));
        }
        for (owner, port) in questioned {
            self.question_listeners(conns, &owner, port, now_ns);
        }
    }

    /// The owner of a socket that a process has open may have closed it: a search is due at `at_ns`, and no sooner than `gap_ns`
    /// after one that did not show that.
    fn question(&mut self, conn: &Conn, at_ns: u64, gap_ns: u64) {
        if !is_held_open(conn.state) || conn.mini {
            return;
        }
        let Some(owner) = &conn.subject.owner else { return };
        match self.in_question.entry(conn.sk) {
            Entry::Vacant(entry) => {
                entry.insert(InQuestion {
                    state: OwnerState::Uncertain,
                    has_usable_owner: true,
                    ..InQuestion::new(owner, at_ns)
                });
            }
            Entry::Occupied(mut entry) => {
                let socket = entry.get_mut();
                let mut at_ns = at_ns.max(socket.earliest_ns);
                if socket.state == OwnerState::Confirmed {
                    socket.state = OwnerState::Uncertain;
                    at_ns = at_ns.max(socket.asked_ns.saturating_add(gap_ns));
                }
                socket.search_at_ns.get_or_insert(at_ns);
            }
        }
    }

    /// The connection `child` comes out of `listener`, whose owner may be known only after a search.
    pub(super) fn connection_comes(&mut self, listener: Option<KernelSocket>, child: u64, now_ns: u64) {
        if self.in_question.is_empty() {
            return;
        }
        let listener = listener.and_then(|listener| self.in_question.get_mut(&listener.0));
        if let Some(listener) = listener.filter(|listener| listener.state != OwnerState::Confirmed) {
            if listener.state == OwnerState::Closed {
                listener.search_at_ns.get_or_insert(listener.earliest_ns.max(now_ns));
            }
            if listener.children.len() < CHILDREN {
                listener.children.push(child);
            } else {
                listener.has_usable_owner = false;
            }
        }
    }

    /// When the next search for holders is due, `CLOCK_MONOTONIC` ns.
    pub(super) fn next_search_ns(&self) -> Option<u64> {
        self.in_question.values().filter_map(|socket| socket.search_at_ns).min()
    }

    /// The sockets whose holders are to be searched for now.
    pub(super) fn due_searches(&mut self, conns: &Conns, now_ns: u64) -> Vec<u64> {
        let is_open = |sk: u64| conns.find(sk).is_some_and(|at| is_held_open(conns.get(at).state));
        let mut due = Vec::new();
        self.in_question.retain(|&sk, socket| {
            if socket.search_at_ns.is_none_or(|at_ns| at_ns > now_ns) {
                return true;
            }
            (socket.search_at_ns, socket.asked_ns) = (None, now_ns);
            socket.asked_about = socket.children.len();
            let is_open = is_open(sk);
            if is_open {
                due.push(sk);
            }
            is_open
        });
        due
    }

    /// The answer to a search: `holding` are the processes that hold each of `sockets`. A socket that one process holds belongs to
    /// that process. Returns the new owners of listeners.
    pub(super) fn found_holders(
        &mut self,
        conns: &mut Conns,
        sockets: &[u64],
        holding: &HashMap<u64, Vec<Task>>,
        now_ns: u64,
        identities: &mut dyn Identify,
    ) -> Vec<Rc<Task>> {
        let mut owners = Vec::new();
        for &sk in sockets {
            let Some(at) = conns.find(sk) else { continue };
            let holders = holding.get(&sk).map_or(&[][..], Vec::as_slice);
            if conns.get(at).state == State::Listen {
                owners.extend(self.listener_holders(conns, at, holders, now_ns, identities));
            } else {
                self.connection_holders(conns, at, holders, now_ns, identities);
            }
        }
        owners
    }

    /// The answer for the connection at `at`.
    fn connection_holders(
        &mut self,
        conns: &mut Conns,
        at: usize,
        holders: &[Task],
        now_ns: u64,
        identities: &mut dyn Identify,
    ) {
        let conn = conns.get(at);
        let Some(socket) = self.in_question.get_mut(&conn.sk) else { return };
        socket.delay_next_search(now_ns);
        let is_settled = socket.is_settled(conn);
        let holds_socket = holders.iter().any(|task| is_same_process(task, &socket.owner));
        if !is_settled && holds_socket && socket.state == OwnerState::Closed {
            // The process that ends is still closing its descriptors.
            socket.search_at_ns = Some(now_ns.saturating_add(SETTLE_NS));
            return;
        }
        let is_unchanged = socket.state != OwnerState::Closed && (holds_socket || holders.is_empty());
        if !is_settled && !is_unchanged {
            let only = only_holder(holders, &socket.owner);
            let owner = only.map(|task| OwnerKey { task: Rc::new(task.clone()), source: OwnerSource::Scan });
            let subject = identities.identify(key(&conn.subject, socket.uid, owner));
            conns.set_subject(at, subject);
        }
        self.in_question.remove(&conns.get(at).sk);
    }

    /// The answer for the listener at `at`. Returns its new owner.
    fn listener_holders(
        &mut self,
        conns: &mut Conns,
        at: usize,
        holders: &[Task],
        now_ns: u64,
        identities: &mut dyn Identify,
    ) -> Option<Rc<Task>> {
        let conn = conns.get(at);
        let socket = self.in_question.get_mut(&conn.sk)?;
        let holds_socket = holders.iter().any(|task| is_same_process(task, &socket.owner));
        socket.delay_next_search(now_ns);
        if socket.state != OwnerState::Closed && (holds_socket || holders.is_empty()) {
            socket.confirm();
            return None;
        }
        socket.state = OwnerState::Closed;
        socket.has_usable_owner = true;
        let only = only_holder(holders, &socket.owner).map(|task| Rc::new(task.clone()));
        let is_other = |owner: &&Owner| !only.as_ref().is_some_and(|only| is_same_process(only, &owner.task));
        let before = conn.subject.owner.as_ref().filter(is_other).cloned();
        let count = if before.is_some() { socket.children.len() } else { socket.asked_about };
        let children: Vec<u64> = socket.children.drain(..count.min(socket.children.len())).collect();
        let owner = only.clone().map(|task| OwnerKey { task, source: OwnerSource::Scan });
        let subject = identities.identify(key(&conn.subject, socket.uid, owner));
        conns.set_subject(at, subject);
        if let Some(before) = before {
            disown(conns, &children, &before, identities);
        }
        only
    }
}

/// The sockets that the process `task` owns.
fn sockets_of<'a>(conns: &'a Conns, task: &'a Task) -> impl Iterator<Item = (&'a Conn, &'a Owner)> {
    let owned = conns.owned_by(task.pid).into_iter();
    owned.filter_map(move |sk| {
        let conn = conns.get(conns.find(sk)?);
        let owner = conn.subject.owner.as_ref().filter(|owner| is_same_process(task, &owner.task))?;
        Some((conn, owner))
    })
}

/// Whether this process owns listeners, and none on this port. A BPF program (sk_lookup), or a listener with
/// IP_TRANSPARENT, may give it connections to any port.
pub(super) fn listens_elsewhere(conns: &Conns, owner: &Task, port: u16) -> bool {
    let listeners = sockets_of(conns, owner).filter(|(conn, _)| conn.state == State::Listen);
    let mut ports = listeners.map(|(conn, _)| conn.tuple.local_port).peekable();
    ports.peek().is_some() && ports.all(|known| known != port)
}

/// These connections came after a search had shown that `owner` holds their listener, and before one that shows otherwise: their
/// owner is not known.
fn disown(conns: &mut Conns, children: &[u64], owner: &Owner, identities: &mut dyn Identify) {
    for &sk in children {
        let Some(at) = conns.find(sk) else { continue };
        let subject = &conns.get(at).subject;
        let is_inherited = |known: &&Owner| known.source == OwnerSource::Inherited;
        let known = subject.owner.as_ref().filter(is_inherited);
        if known.is_some_and(|known| is_same_process(&known.task, &owner.task)) {
            let subject = with_owner(subject, None, identities);
            conns.set_subject(at, subject);
        }
    }
}

/// The same subject with another owner. The caller knows that the subject's own owner does not have the socket open.
pub fn with_owner(subject: &Subject, owner: Option<OwnerKey>, identities: &mut dyn Identify) -> Rc<Subject> {
    identities.identify(key(subject, subject.owner.as_ref().and_then(|owner| owner.uid), owner))
}

/// The only process, other than `except`, that holds a socket.
fn only_holder<'a>(holders: &'a [Task], except: &Task) -> Option<&'a Task> {
    let mut others = holders.iter().filter(|task| !is_same_process(task, except));
    let first = others.next()?;
    others.all(|task| task.pid == first.pid).then_some(first)
}
