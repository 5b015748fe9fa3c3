//! What the rooms hand to each other: owned types, no I/O, nothing of ours imported.

pub mod bounds;
mod destroy;
mod dwell;
mod event;
mod filter;
mod gap;
mod holder;
mod netns;
mod python;
mod reason;
mod record;
mod socket;
mod stack;
mod state;
mod subject;
mod text;
mod threshold;
mod tuple;

pub use destroy::Destroy;
pub use dwell::Dwell;
pub use event::{ClosedAs, Event, EventKind, KernelSocket, MiniEnd, MiniEndHow, Task};
pub use filter::{CgroupTree, Filter, Ports};
pub use gap::{Gap, GapKind};
pub use holder::{
    Elsewhere, Examined, Holder, Home, Listener, Looked, Message, Peer, Process, Served, Via, Watch,
};
pub use netns::NamedNetns;
pub use python::{PythonFrame, PythonLayout, PythonStack};
pub use reason::{Diagnosis, Reason};
pub use record::{
    Aggregate, Cause, ConnId, Connection, InState, Lost, LostPlace, Record, Resolved, Resync, Role, Snapshot,
    Start, Stop, Stuck, Tally, Transition,
};
pub use socket::{MptcpPart, RequestTimer, SocketInfo, TcpTimes, Timer, TimerKind, Transport};
pub use stack::{Frame, OpenedBy, Opening, Registers, Stack, Unnamed, Unseen};
pub use state::{ParseStateError, State, StateSet};
pub use subject::{Cgroup, Container, Identify, Owner, OwnerKey, OwnerSource, Subject, SubjectKey};
pub use text::printable;
pub use threshold::{Scope, Threshold, Thresholds};
pub use tuple::{Address, Tuple};
