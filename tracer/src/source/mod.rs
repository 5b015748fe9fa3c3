//! Where records come from: the ring of the running programs, and the walk over what exists.

mod descriptors;
mod destroy;
mod diag;
mod dump;
mod fill;
mod finder;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod held;
mod kernel;
mod message;
mod mptcp;
mod mptcp_info;
mod namespaces;
mod netlink;
mod of_kernel;
mod openings;
mod protocols;
mod recording;
mod requests;
mod sight;
mod snapshot;
mod undecided;
mod walker;

pub use destroy::Destroys;
pub use dump::{Dump, dump};
pub use finder::{Finder, Held};
pub use held::held;
pub use kernel::{KernelSource, Losses, SourceError, Walked};
pub use mptcp::Mptcp;
pub use of_kernel::of_kernel;
pub use openings::{Openings, OpeningsError};
pub use recording::{LONGEST_LINE, Recording, RecordingError};
pub use sight::{hidden_processes, may_read_processes};
pub use snapshot::Found;
pub use walker::{Look, Walker};
