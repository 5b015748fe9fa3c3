//! How records reach a sink: a queue, a spool behind it, and a thread that delivers in order and tries again.

mod attempt_size;
mod batch;
mod disk;
mod error;
#[cfg(test)]
mod model;
mod opening;
mod queue;
mod sink;
mod spool;
mod start;
mod status;
mod sync;
mod worker;

use attempt_size::AttemptSize;
pub(super) use batch::Delivered;
pub use batch::{Batch, Frame, since_ns};
use disk::Disk;
pub use error::DeliveryError;
use opening::Opening;
pub(super) use queue::{Counts, End, Forward, Notice, wake_reporter};
pub use queue::{Queue, sink_lost};
use sink::LateSink;
pub use sink::{OpenError, Pending, Sink, SinkBuilder};
pub use spool::{Read, Spool, SpoolError};
pub(super) use start::FarStream;
pub use start::{Inherited, Running, SinkError, SinkSettings, SpoolSettings, start};
pub use status::Status;
use worker::Worker;
pub use worker::{BatchSettings, Convert};

use crate::restart::SinkProgress;
