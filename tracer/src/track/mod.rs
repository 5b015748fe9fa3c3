//! The connection table: which connection an event belongs to, since when, whose it is, why it ends. The table knows the time only
//! from the events, and from the caller, who says up to when all events were applied.

mod age;
mod cause;
mod closed;
mod conns;
mod diagnosis;
mod identity;
mod kernel_tables;
mod lifespans;
mod mini_sockets;
mod owned;
mod owners;
mod pending;
mod resets;
mod saved;
mod table;
mod totals;
mod walk;
mod watchdog;

pub use age::{age, age_at_most_ns, may_be_older, unanswered_ns};
pub use diagnosis::{diagnose, is_suspect, names, reason};
pub use kernel_tables::{Difference, KernelTables};
pub use lifespans::Lifespans;
pub use owners::{FoundOwner, is_held_open, with_owner};
pub use resets::PATIENCE_NS;
pub use saved::SavedTable;
pub use table::{Living, Table, Update, Visibility};
