//! The connection table: which connection an event belongs to, since when, whose, why it ends. Knows time only from the
//! events, and from the caller, who says how far they have come.

mod age;
mod birth;
mod cause;
mod census;
mod close;
mod commands;
mod conns;
mod diagnosis;
mod heirloom;
mod listeners;
mod minis;
mod owned;
mod reconcile;
mod resets;
mod same;
mod table;
mod wait;
mod watchdog;

pub use age::{age, age_at_most_ns, may_be_older, unanswered_ns};
pub use diagnosis::{diagnose, is_suspect, names, reason};
pub use heirloom::Heirloom;
pub use listeners::{Settled, is_held_open, with_owner};
pub use reconcile::Shown;
pub use resets::PATIENCE_NS;
pub use table::{Sight, Table, Update};
