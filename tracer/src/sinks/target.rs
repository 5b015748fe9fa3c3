//! Every kind of sink behind one face.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use thiserror::Error;

use super::{
    Address, FileSettings, Framing, HttpSettings, Pace, Queue, Slot, Spool, SpoolError, TlsError,
    TlsSettings,
    delivery::{Convert, Disk, LateSink, OpenError, Opening, Portion, Sink, Worker},
    file::FileSink,
    transport::{DatagramSink, HttpError, HttpSink, PipeSink, StreamSink, Tls},
};
use crate::files::FileError;

/// Where records go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetSettings {
    /// Standard output.
    Stdout,
    /// A file.
    File(FileSettings),
    /// A connection.
    Stream(Address, TlsSettings, Framing),
    /// Datagrams.
    Datagram(Address),
    /// journald's socket.
    Journald(PathBuf),
    /// HTTP requests.
    Http(HttpSettings, TlsSettings),
    /// Calls by gRPC; the URL's path is the method.
    #[cfg(feature = "grpc")]
    Grpc(HttpSettings, TlsSettings),
    /// A topic of Kafka.
    #[cfg(feature = "kafka")]
    Kafka(super::KafkaSettings),
    /// A stream of NATS.
    #[cfg(feature = "nats")]
    Nats(super::NatsSettings, TlsSettings),
}

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

/// One sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkSettings {
    /// Its name, for messages and metrics.
    pub name: String,
    /// Where its records go.
    pub target: TargetSettings,
    /// Bytes that wait in memory at most.
    pub queue_bytes: usize,
    /// The disk, where that is wanted.
    pub spool: Option<SpoolSettings>,
    /// Sizes and times of deliveries.
    pub pace: Pace,
}

/// What a new sink has from others.
#[derive(Default)]
pub struct Inherited {
    /// Others run already.
    pub running: Option<Running>,
    /// Where it is noted how far it has come.
    pub slot: Option<Slot>,
}

/// Sinks that run when another one starts. Nobody may wait for its disk, so that it opens what it needs by threads of its own.
#[derive(Default)]
pub struct Running {
    /// Those whose file it gets when these have let go of it.
    pub output: Vec<Queue>,
    /// The same for its spool.
    pub spool: Vec<Queue>,
}

/// Why a sink does not start.
#[derive(Debug, Error)]
#[error("sink {name}: {reason}")]
pub struct SinkError {
    name: String,
    reason: OpenError,
}

#[derive(Debug, Error)]
pub(super) enum Reason {
    #[error("cannot open {0} for writing: {1}")]
    File(String, FileError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error(transparent)]
    Spool(#[from] SpoolError),
    #[error("cannot start a thread: {0}")]
    Thread(#[from] io::Error),
}

/// Starts a sink; `header` stands at the beginning of its files.
///
/// # Errors
/// Its file, certificates or spool cannot be used; of a sink that starts while others run, that is known later, and tried again. That a
/// collector does not answer is no error.
pub fn start(
    settings: &SinkSettings,
    header: Vec<u8>,
    convert: Option<Convert>,
    inherited: Inherited,
) -> Result<Queue, SinkError> {
    let fail = |reason: OpenError| SinkError { name: settings.name.clone(), reason };
    let queue = Queue::new(&settings.name, settings.queue_bytes, inherited.slot);
    let (name, pace, portion) = (settings.name.clone(), settings.pace, Portion::default());
    let what = match &settings.target {
        TargetSettings::File(settings) => settings.path.display().to_string(),
        _ => "what its connections need".to_owned(),
    };
    let target = settings.target.clone();
    let open_target = move || open(&target, header.clone());
    let open_spool = |it: SpoolSettings| move || Spool::open(&it.path, it.max_bytes, it.sync);
    let (sink, disk) = match inherited.running {
        None => {
            let sink = open_target().map_err(fail)?;
            let spool = settings.spool.clone().map(|it| open_spool(it)()).transpose();
            (sink, Disk::open(&name, spool.map_err(|error| fail(error.into()))?))
        }
        Some(running) => {
            let opening = Opening::new(what, queue.clone(), running.output, Arc::new(open_target));
            let sink: Box<dyn Sink> = Box::new(LateSink::new(opening));
            let spool = settings.spool.clone().map(|it| {
                let what = format!("the spool {}", it.path.display());
                Opening::new(what, queue.clone(), running.spool, Arc::new(open_spool(it)))
            });
            (sink, Disk::later(&name, spool))
        }
    };
    let worker = Worker { name, sink, convert, queue: queue.clone(), disk, pace, portion };
    worker.start().map_err(|error| fail(error.into()))?;
    Ok(queue)
}

pub(super) fn cannot_open(path: &Path) -> impl FnOnce(FileError) -> Reason {
    let path = path.display().to_string();
    move |error| Reason::File(path, error)
}

/// A sink for what only takes bytes; it is opened later.
pub(super) fn pipe(settings: &FileSettings, header: Vec<u8>) -> Result<PipeSink, Reason> {
    let failed = cannot_open(&settings.path);
    if settings.rotate_bytes.is_some() || settings.rotate_every.is_some() {
        return Err(failed(FileError::Kind { path: settings.path.clone() }));
    }
    let pipe = PipeSink::new(&settings.path, header);
    pipe.check().map_err(failed)?;
    Ok(pipe)
}

/// Opens a sink.
fn open(settings: &TargetSettings, header: Vec<u8>) -> Result<Box<dyn Sink>, OpenError> {
    Ok(match settings {
        TargetSettings::Stdout => Box::new(PipeSink::stdout()),
        TargetSettings::File(settings) if PipeSink::takes(&settings.path) => {
            Box::new(pipe(settings, header)?)
        }
        TargetSettings::File(settings) => {
            let mut file = FileSink::new(settings.clone(), header);
            file.check().map_err(cannot_open(&settings.path))?;
            Box::new(file)
        }
        TargetSettings::Stream(address, tls, framing) => {
            let tls = matches!(address, Address::Tls(_)).then(|| Tls::new(tls)).transpose()?;
            Box::new(StreamSink::new(address.clone(), tls, *framing))
        }
        TargetSettings::Datagram(address) => Box::new(DatagramSink::new(address.clone())),
        TargetSettings::Journald(path) => Box::new(DatagramSink::journald(path)),
        TargetSettings::Http(settings, tls) => {
            let tls = settings.url.starts_with("https:").then(|| Tls::new(tls)).transpose()?;
            Box::new(HttpSink::new(settings.clone(), tls)?)
        }
        #[cfg(feature = "grpc")]
        TargetSettings::Grpc(settings, tls) => {
            let tls = settings.url.starts_with("https:").then(|| Tls::for_http2(tls)).transpose()?;
            Box::new(super::transport::GrpcSink::new(settings.clone(), tls)?)
        }
        #[cfg(feature = "kafka")]
        TargetSettings::Kafka(settings) => Box::new(super::kafka::KafkaSink::new(settings.clone())),
        #[cfg(feature = "nats")]
        TargetSettings::Nats(settings, tls) => {
            Box::new(super::nats::NatsSink::new(settings.clone(), tls.clone()))
        }
    })
}
