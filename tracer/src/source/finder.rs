//! Who holds some sockets now: a walk over all descriptors, in a thread of its own, since it may take as long as a host has
//! descriptors.

use std::{
    collections::{HashMap, HashSet},
    io,
    sync::mpsc::{Receiver, Sender, channel},
    thread,
};

use super::snapshot::{self, Found};
use crate::{
    kernel::IterOpener,
    model::{Event, EventKind, Task},
};

type Question = (IterOpener, HashSet<u64>);

/// The holders of sockets, by the kernel's key.
pub type Held = HashMap<u64, Vec<Task>>;

/// The thread, and what it is asked about.
#[derive(Default)]
pub struct Finder {
    thread: Option<(Sender<Question>, Receiver<Held>)>,
    asked: Vec<u64>,
}

impl Finder {
    /// Starts the thread, with the capabilities that this one still has.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start() -> io::Result<Self> {
        let (questions, todo) = channel::<Question>();
        let (done, answers) = channel();
        thread::Builder::new().name("holders".into()).spawn(move || {
            for (opener, sockets) in todo {
                if done.send(find(opener, &sockets)).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { thread: Some((questions, answers)), asked: Vec::new() })
    }

    /// Whether an answer is to come.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        !self.asked.is_empty()
    }

    /// Asks who holds `sockets`; nobody is found where there is no thread, or the kernel cannot.
    pub fn ask(&mut self, opener: Result<IterOpener, String>, sockets: Vec<u64>) {
        if let (Some((questions, _)), Ok(opener)) = (&self.thread, opener) {
            // Where the thread is gone, the answer is that nobody is known.
            let _ = questions.send((opener, sockets.iter().copied().collect()));
        } else {
            self.thread = None;
        }
        self.asked = sockets;
    }

    /// The sockets that were asked about and who holds them, once that is known.
    pub fn answer(&mut self) -> Option<(Vec<u64>, Held)> {
        use std::sync::mpsc::TryRecvError;
        if self.asked.is_empty() {
            return None;
        }
        let held = match self.thread.as_ref().map(|(_, answers)| answers.try_recv()) {
            Some(Ok(held)) => held,
            Some(Err(TryRecvError::Empty)) => return None,
            Some(Err(TryRecvError::Disconnected)) | None => Held::new(),
        };
        Some((std::mem::take(&mut self.asked), held))
    }
}

fn find(opener: IterOpener, sockets: &HashSet<u64>) -> Held {
    let mut held = Held::new();
    let mut found = Found::default();
    snapshot::read(opener.open(), "holders", snapshot::FILES, &mut found, &mut |event: Event| {
        if let EventKind::Held { task, .. } = event.kind
            && sockets.contains(&event.sk)
        {
            held.entry(event.sk).or_default().push(task);
        }
    });
    // Half a list is none: the holder that it lacks may be the owner.
    if found.problems.is_empty() { held } else { Held::new() }
}
