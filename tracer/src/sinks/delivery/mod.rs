//! How records reach a sink: a queue, a spool behind it, and a thread that delivers in order and tries again.

mod batch;
mod disk;
mod entry;
#[cfg(test)]
mod model;
mod opening;
mod portion;
mod queue;
mod sink;
mod spool;
mod start;
mod sync;
mod tally;
mod trouble;
mod worker;

pub(super) use batch::Delivered;
pub use batch::{Batch, Frame, since_ns};
use disk::Disk;
use opening::Opening;
use portion::Portion;
pub use queue::{Queue, Status, sink_lost};
use sink::LateSink;
pub use sink::{OpenError, Pending, Sink, SinkBuilder};
pub use spool::{Read, Spool, SpoolError};
pub use start::{Inherited, Running, SinkError, SinkSettings, SpoolSettings, start};
pub use trouble::Trouble;
use worker::Worker;
pub use worker::{Convert, Pace};

use crate::restart::SinkProgress;
