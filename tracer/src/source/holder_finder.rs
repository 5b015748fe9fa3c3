//! Finds the current holders of some sockets by a walk over all descriptors of the host. The walk may take long, so it runs in
//! its own thread.

use std::{
    collections::{HashMap, HashSet},
    io,
    sync::mpsc::{Receiver, Sender, channel},
    thread,
};

use super::snapshot::{self, WalkResult};
use crate::{
    kernel::{self, IterOpener},
    model::{Event, EventKind, Task},
};

type Question = (IterOpener, HashSet<u64>);

/// Holders by the kernel address of the socket.
pub type HoldersBySocket = HashMap<u64, Vec<Task>>;

/// The thread, and the sockets of the current question.
#[derive(Default)]
pub struct HolderFinder {
    thread: Option<(Sender<Question>, Receiver<HoldersBySocket>)>,
    sockets: Vec<u64>,
}

impl HolderFinder {
    /// Starts the thread, which keeps the capabilities of this one that it needs.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start() -> io::Result<Self> {
        let (questions, todo) = channel::<Question>();
        let (done, answers) = channel();
        thread::Builder::new().name("holders".into()).spawn(move || {
            // The main thread reports it if the kernel refuses.
            drop(kernel::keep_privileges_to_look());
            for (opener, sockets) in todo {
                if done.send(find(opener, &sockets)).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { thread: Some((questions, answers)), sockets: Vec::new() })
    }

    /// Whether an answer is pending.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        !self.sockets.is_empty()
    }

    /// Asks for the holders of `sockets`. Without a thread, or without the iterator, the answer has no holders.
    pub fn ask(&mut self, opener: Result<IterOpener, String>, sockets: Vec<u64>) {
        if let (Some((questions, _)), Ok(opener)) = (&self.thread, opener) {
            // If the thread has ended, `answer` returns no holders.
            let _ = questions.send((opener, sockets.iter().copied().collect()));
        } else {
            self.thread = None;
        }
        self.sockets = sockets;
    }

    /// The sockets of the question and their holders, once the thread has answered.
    pub fn answer(&mut self) -> Option<(Vec<u64>, HoldersBySocket)> {
        use std::sync::mpsc::TryRecvError;
        if self.sockets.is_empty() {
            return None;
        }
        let held = match self.thread.as_ref().map(|(_, answers)| answers.try_recv()) {
            Some(Ok(held)) => held,
            Some(Err(TryRecvError::Empty)) => return None,
            Some(Err(TryRecvError::Disconnected)) | None => HoldersBySocket::new(),
        };
        Some((std::mem::take(&mut self.sockets), held))
    }
}

fn find(opener: IterOpener, sockets: &HashSet<u64>) -> HoldersBySocket {
    let mut held = HoldersBySocket::new();
    let mut found = WalkResult::default();
    snapshot::read(opener.open(), "holders", snapshot::FILES, &mut found, &mut |event: Event| {
        if let EventKind::Held { task, .. } = event.kind
            && sockets.contains(&event.sk)
        {
            held.entry(event.sk).or_default().push(task);
        }
    });
    // An incomplete list is useless: the missing holder may be the owner.
    if found.problems.is_empty() { held } else { HoldersBySocket::new() }
}
