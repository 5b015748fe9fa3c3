//! Formats that are made of our JSON lines: of those that the tracer makes now, and in the thread of a sink of those
//! that wait in its queue or its spool.

use super::{Format, Json};
use crate::{
    model::Record,
    wire::{Line, Stamp},
};

/// A way to write lines. `text` is the line as JSON.
pub trait LineFormat {
    /// Appends a line.
    fn line(&mut self, line: &Line<'_>, text: &[u8], out: &mut Vec<u8>);
}

/// Appends a text that is a line of ours; what is not is written as a record of no known kind.
pub(super) fn convert(format: &mut impl LineFormat, text: &[u8], out: &mut Vec<u8>) {
    format.line(&Line::read(text).unwrap_or_default(), text, out);
}

/// The format of a stream whose records do not say which host they are of.
pub struct OfRecords<F> {
    format: F,
    json: Json,
    text: Vec<u8>,
}

impl<F: LineFormat> OfRecords<F> {
    /// Of lines as `format` writes them.
    #[must_use]
    pub fn new(format: F) -> Self {
        Self { format, json: Json::default(), text: Vec::new() }
    }
}

impl<F: LineFormat> Format for OfRecords<F> {
    fn record(&mut self, seq: u64, record: &Record, out: &mut Vec<u8>) {
        self.text.clear();
        self.json.record(seq, record, &mut self.text);
        self.format.line(&Line::of(seq, record, &Stamp::default()), &self.text, out);
    }

    fn is_of_lines(&self) -> bool {
        true
    }

    fn line(&mut self, _: &Record, text: &[u8], out: &mut Vec<u8>) {
        convert(&mut self.format, text, out);
    }
}
