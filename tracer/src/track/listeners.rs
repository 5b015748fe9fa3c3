//! Whose a listener is. Connections that come in have its owner: when that process ends while others hold the listener, or
//! becomes another program, what comes afterwards is not its any more. What it leaves open is not its either: somebody else
//! has that open.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    rc::Rc,
};

use rustc_hash::FxBuildHasher;

use super::table::Table;
use crate::model::{
    ConnId, Identify, KernelSocket, Owner, OwnerKey, OwnerSource, Role, State, Subject, SubjectKey, Task,
};

/// How long after its owner's end a listener is looked at: a daemon that listens and goes to the background has started its
/// other processes by then.
const SETTLE_NS: u64 = 100_000_000;
/// How long after a look the next one may come: this often what the look took, which grows with the host's descriptors.
const GAP_IN_LOOKS: u64 = 64;
const GAP_NS: u64 = 1_000_000_000;
const LONGEST_GAP_NS: u64 = 64 * GAP_NS;
/// Connections that came out of a listener since the last look and may turn out to be another's. With more of them nobody owns
/// the listener until the next look.
const CHILDREN: usize = 1 << 14;

/// The sockets whose process has ended.
#[derive(Default)]
pub(super) struct Listeners {
    ownerless: HashMap<u64, Ownerless, FxBuildHasher>,
}

/// A listener, or a connection that somebody has open, whose owner has ended or may have closed it.
struct Ownerless {
    /// The owner in question.
    ended: Rc<Task>,
    doubt: Doubt,
    uid: Option<u32>,
    /// Its holders were looked for since: its subject has the answer.
    is_settled: bool,
    /// When they are looked for; none before another connection comes.
    look_at_ns: Option<u64>,
    /// When the look that is under way was asked for.
    asked_ns: u64,
    earliest_ns: u64,
    /// What came out of it since the last look, and how many of these before the one that is under way.
    children: Vec<u64>,
    asked_about: usize,
}

/// What a look has shown of a connection's owner.
pub struct Settled {
    /// With the owner as it was when the look began.
    pub before: Rc<Subject>,
    /// With the owner that the look has found.
    pub subject: Rc<Subject>,
}

/// Whether the owner of a socket still is.
#[derive(Clone, Copy, PartialEq)]
enum Doubt {
    /// It has ended, or a look has shown that only others have the socket open.
    Gone,
    /// It may have closed the socket: a look is to tell.
    Open,
    /// No look has shown that it has closed the socket.
    Refuted,
}

impl Ownerless {
    fn new(owner: &Owner, look_at_ns: u64) -> Self {
        Self {
            ended: Rc::clone(&owner.task),
            doubt: Doubt::Gone,
            uid: owner.uid,
            is_settled: false,
            look_at_ns: Some(look_at_ns),
            asked_ns: look_at_ns,
            earliest_ns: look_at_ns,
            children: Vec::new(),
            asked_about: 0,
        }
    }
}

/// Whether a socket in this state has a holder that has not closed it. In the others it may be an orphan.
#[must_use]
pub fn is_held_open(state: State) -> bool {
    matches!(state, State::Listen | State::SynSent | State::Established | State::CloseWait)
}

/// Whether both are one process, whatever it runs.
pub(super) fn is_same_process(one: &Task, other: &Task) -> bool {
    let is_open = one.start_ns == 0 || other.start_ns == 0;
    one.pid == other.pid && (is_open || one.start_ns == other.start_ns)
}

/// Whether `owner` is `task` as it is now. Without BTF the name is the thread's.
pub(super) fn is_up_to_date(owner: &Owner, task: &Task) -> bool {
    is_same_process(&owner.task, task) && (task.start_ns == 0 || *owner.task == *task)
}

fn key(subject: &Subject, uid: Option<u32>, owner: Option<OwnerKey>) -> SubjectKey {
    let cgroup = subject.cgroup.as_ref().map(|cgroup| cgroup.id);
    SubjectKey { owner, uid, netns: subject.netns, cgroup }
}

impl Listeners {
    pub(super) fn is_without_owner(&self, sk: u64) -> bool {
        !self.ownerless.is_empty() && self.ownerless.get(&sk).is_some_and(|it| !it.is_settled)
    }

