//! Where finished bytes go: the output of `trace`, and the sinks of `run`, each with a queue and a thread of its own.

mod address;
mod answer;
mod batch;
mod connection;
mod counts;
mod datagram;
mod disk;
mod entry;
mod file;
#[cfg(feature = "grpc")]
mod grpc;
mod http;
#[cfg(feature = "kafka")]
mod kafka;
mod ledger;
#[cfg(test)]
mod model;
#[cfg(feature = "nats")]
mod nats;
mod opening;
mod output;
mod pipe;
mod portion;
mod queue;
mod reserve;
mod resolve;
mod rotated;
mod spool;
mod stream;
mod sync;
mod tally;
mod target;
mod template;
mod tls;
mod trouble;
mod verify;
mod worker;

pub use address::{Address, Authority, ParseAddressError};
use batch::Delivered;
pub use batch::{Batch, Frame, since_ns};
use connection::Connection;
pub use counts::Begun;
pub use file::FileSettings;
pub use http::{AUTHORIZATION, HttpSettings};
#[cfg(feature = "kafka")]
pub use kafka::KafkaSettings;
pub use ledger::{Ledger, Slot};
#[cfg(feature = "nats")]
pub use nats::NatsSettings;
pub use output::{Output, OutputError};
pub use queue::{Queue, Status, sink_lost};
pub use spool::{Read, Spool, SpoolError};
pub use stream::Framing;
use target::Target;
pub use target::{
    Convert, Inherited, Running, SinkError, SinkSettings, SpoolSettings, TargetSettings, start,
};
pub use template::{Envelope, Template};
use tls::Tls;
pub use tls::{TlsError, TlsSettings};
pub use verify::{Problem, verify};
pub use worker::Pace;
