//! Where records come from: the ring of the running programs, and the walk over what exists.

mod diag;
mod fill;
mod kernel;
mod openings;
mod recording;
mod requests;
mod snapshot;
mod walker;

pub use diag::{Dump, dump};
pub use kernel::{KernelSource, Losses, SourceError, Walked};
pub use openings::{Openings, OpeningsError};
pub use recording::{Recording, RecordingError};
pub use snapshot::{Found, namespaces};
pub use walker::{Look, Walker};
