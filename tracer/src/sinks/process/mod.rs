//! Sinks in a process of their own: it talks to collectors and parses their answers, as another user and without any
//! capability. The tracer's process has the capabilities, and sends it records.
//!
//! The tracer starts its own program again, or connects to a socket behind which the service manager starts it
//! ([`SinkProcess`]). The new process reads orders from standard input, a unix socket ([`SinkEnd`]). Three things connect
//! both processes:
//!
//! - Orders and batches of records go through the socket, and what has happened comes back (`protocol.rs`).
//! - The counts of each queue are in memory that both processes map (`counts.rs`): whenever one of them is killed, the
//!   other one has the counts up to that moment. The tracer uses them as numbers only, and bounds them.
//! - With `pin`, the process of the sinks settles records in a file of its own beside the ledger, which the tracer only
//!   reads.

mod calls;
mod connection;
mod counts;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod protocol;
mod reach;
mod sink_end;
mod tracer_calls;
mod tracer_end;

pub use calls::{CallsError, restrict_calls};
use connection::{Receiver, send};
use counts::SharedCounts;
pub use protocol::{CheckedSink, ClusterNews, ClusterRequest, Identity, PortProblem, Previous, Request};
use protocol::{FromSinks, Kind, ToSinks};
pub use reach::Reach;
pub use sink_end::{Event, Reporter, SinkEnd};
pub use tracer_calls::restrict_tracer;
pub use tracer_end::{Place, Prepared, ProcessError, SinkProcess};

/// The argument that makes the program the process of the sinks.
pub const ARGUMENT: &str = "process-of-sinks";

/// The name of that process. The kernel shows 15 bytes of it.
pub const PROCESS_NAME: &str = "sockstate-sinks";
