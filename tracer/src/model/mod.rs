//! What the rooms hand to each other: owned types, no I/O, nothing of ours imported.

mod event;
mod filter;
mod record;
mod state;
mod subject;
mod tuple;

pub use event::{ClosedAs, Event, EventKind, KernelSocket, MiniEnd, MiniEndHow, Task};
pub use filter::{CgroupTree, Filter, Ports};
pub use record::{
    Cause, ConnId, InState, Lost, LostPlace, Notice, Resync, Role, Snapshot, Start, Stop, Transition,
};
pub use state::{ParseStateError, State, StateSet};
pub use subject::{Cgroup, Container, Identify, Owner, OwnerKey, OwnerSource, Subject, SubjectKey};
pub use tuple::{Address, Tuple};
