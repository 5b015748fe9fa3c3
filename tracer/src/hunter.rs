//! Which call path opened which connection. Unwinding takes a thread of its own; started before privileges are dropped, it
//! keeps those that reading other processes' mappings needs.

use std::{
    collections::{HashMap, HashSet},
    io,
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, TrySendError, channel, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    model::{ConnId, Opening, Stack},
    unwind::Unwinder,
};

/// Openings that wait to be unwound: 8 KB each.
const QUEUE: usize = 1024;

/// The thread, and what it has found.
pub struct Hunter {
    openings: SyncSender<(ConnId, Box<Opening>)>,
    found: Receiver<(ConnId, Option<Arc<Stack>>)>,
    /// Of connections that live; none for one that is not unwound yet.
    stacks: HashMap<ConnId, Option<Arc<Stack>>>,
    /// Those that were said to be stuck.
    stuck: HashSet<ConnId>,
    pending: usize,
    lost: u64,
    pids: Vec<u32>,
    comms: Vec<String>,
}

impl Hunter {
    /// Starts the thread. Only connections that one of these processes opens count; all where none is named.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(pids: Vec<u32>, comms: Vec<String>) -> io::Result<Self> {
        let (openings, todo) = sync_channel::<(ConnId, Box<Opening>)>(QUEUE);
        let (done, found) = channel();
        thread::Builder::new().name("unwinder".into()).spawn(move || {
            let mut unwinder = Unwinder::new(PathBuf::from("/"));
            for (conn, opening) in todo {
                if done.send((conn, unwinder.unwind(&opening))).is_err() {
                    break;
                }
            }
        })?;
        let (stacks, stuck) = (HashMap::new(), HashSet::new());
        Ok(Self { openings, found, stacks, stuck, pending: 0, lost: 0, pids, comms })
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
                self.stacks.insert(conn, None);
                self.pending += 1;
            }
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => self.lost += 1,
        }
        self.gather();
    }

    /// It has ended.
    pub fn closed(&mut self, conn: ConnId) {
        self.stacks.remove(&conn);
    }

    /// Where it was opened, where that was seen.
    pub fn stack(&mut self, conn: ConnId) -> Option<Arc<Stack>> {
        self.gather();
        self.stacks.get(&conn).cloned().flatten()
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

    fn take(&mut self, conn: ConnId, stack: Option<Arc<Stack>>) {
        self.pending = self.pending.saturating_sub(1);
        self.lost += u64::from(stack.is_none());
        if let Some(known) = self.stacks.get_mut(&conn) {
            *known = stack;
        }
    }
}
