//! Whose listeners and connections are, when their owners have ended.

use std::{collections::HashMap, rc::Rc};

use super::{Pipeline, monotonic_ns};
use crate::{
    model::Task,
    track::{is_held_open, without_owner},
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

    /// Says what is stuck, and what a look has found. Only the ends of processes that have listened are in the ring: whether others
    /// live is looked up before a connection is said to be theirs.
    pub(super) fn say_examined(&mut self) {
        let mut lives: HashMap<Rc<Task>, bool> = HashMap::new();
        for mut stuck in self.examiner.examined() {
            if let Some(owner) = stuck.subject.owner.as_ref().filter(|_| is_held_open(stuck.state)) {
                let task = Rc::clone(&owner.task);
                let lives = *lives.entry(Rc::clone(&task)).or_insert_with(|| {
                    let lives = self.enricher.lives(&task);
                    if !lives {
                        self.table.process_ended(&task, monotonic_ns());
                    }
                    lives
                });
                if !lives {
                    stuck.subject = without_owner(&stuck.subject, &mut self.enricher);
                }
            }
            self.stuck(stuck);
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
