//! Starts a sink: opens what it needs, and begins its thread.

use std::{fmt, io, path::PathBuf, sync::Arc};

use thiserror::Error;

use super::{
    AttemptSize, BatchSettings, Convert, Counts, Disk, End, LateSink, Notice, OpenError, Opening, Queue,
    Sink, SinkBuilder, SinkProgress, Spool, Worker,
};

/// The disk behind the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolSettings {
    /// This sink's own directory.
    pub path: PathBuf,
    /// Bytes that it may hold.
    pub max_bytes: u64,
    /// Each entry is on the disk before the next is taken.
    pub sync: bool,
}

/// The parameters of one sink.
#[derive(Clone)]
pub struct SinkSettings {
    /// The name of the sink, for messages and metrics.
    pub name: String,
    /// Opens it.
    pub builder: Arc<dyn SinkBuilder>,
    /// Bytes that wait in memory at most.
    pub queue_bytes: usize,
    /// The disk, for a sink that has a spool.
    pub spool: Option<SpoolSettings>,
    /// Sizes and times of deliveries.
    pub batching: BatchSettings,
}

impl fmt::Debug for SinkSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SinkSettings").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What a new sink takes over from other sinks.
#[derive(Default)]
pub struct Inherited {
    /// Sinks that already run.
    pub running: Option<Running>,
    /// Where the sink notes how far it has come.
    pub progress: Option<SinkProgress>,
    /// The stream, if it is in another process.
    pub(crate) stream: Option<FarStream>,
}

/// A stream in another process.
pub(crate) struct FarStream {
    /// The counts that both processes have.
    pub(crate) counts: Counts,
    /// Tells the other process what happens.
    pub(crate) notice: Box<dyn Notice>,
}

impl Inherited {
    /// For a sink of this process.
    #[must_use]
    pub fn here(running: Option<Running>, progress: Option<SinkProgress>) -> Self {
        Self { running, progress, stream: None }
    }
}

/// Sinks that run when another one starts. Nothing may wait for its disk, so that threads of its own open what it needs.
#[derive(Default)]
pub struct Running {
    /// Sinks that still have the file open that the new one writes to.
    pub output: Vec<Queue>,
    /// Sinks that still have the spool open that the new one uses.
    pub spool: Vec<Queue>,
}

/// Why a sink does not start.
#[derive(Debug, Error)]
#[error("sink {name}: {reason}")]
pub struct SinkError {
    name: String,
    reason: OpenError,
}

/// Starts a sink; `header` stands at the beginning of its files.
///
/// # Errors
/// Its file, certificates or spool cannot be used. A sink that starts while others run finds that out later, and tries
/// again. That a collector does not answer is no error.
pub fn start(
    settings: &SinkSettings,
    header: Vec<u8>,
    convert: Option<Convert>,
    inherited: Inherited,
) -> Result<Queue, SinkError> {
    let fail = |reason: OpenError| SinkError { name: settings.name.clone(), reason };
    let Inherited { running, progress, stream } = inherited;
    let queue = match stream {
        None => Queue::new(&settings.name, settings.queue_bytes, progress),
        Some(FarStream { counts, notice }) => {
            Queue::at(&settings.name, settings.queue_bytes, progress, counts, End::Sink(notice))
        }
    };
    let (name, batching, attempt_size) = (settings.name.clone(), settings.batching, AttemptSize::default());
    let builder = Arc::clone(&settings.builder);
    let open_sink = move || builder.open(header.clone());
    let open_spool = |spool: SpoolSettings| move || Spool::open(&spool.path, spool.max_bytes, spool.sync);
    let (sink, disk) = match running {
        None => {
            let sink = open_sink().map_err(fail)?;
            let spool = settings.spool.clone().map(|spool| open_spool(spool)()).transpose();
            (sink, Disk::open(&name, spool.map_err(|error| fail(error.into()))?))
        }
        Some(running) => {
            let what = settings.builder.resource();
            let opening = Opening::new(what, queue.clone(), running.output, Arc::new(open_sink));
            let sink: Box<dyn Sink> = Box::new(LateSink::new(opening));
            let spool = settings.spool.clone().map(|spool| {
                let what = format!("the spool {}", spool.path.display());
                Opening::new(what, queue.clone(), running.spool, Arc::new(open_spool(spool)))
            });
            (sink, Disk::later(&name, spool))
        }
    };
    let worker = Worker { name, sink, convert, queue: queue.clone(), disk, batching, attempt_size };
    worker.start().map_err(|error| fail(cannot_start(&error).into()))?;
    Ok(queue)
}

fn cannot_start(error: &io::Error) -> String {
    format!("cannot start a thread: {error}")
}