    pub(super) fn forget(&mut self, sk: u64) {
        if !self.ownerless.is_empty() {
            self.ownerless.remove(&sk);
        }
    }
}

impl Table {
    /// The owners of all listeners, each once.
    #[must_use]
    pub fn listeners_owners(&self) -> Vec<Rc<Task>> {
        let mut owners: HashMap<u32, Rc<Task>, FxBuildHasher> = HashMap::default();
        for conn in self.conns.iter().filter(|conn| conn.role == Some(Role::Listener)) {
            let settled = !self.listeners.is_without_owner(conn.sk);
            if let Some(owner) = conn.subject.owner.as_ref().filter(|_| settled) {
                owners.entry(owner.pid()).or_insert_with(|| Rc::clone(&owner.task));
            }
        }
        owners.into_values().collect()
    }

    /// A process has ended: connections that come out of its listeners from now on are not its, nor is what it has not closed
    /// by its end.
    pub fn process_ended(&mut self, task: &Task, now_ns: u64) {
        for sk in self.conns.owned_by(task.pid) {
            let Some(at) = self.conns.find(sk) else { continue };
            let conn = self.conns.get(at);
            let owner = conn.subject.owner.as_ref().filter(|owner| is_same_process(&owner.task, task));
            if let Some(owner) = owner.filter(|_| is_held_open(conn.state) && !conn.mini) {
                self.listeners.ownerless.insert(sk, Ownerless::new(owner, now_ns.saturating_add(SETTLE_NS)));
            }
        }
    }

    /// A process runs another program, or has another name: what it owns is shown with what it is now. An exec may have closed
    /// what others still have open.
    pub(super) fn process_renewed(&mut self, task: &Task, now_ns: u64, who: &mut dyn Identify) {
        // In exec the name changes before the command line is there: what was read then is not the new program's.
        who.read_again(task);
        let task = Rc::new(task.clone());
        for sk in self.conns.owned_by(task.pid) {
            let Some(at) = self.conns.find(sk) else { continue };
            let subject = &self.conns.get(at).subject;
            let owner = subject.owner.as_ref().filter(|owner| is_same_process(&owner.task, &task));
            if let Some(owner) = owner {
                let owner_key = OwnerKey { task: Rc::clone(&task), source: owner.source };
                let renewed = who.identify(key(subject, owner.uid, Some(owner_key)));
                // Without BTF the number of an exec is not known, and each new name may be one.
                let is_exec = owner.task.exec_id != task.exec_id || task.start_ns == 0;
                self.conns.set_subject(at, renewed);
                if is_exec {
                    self.doubt_owner(sk, now_ns.saturating_add(SETTLE_NS), 0);
                }
            }
        }
    }

    /// Another process has closed a connection that came out of a listener of `owner` on this port: does the owner still have that
    /// open?
    pub(super) fn doubt_listener(&mut self, owner: &Task, port: u16, now_ns: u64) {
        for sk in self.conns.owned_by(owner.pid) {
            let Some(at) = self.conns.find(sk) else { continue };
            let conn = self.conns.get(at);
            let known = conn.subject.owner.as_ref().filter(|known| is_owned_by(Some(owner), known));
            if known.is_some() && conn.state == State::Listen && conn.tuple.local_port == port {
                self.doubt_owner(sk, now_ns, LONGEST_GAP_NS);
            }
        }
    }

    /// The descriptors of all processes have shown whose these connections are. If their owner was another process, does that still
    /// have the listeners that they came out of?
    pub fn settle_owners(&mut self, settled: &HashMap<ConnId, Settled>, now_ns: u64) {
        let mut doubted = HashSet::new();
        for at in 0..self.conns.len() {
            let conn = self.conns.get(at);
            let Some(answer) = settled.get(&conn.id) else { continue };
            let (known, before) = (conn.subject.owner.as_ref(), answer.before.owner.as_ref());
            if !is_held_open(conn.state) || known.map(Owner::pid) != before.map(Owner::pid) {
                // Somebody has closed it meanwhile, and is known by that.
                continue;
            }
            if let Some(owner) = before.filter(|owner| owner.source == OwnerSource::Inherited) {
                doubted.insert((Rc::clone(&owner.task), conn.tuple.local_port));
            }
            self.listeners.forget(conn.sk);
            self.conns.set_subject(at, Rc::clone(&answer.subject));
        }
        for (owner, port) in doubted {
            self.doubt_listener(&owner, port, now_ns);
        }
    }

