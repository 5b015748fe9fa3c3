//! The types that all modules share: states, tuples, events, records. They own their data, do no I/O, and import
//! nothing else of this crate.

pub mod bounds;
mod destroy;
mod dwell;
mod event;
mod gap;
mod holder;
mod lifespan;
mod metric_label;
mod nat;
mod netns;
mod peer;
mod ports;
mod python;
mod reason;
mod record;
mod record_kind;
mod reset;
mod socket;
mod stack;
mod state;
mod subject;
mod text;
mod threshold;
mod tuple;

pub use destroy::Destroy;
pub use dwell::Dwell;
pub use event::{ClosedAs, Event, EventKind, KernelSocket, MiniEnd, MiniEndHow, Task, Traffic};
pub use gap::{Gap, GapKind};
pub use holder::{
    Elsewhere, Holder, Listener, Message, Peer, Process, Served, SocketEntry, SocketReport, Via, Watch,
    Workload,
};
pub use lifespan::{ClosedFirst, Lifespan, PathStep};
pub use metric_label::{CountedSocket, LabelledCounts, MetricLabel, MetricLabels, SocketTotals};
pub use nat::Nat;
pub use netns::NamedNetns;
pub use peer::{ClusterPeer, PeerKind};
pub use ports::Ports;
pub use python::{PythonFrame, PythonLayout, PythonStack};
pub use reason::{Diagnosis, Reason};
pub use record::{
    Aggregate, Cause, ConnId, Connection, InState, Lost, LostPlace, Record, Resolved, Resync, Role, Snapshot,
    SocketCounts, Start, Stop, Stuck, Transferred, Transition,
};
pub use record_kind::{RecordKind, RecordKinds};
pub use reset::{Answered, Reset, TCP_FLAGS};
pub use socket::{MptcpPart, RequestTimer, SocketInfo, TcpTimes, Timer, TimerKind, Transport};
pub use stack::{Frame, MissingStack, OpenedBy, Opening, Registers, Stack, Unnamed};
pub use state::{ParseStateError, State, StateSet};
pub use subject::{
    Cgroup, CgroupTree, Container, Identify, Owner, OwnerKey, OwnerSource, Pod, PodFacts, PodWorkload,
    Subject, SubjectKey,
};
pub use text::printable;
pub use threshold::{Scope, Threshold, Thresholds};
pub use tuple::{Address, Tuple, mixed};
