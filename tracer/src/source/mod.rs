//! Where records come from: the ring of the running programs, and the walk over what exists.

mod diag;
mod kernel;
mod snapshot;
mod walker;

pub use diag::{Dump, dump};
pub use kernel::{KernelSource, SourceError};
pub use snapshot::{Found, namespaces, take};
pub use walker::{Look, Walker};
