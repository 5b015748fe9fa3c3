//! The end of the process of the sinks.

use std::{
    collections::BTreeMap,
    fs, io,
    os::{
        fd::OwnedFd,
        unix::{fs::MetadataExt, net::UnixStream},
    },
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustix::{
    net::{
        AddressFamily, Shutdown, shutdown,
        sockopt::{socket_domain, socket_peercred},
    },
    process::{Uid, geteuid},
};

use super::{
    CheckedSink, ClusterNews, ClusterRequest, FromSinks, Identity, Kind, PortProblem, Previous, Receiver,
    Request, SharedCounts, ToSinks, connection::invalid, protocol, send,
};
use crate::{
    restart::Settled,
    sinks::{
        Inherited, Queue, Running,
        delivery::{FarStream, Notice},
    },
};

/// The longest message: a batch is as large as what a stream had ready.
const MOST: usize = u32::MAX as usize;

/// What the process of the sinks is to do.
pub enum Event {
    /// Check the sinks of a configuration, and answer with [`Reporter::prepared`].
    Prepare(Request),
    /// Start a sink, and answer with [`SinkEnd::started`].
    Start { queue: u32, prepared: u64, sink: String, place: Option<usize>, previous: Option<Previous> },
    /// Answer scrapers, and ask for the numbers through this socket.
    Metrics(UnixStream),
    /// Ask the API server of Kubernetes, and pass its answers to [`Reporter::cluster`].
    Kubernetes(ClusterRequest),
}

/// The connection to the tracer's process, and the sinks' ends of the queues.
pub struct SinkEnd {
    receiver: Receiver,
    reporter: Reporter,
    counts: Arc<SharedCounts>,
    settled: Option<Arc<Settled>>,
    queues: BTreeMap<u32, Queue>,
}

impl SinkEnd {
    /// Reads the first message from `socket`; also returns as whom this process is to work.
    ///
    /// # Errors
    /// It is not the socket of a tracer.
    pub fn begin(socket: OwnedFd) -> io::Result<(Self, Identity)> {
        if socket_domain(&socket)? != AddressFamily::UNIX {
            return Err(invalid("not a unix socket"));
        }
        let socket = UnixStream::from(socket);
        check_peer(&socket)?;
        let reporter = Reporter(Arc::new(Mutex::new(socket.try_clone()?)));
        let mut receiver = Receiver::new(socket, MOST);
        let Some((Kind::Message, bytes)) = receiver.next_message()? else {
            return Err(invalid("no tracer has started this process"));
        };
        let ToSinks::Begin(identity) = serde_json::from_slice(&bytes)? else {
            return Err(invalid("the first message is another one"));
        };
        let counts = Arc::new(SharedCounts::received(receiver.descriptor()?)?);
        Ok((Self { receiver, reporter, counts, settled: None, queues: BTreeMap::new() }, identity))
    }

    /// Answers the tracer, also from other threads.
    #[must_use]
    pub fn reporter(&self) -> Reporter {
        self.reporter.clone()
    }

    /// Passes records and orders to the queues, until there is something else to do; `None` if the tracer has ended.
    ///
    /// # Errors
    /// The tracer's process was killed while it sent a message.
    pub fn next_event(&mut self) -> io::Result<Option<Event>> {
        loop {
            let Some((kind, bytes)) = self.receiver.next_message()? else { return Ok(None) };
            if kind == Kind::Batch {
                let (queue, batch) = protocol::batch(&bytes).ok_or_else(|| invalid("not a batch"))?;
                self.queue(queue)?.push(batch);
                continue;
            }
            match serde_json::from_slice(&bytes)? {
                ToSinks::Prepare(request) => return Ok(Some(Event::Prepare(request))),
                ToSinks::Start { queue, prepared, sink, place, previous } => {
                    self.queues.retain(|_, queue| !queue.is_released());
                    return Ok(Some(Event::Start { queue, prepared, sink, place, previous }));
                }
                ToSinks::Metrics => return Ok(Some(Event::Metrics(self.receiver.descriptor()?.into()))),
                ToSinks::Kubernetes(request) => return Ok(Some(Event::Kubernetes(request))),
                ToSinks::Ledger => {
                    self.settled = Some(Arc::new(Settled::passed(self.receiver.descriptor()?)?));
                }
                // The sink may have ended meanwhile.
                ToSinks::Close { queue, grace_ms } => {
                    let queue = self.queues.get(&queue);
                    queue.into_iter().for_each(|queue| queue.close(Duration::from_millis(grace_ms)));
                }
                ToSinks::Reopen { queue } => self.queues.get(&queue).into_iter().for_each(Queue::reopen),
                ToSinks::Begin(_) => return Err(invalid("a second beginning")),
            }
        }
    }

    fn queue(&self, number: u32) -> io::Result<&Queue> {
        self.queues.get(&number).ok_or_else(|| invalid("no such queue"))
    }

    /// What a sink takes over; `place` is where it notes how far it has come.
    ///
    /// # Errors
    /// There are no counts for this number.
    pub fn inherited(
        &self,
        queue: u32,
        place: Option<usize>,
        previous: Option<&Previous>,
    ) -> io::Result<Inherited> {
        let counts = self.counts.of_queue(queue).ok_or_else(|| invalid("no such queue"))?;
        let notice = Box::new(StreamNotice { queue, reporter: self.reporter() });
        let of =
            |numbers: &[u32]| numbers.iter().filter_map(|number| self.queues.get(number)).cloned().collect();
        Ok(Inherited {
            running: previous
                .map(|previous| Running { output: of(&previous.output), spool: of(&previous.spool) }),
            progress: self.settled.as_ref().zip(place).and_then(|(settled, place)| settled.sink(place)),
            stream: Some(FarStream { counts: Box::new(counts), notice }),
        })
    }

    /// The sink was started, or not.
    pub fn started(&mut self, queue: u32, started: Result<Queue, String>) {
        let result = started.map(|started| drop(self.queues.insert(queue, started)));
        self.reporter.send(&FromSinks::Started { queue, result });
    }

    /// Whether sinks note in a ledger how far they have come.
    #[must_use]
    pub fn has_ledger(&self) -> bool {
        self.settled.is_some()
    }

    /// The queues of sinks that may still run.
    pub fn queues(&self) -> impl Iterator<Item = &Queue> {
        self.queues.values()
    }
}

/// Fails unless root, this user or the owner of the socket's file has connected.
fn check_peer(socket: &UnixStream) -> io::Result<()> {
    let peer = socket_peercred(socket)?.uid;
    let address = socket.local_addr()?;
    let file = address.as_pathname().and_then(|path| fs::metadata(path).ok());
    let owner = file.map(|file| Uid::from_raw(file.uid()));
    if peer.is_root() || peer == geteuid() || owner == Some(peer) {
        return Ok(());
    }
    let message = format!("the user {peer} may not start it, because the socket belongs to another user");
    Err(io::Error::new(io::ErrorKind::PermissionDenied, message))
}

/// Sends the tracer what happens. If the tracer has ended, [`SinkEnd::next_event`] finds out.
#[derive(Clone)]
pub struct Reporter(Arc<Mutex<UnixStream>>);

impl Reporter {
    /// This process has become the user, or not; whether it can answer scrapers.
    pub fn begun(&self, result: Result<Option<PortProblem>, String>) {
        self.send(&FromSinks::Begun(result));
    }

    /// Lets the tracer end, as if this process had ended: then no further message comes.
    pub fn end(&self) {
        let socket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The tracer may have ended.
        let _ = shutdown(&*socket, Shutdown::Write);
    }

    /// The answer to [`Event::Prepare`].
    pub fn prepared(&self, number: u64, sinks: Vec<CheckedSink>) {
        self.send(&FromSinks::Prepared { number, sinks });
    }

    /// What the API server of Kubernetes has said.
    pub fn cluster(&self, news: ClusterNews) {
        self.send(&FromSinks::Cluster(news));
    }

    fn send(&self, message: &FromSinks) {
        let Ok(bytes) = serde_json::to_vec(message) else { return };
        let socket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The tracer has ended.
        let _ = send(&socket, Kind::Message, &[&bytes], &[]);
    }
}

struct StreamNotice {
    queue: u32,
    reporter: Reporter,
}

impl Notice for StreamNotice {
    fn lost(&self) {
        self.reporter.send(&FromSinks::Lost);
    }

    fn finished(&self) {
        self.reporter.send(&FromSinks::Finished { queue: self.queue });
    }

    fn released(&self) {
        self.reporter.send(&FromSinks::Released { queue: self.queue });
    }
}
