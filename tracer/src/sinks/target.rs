//! Every kind of sink behind one face.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use thiserror::Error;
use tokio::time::timeout;

use super::{
    Address, FileSettings, Framing, HttpSettings, Pace, Queue, Slot, Spool, SpoolError, TlsError,
    TlsSettings,
    delivery::{Batch, Disk, Opening, Portion, Trouble, Worker},
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
/// Its file, certificates or spool cannot be used; of a sink that starts while others run, that is known later, and tried again. That a
/// collector does not answer is no error.
pub fn start(
    settings: &SinkSettings,
    header: Vec<u8>,
    convert: Option<Convert>,
    inherited: Inherited,
) -> Result<Queue, SinkError> {
    let fail = |reason| SinkError { name: settings.name.clone(), reason };
    let queue = Queue::new(&settings.name, settings.queue_bytes, inherited.slot);
    let (name, pace, portion) = (settings.name.clone(), settings.pace, Portion::default());
    let what = match &settings.target {
        TargetSettings::File(settings) => settings.path.display().to_string(),
        _ => "what its connections need".to_owned(),
    };
    let target = settings.target.clone();
    let open_target = move || Target::open(&target, header.clone());
    let open_spool = |it: SpoolSettings| move || Spool::open(&it.path, it.max_bytes, it.sync);
    let (target, disk) = match inherited.running {
        None => {
            let target = open_target().map_err(fail)?;
            let spool = settings.spool.clone().map(|it| open_spool(it)()).transpose();
            (target, Disk::open(&name, spool.map_err(|error| fail(error.into()))?))
        }
        Some(running) => {
            let target = Opening::new(what, queue.clone(), running.output, Arc::new(open_target));
            let spool = settings.spool.clone().map(|it| {
                let what = format!("the spool {}", it.path.display());
                Opening::new(what, queue.clone(), running.spool, Arc::new(open_spool(it)))
            });
            (Target::Later(target), Disk::later(&name, spool))
        }
    };
    let worker = Worker { name, target, convert, queue: queue.clone(), disk, pace, portion };
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

/// An open sink, or one that is not open yet.
pub(super) enum Target {
    Later(Opening<Result<Self, Reason>>),
    File(FileSink),
    Pipe(PipeSink),
    Stream(StreamSink),
    Datagram(DatagramSink),
    Http(Box<HttpSink>),
    #[cfg(feature = "grpc")]
    Grpc(Box<super::transport::GrpcSink>),
    #[cfg(feature = "kafka")]
    Kafka(Box<super::kafka::KafkaSink>),
    #[cfg(feature = "nats")]
    Nats(Box<super::nats::NatsSink>),
}

impl Target {
    fn open(settings: &TargetSettings, header: Vec<u8>) -> Result<Self, Reason> {
        Ok(match settings {
            TargetSettings::Stdout => Self::Pipe(PipeSink::stdout()),
            TargetSettings::File(settings) if PipeSink::takes(&settings.path) => {
                Self::Pipe(pipe(settings, header)?)
            }
            TargetSettings::File(settings) => {
                let mut file = FileSink::new(settings.clone(), header);
                file.check().map_err(cannot_open(&settings.path))?;
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
                Self::Grpc(Box::new(super::transport::GrpcSink::new(settings.clone(), tls)?))
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
        if let Self::Later(opening) = self {
            *self = opened(opening).await?;
        }
        match self {
            // It has just been opened.
            Self::Later(_) => Ok(()),
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
            Self::Later(_) => {}
            Self::Stream(stream) => stream.idle().await,
            _ => std::future::pending().await,
        }
    }

    /// Whether there is something to do without a record: it is not open, or what was delivered must be again.
    pub(super) fn must_deliver(&self) -> bool {
        match self {
            Self::Later(_) => true,
            Self::Stream(stream) => stream.must_repeat(),
            _ => false,
        }
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
            Self::Later(_) | Self::File(_) | Self::Pipe(_) | Self::Datagram(_) => 0,
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

/// The target, when it is open; a sink that waits too long for that says so, and goes on waiting.
async fn opened(opening: &mut Opening<Result<Target, Reason>>) -> Result<Target, Trouble> {
    match timeout(opening.patience(), opening.opened()).await {
        Ok(opened) => opened.map_err(Trouble::retry),
        Err(_) => Err(Trouble::retry(opening.reason())),
    }
}
