//! Whose listeners are, when their owners have ended.

use std::rc::Rc;

use super::{Pipeline, monotonic_ns};
use crate::model::Task;

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
