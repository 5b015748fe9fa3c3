//! Every kind of sink behind one face.

use std::{
    io,
    path::{Path, PathBuf},
};

use thiserror::Error;

use super::{
    Address, Batch, FileSettings, Framing, HttpSettings, Pace, Queue, Slot, Spool, SpoolError, Tls, TlsError,
    TlsSettings,
    datagram::DatagramSink,
    file::FileSink,
    http::{HttpError, HttpSink},
    pipe::PipeSink,
    portion::Portion,
    stream::StreamSink,
    worker::{OpenSpool, Trouble, Worker},
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
    /// The sinks whose file or spool it gets when these have ended.
    pub after: Vec<Queue>,
    /// Where it is noted how far it has come.
    pub slot: Option<Slot>,
}

/// Why a sink does not start.
#[derive(Debug, Error)]
#[error("sink {name}: {reason}")]
pub struct SinkError {
    name: String,
    reason: Reason,
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

/// Turns one record of the stream into one of the collector's, appended to the second.
pub type Convert = Box<dyn FnMut(&[u8], &mut Vec<u8>) + Send>;

/// Starts a sink; `header` stands at the beginning of its files.
///
/// # Errors
/// Its file, certificates or spool cannot be used. That a collector does not answer is no error.
pub fn start(
    settings: &SinkSettings,
    header: Vec<u8>,
    convert: Option<Convert>,
    inherited: Inherited,
) -> Result<Queue, SinkError> {
    let fail = |reason| SinkError { name: settings.name.clone(), reason };
    let target = Target::open(&settings.target, header, !inherited.after.is_empty()).map_err(fail)?;
    let open = settings
        .spool
        .clone()
        .map(|it| -> OpenSpool { Box::new(move || Spool::open(&it.path, it.max_bytes, it.sync)) });
    let queue = Queue::new(&settings.name, settings.queue_bytes, inherited.slot);
    let (name, pace, spool) = (settings.name.clone(), settings.pace, None);
    let portion = Portion::default();
    let mut worker = Worker { name, target, convert, queue: queue.clone(), spool, pace, portion };
    if inherited.after.is_empty() {
        worker.spool = open.map(|open| open()).transpose().map_err(|error| fail(error.into()))?;
        worker.start(Vec::new(), None)
    } else {
        worker.start(inherited.after, open)
    }
    .map_err(|error| fail(error.into()))?;
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

/// An open sink.
pub(super) enum Target {
    File(FileSink),
    Pipe(PipeSink),
    Stream(StreamSink),
    Datagram(DatagramSink),
    Http(Box<HttpSink>),
    #[cfg(feature = "grpc")]
    Grpc(Box<super::grpc::GrpcSink>),
    #[cfg(feature = "kafka")]
    Kafka(Box<super::kafka::KafkaSink>),
    #[cfg(feature = "nats")]
    Nats(Box<super::nats::NatsSink>),
}

impl Target {
    /// `later`: another sink still writes to the file.
    fn open(settings: &TargetSettings, header: Vec<u8>, later: bool) -> Result<Self, Reason> {
        Ok(match settings {
            TargetSettings::Stdout => Self::Pipe(PipeSink::stdout()),
            TargetSettings::File(settings) if PipeSink::takes(&settings.path) => {
                Self::Pipe(pipe(settings, header)?)
            }
            TargetSettings::File(settings) => {
                let mut file = FileSink::new(settings.clone(), header);
                let checked = if later { file.check_later() } else { file.check() };
                checked.map_err(cannot_open(&settings.path))?;
                Self::File(file)
            }
            TargetSettings::Stream(address, tls, framing) => {
                let tls = matches!(address, Address::Tls(_)).then(|| Tls::new(tls)).transpose()?;
                Self::Stream(StreamSink::new(address.clone(), tls, *framing))
            }
            TargetSettings::Datagram(address) => Self::Datagram(DatagramSink::new(address.clone())),
            TargetSettings::Journald(path) => Self::Datagram(DatagramSink::journald(path)),
            TargetSettings::Http(settings, tls) => {
                let tls = settings.url.starts_with("https:").then(|| Tls::new(tls)).transpose()?;
                Self::Http(Box::new(HttpSink::new(settings.clone(), tls)?))
            }
            #[cfg(feature = "grpc")]
            TargetSettings::Grpc(settings, tls) => {
                let tls = settings.url.starts_with("https:").then(|| Tls::for_http2(tls)).transpose()?;
                Self::Grpc(Box::new(super::grpc::GrpcSink::new(settings.clone(), tls)?))
            }
            #[cfg(feature = "kafka")]
            TargetSettings::Kafka(settings) => {
                Self::Kafka(Box::new(super::kafka::KafkaSink::new(settings.clone())))
            }
            #[cfg(feature = "nats")]
            TargetSettings::Nats(settings, tls) => {
                Self::Nats(Box::new(super::nats::NatsSink::new(settings.clone(), tls.clone())))
            }
        })
    }

    /// Delivers `lot`, and takes away what was; returns when all was, or what is wrong.
    pub(super) async fn deliver(&mut self, lot: &mut Batch) -> Result<(), Trouble> {
        match self {
            Self::File(file) => file.deliver(lot),
            Self::Pipe(pipe) => pipe.deliver(lot).await,
            Self::Stream(stream) => stream.deliver(lot).await,
            Self::Datagram(datagram) => datagram.deliver(lot).await,
            Self::Http(http) => http.deliver(lot).await,
            #[cfg(feature = "grpc")]
            Self::Grpc(grpc) => grpc.deliver(lot).await,
            #[cfg(feature = "kafka")]
            Self::Kafka(kafka) => kafka.deliver(lot).await,
            #[cfg(feature = "nats")]
            Self::Nats(nats) => nats.deliver(lot).await,
        }
    }

    /// Waits for what is to be done while there is nothing to deliver.
    pub(super) async fn idle(&mut self) {
        match self {
            Self::Stream(stream) => stream.idle().await,
            _ => std::future::pending().await,
        }
    }

    /// Whether something that was delivered must be again.
    pub(super) fn must_repeat(&self) -> bool {
        matches!(self, Self::Stream(stream) if stream.must_repeat())
    }

    /// Records that were delivered on a connection that was reset, and were not sent again.
    pub(super) fn doubtful(&self) -> u64 {
        match self {
            Self::Stream(stream) => stream.doubtful(),
            _ => 0,
        }
    }

    /// How many of the first records that are left were handed over to the collector, which has not answered.
    pub(super) fn unanswered(&self) -> usize {
        match self {
            Self::Stream(stream) => stream.unanswered(),
            Self::Http(http) => http.unanswered(),
            #[cfg(feature = "grpc")]
            Self::Grpc(grpc) => grpc.unanswered(),
            #[cfg(feature = "kafka")]
            Self::Kafka(kafka) => kafka.unanswered(),
            #[cfg(feature = "nats")]
            Self::Nats(nats) => nats.unanswered(),
            // What these have handed over is delivered.
            Self::File(_) | Self::Pipe(_) | Self::Datagram(_) => 0,
        }
    }

    pub(super) fn reopen(&mut self) {
        if let Self::File(file) = self {
            file.reopen();
        }
    }

    pub(super) async fn close(&mut self) {
        match self {
            Self::File(file) => file.close(),
            Self::Stream(stream) => stream.close().await,
            _ => {}
        }
    }
}
