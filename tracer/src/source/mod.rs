//! Where records come from: the ring of the running programs, and the walk over what existed before.

mod kernel;
mod snapshot;

pub use kernel::{KernelSource, SourceError};
pub use snapshot::{Found, namespaces, take};
