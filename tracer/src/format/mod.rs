//! Finished records as bytes.

pub mod convert;
mod csv;
mod hunt;
mod json;
mod line;
mod look;
mod look_json;
mod path;
mod table;
mod time;

pub use csv::{Csv, EscapedCsv};
pub use hunt::{HuntReport, HuntStyle};
pub use json::{Json, Stamp};
pub use look::{Group, gaps_table, groups_table, held_via, sockets_table, stuck_table};
pub use look_json::{gaps_json, group_json, look_json, look_time, socket_json, stuck_json};
pub use path::opened_at;
pub use table::Table;

use crate::model::Record;

/// How records are written.
pub trait Format {
    /// Writes what stands before the first record.
    fn header(&mut self, out: &mut Vec<u8>);

    /// Appends a record, with its number in the stream. Some formats leave some kinds out.
    fn record(&mut self, seq: u64, record: &Record, out: &mut Vec<u8>);
}
