//! Finds the call path that opened each connection. Stacks are unwound in a separate thread, which starts before capabilities are
//! dropped: it keeps those that mappings of other processes need.

use std::{
    collections::{HashMap, HashSet},
    io,
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, channel, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    filter::Processes,
    kernel,
    model::{ConnId, MissingStack, Opening, Stack},
    unwind::{ReportPython, Unwinder},
};

/// Limit of openings that wait to be unwound: 8 KB each.
const QUEUE: usize = 1024;

/// How often the thread searches for new processes that run CPython.
const PYTHON_SEARCH_INTERVAL: Duration = Duration::from_secs(1);
/// How long the hunt waits for the first search.
const FIRST_SEARCH_LIMIT: Duration = Duration::from_secs(10);

/// The thread that unwinds stacks, and its results.
pub struct Hunter {
    openings: SyncSender<(ConnId, Box<Opening>)>,
    found: Receiver<(ConnId, Result<Arc<Stack>, MissingStack>)>,
    /// Results for connections that still exist.
    stacks: HashMap<ConnId, Result<Arc<Stack>, MissingStack>>,
    /// The last connection that existed when the hunt began.
    last_before: ConnId,
    /// The hooks copy stacks since this time.
    began_ns: u64,
    /// Connections after `last_before` that have events from before `began_ns`.
    before: HashSet<ConnId>,
    /// Connections that were reported as stuck.
    stuck: HashSet<ConnId>,
    pending: usize,
    lost: u64,
    processes: Processes,
}

impl Hunter {
    /// Starts the thread. Only connections of these processes count; of all processes if none is named. When this function returns,
    /// existing processes that run CPython were passed to `report_python`.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(processes: Processes, report_python: ReportPython) -> io::Result<Self> {
        let (openings, todo) = sync_channel::<(ConnId, Box<Opening>)>(QUEUE);
        let (done, found) = channel();
        let (searched, has_searched) = channel();
        let whose = processes.pid.clone();
        thread::Builder::new().name("unwinder".into()).spawn(move || {
            // The main thread reports it if the kernel refuses.
            drop(kernel::keep_privileges_to_look());
            let mut unwinder = Unwinder::new(PathBuf::from("/"), report_python);
            unwinder.find_pythons(&whose);
            let _ = searched.send(());
            let mut next_search = Instant::now() + PYTHON_SEARCH_INTERVAL;
            loop {
                match todo.recv_timeout(next_search.saturating_duration_since(Instant::now())) {
                    Ok((conn, opening)) if done.send((conn, unwinder.unwind(&opening))).is_ok() => {}
                    Ok(_) | Err(RecvTimeoutError::Disconnected) => break,
                    Err(RecvTimeoutError::Timeout) => {
                        unwinder.find_pythons(&whose);
                        next_search = Instant::now() + PYTHON_SEARCH_INTERVAL;
                    }
                }
            }
        })?;
        // Reading the mappings of other processes may take any time.
        let _ = has_searched.recv_timeout(FIRST_SEARCH_LIMIT);
        Ok(Self {
            openings,
            found,
            stacks: HashMap::new(),
            last_before: ConnId(0),
            began_ns: 0,
            before: HashSet::new(),
            stuck: HashSet::new(),
            pending: 0,
            lost: 0,
            processes,
        })
    }

    /// Begins the hunt: connections up to `last_before`, and those with events before `began_ns`, existed before.
    pub fn begin(&mut self, last_before: ConnId, began_ns: u64) {
        (self.last_before, self.began_ns) = (last_before, began_ns);
    }

    /// Notes that the connection has an event at `time_ns`.
    pub fn existed(&mut self, conn: ConnId, time_ns: u64) {
        if time_ns < self.began_ns && conn > self.last_before {
            self.before.insert(conn);
        }
    }

    /// Sends the opening of a connection to the thread.
    pub fn opened(&mut self, conn: ConnId, opening: Box<Opening>) {
        let task = &opening.task;
        if !self.processes.names(task.pid, task.comm()) {
            return;
        }
        match self.openings.try_send((conn, opening)) {
            Ok(()) => {
                self.stacks.insert(conn, Err(MissingStack::NotUnwound));
                self.pending += 1;
            }
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => self.lost += 1,
        }
        self.gather();
    }

    /// Forgets a connection that has ended.
    pub fn closed(&mut self, conn: ConnId) {
        self.stacks.remove(&conn);
        self.before.remove(&conn);
    }

    /// The call path that opened the connection.
    ///
    /// # Errors
    /// Why the call path is not known.
    pub fn stack(&mut self, conn: ConnId) -> Result<Arc<Stack>, MissingStack> {
        self.gather();
        match self.stacks.get(&conn) {
            Some(known) => known.clone(),
            None if conn <= self.last_before || self.before.contains(&conn) => Err(MissingStack::BeforeHunt),
            None => Err(MissingStack::NotSeen),
        }
    }

    /// Notes that a connection is stuck. Returns whether it counts for this hunt.
    pub fn stuck(&mut self, conn: ConnId) -> bool {
        let wanted = self.processes.is_empty() || self.stacks.contains_key(&conn);
        if wanted {
            self.stuck.insert(conn);
        }
        wanted
    }

    /// Notes that a connection is no longer stuck. Returns whether it counted.
    pub fn resolved(&mut self, conn: ConnId) -> bool {
        self.stuck.remove(&conn)
    }

    /// Openings whose call path could not be found.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Waits for pending stacks, up to `limit`.
    pub fn finish(&mut self, limit: Duration) {
        let deadline = Instant::now() + limit;
        while self.pending > 0
            && let Some(left) = deadline.checked_duration_since(Instant::now())
            && let Ok((conn, stack)) = self.found.recv_timeout(left)
        {
            self.take(conn, stack);
        }
    }

    fn gather(&mut self) {
        while let Ok((conn, stack)) = self.found.try_recv() {
            self.take(conn, stack);
        }
    }

    fn take(&mut self, conn: ConnId, stack: Result<Arc<Stack>, MissingStack>) {
        self.pending = self.pending.saturating_sub(1);
        self.lost += u64::from(stack.is_err());
        if let Some(known) = self.stacks.get_mut(&conn) {
            *known = stack;
        }
    }
}