    /// Whether this process owns listeners, and none on this port. A program of the kernel, or a transparent listener, may hand it
    /// connections to any port.
    #[must_use]
    pub fn listens_elsewhere(&self, owner: &Task, port: u16) -> bool {
        let owned = self.conns.owned_by(owner.pid);
        let conns = owned.into_iter().filter_map(|sk| self.conns.find(sk)).map(|at| self.conns.get(at));
        let mut ports = conns
            .filter(|conn| {
                let known = conn.subject.owner.as_ref();
                conn.state == State::Listen && known.is_some_and(|known| is_owned_by(Some(owner), known))
            })
            .map(|conn| conn.tuple.local_port)
            .peekable();
        ports.peek().is_some() && ports.all(|its| its != port)
    }

    /// The owner of a socket that somebody has open may have closed it: a look is due at `at_ns`, and no sooner than `gap_ns`
    /// after one that did not show that.
    fn doubt_owner(&mut self, sk: u64, at_ns: u64, gap_ns: u64) {
        let conn = self.conns.find(sk).map(|at| self.conns.get(at));
        let Some(conn) = conn.filter(|conn| is_held_open(conn.state) && !conn.mini) else { return };
        let Some(owner) = &conn.subject.owner else { return };
        match self.listeners.ownerless.entry(sk) {
            Entry::Vacant(entry) => {
                entry.insert(Ownerless {
                    doubt: Doubt::Open,
                    is_settled: true,
                    ..Ownerless::new(owner, at_ns)
                });
            }
            Entry::Occupied(mut entry) => {
                let socket = entry.get_mut();
                let mut at_ns = at_ns.max(socket.earliest_ns);
                if socket.doubt == Doubt::Refuted {
                    socket.doubt = Doubt::Open;
                    at_ns = at_ns.max(socket.asked_ns.saturating_add(gap_ns));
                }
                socket.look_at_ns.get_or_insert(at_ns);
            }
        }
    }

    /// A connection comes out of `listener`: whose that is may be known only by then.
    pub(super) fn connection_comes(&mut self, listener: Option<KernelSocket>, child: u64, now_ns: u64) {
        if self.listeners.ownerless.is_empty() {
            return;
        }
        let listener = listener.and_then(|listener| self.listeners.ownerless.get_mut(&listener.0));
        if let Some(it) = listener.filter(|listener| listener.doubt != Doubt::Refuted) {
            if it.doubt == Doubt::Gone {
                it.look_at_ns.get_or_insert(it.earliest_ns.max(now_ns));
            }
            if it.children.len() < CHILDREN {
                it.children.push(child);
            } else {
                it.is_settled = false;
            }
        }
    }

    /// When the holders of some listener are to be looked for, `CLOCK_MONOTONIC` ns.
    #[must_use]
    pub fn next_look_ns(&self) -> Option<u64> {
        self.listeners.ownerless.values().filter_map(|it| it.look_at_ns).min()
    }

    /// The sockets whose holders are to be looked for now.
    pub fn looked_for(&mut self, now_ns: u64) -> Vec<u64> {
        let conns = &self.conns;
        let is_open = |sk: u64| conns.find(sk).is_some_and(|at| is_held_open(conns.get(at).state));
        let mut due = Vec::new();
        self.listeners.ownerless.retain(|&sk, socket| {
            if socket.look_at_ns.is_none_or(|at_ns| at_ns > now_ns) {
                return true;
            }
            (socket.look_at_ns, socket.asked_ns) = (None, now_ns);
            socket.asked_about = socket.children.len();
            let is_open = is_open(sk);
            if is_open {
                due.push(sk);
            }
            is_open
        });
        due
    }

