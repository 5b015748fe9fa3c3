//! The lines of sockstate, NDJSON of the schema `sockstate/1`. Their keys are defined here: each kind of line is a type
//! that serde writes and reads, and the order of its fields is the order of the keys. Only `format/json.rs` also has
//! keys: it writes transitions and connections by hand, for speed, and tests/records/wire.rs compares both.
//!
//! The stream's lines (`line.rs`) are read again too; those of a look (`look.rs`) are only written. `schema.rs` makes
//! docs/events.schema.json and docs/look.schema.json of the types: the doc comment of a field is the description of its
//! key there, and a key that is absent when it has no value is never null.

mod community_id;
mod connection;
mod cuts;
mod errno;
mod fixed_texts;
mod found;
mod lifespan;
mod line;
mod look;
mod names;
mod opened;
mod read;
mod reset;
#[cfg(feature = "schema")]
mod schema;
#[cfg(feature = "schema")]
mod schema_types;
mod socket;
mod stamp;
mod stream;
mod text;
mod traffic;
mod transition;

pub use community_id::community_id;
pub use connection::{Resolved, Resync, Snapshot, Socket, Stuck};
pub use cuts::Part;
pub(crate) use cuts::{Cuts, Truncated};
pub use errno::name as errno_name;
pub use found::{Backlog, Explained, Found, Holder, Listener, Message, Mptcp, ProcessName, Served, Timer};
pub use lifespan::{Lifespan, Step};
pub use line::{Kind, Line, Other, SCHEMA};
pub use look::{GapReason, Group, LookLine, gap_reasons};
pub use names::{Named, named};
pub use opened::{Frame, Opened};
pub use read::{Parser, ReadError};
pub use reset::{Reset, Segment};
#[cfg(feature = "schema")]
pub use schema::{events_schema, look_schema};
pub use socket::{
    Cgroup, ClusterPeer, Container, End, Ends, Interface, Nat, Network, Owner, Placement, Pod, PodWorkload,
    SubjectKeys, Workload,
};
pub use stamp::{HostName, Labels, Stamp};
pub use stream::{Adopted, Host, Lost, Start, Stop};
pub(crate) use text::append;
pub use text::{Text, Time};
pub use traffic::{Bytes, Rtt, Segments, Traffic};
pub use transition::{Aggregate, Bucket, Dwell, Peer, Transition};
