//! Whose a listener is. Connections that come in have its owner: when that process ends while others hold the listener, or
//! becomes another program, what comes afterwards is not its any more.

use std::{collections::HashMap, rc::Rc};

use rustc_hash::FxBuildHasher;

use super::table::Table;
use crate::model::{
    Identify, KernelSocket, Owner, OwnerKey, OwnerSource, Role, State, Subject, SubjectKey, Task,
};

/// How long after its owner's end a listener is looked at: a daemon that listens and goes to the background has started its
/// other processes by then.
const SETTLE_NS: u64 = 100_000_000;
/// How long after a look the next one may come, doubled each time up to the second: a look costs as long as the host has
/// descriptors.
const GAP_NS: u64 = 1_000_000_000;
const LONGEST_GAP_NS: u64 = 64 * GAP_NS;
/// Listeners of one process that are gone are swept out at powers of two from here on.
const SWEEP_MIN: usize = 64;

/// Processes and their listeners, and the listeners whose process has ended.
#[derive(Default)]
pub(super) struct Listeners {
    by_pid: HashMap<u32, Vec<u64>, FxBuildHasher>,
    ownerless: HashMap<u64, Ownerless, FxBuildHasher>,
}

/// A listener whose owner has ended.
struct Ownerless {
    ended: Rc<Task>,
    uid: Option<u32>,
    /// Its holders were looked for since: its subject has the answer.
    is_settled: bool,
    /// When they are looked for; none before another connection comes.
    look_at_ns: Option<u64>,
    earliest_ns: u64,
    gap_ns: u64,
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
    /// A listener has an owner.
    pub(super) fn note_listener(&mut self, at: usize) {
        let conn = self.conns.get(at);
        let Some(owner) = conn.subject.owner.as_ref().filter(|_| conn.role == Some(Role::Listener)) else {
            return;
        };
        let (sk, conns) = (conn.sk, &self.conns);
        let list = self.listeners.by_pid.entry(owner.pid()).or_default();
        if list.len() >= SWEEP_MIN && list.len().is_power_of_two() {
            list.retain(|&sk| conns.find(sk).is_some_and(|at| conns.get(at).state == State::Listen));
        }
        if !list.contains(&sk) {
            list.push(sk);
        }
    }

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

    /// A process has ended: connections that come out of its listeners from now on are not its.
    pub fn process_ended(&mut self, task: &Task, now_ns: u64) {
        let Some(list) = self.listeners.by_pid.remove(&task.pid) else { return };
        for sk in list {
            let Some(at) = self.conns.find(sk) else { continue };
            let conn = self.conns.get(at);
            let owner = conn.subject.owner.as_ref().filter(|owner| is_same_process(&owner.task, task));
            if let Some(owner) = owner.filter(|_| conn.state == State::Listen) {
                let ownerless = Ownerless {
                    ended: Rc::clone(&owner.task),
                    uid: owner.uid,
                    is_settled: false,
                    look_at_ns: Some(now_ns + SETTLE_NS),
                    earliest_ns: now_ns,
                    gap_ns: GAP_NS,
                };
                self.listeners.ownerless.insert(sk, ownerless);
            }
        }
    }

    /// A process runs another program, or has another name: what it owns is shown with what it is now.
    pub(super) fn process_renewed(&mut self, task: &Task, who: &mut dyn Identify) {
        // In exec the name changes before the command line is there: what was read then is not the new program's.
        who.read_again(task);
        let task = Rc::new(task.clone());
        for at in 0..self.conns.len() {
            let subject = &self.conns.get(at).subject;
            let Some(owner) = &subject.owner else { continue };
            if is_same_process(&owner.task, &task) {
                let owner_key = OwnerKey { task: Rc::clone(&task), source: owner.source };
                let renewed = who.identify(key(subject, owner.uid, Some(owner_key)));
                self.conns.get_mut(at).subject = renewed;
            }
        }
    }

    /// A connection comes out of `listener`: whose that is may be known only by then.
    pub(super) fn connection_comes(&mut self, listener: Option<KernelSocket>, now_ns: u64) {
        if self.listeners.ownerless.is_empty() {
            return;
        }
        if let Some(it) = listener.and_then(|listener| self.listeners.ownerless.get_mut(&listener.0)) {
            it.look_at_ns.get_or_insert(it.earliest_ns.max(now_ns));
        }
    }

    /// When the holders of some listener are to be looked for, `CLOCK_MONOTONIC` ns.
    #[must_use]
    pub fn next_look_ns(&self) -> Option<u64> {
        self.listeners.ownerless.values().filter_map(|it| it.look_at_ns).min()
    }

    /// The listeners whose holders are to be looked for by now.
    pub fn looked_for(&mut self, now_ns: u64) -> Vec<u64> {
        let due = |it: &Ownerless| it.look_at_ns.is_some_and(|at_ns| at_ns <= now_ns);
        let due = self.listeners.ownerless.iter_mut().filter(|(_, it)| due(it));
        due.map(|(&sk, it)| {
            it.look_at_ns = None;
            sk
        })
        .collect()
    }

    /// What became of that look: `holding` are the processes that hold each socket, by the kernel's key. A listener that one
    /// process holds belongs to it. Returns the new owners.
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
            it.is_settled = true;
            it.earliest_ns = now_ns.saturating_add(it.gap_ns);
            it.gap_ns = (it.gap_ns * 2).min(LONGEST_GAP_NS);
            let only = only_holder(holding.get(&sk), &it.ended).map(|task| Rc::new(task.clone()));
            let owner = only.clone().map(|task| OwnerKey { task, source: OwnerSource::Scan });
            let subject = who.identify(key(&self.conns.get(at).subject, it.uid, owner));
            self.conns.get_mut(at).subject = subject;
            self.note_listener(at);
            owners.extend(only);
        }
        owners
    }
}

/// The one process that holds a socket, beside the one that has ended.
fn only_holder<'a>(holders: Option<&'a Vec<Task>>, ended: &Task) -> Option<&'a Task> {
    let mut living = holders?.iter().filter(|task| !is_same_process(task, ended));
    let first = living.next()?;
    living.all(|task| task.pid == first.pid).then_some(first)
}
