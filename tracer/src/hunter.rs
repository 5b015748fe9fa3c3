//! Which call path opened which connection. Unwinding takes a thread of its own; started before privileges are dropped, it
//! keeps those that reading other processes' mappings needs.

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
    model::{ConnId, MissingStack, Opening, Stack},
    unwind::{Tell, Unwinder},
};

/// Openings that wait to be unwound: 8 KB each.
const QUEUE: usize = 1024;

/// How often new processes that run CPython are looked for.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// The hunt does not begin later than this because of them.
const PATIENCE: Duration = Duration::from_secs(10);

/// The thread, and what it has found.
pub struct Hunter {
    openings: SyncSender<(ConnId, Box<Opening>)>,
    found: Receiver<(ConnId, Result<Arc<Stack>, MissingStack>)>,
    /// Of connections that live.
    stacks: HashMap<ConnId, Result<Arc<Stack>, MissingStack>>,
    /// Connections up to this one existed when it began, ...
    last_before: ConnId,
    /// ... and the hooks took stacks from this moment on.
    began_ns: u64,
    /// Those of the events that the ring had before.
    before: HashSet<ConnId>,
    /// Those that were said to be stuck.
    stuck: HashSet<ConnId>,
    pending: usize,
    lost: u64,
    pids: Vec<u32>,
    comms: Vec<String>,
}

impl Hunter {
    /// Starts the thread. Only connections that one of these processes opens count; all where none is named. Processes that run
    /// CPython were told to `tell` when it returns, as far as they had begun.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(pids: Vec<u32>, comms: Vec<String>, tell: Tell) -> io::Result<Self> {
        let (openings, todo) = sync_channel::<(ConnId, Box<Opening>)>(QUEUE);
        let (done, found) = channel();
        let (looked, has_looked) = channel();
        let whose = pids.clone();
        thread::Builder::new().name("unwinder".into()).spawn(move || {
            let mut unwinder = Unwinder::new(PathBuf::from("/"), tell);
            unwinder.look_for_pythons(&whose);
            let _ = looked.send(());
            let mut look_at = Instant::now() + LOOK_AGAIN;
            loop {
                match todo.recv_timeout(look_at.saturating_duration_since(Instant::now())) {
                    Ok((conn, opening)) if done.send((conn, unwinder.unwind(&opening))).is_ok() => {}
                    Ok(_) | Err(RecvTimeoutError::Disconnected) => break,
                    Err(RecvTimeoutError::Timeout) => {
                        unwinder.look_for_pythons(&whose);
                        look_at = Instant::now() + LOOK_AGAIN;
                    }
                }
            }
        })?;
        // Reading what other processes have mapped may take any time.
        let _ = has_looked.recv_timeout(PATIENCE);
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
            pids,
            comms,
        })
    }

    /// The hunt begins: connections up to `last_before` existed already, and so do those that have events before `began_ns`.
    pub fn begin(&mut self, last_before: ConnId, began_ns: u64) {
        (self.last_before, self.began_ns) = (last_before, began_ns);
    }

    /// This connection has an event of that moment.
    pub fn existed(&mut self, conn: ConnId, time_ns: u64) {
        if time_ns < self.began_ns && conn > self.last_before {
            self.before.insert(conn);
        }
    }

    /// This connection was opened.
    pub fn opened(&mut self, conn: ConnId, opening: Box<Opening>) {
        let task = &opening.task;
        let wanted = (self.pids.is_empty() || self.pids.contains(&task.pid))
            && (self.comms.is_empty() || self.comms.iter().any(|comm| comm.as_bytes() == task.comm()));
        if !wanted {
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

    /// It has ended.
    pub fn closed(&mut self, conn: ConnId) {
        self.stacks.remove(&conn);
        self.before.remove(&conn);
    }

    /// Where it was opened, or why that is not known.
    ///
    /// # Errors
    /// It is not known.
    pub fn stack(&mut self, conn: ConnId) -> Result<Arc<Stack>, MissingStack> {
        self.gather();
        match self.stacks.get(&conn) {
            Some(known) => known.clone(),
            None if conn <= self.last_before || self.before.contains(&conn) => Err(MissingStack::BeforeHunt),
            None => Err(MissingStack::NotSeen),
        }
    }

    /// It is stuck: whether that counts.
    pub fn stuck(&mut self, conn: ConnId) -> bool {
        let wanted = (self.pids.is_empty() && self.comms.is_empty()) || self.stacks.contains_key(&conn);
        if wanted {
            self.stuck.insert(conn);
        }
        wanted
    }

    /// It no longer is: whether it counted.
    pub fn resolved(&mut self, conn: ConnId) -> bool {
        self.stuck.remove(&conn)
    }

    /// Openings whose call path could not be found.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Waits for what is being unwound, but not for longer than `most`.
    pub fn finish(&mut self, most: Duration) {
        let deadline = Instant::now() + most;
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