    /// What became of that look: `holding` are the processes that hold each socket, by the kernel's key. A socket that one
    /// process holds belongs to it. Returns the new owners of listeners.
    pub fn found_holders(
        &mut self,
        sockets: &[u64],
        holding: &HashMap<u64, Vec<Task>>,
        now_ns: u64,
        who: &mut dyn Identify,
    ) -> Vec<Rc<Task>> {
        let mut owners = Vec::new();
        for &sk in sockets {
            let (Some(at), Some(it)) = (self.conns.find(sk), self.listeners.ownerless.get_mut(&sk)) else {
                continue;
            };
            let conn = self.conns.get(at);
            let is_listener = conn.state == State::Listen;
            let owner = conn.subject.owner.as_ref();
            if !is_listener
                && (!is_held_open(conn.state)
                    || !owner.is_some_and(|owner| is_owned_by(Some(&it.ended), owner)))
            {
                // Somebody has closed it meanwhile, and is known by that.
                self.listeners.ownerless.remove(&sk);
                continue;
            }
            let found = holding.get(&sk).map_or(&[][..], Vec::as_slice);
            let has_it = found.iter().any(|task| is_same_process(task, &it.ended));
            let took_ns = now_ns.saturating_sub(it.asked_ns);
            it.earliest_ns =
                now_ns.saturating_add(took_ns.saturating_mul(GAP_IN_LOOKS).clamp(GAP_NS, LONGEST_GAP_NS));
            if it.doubt != Doubt::Gone && (has_it || found.is_empty()) {
                if !is_listener {
                    self.listeners.ownerless.remove(&sk);
                } else if it.look_at_ns.is_none() {
                    it.doubt = Doubt::Refuted;
                    it.is_settled = true;
                    it.children.clear();
                }
                continue;
            }
            if !is_listener && has_it {
                // It is still closing what it had.
                it.look_at_ns = Some(now_ns.saturating_add(SETTLE_NS));
                continue;
            }
            it.doubt = Doubt::Gone;
            it.is_settled = true;
            let only = only_holder(found, &it.ended).map(|task| Rc::new(task.clone()));
            let before = owner.cloned().filter(|owner| !is_owned_by(only.as_deref(), owner));
            let settled = if before.is_some() { it.children.len() } else { it.asked_about };
            let children: Vec<u64> = it.children.drain(..settled.min(it.children.len())).collect();
            let uid = it.uid;
            let owner = only.clone().map(|task| OwnerKey { task, source: OwnerSource::Scan });
            let subject = who.identify(key(&self.conns.get(at).subject, uid, owner));
            self.conns.set_subject(at, subject);
            if !is_listener {
                self.listeners.ownerless.remove(&sk);
                continue;
            }
            if let Some(before) = before {
                self.disown(&children, &before, who);
            }
            owners.extend(only);
        }
        owners
    }

    /// These connections came after a look had shown that `owner` holds their listener, and before one that shows otherwise: whose
    /// they are is not known.
    fn disown(&mut self, children: &[u64], owner: &Owner, who: &mut dyn Identify) {
        for &sk in children {
            let Some(at) = self.conns.find(sk) else { continue };
            let subject = &self.conns.get(at).subject;
            let is_inherited = |known: &&Owner| known.source == OwnerSource::Inherited;
            let known = subject.owner.as_ref().filter(is_inherited);
            if known.is_some_and(|known| is_same_process(&known.task, &owner.task)) {
                let subject = with_owner(subject, None, who);
                self.conns.set_subject(at, subject);
            }
        }
    }
}

/// The same subject, where its owner is known not to be who has the socket open.
pub fn with_owner(subject: &Subject, owner: Option<OwnerKey>, who: &mut dyn Identify) -> Rc<Subject> {
    who.identify(key(subject, subject.owner.as_ref().and_then(|owner| owner.uid), owner))
}

fn is_owned_by(task: Option<&Task>, owner: &Owner) -> bool {
    task.is_some_and(|task| is_same_process(task, &owner.task))
}

/// The one process that holds a socket, beside the one that has ended.
fn only_holder<'a>(holders: &'a [Task], ended: &Task) -> Option<&'a Task> {
    let mut living = holders.iter().filter(|task| !is_same_process(task, ended));
    let first = living.next()?;
    living.all(|task| task.pid == first.pid).then_some(first)
}
