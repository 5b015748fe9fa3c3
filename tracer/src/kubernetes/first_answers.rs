//! The start waits for the first answers.

use std::cell::{Cell, RefCell};

type Asked = Box<dyn FnOnce() + Send>;

/// Calls a function when the first attempt of each watcher is over.
pub(super) struct FirstAnswers {
    missing: Cell<usize>,
    asked: RefCell<Option<Asked>>,
}

impl FirstAnswers {
    pub(super) fn new(watchers: usize, asked: Asked) -> Self {
        Self { missing: Cell::new(watchers), asked: RefCell::new(Some(asked)) }
    }

    /// The first attempt of one watcher is over.
    pub(super) fn one_more(&self) {
        let missing = self.missing.get().saturating_sub(1);
        self.missing.set(missing);
        if missing == 0
            && let Some(asked) = self.asked.take()
        {
            asked();
        }
    }
}
