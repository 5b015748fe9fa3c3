//! The lines of sockstate, NDJSON of the schema `sockstate/1`. Their keys are defined here: each kind of line is a type
//! that serde writes and reads, and the order of its fields is the order of the keys. Only `format/json.rs` also has
//! keys: it writes transitions by hand, for speed, and tests/records/wire.rs compares both.
//!
//! The stream's lines (`line.rs`, docs/events.schema.json) are read again too; those of a look (`look.rs`,
//! docs/look.schema.json) are only written.

mod community_id;
mod cuts;
mod errno;
mod found;
mod line;
mod look;
mod names;
mod opened;
mod read;
mod socket;
mod text;
mod write;

pub use community_id::community_id;
pub use cuts::Part;
pub(crate) use cuts::{Cuts, Truncated};
pub use errno::name as errno_name;
pub use found::{Backlog, Explained, Found, Holder, Listener, Message, Mptcp, ProcessName, Served, Timer};
pub use line::{
    Adopted, Aggregate, Bucket, ContainerId, Dwell, Host, HostName, Kind, Labels, Line, Lost, Other, Peer,
    Resolved, Resync, SCHEMA, Snapshot, Socket, Stamp, Start, Stop, Stuck, Transition,
};
pub use look::{GapReason, Group, LookLine, gap_reasons};
pub use names::{Named, named};
pub use opened::{Frame, Opened};
pub use read::{Parser, ReadError};
pub use socket::{
    Cgroup, Container, End, Ends, Interface, Network, Owner, Placement, Pod, SubjectKeys, Workload,
};
pub use text::{Text, Time};
