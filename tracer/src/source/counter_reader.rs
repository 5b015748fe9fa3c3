//! Reads the counters of living sockets in a thread of its own: one request of `sock_diag` for each socket, which the kernel
//! finds by its hash. A dump would list all sockets of the namespace.

use std::{
    collections::BTreeMap,
    io,
    os::fd::OwnedFd,
    sync::mpsc::{Receiver, Sender, TryRecvError, channel},
    thread,
};

use super::{diag::exact, namespace_paths::NamespacePaths, netlink::open, snapshot};
use crate::{
    kernel,
    model::{State, Traffic, Tuple},
};

/// A full socket. `pid` may be a process in its network namespace.
#[derive(Clone, Copy, Debug)]
pub struct SocketKey {
    pub netns: u32,
    pub pid: Option<u32>,
    pub tuple: Tuple,
}

/// What the kernel says about a socket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Counters {
    Of(Traffic),
    /// There is no such full socket.
    Gone,
    /// Its network namespace gives no answer, or the kernel lacks a counter.
    Unknown,
}

/// With the moment when the counters were read, `CLOCK_MONOTONIC` ns.
type Answer<T> = Vec<(T, Counters, u64)>;
type Question<T> = Vec<(T, SocketKey)>;
/// The ends of the channels to and from the thread.
type Thread<T> = (Sender<Question<T>>, Receiver<Answer<T>>);

/// The thread, which answers one question at a time. `T` says what a socket is asked for.
pub struct CounterReader<T> {
    thread: Option<Thread<T>>,
    is_busy: bool,
}

impl<T> Default for CounterReader<T> {
    /// Knows nothing.
    fn default() -> Self {
        Self { thread: None, is_busy: false }
    }
}

impl<T: Send + 'static> CounterReader<T> {
    /// Starts the thread, which keeps the capabilities of this one that it needs. `clock` is `CLOCK_MONOTONIC`, ns.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(clock: fn() -> u64) -> io::Result<Self> {
        let (questions, todo) = channel::<Question<T>>();
        let (done, answers) = channel();
        thread::Builder::new().name("counters".into()).spawn(move || {
            // The main thread reports it if the kernel refuses.
            drop(kernel::keep_privileges_to_look());
            let mut namespaces = NamespacePaths::default();
            for question in todo {
                if done.send(read(question, &mut namespaces, clock)).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { thread: Some((questions, answers)), is_busy: false })
    }

    /// Asks for the counters of some sockets. Ask again only after the answer.
    pub fn ask(&mut self, question: Question<T>) {
        self.is_busy = self.thread.as_ref().is_some_and(|(questions, _)| questions.send(question).is_ok());
    }

    /// The answer, if it has come. Without a thread, there is none.
    pub fn answer(&mut self) -> Answer<T> {
        let Some((_, answers)) = &self.thread else { return Vec::new() };
        match answers.try_recv() {
            Ok(answer) => {
                self.is_busy = false;
                answer
            }
            Err(TryRecvError::Empty) => Vec::new(),
            Err(TryRecvError::Disconnected) => {
                (self.thread, self.is_busy) = (None, false);
                Vec::new()
            }
        }
    }

    /// Whether there is a thread that can be asked.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.thread.is_some()
    }

    /// Whether an answer is to come.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.is_busy
    }
}

fn read<T>(question: Question<T>, namespaces: &mut NamespacePaths, clock: fn() -> u64) -> Answer<T> {
    // A netlink socket keeps its network namespace alive, so none stays open.
    let mut sockets: BTreeMap<u32, Option<OwnedFd>> = BTreeMap::new();
    let counters = |(what, key): (T, SocketKey)| {
        let socket = sockets.entry(key.netns).or_insert_with(|| open_in(&key, namespaces));
        let read_ns = clock();
        let counters = socket.as_ref().map_or(Counters::Unknown, |socket| counters(socket, &key));
        (what, counters, read_ns)
    };
    question.into_iter().map(counters).collect()
}

/// A netlink socket in the namespace of `key`.
fn open_in(key: &SocketKey, namespaces: &mut NamespacePaths) -> Option<OwnedFd> {
    let file = namespaces.open(key.netns, key.pid).or_else(|| {
        namespaces.search();
        namespaces.open(key.netns, None)
    })?;
    snapshot::run_in(key.netns, &file, || open().map_err(|error| error.to_string())).ok()
}

fn counters(socket: &OwnedFd, key: &SocketKey) -> Counters {
    match exact(socket, key.netns, &key.tuple) {
        // Without the connection, the kernel finds its listener.
        Ok(Some(found)) if found.state != State::Listen && !found.mini => {
            found.traffic.map_or(Counters::Unknown, Counters::Of)
        }
        Ok(Some(_)) => Counters::Gone,
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Counters::Gone,
        Ok(None) | Err(_) => Counters::Unknown,
    }
}
