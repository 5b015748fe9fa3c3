//! Whose listeners and connections are, when their owners have ended or closed them.

use std::{
    collections::{HashMap, HashSet},
    rc::Rc,
};

use super::{Pipeline, monotonic_ns};
use crate::{
    model::{ConnId, Identify, Owner, OwnerKey, OwnerSource, Process, Stuck, Task},
    track::{is_held_open, with_owner},
};

impl Pipeline {
    /// What becomes of the listeners' owners is told from now on; one that has ended meanwhile is found.
    pub(super) fn watch_owners(&mut self) {
        let owners = self.table.listeners_owners();
        self.watch(&owners);
    }

    /// Asks who holds listeners whose owner has ended, and takes in the answer.
    pub(super) fn find_owners(&mut self) {
        if let Some((sockets, held)) = self.finder.answer() {
            let owners = self.table.found_holders(&sockets, &held, monotonic_ns(), &mut self.enricher);
            self.watch(&owners);
        }
        if self.finder.is_busy() {
            return;
        }
        let sockets = self.table.looked_for(monotonic_ns());
        if !sockets.is_empty() {
            self.finder.ask(self.source.descriptors(), sockets);
        }
    }

    /// Reports what is stuck, with what a look has found. The ring reports the end of a process only if that process has
    /// listened. Of every other owner this looks up whether the process lives and has the connection open, before it reports it.
    pub(super) fn say_examined(&mut self) {
        let mut lives: HashMap<Rc<Task>, bool> = HashMap::new();
        let mut read = HashSet::new();
        let mut let_go: HashMap<Rc<Task>, HashSet<ConnId>> = HashMap::new();
        for mut stuck in self.examiner.examined() {
            if let Some(owner) = stuck.conn.subject.owner.as_ref().filter(|_| is_held_open(stuck.state)) {
                let task = Rc::clone(&owner.task);
                let lives = *lives.entry(Rc::clone(&task)).or_insert_with(|| {
                    let lives = self.enricher.lives(&task);
                    if !lives {
                        self.table.process_ended(&task, monotonic_ns());
                    }
                    lives
                });
                let others = others_that_hold(&stuck, owner);
                if lives && others.is_some() {
                    let_go.entry(task).or_default().insert(stuck.conn.id);
                }
                if !lives || others.is_some() {
                    let only = others.flatten();
                    if let Some(key) = only.as_ref().filter(|key| read.insert(key.task.pid)) {
                        // When it started is not known, so that an earlier one may have had its id.
                        self.enricher.read_again(&key.task);
                    }
                    stuck.conn.subject = with_owner(&stuck.conn.subject, only, &mut self.enricher);
                }
            }
            self.stuck(stuck);
        }
        for (owner, conns) in let_go {
            self.table.has_let_go(&owner, &conns, monotonic_ns());
        }
    }

    fn watch(&mut self, owners: &[Rc<Task>]) {
        for owner in owners {
            self.source.watch_process(owner.pid);
            // Asked afterwards: what ends from here on is told.
            if !self.enricher.lives(owner) {
                self.table.process_ended(owner, monotonic_ns());
            }
        }
    }
}

/// Where other processes have the connection open and `owner` has not: the only one of them, or `None` for several. What nobody has
/// accepted is the listener's. Nothing where that is not known.
fn others_that_hold(stuck: &Stuck, owner: &Owner) -> Option<Option<OwnerKey>> {
    let (found, _) = stuck.found.as_deref()?;
    let (processes, source): (Vec<&Process>, _) = if found.holders.is_empty() && found.socket.inode == 0 {
        (found.listening().map(|process| &**process).collect(), OwnerSource::Inherited)
    } else {
        (found.holders.iter().map(|holder| &*holder.process).collect(), OwnerSource::Scan)
    };
    let first = processes.first()?;
    if found.hidden_holders || processes.iter().any(|process| process.pid == owner.pid()) {
        return None;
    }
    let is_only = processes.iter().all(|process| process.pid == first.pid);
    Some(is_only.then(|| OwnerKey { task: Rc::new(first.task()), source }))
}
