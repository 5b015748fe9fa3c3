//! Where finished bytes go: the output of `trace`, and the sinks of `run`, each with a queue and a thread of its own.

mod delivery;
mod file;
#[cfg(feature = "kafka")]
mod kafka;
#[cfg(feature = "nats")]
mod nats;
mod target;
mod transport;
mod verify;

pub use delivery::{
    Batch, Begun, Convert, Frame, Ledger, Pace, Queue, Read, Slot, Spool, SpoolError, Status, since_ns,
    sink_lost,
};
pub use file::FileSettings;
#[cfg(feature = "kafka")]
pub use kafka::KafkaSettings;
#[cfg(feature = "nats")]
pub use nats::NatsSettings;
pub use target::{Inherited, Running, SinkError, SinkSettings, SpoolSettings, TargetSettings, start};
pub use transport::{
    AUTHORIZATION, Address, Authority, Envelope, Framing, HttpSettings, Output, OutputError,
    ParseAddressError, Template, TlsError, TlsSettings,
};
pub use verify::{Problem, verify};
