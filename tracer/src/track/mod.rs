//! The connection table: which connection an event belongs to, since when, whose. Knows time only from the events.

mod cause;
mod table;

pub use table::{Applied, Table};
