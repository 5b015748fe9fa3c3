//! Reads the kernel's socket tables again while the tracer runs (resync).
//!
//! An iterator lists the network namespace of the thread that opens it. To enter another namespace takes CAP_SYS_ADMIN, which
//! the main thread has dropped. This thread keeps the capability, and starts a short-lived thread for each namespace.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs::File,
    path::Path,
    sync::mpsc::{Receiver, Sender, channel},
    thread,
};

use super::{
    namespaces::{Namespace, Namespaces},
    snapshot::{self, WalkResult},
};
use crate::{
    kernel::{IterKind, IterOpener, Loaded},
    model::{Event, EventKind},
};

enum Request {
    Namespaces,
    Open(IterOpener, File),
}

enum Answer {
    Namespaces(BTreeMap<u64, Namespace>),
    Opened(Result<File, String>),
}

/// The thread that enters network namespaces.
pub struct NetnsThread {
    requests: Sender<Request>,
    answers: Receiver<Answer>,
}

/// The contents of the kernel's tables.
#[derive(Debug, Default)]
pub struct TableScan {
    /// `CLOCK_MONOTONIC` ns when the scan began.
    pub began_ns: u64,
    /// Network namespaces that were read.
    pub namespaces: BTreeSet<u32>,
    /// Their sockets, mini-sockets included.
    pub sockets: Vec<Event>,
    /// Keys of all sockets that a process holds, in all namespaces; `None` if they cannot be listed.
    pub held: Option<HashSet<u64>>,
}

impl NetnsThread {
    /// Starts the thread, which inherits the current capabilities of this one.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start() -> std::io::Result<Self> {
        let (requests, todo) = channel();
        let (done, answers) = channel();
        thread::Builder::new().name("namespaces".into()).spawn(move || {
            for request in todo {
                let answer = match request {
                    Request::Namespaces => Answer::Namespaces(Namespaces::find(Path::new("/")).found),
                    Request::Open(opener, namespace) => {
                        Answer::Opened(snapshot::visit(&namespace, || opener.open()))
                    }
                };
                if done.send(answer).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { requests, answers })
    }

    /// Reads the tables of every namespace (of `only` if given).
    pub(super) fn scan(&self, loaded: &mut Loaded, only: Option<u32>, began_ns: u64) -> TableScan {
        let mut scan = TableScan { began_ns, ..TableScan::default() };
        let Some(Answer::Namespaces(namespaces)) = self.ask(Request::Namespaces) else { return scan };
        for (inode, namespace) in namespaces {
            let Ok(inode) = u32::try_from(inode) else { continue };
            if only.is_some_and(|only| only != inode) {
                continue;
            }
            let Ok(opener) = loaded.opener(IterKind::Sockets) else { return scan };
            let Some(Answer::Opened(file)) = self.ask(Request::Open(opener, namespace.file)) else {
                return scan;
            };
            let mut found = WalkResult::default();
            let mut sockets = Vec::new();
            snapshot::read(file, "", snapshot::SOCKETS, &mut found, &mut |event| sockets.push(event));
            if found.problems.is_empty() {
                scan.namespaces.insert(inode);
                scan.sockets.append(&mut sockets);
            }
        }
        let mut held = HashSet::new();
        let mut found = WalkResult::default();
        let files = loaded.opener(IterKind::Files).and_then(IterOpener::open);
        snapshot::read(files, "", snapshot::FILES, &mut found, &mut |event: Event| {
            if let EventKind::Held { .. } = event.kind {
                held.insert(event.sk);
            }
        });
        scan.held = found.problems.is_empty().then_some(held);
        scan
    }

    fn ask(&self, request: Request) -> Option<Answer> {
        self.requests.send(request).ok()?;
        self.answers.recv().ok()
    }
}
