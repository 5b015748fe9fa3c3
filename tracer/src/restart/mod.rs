//! Restart: what lets one process continue the work of another.
//!
//! With `pin`, three things outlive a process of `sockstate run`, however it ends:
//!
//! | what | where | type |
//! | --- | --- | --- |
//! | kernel programs, ring and counters | pinned in a BPF file system | [`kernel::PinnedPrograms`](crate::kernel::PinnedPrograms) |
//! | the saved state: which programs it belongs to, and the connections with their ids, owners and times | `NAME-SUM.state` in the runtime directory, JSON | [`SavedState`] |
//! | the ledger: how far each sink has come | `NAME-SUM.ledger` in the runtime directory, mapped; `NAME-SUM.settled` for what the process of the sinks counts | [`Ledger`], [`Settled`] |
//!
//! NAME is the last part of the pin directory's path, and SUM the CRC-32 of the whole path, as eight hexadecimal digits. The
//! first versions named the files without `-SUM`; [`ledger`] finds and renames them.
//!
//! The next process takes over the programs ([`take_over`]) or replaces those of another version (`upgrade.rs`), restores the table of connections, and gives each sink the [`ResumePoint`] of the
//! ledger. The saved state is written every ten seconds and at the end; the kernel's own tables correct what it lacks. The ledger
//! is written with each record, so that it is right at whatever moment the process is killed.
//!
//! # The ledger's file
//!
//! 1,024 numbers of eight bytes each, in the machine's byte order; all are zero at first. A process that uses the file holds a lock
//! (`flock`) on it.
//!
//! | byte | number |
//! | --- | --- |
//! | 0 | reported losses: transitions for which the ring had no room |
//! | 8 | reported losses: other records (evidence) for which the ring had no room |
//! | 16 | reported losses: transitions that the kernel did not pass to the program, because it already ran on that CPU (recursion) |
//! | 24 | reported losses: call stacks |
//! | 32 | transitions that were read from the ring and are in no stream yet |
//! | 40 | the last id that a connection was given |
//! | 48 | instance: the upper bits of the ids; the saved table must have the same (0 in the first versions) |
//! | 56 | reported resets without a socket that have no record |
//! | 64 + 40 *n* | sink *n*: CRC-32 of its name, plus 1; 0 where there is no sink |
//! | 72 + 40 *n* | sink *n*: the instance that gave the numbers |
//! | 80 + 40 *n* | sink *n*: the last number that was given to a record |
//! | 88 + 40 *n* | sink *n*: how many records are settled: delivered, on disk, or reported as lost |
//! | 96 + 40 *n* | sink *n*: how many transitions are so far only counted in a window |
//! | 4160 + 40 *n* | sink *n*: how many records are in doubt and not reported. The first versions had no second half |
//!
//! `NAME-SUM.settled` has the same layout. The process of the sinks maps it, and uses only the numbers of settled records and of
//! those in doubt (signed): they are added to those of the ledger. The tracer's process only reads them, and never resets them. The
//! first versions had no such file.
//!
//! *n* is below 100. What is numbered and not settled when a process ends is lost, and the next process reports how much that is.

mod error;
mod files;
mod ledger;
mod mapped;
mod progress;
mod state;
mod take_over;
mod upgrade;

/// The types that [`progress`] counts with. The loom model (`sinks/delivery/model.rs`) replaces them.
mod sync {
    pub(super) use std::sync::atomic::{AtomicU64, Ordering};
}

pub use error::TakeOverError;
pub use files::{forget, forget_state, ledger};
pub use ledger::{Ledger, Settled, SinkProgress};
pub use progress::ResumePoint;
pub use state::{Kept, SavedState, StateWriter, Upgrade};
pub use take_over::{Resume, TakenOver, take_over};
