//! The tracer's end: starts the process of the sinks, and sends it records from a thread, so that no stream waits.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{net::UnixStream, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
        mpsc::{SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::{
    net::{
        UCred,
        sockopt::{set_socket_passcred, socket_peercred},
    },
    process::geteuid,
};
use thiserror::Error;

use super::{
    ARGUMENT, CheckedSink, ClusterNews, ClusterRequest, FromSinks, Identity, Kind, PortProblem, Previous,
    Receiver, Request, SharedCounts, ToSinks, connection::invalid, protocol, send,
};
use crate::{
    capabilities,
    restart::{Ledger, SinkProgress},
    sinks::{
        Batch, Queue, Running,
        delivery::{End, Forward, wake_reporter},
    },
};

/// The longest message from the process of the sinks: what it says about each sink.
const MOST: usize = 4 << 20;
/// The shortest time between two reports of losses, so that the other process cannot keep this one busy.
const LOST_PAUSE: Duration = Duration::from_millis(1);
/// How long the process of the sinks may take to end.
const END: Duration = Duration::from_secs(5);
const END_STEP: Duration = Duration::from_millis(5);

/// Why sinks cannot run in a process of their own.
#[derive(Debug, Error)]
pub enum ProcessError {
    #[error("cannot start the process of the sinks: {0}")]
    Start(#[from] io::Error),
    #[error("cannot connect to {}: {source}; is sockstate-sinks.socket started?", path.display())]
    Connect { path: PathBuf, source: io::Error },
    #[error("the user {user} listens at {}: only root or the user of this process may", path.display())]
    Listener { path: PathBuf, user: u32 },
    #[error("the process of the sinks is root: give its service a user without rights (User=)")]
    IsRoot,
    /// What that process says.
    #[error("{0}")]
    Refused(String),
    #[error("the process of the sinks has ended")]
    Ended,
    #[error("too many sinks were started since sockstate was started: restart sockstate")]
    TooMany,
}

/// The process of the sinks; the clones share it.
#[derive(Clone)]
pub struct SinkProcess(Arc<Link>);

/// What that process has found about the sinks of a configuration.
pub struct Prepared {
    pub sinks: Vec<CheckedSink>,
    /// Where they can be started.
    pub place: Place,
}

/// Where the sinks of one configuration can be started.
#[derive(Clone)]
pub struct Place {
    process: SinkProcess,
    prepared: u64,
}

struct Link {
    socket: UnixStream,
    /// `None` if the service manager has started the process.
    child: Option<Mutex<Child>>,
    /// Who has answered first.
    sender: OnceLock<UCred>,
    port_problem: OnceLock<PortProblem>,
    cluster: OnceLock<Box<dyn Fn(ClusterNews) + Send + Sync>>,
    counts: Arc<SharedCounts>,
    outbox: Arc<Outbox>,
    queues: Mutex<BTreeMap<u32, Queue>>,
    replies: Mutex<Option<BTreeMap<Reply, SyncSender<FromSinks>>>>,
    next_queue: AtomicU32,
    next_prepared: AtomicU64,
    is_ending: AtomicBool,
    has_ended: AtomicBool,
}

/// What a thread waits for.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Reply {
    Begun,
    Prepared(u64),
    Started(u32),
}

impl SinkProcess {
    /// Starts the process, which becomes the user and gives up its capabilities.
    ///
    /// # Errors
    /// The process cannot be started, or cannot become the user.
    pub fn start(identity: Identity) -> Result<Self, ProcessError> {
        let (socket, theirs) = UnixStream::pair()?;
        let child = Command::new("/proc/self/exe")
            .arg0("sockstate")
            .arg(ARGUMENT)
            .stdin(OwnedFd::from(theirs))
            // Signals of a terminal are for the tracer.
            .process_group(0)
            .env_remove("NOTIFY_SOCKET")
            .env_remove("WATCHDOG_USEC")
            .spawn()?;
        Self::begin(socket, Some(child), identity)
    }

    /// Connects to the socket at `path`, behind which the service manager starts the process.
    ///
    /// # Errors
    /// Nobody listens there, or a user that could read the records and must not; or the process cannot work.
    pub fn connect(path: &Path, identity: Identity) -> Result<Self, ProcessError> {
        let path = path.to_owned();
        let socket = match UnixStream::connect(&path) {
            Ok(socket) => socket,
            Err(source) => return Err(ProcessError::Connect { path, source }),
        };
        let listener = socket_peercred(&socket).map_err(io::Error::from)?.uid;
        if !listener.is_root() && listener != geteuid() {
            return Err(ProcessError::Listener { path, user: listener.as_raw() });
        }
        set_socket_passcred(&socket, true).map_err(io::Error::from)?;
        let process = Self::begin(socket, None, identity)?;
        if process.0.sender.get().is_none_or(|sender| sender.uid.is_root()) {
            process.end();
            return Err(ProcessError::IsRoot);
        }
        Ok(process)
    }

    fn begin(socket: UnixStream, child: Option<Child>, identity: Identity) -> Result<Self, ProcessError> {
        let link = Arc::new(Link {
            child: child.map(Mutex::new),
            sender: OnceLock::new(),
            port_problem: OnceLock::new(),
            cluster: OnceLock::new(),
            counts: Arc::new(SharedCounts::new()?),
            outbox: Arc::default(),
            queues: Mutex::default(),
            replies: Mutex::new(Some(BTreeMap::new())),
            next_queue: AtomicU32::new(0),
            next_prepared: AtomicU64::new(0),
            is_ending: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
            socket,
        });
        let (outbox, socket) = (Arc::clone(&link.outbox), link.socket.try_clone()?);
        start_thread("to-sinks", move || outbox.send_all(&socket))?;
        let (reader, receiver) = (Arc::clone(&link), Receiver::new(link.socket.try_clone()?, MOST));
        start_thread("from-sinks", move || reader.receive_all(receiver))?;
        let process = Self(link);
        let counts = process.0.counts.descriptor().try_clone_to_owned()?;
        match process.0.ask(Reply::Begun, ToSinks::Begin(identity), vec![counts])? {
            FromSinks::Begun(Err(reason)) => Err(ProcessError::Refused(reason)),
            _ => Ok(process),
        }
    }

    /// Why the process cannot answer scrapers at the address of its [`Identity`].
    #[must_use]
    pub fn port_problem(&self) -> Option<&PortProblem> {
        self.0.port_problem.get()
    }

    /// Lets the process check the sinks of a configuration; waits for the answer.
    ///
    /// # Errors
    /// The process has ended.
    pub fn prepare(&self, request: Request) -> Result<Prepared, ProcessError> {
        let number = self.0.next_prepared.fetch_add(1, Ordering::Relaxed);
        let order = ToSinks::Prepare(Request { number, ..request });
        match self.0.ask(Reply::Prepared(number), order, Vec::new())? {
            FromSinks::Prepared { sinks, .. } => {
                Ok(Prepared { sinks, place: Place { process: self.clone(), prepared: number } })
            }
            _ => Err(ProcessError::Ended),
        }
    }

    /// Sinks note in a file of `ledger` how far they have come.
    ///
    /// # Errors
    /// There are too many open files.
    pub fn pass_ledger(&self, ledger: &Ledger) -> io::Result<()> {
        let descriptor = ledger.settled_apart().try_clone_to_owned()?;
        self.0.outbox.push(Outgoing::Message(ToSinks::Ledger, vec![descriptor]));
        Ok(())
    }

    /// The process answers scrapers, and asks for numbers through `questions`.
    pub fn pass_metrics(&self, questions: UnixStream) {
        self.0.outbox.push(Outgoing::Message(ToSinks::Metrics, vec![questions.into()]));
    }

    /// The process asks the API server of Kubernetes. The thread that receives passes each answer to `hear`.
    pub fn ask_cluster(&self, request: ClusterRequest, hear: impl Fn(ClusterNews) + Send + Sync + 'static) {
        let _ = self.0.cluster.set(Box::new(hear));
        self.0.outbox.push(Outgoing::Message(ToSinks::Kubernetes(request), Vec::new()));
    }

    /// Ends the process, and waits until it has ended.
    pub fn end(&self) {
        self.0.is_ending.store(true, Ordering::Relaxed);
        let _ = self.0.socket.shutdown(std::net::Shutdown::Write);
        let end = Instant::now() + END;
        while Instant::now() < end {
            if self.0.has_ended() {
                return;
            }
            thread::sleep(END_STEP);
        }
        message!("the process of the sinks has not ended yet");
    }
}

impl Place {
    /// Starts a sink with a queue of `limit` bytes. Waits until it has begun, unless others run.
    ///
    /// # Errors
    /// The sink cannot start, or the process has ended.
    pub fn open(
        &self,
        sink: &str,
        limit: usize,
        progress: Option<SinkProgress>,
        running: Option<&Running>,
    ) -> Result<Queue, ProcessError> {
        let link = &self.process.0;
        let number = link.next_queue.fetch_add(1, Ordering::Relaxed);
        let counts = link.counts.of_queue(number).ok_or(ProcessError::TooMany)?;
        let outbox = Arc::clone(&link.outbox);
        let way = Way { number, outbox, unsent: Arc::default() };
        let place = progress.as_ref().map(SinkProgress::place);
        let queue = Queue::at(sink, limit, progress, Box::new(counts), End::Stream(Box::new(way)));
        lock(&link.queues).insert(number, queue.clone());
        let numbers = |queues: &[Queue]| queues.iter().filter_map(Queue::number).collect();
        let previous = running
            .map(|running| Previous { output: numbers(&running.output), spool: numbers(&running.spool) });
        let is_first = previous.is_none();
        let (prepared, sink) = (self.prepared, sink.to_owned());
        let order = ToSinks::Start { queue: number, prepared, sink, place, previous };
        if !is_first {
            link.outbox.push(Outgoing::Message(order, Vec::new()));
            return Ok(queue);
        }
        match link.ask(Reply::Started(number), order, Vec::new())? {
            FromSinks::Started { result: Err(reason), .. } => Err(ProcessError::Refused(reason)),
            _ => Ok(queue),
        }
    }
}

impl Link {
    fn ask(
        &self,
        reply: Reply,
        order: ToSinks,
        descriptors: Vec<OwnedFd>,
    ) -> Result<FromSinks, ProcessError> {
        let (sender, receiver) = sync_channel(1);
        lock(&self.replies).as_mut().ok_or(ProcessError::Ended)?.insert(reply, sender);
        self.outbox.push(Outgoing::Message(order, descriptors));
        receiver.recv().map_err(|_| ProcessError::Ended)
    }

    /// Handles what the other process sends, until it ends or sends anything else.
    fn receive_all(&self, mut receiver: Receiver) {
        let error = loop {
            match self.receive(&mut receiver) {
                Ok(true) => {}
                Ok(false) => break None,
                Err(error) => break Some(error),
            }
        };
        self.broken(error);
    }

    fn receive(&self, receiver: &mut Receiver) -> io::Result<bool> {
        let Some((kind, bytes)) = receiver.next_message()? else { return Ok(false) };
        if kind != Kind::Message {
            return Err(invalid("the process of the sinks sent records"));
        }
        let message: FromSinks = serde_json::from_slice(&bytes)?;
        let reply = match &message {
            FromSinks::Begun(result) => {
                self.is_ending.store(result.is_err(), Ordering::Relaxed);
                if let Some(sender) = receiver.sender() {
                    let _ = self.sender.set(sender);
                }
                if let Ok(Some(problem)) = result {
                    let _ = self.port_problem.set(problem.clone());
                }
                Reply::Begun
            }
            FromSinks::Prepared { number, .. } => Reply::Prepared(*number),
            FromSinks::Started { queue, .. } => Reply::Started(*queue),
            FromSinks::Cluster(news) => {
                if let Some(hear) = self.cluster.get() {
                    hear(news.clone());
                }
                return Ok(true);
            }
            FromSinks::Lost => {
                wake_reporter();
                thread::sleep(LOST_PAUSE);
                return Ok(true);
            }
            FromSinks::Finished { queue } => {
                if let Some(queue) = lock(&self.queues).get(queue) {
                    queue.finish();
                }
                return Ok(true);
            }
            FromSinks::Released { queue } => {
                if let Some(queue) = lock(&self.queues).remove(queue) {
                    queue.release();
                }
                return Ok(true);
            }
        };
        let waiting = lock(&self.replies).as_mut().and_then(|replies| replies.remove(&reply));
        if let Some(waiting) = waiting {
            // The channel has room for the only answer.
            let _ = waiting.try_send(message);
        }
        Ok(true)
    }

    /// The other process has ended, or is no longer trusted.
    fn broken(&self, error: Option<io::Error>) {
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        self.outbox.close();
        *lock(&self.replies) = None;
        if !self.is_ending.load(Ordering::Relaxed) {
            match (self.status(), error) {
                (Some(status), _) => message!(error: "the process of the sinks has ended: {status}"),
                (None, Some(error)) => message!(error: "the process of the sinks does not work: {error}"),
                (None, None) => message!(error: "the process of the sinks has closed its connection"),
            }
        }
        for queue in std::mem::take(&mut *lock(&self.queues)).values() {
            queue.break_off();
        }
        self.has_ended.store(true, Ordering::Relaxed);
    }

    fn has_ended(&self) -> bool {
        match &self.child {
            Some(child) => !matches!(lock(child).try_wait(), Ok(None)),
            // The connection is closed when the process ends.
            None => self.has_ended.load(Ordering::Relaxed),
        }
    }

    /// How the other process has ended, if it is a child and the system knows it soon.
    fn status(&self) -> Option<ExitStatus> {
        let child = self.child.as_ref()?;
        let end = Instant::now() + Duration::from_millis(200);
        while Instant::now() < end {
            if let Ok(Some(status)) = lock(child).try_wait() {
                return Some(status);
            }
            thread::sleep(END_STEP);
        }
        None
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn start_thread(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let work = move || {
        let _ = capabilities::give_up_all();
        work();
    };
    thread::Builder::new().name(name.to_owned()).spawn(work).map(drop)
}

enum Outgoing {
    Message(ToSinks, Vec<OwnedFd>),
    Batch { queue: u32, batch: Batch, unsent: Arc<AtomicUsize> },
}

/// What is to be sent. The limits of the queues bound it.
#[derive(Default)]
struct Outbox {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    messages: VecDeque<Outgoing>,
    is_closed: bool,
}

impl Outbox {
    fn push(&self, message: Outgoing) {
        let mut waiting = lock(&self.waiting);
        if !waiting.is_closed {
            waiting.messages.push_back(message);
            self.changed.notify_one();
        }
    }

    fn close(&self) {
        let mut waiting = lock(&self.waiting);
        *waiting = Waiting { is_closed: true, ..Waiting::default() };
        self.changed.notify_one();
    }

    fn next(&self) -> Option<Outgoing> {
        let waiting = lock(&self.waiting);
        let is_idle = |waiting: &mut Waiting| waiting.messages.is_empty() && !waiting.is_closed;
        let mut waiting = self.changed.wait_while(waiting, is_idle).unwrap_or_else(PoisonError::into_inner);
        waiting.messages.pop_front()
    }

    /// Sends until the other process has ended.
    fn send_all(&self, socket: &UnixStream) {
        while let Some(message) = self.next() {
            if message.send(socket).is_err() {
                // The thread that receives finds out, too, and reports it.
                return self.close();
            }
        }
    }
}

impl Outgoing {
    fn send(self, socket: &UnixStream) -> io::Result<()> {
        match self {
            Self::Message(message, descriptors) => {
                let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
                send(socket, Kind::Message, &[&serde_json::to_vec(&message)?], &descriptors)
            }
            Self::Batch { queue, batch, unsent } => {
                let head = protocol::batch_head(queue, &batch).ok_or(io::ErrorKind::FileTooLarge)?;
                let sent = send(socket, Kind::Batch, &[&head, &batch.bytes], &[]);
                unsent.fetch_sub(batch.bytes.len(), Ordering::Relaxed);
                sent
            }
        }
    }
}

/// The way from the stream's end of a queue to the sink's end.
struct Way {
    number: u32,
    outbox: Arc<Outbox>,
    unsent: Arc<AtomicUsize>,
}

impl Forward for Way {
    fn push(&self, batch: Batch) {
        self.unsent.fetch_add(batch.bytes.len(), Ordering::Relaxed);
        self.outbox.push(Outgoing::Batch { queue: self.number, batch, unsent: Arc::clone(&self.unsent) });
    }

    fn close(&self, grace: Duration) {
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        self.outbox.push(Outgoing::Message(ToSinks::Close { queue: self.number, grace_ms }, Vec::new()));
    }

    fn reopen(&self) {
        self.outbox.push(Outgoing::Message(ToSinks::Reopen { queue: self.number }, Vec::new()));
    }

    fn unsent(&self) -> usize {
        self.unsent.load(Ordering::Relaxed)
    }

    fn number(&self) -> u32 {
        self.number
    }
}
