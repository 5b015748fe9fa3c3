//! Reads the kernel's socket tables again while the tracer runs (resync).
//!
//! An iterator lists the network namespace of the thread that opens it. To enter another namespace takes CAP_SYS_ADMIN, which
//! the main thread has dropped. This thread keeps the capability, and starts a short-lived thread for each namespace.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fs::File,
    path::Path,
    sync::mpsc::{Receiver, Sender, channel},
    thread,
};

use super::{
    listed,
    namespaces::{Namespace, Namespaces},
    snapshot::{self, WalkResult},
    visibility,
};
use crate::{
    kernel::{self, IterKind, IterOpener, Loaded},
    model::{Event, EventKind, State, Tuple},
};

enum Request {
    Namespaces,
    /// Opens the iterator in a namespace, by its inode number.
    Open(IterOpener, u32, Namespace),
}

enum Answer {
    Namespaces(BTreeMap<u64, Namespace>),
    /// The namespace, and the iterator or why it cannot be opened there.
    Opened(Namespace, Result<File, String>),
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
    /// Endpoints of all sockets in namespaces that could not be entered, and that a process is in.
    pub endpoints: BTreeMap<u32, HashSet<Tuple>>,
    /// All sockets that processes have descriptors of, in all namespaces: their states by their addresses. `None` if they cannot
    /// be listed.
    pub held: Option<HashMap<u64, State>>,
}

impl NetnsThread {
    /// Starts the thread, which keeps the capabilities of this one that it needs.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start() -> std::io::Result<Self> {
        let (requests, todo) = channel();
        let (done, answers) = channel();
        thread::Builder::new().name("namespaces".into()).spawn(move || {
            // The main thread reports it if the kernel refuses.
            drop(kernel::keep_privileges_to_look());
            for request in todo {
                let answer = match request {
                    Request::Namespaces => Answer::Namespaces(Namespaces::find(Path::new("/")).found),
                    Request::Open(opener, inode, namespace) => {
                        let opened = snapshot::run_in(inode, &namespace.file, || opener.open());
                        Answer::Opened(namespace, opened)
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
            let Ok(netns) = u32::try_from(inode) else { continue };
            if only.is_some_and(|only| only != netns) {
                continue;
            }
            let Ok(opener) = loaded.opener(IterKind::Sockets) else { return scan };
            let Some(Answer::Opened(namespace, file)) = self.ask(Request::Open(opener, netns, namespace))
            else {
                return scan;
            };
            let mut found = WalkResult::default();
            let mut sockets = Vec::new();
            snapshot::read(file, "", snapshot::SOCKETS, &mut found, &mut |event| sockets.push(event));
            if found.problems.is_empty() {
                scan.namespaces.insert(netns);
                scan.sockets.append(&mut sockets);
            } else if let Some(endpoints) = listed::endpoints(inode, &namespace) {
                scan.endpoints.insert(netns, endpoints);
            }
        }
        scan.held = held(loaded);
        scan
    }

    fn ask(&self, request: Request) -> Option<Answer> {
        self.requests.send(request).ok()?;
        self.answers.recv().ok()
    }
}

/// The states of all sockets that processes have descriptors of; `None` if the iterator does not list all processes.
fn held(loaded: &mut Loaded) -> Option<HashMap<u64, State>> {
    if !visibility::is_in_first_pid_namespace() {
        return None;
    }
    let files = loaded.opener(IterKind::Files).and_then(IterOpener::open);
    let (mut held, mut found) = (HashMap::new(), WalkResult::default());
    snapshot::read(files, "", snapshot::FILES, &mut found, &mut |event: Event| {
        if let EventKind::Held { state, .. } = event.kind {
            held.insert(event.sk, state);
        }
    });
    found.problems.is_empty().then_some(held)
}
