//! Finds the owners of listeners and connections whose known owners have ended or have closed them.

use std::{
    collections::{HashMap, HashSet},
    rc::Rc,
};

use super::{Pipeline, monotonic_ns};
use crate::{
    model::{Identify, Owner, OwnerKey, OwnerSource, Process, Stuck, Task},
    track::{FoundOwner, is_held_open, with_owner},
};

impl Pipeline {
    /// Asks the kernel programs to report the end of each listener's owner; an owner that has ended meanwhile is found, too.
    pub(super) fn watch_owners(&mut self) {
        let owners = self.table.listeners_owners();
        self.watch(&owners);
    }

    /// Applies the answer to the last search for holders, and begins the next search if one is due.
    pub(super) fn find_owners(&mut self) {
        if let Some((sockets, held)) = self.finder.answer() {
            let owners = self.table.found_holders(&sockets, &held, monotonic_ns(), &mut self.enricher);
            self.watch(&owners);
        }
        if self.finder.is_busy() {
            return;
        }
        let sockets = self.table.due_searches(monotonic_ns());
        if !sockets.is_empty() {
            self.finder.ask(self.source.descriptors(), sockets);
        }
    }

    /// Reports stuck connections with the findings of a look. The ring reports the end of a process only if the process has
    /// listened. Therefore this checks for every other owner whether the process lives and has the connection open.
    pub(super) fn report_examined(&mut self) {
        let mut lives: HashMap<Rc<Task>, bool> = HashMap::new();
        let mut read = HashSet::new();
        let mut settled = HashMap::new();
        for mut stuck in self.examiner.examined() {
            if is_held_open(stuck.state) {
                let owner = stuck.conn.subject.owner.as_ref();
                let ended = owner.is_some_and(|owner| {
                    !*lives.entry(Rc::clone(&owner.task)).or_insert_with(|| {
                        let lives = self.enricher.lives(&owner.task);
                        if !lives {
                            self.table.process_ended(&owner.task, monotonic_ns());
                        }
                        lives
                    })
                });
                let elsewhere = |owner: &Owner| {
                    // Then the listener that the look found by the port need not be the connection's.
                    is_never_accepted(&stuck)
                        && self.table.listens_elsewhere(&owner.task, stuck.conn.tuple.local_port)
                };
                let others =
                    if owner.is_some_and(elsewhere) { None } else { others_that_hold(&stuck, owner) };
                let is_news = others.as_ref().is_some_and(|only| only.is_some() || owner.is_some());
                if ended || is_news {
                    let is_known = others.is_some();
                    let only = others.flatten();
                    if let Some(key) = only.as_ref().filter(|key| read.insert(key.task.pid)) {
                        // The time of its start is not known: an earlier process may have had the same id.
                        self.enricher.forget_process(&key.task);
                    }
                    let subject = with_owner(&stuck.conn.subject, only, &mut self.enricher);
                    let before = std::mem::replace(&mut stuck.conn.subject, Rc::clone(&subject));
                    if is_known {
                        settled.insert(stuck.conn.id, FoundOwner { before, subject });
                    }
                }
            }
            self.write_stuck(stuck);
        }
        if !self.examiner.is_busy() && !self.table.is_beginning() {
            self.streams.pause();
        }
        if !settled.is_empty() {
            self.table.set_found_owners(&settled, monotonic_ns());
        }
    }

    fn watch(&mut self, owners: &[Rc<Task>]) {
        for owner in owners {
            self.source.watch_process(owner.pid);
            // This check comes after the request: from then on, the kernel programs report the end of the process.
            if !self.enricher.lives(owner) {
                self.table.process_ended(owner, monotonic_ns());
            }
        }
    }
}

fn is_never_accepted(stuck: &Stuck) -> bool {
    stuck.found.as_deref().is_some_and(|(found, _)| found.holders.is_empty() && found.socket.inode == 0)
}

/// If `owner` does not have the connection open: the only process that has it open, or `Some(None)` if there are several. A
/// connection that no process has accepted belongs to the process that has its listener. `None` if the holders are not
/// known.
fn others_that_hold(stuck: &Stuck, owner: Option<&Owner>) -> Option<Option<OwnerKey>> {
    let (found, _) = stuck.found.as_deref()?;
    let (processes, source): (Vec<&Process>, _) = if is_never_accepted(stuck) {
        if found.listeners.iter().any(|listener| listener.holders.is_empty()) {
            // The connection may come from a listener whose holder is not known.
            return None;
        }
        (found.listening().map(|process| &**process).collect(), OwnerSource::Inherited)
    } else {
        (found.holders.iter().map(|holder| &*holder.process).collect(), OwnerSource::Scan)
    };
    let first = processes.first()?;
    let holds_socket = |owner: &Owner| processes.iter().any(|process| process.pid == owner.pid());
    if found.hidden_holders || owner.is_some_and(holds_socket) {
        return None;
    }
    let is_only = processes.iter().all(|process| process.pid == first.pid);
    Some(is_only.then(|| OwnerKey { task: Rc::new(first.task()), source }))
}
