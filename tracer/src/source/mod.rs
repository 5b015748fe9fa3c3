//! Sources of events and sockets: the ring of the kernel programs, the kernel's iterators, `sock_diag`, /proc, recordings.

mod conntrack;
mod descriptors;
mod destroy;
mod diag;
mod dump;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod held_sockets;
mod holder_finder;
mod hunt_file;
mod kernel_sockets;
mod links;
mod listed;
mod message;
mod mptcp;
mod mptcp_info;
mod namespaces;
mod nat_finder;
mod netlink;
mod netns_thread;
mod overlap;
mod protocols;
mod recording;
mod requests;
mod ring;
mod ring_usage;
mod snapshot;
mod translations;
mod unlisted;
mod visibility;

pub use destroy::Destroys;
pub use dump::{Dump, dump};
pub use held_sockets::held_sockets;
pub use holder_finder::{HolderFinder, HoldersBySocket};
pub use hunt_file::{Openings, OpeningsError};
pub use kernel_sockets::kernel_sockets;
pub use mptcp::Mptcp;
pub use nat_finder::{FoundNat, NatFinder};
pub use netns_thread::{NetnsThread, TableScan};
pub use recording::{LONGEST_LINE, Recording, RecordingError};
pub use ring::{EarlierRing, KernelSource, LossCounters, Losses, SourceError, WalkItem};
pub use snapshot::WalkResult;
pub use translations::translations;
pub use visibility::{hidden_processes, may_read_processes, needs};
