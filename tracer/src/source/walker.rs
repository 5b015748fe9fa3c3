//! Looking at the kernel's tables again while records flow, to correct what losses made wrong.
//!
//! The iterators see the network namespace of the thread that opens them. Entering others needs CAP_SYS_ADMIN, which the thread
//! that reads records has given away: one thread keeps it, has a short-lived thread enter each namespace, and does nothing else.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs::File,
    path::Path,
    sync::mpsc::{Receiver, Sender, channel},
    thread,
};

use super::{
    namespaces::{Namespace, Namespaces},
    snapshot::{self, Found},
};
use crate::{
    kernel::{IterOpener, Loaded, Walk},
    model::{Event, EventKind},
};

/// What the thread is asked for.
enum Task {
    Namespaces,
    Open(IterOpener, File),
}

enum Answer {
    Namespaces(BTreeMap<u64, Namespace>),
    Opened(Result<File, String>),
}

/// The thread.
pub struct Walker {
    tasks: Sender<Task>,
    answers: Receiver<Answer>,
}

/// What the kernel's tables held.
#[derive(Debug, Default)]
pub struct Look {
    /// `CLOCK_MONOTONIC` ns when it began.
    pub began_ns: u64,
    /// Network namespaces that were looked into.
    pub namespaces: BTreeSet<u32>,
    /// Their sockets, mini-sockets included.
    pub sockets: Vec<Event>,
    /// Keys of all sockets that a process holds, in all namespaces; none if they cannot be listed.
    pub held: Option<HashSet<u64>>,
}

impl Walker {
    /// Starts the thread, with the capabilities that this one still has.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start() -> std::io::Result<Self> {
        let (tasks, todo) = channel();
        let (done, answers) = channel();
        thread::Builder::new().name("namespaces".into()).spawn(move || {
            for task in todo {
                let answer = match task {
                    Task::Namespaces => Answer::Namespaces(Namespaces::find(Path::new("/")).found),
                    Task::Open(opener, namespace) => {
                        Answer::Opened(snapshot::visit(&namespace, || opener.open()))
                    }
                };
                if done.send(answer).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { tasks, answers })
    }

    /// Looks at every namespace (at `only` if given).
    pub(super) fn look(&self, loaded: &mut Loaded, only: Option<u32>, began_ns: u64) -> Look {
        let mut look = Look { began_ns, ..Look::default() };
        let Some(Answer::Namespaces(namespaces)) = self.ask(Task::Namespaces) else { return look };
        for (inode, namespace) in namespaces {
            let Ok(inode) = u32::try_from(inode) else { continue };
            if only.is_some_and(|only| only != inode) {
                continue;
            }
            let Ok(opener) = loaded.opener(Walk::Sockets) else { return look };
            let Some(Answer::Opened(file)) = self.ask(Task::Open(opener, namespace.file)) else {
                return look;
            };
            let mut found = Found::default();
            let mut sockets = Vec::new();
            snapshot::read(file, "", snapshot::SOCKETS, &mut found, &mut |event| sockets.push(event));
            if found.problems.is_empty() {
                look.namespaces.insert(inode);
                look.sockets.append(&mut sockets);
            }
        }
        let mut held = HashSet::new();
        let mut found = Found::default();
        let files = loaded.opener(Walk::Files).and_then(IterOpener::open);
        snapshot::read(files, "", snapshot::FILES, &mut found, &mut |event: Event| {
            if let EventKind::Held { .. } = event.kind {
                held.insert(event.sk);
            }
        });
        look.held = found.problems.is_empty().then_some(held);
        look
    }

    fn ask(&self, task: Task) -> Option<Answer> {
        self.tasks.send(task).ok()?;
        self.answers.recv().ok()
    }
}
