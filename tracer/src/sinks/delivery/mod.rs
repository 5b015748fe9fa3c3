//! How records reach a sink: a queue, a spool behind it, and a thread that delivers in order and tries again.

mod batch;
mod counts;
mod disk;
mod entry;
mod ledger;
#[cfg(test)]
mod model;
mod opening;
mod portion;
mod queue;
mod sink;
mod spool;
mod sync;
mod tally;
mod trouble;
mod worker;

pub(super) use batch::Delivered;
pub use batch::{Batch, Frame, since_ns};
pub use counts::Begun;
pub(super) use disk::Disk;
pub use ledger::{Ledger, Slot};
pub(super) use opening::Opening;
pub(super) use portion::Portion;
pub use queue::{Queue, Status, sink_lost};
pub(super) use sink::{LateSink, OpenError, Pending, Sink};
pub use spool::{Read, Spool, SpoolError};
pub(super) use trouble::Trouble;
pub(super) use worker::Worker;
pub use worker::{Convert, Pace};
