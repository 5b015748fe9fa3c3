//! Formats: records as bytes.

pub mod convert;
mod csv;
mod ecs;
mod fields;
mod flame;
mod hunt;
mod image;
mod journald;
mod json;
mod keys;
mod line;
mod lines;
mod look;
mod look_json;
mod make;
mod message;
mod name;
mod object;
mod otlp;
mod path;
mod syslog;
mod table;
mod text_cache;
mod time;

pub use csv::Csv;
pub use hunt::{HuntReport, HuntStyle};
pub use json::{Json, Stamp};
pub use lines::LineFormat;
use lines::OfRecords;
pub use look::{Group, gaps_table, groups_table, held_via, sockets_table, stuck_table};
pub use look_json::{gaps_json, group_json, look_json, look_time, socket_json, stuck_json};
pub use name::{Content, FormatName, FormatOptions, ReadWidth};
pub use path::opened_at;
pub use table::Table;

use crate::model::Record;

impl FormatName {
    /// All formats, in the order of the help texts.
    pub const ALL: &[Self] =
        &[table::FORMAT, json::FORMAT, csv::FORMAT, ecs::FORMAT, otlp::FORMAT, syslog::FORMAT];
}

/// A format of a stream.
pub trait Format {
    /// Writes the header before the first record, if the format has one.
    fn header(&mut self, _: &mut Vec<u8>) {}

    /// Appends a record, with its number in the stream. Some formats leave out records of some kinds.
    fn record(&mut self, seq: u64, record: &Record, out: &mut Vec<u8>);

    /// All records that were due have been given: appends what the format has kept back.
    fn pause(&mut self, _: &mut Vec<u8>) {}

    /// Whether a record that was read is written with [`Format::line`]: a record does not keep all of its line.
    fn is_of_lines(&self) -> bool {
        false
    }

    /// Appends a record that was read as this line of our JSON.
    fn line(&mut self, record: &Record, _text: &[u8], out: &mut Vec<u8>) {
        self.record(0, record, out);
    }
}
